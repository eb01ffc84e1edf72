# SPDX-License-Identifier: Apache-2.0
"""Depth messages: read as they come, refused when malformed, written back as they were."""

from __future__ import annotations

import math
import struct
from array import array

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import Quaternion, Transform, Vector3
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from bmp_ros.depth.depth_messages import depth_image
from bmp_ros.depth.people_3d import People3D
from bmp_ros.loop.people import People
from bmp_ros.ros.depth_messages import (
    depth_message,
    person_array_3d,
)
from bmp_ros.ros.image_messages import ImageError
from bmp_ros.ros.interfaces import PersonArray3D
from bmp_ros.ros.transforms import rigid_motion


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
    ages, velocities = np.array([3.5, np.nan]), np.array([[1.0, -2.0, 0.5], [np.nan] * 3])
    sent = person_array_3d(Header(frame_id="map"), people, found, ages, velocities)
    got = deserialize_message(serialize_message(sent), PersonArray3D)
    assert got.header.frame_id == "map" and len(got.skeleton.keypoint_names) == 17
    assert [person.index for person in got.people] == [0, 1]
    read = np.array([[(k.x, k.y, k.z) for k in p.keypoints] for p in got.people], np.float32)
    assert np.array_equal(read, points, equal_nan=True)
    assert got.people[0].keypoints[5].spread == pytest.approx(spread[0, 5])
    assert got.people[0].centroid.y == pytest.approx(points[0, 0, 1])
    assert got.people[0].distance == 2.5 and math.isnan(got.people[1].distance)
    assert got.people[0].track_age == 3.5 and math.isnan(got.people[1].track_age)
    read = [[p.velocity.x, p.velocity.y, p.velocity.z] for p in got.people]
    np.testing.assert_array_equal(read, velocities)
    plain = person_array_3d(Header(), people, found).people
    assert all(math.isnan(p.track_age) and math.isnan(p.velocity.x) for p in plain)


def compressed(depth: np.ndarray, form: str) -> CompressedImage:
    data = struct.pack("<iff", 1, 0.0, 0.0) + cv2.imencode(".png", depth)[1].tobytes()
    return CompressedImage(format=form, data=array("B", data))


@pytest.mark.parametrize("form", ["16UC1; compressedDepth png", "16UC1; compressedDepth"])
def test_compressed_depth_is_read_and_goes_out_raw(form: str) -> None:
    depth = np.arange(12, dtype=np.uint16).reshape(3, 4)
    sent = compressed(depth, form)
    sent.header.frame_id = "optical"
    assert np.array_equal(depth_image(sent), depth)
    written = depth_message(sent, depth_image(sent))
    assert (written.encoding, written.header.frame_id) == ("16UC1", "optical")
    assert np.array_equal(depth_image(written), depth)


def test_depth_in_a_png_of_compressed_image_transport_is_read() -> None:
    depth = np.arange(12, dtype=np.uint16).reshape(3, 4)
    png = cv2.imencode(".png", depth)[1].tobytes()
    sent = CompressedImage(format="16UC1; png compressed ", data=array("B", png))
    assert np.array_equal(depth_image(sent), depth)
    sent.data = array("B", png[:-9])
    with pytest.raises(ImageError, match="breaks off"):
        depth_image(sent)
    sent.format = "16UC1; jpeg compressed "  # whose millimetres are lost
    with pytest.raises(ImageError, match="set depth_topic to .*/compressedDepth"):
        depth_image(sent)


@pytest.mark.parametrize(
    ("form", "data"),
    [
        ("bgr8; jpeg compressed bgr8", bytes(50)),
        ("", bytes(50)),
        ("16UC1; compressedDepth png", b""),
        ("16UC1; compressedDepth png", bytes(20)),
        ("16UC1; compressedDepth rvl", bytes(20)),
        ("16UC1; compressedDepth zstd", bytes(20)),
        ("8UC1; compressedDepth png", bytes(20)),
    ],
)
def test_what_is_no_compressed_depth_is_refused(form: str, data: bytes) -> None:
    with pytest.raises(ImageError, match="format"):
        depth_image(CompressedImage(format=form, data=array("B", data)))


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["16UC1", "32FC1", "mono16", "bgr8", "", "64FC1"]),
    st.integers(0, 2**32 - 1) | st.integers(0, 9),
    st.integers(0, 2**32 - 1) | st.integers(0, 9),
    st.integers(0, 2**32 - 1) | st.integers(0, 40),
    st.integers(0, 1),
    st.binary(max_size=120),
)
def test_any_depth_message_is_refused_or_read(
    encoding: str, height: int, width: int, step: int, big: int, data: bytes
) -> None:
    sent = Image(encoding=encoding, height=height, width=width, step=step, is_bigendian=big)
    sent.data = array("B", data)
    try:
        read = depth_image(sent)
    except ImageError:
        return
    assert read.shape == (height, width) and np.isfinite(np.nan_to_num(read).sum())


def test_rigid_motions() -> None:
    half = math.sqrt(0.5)
    turn = Transform(translation=Vector3(x=1.0), rotation=Quaternion(z=half, w=half))
    rotation, shift = rigid_motion(turn)  # a quarter turn about z, then 1 m along x
    assert np.allclose(rotation @ [2, 0, 0] + shift, [1, 2, 0])
    assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert np.isnan(rigid_motion(Transform(rotation=Quaternion(w=0.0)))[0]).any()
