# SPDX-License-Identifier: Apache-2.0
"""Depth messages: read as they come, refused when malformed, written back as they were."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest
from geometry_msgs.msg import Quaternion, Transform, Vector3
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from bmp_ros.depth.people_3d import People3D
from bmp_ros.loop.people import People
from bmp_ros.ros.depth_messages import (
    camera_model,
    depth_image,
    depth_message,
    person_array_3d,
)
from bmp_ros.ros.image_messages import ImageError
from bmp_ros.ros.interfaces import PersonArray3D
from bmp_ros.ros.target_frame import rigid_motion


def message(depth: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> Image:
    ordered = depth.astype(depth.dtype.newbyteorder(">" if big else "<"))
    rows = [row.tobytes() + bytes(padding) for row in ordered]
    return Image(
        height=depth.shape[0], width=depth.shape[1], encoding=encoding, is_bigendian=int(big),
        step=len(rows[0]), data=array("B", b"".join(rows)),
    )  # fmt: skip


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 8])
@pytest.mark.parametrize(("encoding", "kind"), [("16UC1", "u2"), ("32FC1", "f4")])
def test_depth_is_read_whatever_its_bytes_are_like(
    encoding: str, kind: str, padding: int, big: bool
) -> None:
    depth = (np.arange(12).reshape(3, 4) * 100).astype(kind)
    read = depth_image(message(depth, encoding, padding, big))
    assert read.dtype == np.dtype(kind) and np.array_equal(read, depth)


def test_depth_goes_out_as_it_came_in() -> None:
    depth = np.arange(12, dtype=np.uint16).reshape(3, 4)
    like = message(depth, "16UC1")
    like.header.frame_id = "optical"
    written = depth_message(like, depth_image(like))
    assert written.header.frame_id == "optical" and written.encoding == "16UC1"
    assert np.array_equal(depth_image(written), depth)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoding": "bgr8"},
        {"encoding": "8UC1"},
        {"height": 0},
        {"step": 2},
        {"step": 9},
        {"data": array("B", bytes(10))},
    ],
)
def test_what_is_no_depth_is_refused(changes: dict) -> None:
    broken = message(np.zeros((3, 4), np.uint16), "16UC1")
    for name, value in changes.items():
        setattr(broken, name, value)
    with pytest.raises(ImageError):
        depth_image(broken)


def test_people_in_space_survive_the_message() -> None:
    random = np.random.default_rng(0)
    boxes = np.array([[1, 2, 30, 40], [5, 6, 50, 60]], np.float32)
    people = People.from_boxes(boxes, np.ones(2, np.float32), 70, 80)
    points = random.normal(size=(2, 17, 3)).astype(np.float32)
    points[1, 3] = np.nan
    spread = random.random((2, 17)).astype(np.float32)
    found = People3D(points, spread, points[:, 0], np.array([2.5, np.nan], np.float32))
    sent = person_array_3d(Header(frame_id="map"), people, found)
    got = deserialize_message(serialize_message(sent), PersonArray3D)
    assert got.header.frame_id == "map" and len(got.skeleton.keypoint_names) == 17
    assert [person.index for person in got.people] == [0, 1]
    read = np.array([[(k.x, k.y, k.z) for k in p.keypoints] for p in got.people], np.float32)
    assert np.array_equal(read, points, equal_nan=True)
    assert got.people[0].keypoints[5].spread == pytest.approx(spread[0, 5])
    assert got.people[0].centroid.y == pytest.approx(points[0, 0, 1])
    assert got.people[0].distance == 2.5 and math.isnan(got.people[1].distance)


def test_calibrations() -> None:
    info = CameraInfo(height=480, width=640, distortion_model="plumb_bob")
    with pytest.raises(ValueError, match="not calibrated"):
        camera_model(info)
    info.k = [500.0, 0, 320, 0, 510, 240, 0, 0, 1]
    info.d = [0.1, 0.0, 0.0, 0.0, 0.0]
    camera = camera_model(info)
    assert (camera.width, camera.height, camera.model) == (640, 480, "plumb_bob")


def test_rigid_motions() -> None:
    half = math.sqrt(0.5)
    turn = Transform(translation=Vector3(x=1.0), rotation=Quaternion(z=half, w=half))
    rotation, shift = rigid_motion(turn)  # a quarter turn about z, then 1 m along x
    assert np.allclose(rotation @ [2, 0, 0] + shift, [1, 2, 0])
    assert np.allclose(rotation @ rotation.T, np.eye(3))
