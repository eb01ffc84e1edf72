# SPDX-License-Identifier: Apache-2.0
"""What a bag of ``bmp bag`` says is what the node says: the same message, hash and quality."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (requirements/bags.txt)")
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from bmp_ros.bags.messages import PERSON_ARRAY, type_store, write_people
from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import COCO_17, MULTI_21, Skeleton
from bmp_ros.ros.interfaces import PersonArray
from bmp_ros.ros.person_messages import person_array

STORE = type_store()


def some_people(count: int, skeleton: Skeleton, seed: int) -> People:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 30, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(2, 20, (count, 2))], axis=1)
    masks = np.zeros((count, 48, 64), np.bool_)
    for row, mask in enumerate(masks[1:], start=1):  # the first one has none
        mask[5 * row : 5 * row + 4, row : 40 + row] = rng.random((4, 40)) < 0.8
    joints = (count, len(skeleton))

    def unit(*shape: int) -> np.ndarray:
        return rng.random(shape).astype(np.float32)

    return People(
        boxes=boxes.astype(np.float32), scores=unit(count), pose_scores=unit(count),
        mask_scores=unit(count), keypoints=unit(*joints, 2) * 50, keypoint_scores=unit(*joints),
        visibility=np.full(joints, np.nan, np.float32), presence=unit(*joints), masks=masks,
        raw_masks=masks, has_mask=masks.any(axis=(1, 2)), iterations=np.ones(count, np.int32),
        track_ids=rng.integers(-1, 9, count).astype(np.int32), skeleton=skeleton,
    )  # fmt: skip


@pytest.mark.parametrize("skeleton", [COCO_17, MULTI_21])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_messages_are_those_of_the_node(skeleton: Skeleton, count: int) -> None:
    people = some_people(count, skeleton, seed=count)
    ages = np.where(people.track_ids < 0, np.nan, 1.5)
    header = Header(frame_id="camera")
    header.stamp.sec, header.stamp.nanosec = 12, 345
    ours = STORE.types["std_msgs/msg/Header"](
        stamp=STORE.types["builtin_interfaces/msg/Time"](sec=12, nanosec=345), frame_id="camera"
    )
    written = write_people(ours, people, ages, STORE)
    published = serialize_message(person_array(header, people, ages))
    # As text: NaN is not equal to itself.
    found, wanted = (deserialize_message(each, PersonArray) for each in (written, published))
    assert str(found) == str(wanted) and len(found.people) == count


def test_types_have_the_hash_that_ros_gives_them() -> None:
    """`ros2 bag play` and Foxglove compare it."""
    from ament_index_python import get_package_share_directory

    file = Path(get_package_share_directory("bmp_msgs"), "msg", "PersonArray.json")
    if not file.is_file():
        pytest.skip("this ROS 2 builds no type descriptions (Humble)")
    hashes = json.loads(file.read_text())["type_hashes"]
    for each in hashes:
        if each["type_name"].startswith("bmp_msgs/"):
            assert STORE.hash_rihs01(each["type_name"]) == each["hash_string"], each["type_name"]
    assert PERSON_ARRAY in {each["type_name"] for each in hashes}
