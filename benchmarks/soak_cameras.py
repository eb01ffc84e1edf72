# SPDX-License-Identifier: Apache-2.0
"""The cameras of benchmarks/soak.py: good images, and what is wrong with them at times."""

from __future__ import annotations

import math
import random
import time
from array import array
from typing import Any

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from bmp_ros.ros.interfaces import (
    PersonArray,
)

CAMERAS = ("front", "left", "rear")
BLOCK = 8
"""Pixels per side of the blocks in the upper rim of an image that tell the networks what to do."""
MISBEHAVIOUR = ("none", "raises", "NaN keypoints", "NaN scores", "huge boxes")


class Camera:
    """One camera's publishers, and what is wrong with them at present."""

    def __init__(self, node: Node, name: str, dice: random.Random, size: tuple[int, int]) -> None:
        self.name, self.node, self.dice = name, node, dice
        self.width, self.height = size
        self.people: int | None = None
        self.misbehaviour = 0
        self.stamp_shift_s: float | None = 0.0
        self.shifted_until = self.dead_until = 0.0
        self.kind = CompressedImage if name == "rear" else Image
        suffix = "/compressed" if name == "rear" else ""
        self.topic = f"/{name}/image_raw{suffix}"
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.info = node.create_publisher(CameraInfo, f"/{name}/camera_info", latched)
        self.depths = node.create_publisher(Image, f"/{name}/depth", 5)
        self.boxes = node.create_publisher(PersonArray, f"/{name}/boxes", 5)
        self.images: Any = None
        self.revive()
        self.calibrate()
        self._canvas = np.full((self.height, self.width, 3), 90, np.uint8)
        self._phase = dice.random() * 6.28

    def die(self, seconds: float) -> None:
        if self.images is not None:
            self.node.destroy_publisher(self.images)
            self.images = None
        self.dead_until = time.monotonic() + seconds

    def revive(self) -> None:
        """Publish again, as a driver that was started anew, perhaps with another quality."""
        reliability = self.dice.choice([ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
        self.images = self.node.create_publisher(
            self.kind, self.topic, QoSProfile(depth=5, reliability=reliability)
        )

    def calibrate(self, **odd: Any) -> None:
        focal, w, h = float(self.width), self.width / 2, self.height / 2
        info = CameraInfo(width=self.width, height=self.height, distortion_model="plumb_bob")
        info.header.frame_id, info.d = f"{self.name}_optical", [0.0] * 5
        info.k = [focal, 0.0, w, 0.0, focal, h, 0.0, 0.0, 1.0]
        info.p = [focal, 0.0, w, 0.0, 0.0, focal, h, 0.0, 0.0, 0.0, 1.0, 0.0]
        for name, value in odd.items():
            setattr(info, name, value)
        self.info.publish(info)

    def send(self) -> bool:
        """An image, with what belongs to it; False while the camera is dead."""
        now = time.monotonic()
        if self.images is None:
            if now < self.dead_until:
                return False
            self.revive()
        if now > self.shifted_until:
            self.stamp_shift_s = 0.0
        image = self.picture(now)
        if self.name == "front":
            depth = np.full((self.height, self.width), 2500, np.uint16)
            self.depths.publish(self.stamped(message_of(depth, "16UC1")))
        if self.name == "left":
            self.boxes.publish(self.stamped(PersonArray()))
        message: Any = message_of(image, "bgr8")
        if self.kind is CompressedImage:
            _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
            message = CompressedImage(format="bgr8; jpeg compressed bgr8")
            message.data = array("B", data.tobytes())
        self.images.publish(self.stamped(message))
        return True

    def picture(self, now: float) -> np.ndarray:
        """The next image: people walk, and come and go every few seconds."""
        count = int(now / 7 + self._phase) % 5 if self.people is None else self.people
        code = [40 * self.misbehaviour, 40 * count]
        code += [int(128 + 110 * math.sin(now / 3 + self._phase + i)) for i in range(count)]
        for number, value in enumerate([*code, 0, 0, 0, 0][:8]):
            self._canvas[:BLOCK, number * BLOCK : (number + 1) * BLOCK] = value
        self.misbehaviour = 0
        return self._canvas

    def stamped(self, message: Any, stamp: float | None = None) -> Any:
        now = self.node.get_clock().now().nanoseconds
        shift = self.stamp_shift_s
        at = 0 if shift is None else now + int(shift * 1e9)
        if stamp is not None:
            at = int(stamp * 1e9)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(at, 10**9)
        message.header.frame_id = f"{self.name}_optical"
        return message


def message_of(image: np.ndarray, encoding: str) -> Image:
    message = Image(height=image.shape[0], width=image.shape[1], encoding=encoding)
    message.step = image.strides[0]
    message.data = array("B", image.tobytes())
    return message
