# SPDX-License-Identifier: Apache-2.0
"""A `PersonArray` of 20 people with masks, the same in every process; run, it publishes it."""

from __future__ import annotations

import array
import sys
import time

import numpy as np

from bmp_ros.loop.masks import encode_runs
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.ros.interfaces import BoundingBox, Keypoint, Mask, Person, PersonArray, Skeleton

TOPIC = "bmp/poses"
HEIGHT, WIDTH = 720, 1280


def masks_of_twenty_people() -> np.ndarray:
    """Return (20, HEIGHT, WIDTH) bool: ellipses with ragged rims and a hole, two at the border."""
    random = np.random.default_rng(20)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    masks = np.zeros((20, HEIGHT, WIDTH), np.bool_)
    for mask, x in zip(masks, np.linspace(0, WIDTH - 1, 20), strict=True):
        y, semi_height = random.uniform(250, 500), random.uniform(60, 200)
        distance = ((rows - y) / semi_height) ** 2 + ((columns - x) / (semi_height / 3)) ** 2
        mask[:] = (distance < random.uniform(0.8, 1.2, mask.shape)) & (distance > 0.02)
    return masks


def twenty_people(masks: np.ndarray) -> PersonArray:
    random = np.random.default_rng(17)
    skeleton = Skeleton(name=COCO_17.name, keypoint_names=list(COCO_17.names))
    skeleton.edges = array.array("B", np.ravel(COCO_17.edges).astype(np.uint8).tobytes())
    message = PersonArray(height=HEIGHT, width=WIDTH, skeleton=skeleton)
    message.header.stamp.sec, message.header.stamp.nanosec = 1_700_000_000, 999_999_999
    message.header.frame_id = "camera_optical_frame"
    message.people = [_person(i, mask, random) for i, mask in enumerate(masks)]
    return message


def _person(index: int, mask: np.ndarray, random: np.random.Generator) -> Person:
    (x, y, width, height), counts = encode_runs(mask)
    # The values of a message's fields are those of float32.
    scores = random.uniform(size=3).astype(np.float32).tolist()
    box = random.uniform(0, 700, 4).astype(np.float32).tolist()
    joints = random.uniform(-20, 1300, (len(COCO_17), 5)).astype(np.float32)
    joints[:, 4] = np.nan  # presence, as from a network that does not predict it
    return Person(
        track_id=index - 1,
        score=scores[0],
        pose_score=scores[1],
        mask_score=scores[2],
        bbox=BoundingBox(x=box[0], y=box[1], width=box[2], height=box[3]),
        keypoints=[
            Keypoint(x=j[0], y=j[1], score=j[2], visibility=j[3], presence=j[4])
            for j in joints.tolist()
        ],
        mask=Mask(
            x_offset=x,
            y_offset=y,
            width=width,
            height=height,
            # An array.array is copied as a block; an ndarray would be copied number by number.
            counts=array.array("I", counts.tobytes()),
        ),
    )


def publish_once() -> int:
    import rclpy
    from rclpy.duration import Duration

    rclpy.init()
    node = rclpy.create_node("publisher_of_twenty_people")
    publisher = node.create_publisher(PersonArray, TOPIC, 5)
    deadline = time.monotonic() + 60
    while publisher.get_subscription_count() == 0 and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.05)
    publisher.publish(twenty_people(masks_of_twenty_people()))
    arrived = publisher.wait_for_all_acked(Duration(seconds=60))
    rclpy.shutdown()
    return 0 if arrived else 1


if __name__ == "__main__":
    sys.exit(publish_once())
