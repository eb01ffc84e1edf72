# SPDX-License-Identifier: Apache-2.0
"""Images between messages and arrays, exactly; serialised ones as rclpy reads them."""

from __future__ import annotations

import struct
from array import array

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time as Stamp
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bmp_ros.ros.compatibility import array_of_bytes
from bmp_ros.ros.image_messages import (
    ImageError,
    ReceivedImage,
    bgr_image,
    image_message,
    jpeg_message,
    read_image,
    stamp_of,
)

RNG = np.random.default_rng(5)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 5), st.booleans())
def test_bgr8_is_a_view_whatever_the_padding(
    height: int, width: int, padding: int, last_row_padded: bool
) -> None:
    step = 3 * width + padding
    padded = RNG.integers(0, 255, (height, step), np.uint8)
    data = padded.ravel() if last_row_padded else padded.ravel()[: step * height - padding]
    message = Image(height=height, width=width, step=step, encoding="bgr8")
    message.data = array_of_bytes(data)
    image = bgr_image(message)
    np.testing.assert_array_equal(image, padded[:, : 3 * width].reshape(height, width, 3))
    assert np.shares_memory(image, np.frombuffer(message.data, np.uint8))


PIXELS = RNG.integers(0, 255, (6, 8, 4), np.uint8)


@pytest.mark.parametrize(
    ("encoding", "sent", "expected"),
    [
        ("rgb8", PIXELS[..., 2::-1], PIXELS[..., :3]),
        ("bgra8", PIXELS, PIXELS[..., :3]),
        ("rgba8", PIXELS[..., [2, 1, 0, 3]], PIXELS[..., :3]),
        ("mono8", PIXELS[..., 0], np.repeat(PIXELS[..., :1], 3, axis=2)),
    ],
)
def test_encodings(encoding: str, sent: np.ndarray, expected: np.ndarray) -> None:
    message = image_message(Header(), sent, encoding)
    np.testing.assert_array_equal(bgr_image(message), expected)


@pytest.mark.parametrize(
    ("encoding", "red_at"),
    [
        ("bayer_rggb8", (0, 0)),
        ("bayer_bggr8", (1, 1)),
        ("bayer_gbrg8", (1, 0)),
        ("bayer_grbg8", (0, 1)),
    ],
)
def test_bayer_patterns_are_named_after_their_first_row(
    encoding: str, red_at: tuple[int, int]
) -> None:
    raw = np.zeros((8, 8), np.uint8)
    raw[red_at[0] :: 2, red_at[1] :: 2] = 200  # a red surface lights the red cells only
    image = bgr_image(image_message(Header(), raw, encoding))
    blue, green, red = image[2:6, 2:6].reshape(-1, 3).max(axis=0)
    assert (blue, green, red) == (0, 0, 200)


@pytest.mark.parametrize(
    ("encoding", "pair"),
    [("yuv422_yuy2", [90, 128, 90, 128]), ("yuv422", [128, 90, 128, 90])],
)
def test_yuv_422(encoding: str, pair: list[int]) -> None:
    raw = np.tile(np.array(pair, np.uint8), (4, 3)).reshape(4, 6, 2)  # grey of luma 90
    image = bgr_image(image_message(Header(), raw, encoding))
    assert image.shape == (4, 6, 3)
    assert len(np.unique(image)) == 1
    assert abs(int(image[0, 0, 0]) - round((90 - 16) * 255 / 219)) <= 1


def test_odd_width_in_yuv_422_is_refused() -> None:
    with pytest.raises(ImageError, match="yuv422_yuy2"):
        bgr_image(image_message(Header(), np.zeros((4, 5, 2), np.uint8), "yuv422_yuy2"))


def test_jpeg_round_trip() -> None:
    image = np.full((20, 30, 3), (20, 120, 220), np.uint8)
    message = jpeg_message(Header(frame_id="cam"), image, 95)
    assert message.header.frame_id == "cam"
    assert "jpeg" in message.format
    np.testing.assert_allclose(bgr_image(message).astype(int), image.astype(int), atol=4)


def test_compressed_depth_is_refused() -> None:
    message = jpeg_message(Header(), np.zeros((4, 4, 3), np.uint8), 80)
    message.format = "16UC1; compressedDepth png"
    with pytest.raises(ImageError, match="depth"):
        bgr_image(message)


def test_16_bit_labels_keep_their_bytes() -> None:
    labels = np.array([[0, 1], [255, 300]], np.uint16)
    message = image_message(Header(), labels, "mono16")
    assert message.step == 4
    np.testing.assert_array_equal(np.frombuffer(message.data, np.uint16).reshape(2, 2), labels)
    assert cv2.countNonZero(labels) == 3


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
    fields = {name: getattr(read, name) for name in sent.get_fields_and_field_types()}
    assert Image(**fields | {"data": array("B", read.data)}) == sent
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
