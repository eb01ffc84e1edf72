# SPDX-License-Identifier: Apache-2.0
"""Serialised images: read as rclpy reads them, without a copy, refused when cut off."""

from __future__ import annotations

import struct
from array import array

import numpy as np
import pytest
from builtin_interfaces.msg import Time as Stamp
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bmp_ros.ros.image_messages import ImageError, bgr_image
from bmp_ros.ros.serialised_images import ReceivedImage, read_image, stamp_of

STAMPS = st.builds(Stamp, sec=st.integers(0, 2**31 - 1), nanosec=st.integers(0, 10**9 - 1))
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=12)


def picture() -> Image:
    return Image(height=3, width=4, encoding="bgr8", step=13, data=array("B", range(39)))


@settings(deadline=None)  # the first message loads its library
@given(STAMPS, NAMES, NAMES, st.integers(0, 255), st.binary(max_size=9))
def test_every_field_is_that_of_the_message(
    stamp: Stamp, frame_id: str, encoding: str, big: int, data: bytes
) -> None:
    sent = Image(
        header=Header(stamp=stamp, frame_id=frame_id), height=480, width=2**31, step=2**32 - 1,
        encoding=encoding, is_bigendian=big, data=array("B", data),
    )  # fmt: skip
    serialised = serialize_message(sent)
    read = read_image(serialised)
    assert isinstance(read, ReceivedImage)
    assert read.to_message() == sent
    assert stamp_of(serialised) == stamp


def test_pixels_stay_where_they_are() -> None:
    serialised = serialize_message(picture())
    image = bgr_image(read_image(serialised))
    assert np.shares_memory(image, np.frombuffer(serialised, np.uint8))
    np.testing.assert_array_equal(image, bgr_image(picture()))


def test_big_endian_machines_are_understood() -> None:
    header = struct.pack(">4B iI I5s3x", 0, 0, 0, 0, 7, 8, 5, b"cam2\0")
    rest = struct.pack(">II I6s Bx II3B", 1, 1, 6, b"mono8\0", 1, 1, 1, 9, 0, 0)
    read = read_image(header + rest)
    assert read.header == Header(stamp=Stamp(sec=7, nanosec=8), frame_id="cam2")
    assert (read.height, read.width, read.encoding, read.step) == (1, 1, "mono8", 1)
    assert (read.is_bigendian, bytes(read.data)) == (1, b"\x09")


def test_what_is_cut_off_is_refused() -> None:
    serialised = serialize_message(picture())
    whole = serialised.rindex(bytes(range(39))) + 39
    for size in range(4, whole):
        with pytest.raises(ImageError):
            read_image(serialised[:size])
