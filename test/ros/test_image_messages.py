# SPDX-License-Identifier: Apache-2.0
"""Images between messages and arrays, exactly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bmp_ros.ros.compatibility import array_of_bytes
from bmp_ros.ros.image_messages import ImageError, bgr_image, image_message, jpeg_message

RNG = np.random.default_rng(5)


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
