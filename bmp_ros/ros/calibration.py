# SPDX-License-Identifier: Apache-2.0
"""Calibrations: how camera_info is subscribed, and which camera of it belongs to which image.

An image as the sensor took it has the matrix K and the distortion D; a rectified one has P and no
distortion. Both have the same camera_info beside them, so it has to be said which they are.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.ros.image_subscription import resolved, without_transport
from bmp_ros.ros.topic_advice import published_topics

_RECTIFIED = re.compile(r"(?<!di)(?<!cor)(?<!un)rect(?!ang)", re.IGNORECASE)
_LATCHED, _VOLATILE = DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE


class CalibrationError(ValueError):
    """A calibration is missing or cannot be used; the message names its topic and why.

    kind: what the reason has in common with others of its kind, whose words may differ.
    """

    def __init__(self, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.kind = kind or text


def is_rectified(setting: str, topic: str) -> bool:
    """Whether the images of a topic are rectified. setting: ``auto``, ``true`` or ``false``.

    ``auto`` goes by the last part of the topic's name, transport aside: ``image_rect``,
    ``image_rect_color`` and ``left_rectified`` are, ``image_raw`` and ``direct`` are not.
    """
    if setting != "auto":
        return setting == "true"
    return _RECTIFIED.search(without_transport(topic).rpartition("/")[2]) is not None


def camera_model(info: CameraInfo, *, rectified: bool = False) -> CameraModel:
    """The camera that took the images beside ``info``, binning and region of interest applied.

    rectified: the images are, so P counts; else K and D. Where P is all 0 and D as well, K does
    for both. Region and K are of the full resolution, the region is cut out before the binning
    (sensor_msgs/CameraInfo). Of pixels that were binned, centres lie between those of the full
    resolution: ``(centre + 0.5) / binning - 0.5``.
    Raises ValueError for what `CameraModel` refuses, and for sizes that contradict each other.
    """
    k = np.array(info.k, np.float64).reshape(3, 3)
    p = np.array(info.p, np.float64).reshape(3, 4)[:, :3]
    distortion, model = np.array(info.d, np.float64), info.distortion_model
    if is_blank(info):
        raise ValueError("it is blank, K and P are 0: the camera is not calibrated")
    matrix = k
    if rectified and (p.any() or distortion.any()):
        if not p[0, 0]:
            raise ValueError(
                "the images are rectified, but P is 0 while D is not: calibrate again"
            )
        matrix, distortion, model = p, np.zeros(0), ""
    elif not k[0, 0] and p[0, 0]:
        raise ValueError(
            "K is 0, so the camera is not calibrated, but P is there: if the images are "
            "rectified, set rectified (or depth_rectified) to true"
        )
    matrix, size = _cut_and_binned(matrix, info)
    return CameraModel(matrix, size[0], size[1], distortion, model)


def is_blank(info: CameraInfo) -> bool:
    """Whether there is no calibration in it at all, as drivers send of cameras without one."""
    return not (info.k[0] or info.k[4] or info.p[0] or info.p[5])


def _cut_and_binned(matrix: np.ndarray, info: CameraInfo) -> tuple[np.ndarray, tuple[int, int]]:
    """The matrix (3, 3) and the size (width, height) of the images that come out."""
    roi = info.roi
    left, top, width, height = roi.x_offset, roi.y_offset, roi.width, roi.height
    binning = np.array([max(info.binning_x, 1), max(info.binning_y, 1)], np.int64)
    if not width and not height:
        width, height = info.width - left, info.height - top
    size = (int(width // binning[0]), int(height // binning[1]))
    if min(size) <= 0 or left + width > info.width or top + height > info.height:
        raise ValueError(
            f"it is of {info.width}x{info.height} pixels, with a region of interest of "
            f"{roi.width}x{roi.height} at {left}, {top} and a binning of "
            f"{info.binning_x}x{info.binning_y}"
        )
    result = np.array(matrix, np.float64)
    centre = result[:2, 2] - [left, top]
    result[:2] /= binning[:, None]
    result[:2, 2] = (centre + 0.5) / binning - 0.5
    return result, size


class CalibrationInput:
    """Listens to the calibration of one camera from `open` to `close`.

    topic: of camera_info, to be resolved. rectified: whether the images beside it are. parameter:
    that says what topic it is, for messages. Raises ValueError for an invalid name of a topic.

    `model`, `is_blank` and `has_come` are for one thread, which may be another than that of the
    rest. What arrives is deserialised when it is asked for: drivers send one with each image.
    """

    def __init__(
        self, node: LifecycleNode, topic: str, *, rectified: bool, parameter: str
    ) -> None:
        self.topic = resolved(node, topic)
        self.rectified = rectified
        self._node = node
        self._parameter = parameter
        self._received: bytes | None = None
        self._read: bytes | None = None
        self._key: Any = None
        self._is_blank = False
        self._result: CameraModel | CalibrationError | None = None
        self._subscriptions: dict[tuple[Any, Any], Any] = {}

    def open(self) -> None:
        self.follow_publishers()

    def close(self) -> None:
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def follow_publishers(self) -> None:
        """Subscribe as the publishers offer: one who is latched, and one who is not, are heard.

        A volatile subscription never gets what a latched publisher sent before, and a latched one
        gets nothing from a volatile publisher.
        """
        offered = [
            info.qos_profile for info in self._node.get_publishers_info_by_topic(self.topic)
        ]
        latched = [profile for profile in offered if profile.durability == _LATCHED]
        wanted = set()
        if len(latched) < len(offered) or not offered:
            wanted.add((_VOLATILE, ReliabilityPolicy.BEST_EFFORT))
        if latched:
            reliable = all(p.reliability == ReliabilityPolicy.RELIABLE for p in latched)
            wanted.add((_LATCHED, ReliabilityPolicy.RELIABLE if reliable else
                        ReliabilityPolicy.BEST_EFFORT))  # fmt: skip
        if not offered and self._subscriptions:
            return  # who is gone may come back as it was
        for key in set(self._subscriptions) - wanted:
            self._node.destroy_subscription(self._subscriptions.pop(key))
        for durability, reliability in wanted - set(self._subscriptions):
            self._subscriptions[durability, reliability] = self._node.create_subscription(
                CameraInfo,
                self.topic,
                self._keep,
                QoSProfile(depth=5, durability=durability, reliability=reliability),
                raw=True,
            )

    @property
    def has_come(self) -> bool:
        return self._received is not None

    @property
    def is_blank(self) -> bool:
        """Whether the last one that came has no calibration in it."""
        self._update()
        return self._is_blank

    def model(self) -> CameraModel:
        """The camera of the images, by the last calibration that came; the same object for each.

        Raises CalibrationError, which names the topic, when none came or it cannot be used.
        """
        self._update()
        if self._result is None:
            raise CalibrationError(self._missing(), "no calibration")
        if isinstance(self._result, CalibrationError):
            raise CalibrationError(str(self._result))
        return self._result

    def fitting(self, size: tuple[int, ...], what: str) -> CameraModel:
        """`model`, or CalibrationError when images of ``size`` (height, width) are not its own."""
        camera = self.model()
        if (camera.height, camera.width) != tuple(size):
            raise CalibrationError(
                f"the calibration on {self.topic} is of images of {camera.width}x{camera.height} "
                f"pixels, {what} has {size[1]}x{size[0]}; set {self._parameter} to the topic that "
                "belongs to it"
            )
        return camera

    def _keep(self, serialised: bytes) -> None:
        self._received = serialised

    def _update(self) -> None:
        received = self._received
        if received is None or received is self._read:
            return
        self._read = received
        try:
            info = deserialize_message(received, CameraInfo)
            key = _content(info)
            if key == self._key:
                return
            self._key, self._is_blank = key, is_blank(info)
            self._result = camera_model(info, rectified=self.rectified)
        except Exception as error:  # of rclpy, for what is no CameraInfo, or ValueError
            self._result = CalibrationError(f"the calibration on {self.topic}: {error}")

    def _missing(self) -> str:
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        others = sorted({p.topic_type for p in publishers} - {"sensor_msgs/msg/CameraInfo"})
        text = f"no calibration has come on {self.topic}"
        if others:
            return f"{text}, which is of type {', '.join(others)}; set {self._parameter}"
        if not publishers:
            there = published_topics(self._node, "CameraInfo")
            return f"{text}, which has no publisher. {there}; set {self._parameter}"
        kinds = [
            f"{p.qos_profile.reliability.name.lower()}, {p.qos_profile.durability.name.lower()}"
            for p in publishers
        ]
        return (
            f"{text}, which has {len(kinds)} publisher{'s' * (len(kinds) != 1)} "
            f"({'; '.join(kinds)}): they have sent nothing since this node listens. Who sends a "
            "calibration once has to offer it transient local"
        ).replace("_", " ")


def _content(info: CameraInfo) -> tuple[Any, ...]:
    """All that `camera_model` reads, comparable: NaN equals itself as bytes."""
    roi = info.roi
    numbers = np.concatenate([info.k, info.p, info.d]).astype(np.float64)
    return (
        numbers.tobytes(), info.distortion_model, info.width, info.height, info.binning_x,
        info.binning_y, roi.x_offset, roi.y_offset, roi.width, roi.height,
    )  # fmt: skip
