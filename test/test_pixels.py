# SPDX-License-Identifier: Apache-2.0
"""Raw encodings: colours, bit depths and planes as their definitions say; sizes checked first."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.pixels import ENCODINGS, ImageError, RawImage, decode_raw, to_8_bits

RNG = np.random.default_rng(11)
# Smooth, so that chroma of half the size and interpolated mosaics come near to it.
SCENE = cv2.resize(RNG.integers(30, 220, (4, 5, 3), np.uint8), (64, 48))


def raw(encoding: str, values: np.ndarray, *, step: int = 0, big: bool = False) -> RawImage:
    """A 64x48 image; ``step`` of 0: the rows of ``values``."""
    return RawImage(encoding, 64, 48, step or values.strides[0], big, values.tobytes())


def error_of(encoding: str, values: np.ndarray, **fields: int) -> float:
    image = decode_raw(raw(encoding, values, **fields)).image
    assert image.shape == SCENE.shape and image.dtype == np.uint8
    return float(np.abs(image.astype(int) - SCENE).mean())


def planes_420() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    i420 = cv2.cvtColor(SCENE, cv2.COLOR_BGR2YUV_I420)
    return i420[:48], i420[48:60].reshape(24, 32), i420[60:].reshape(24, 32)


@pytest.mark.parametrize("padding", [0, 14])
@pytest.mark.parametrize("encoding", ["nv12", "nv21", "i420", "yv12"])
def test_yuv_420(encoding: str, padding: int) -> None:
    y, u, v = planes_420()
    pad = ((0, 0), (0, padding))
    if encoding.startswith("nv"):
        pair = [u, v] if encoding == "nv12" else [v, u]
        data = np.pad(np.vstack([y, np.dstack(pair).reshape(24, 64)]), pad)
    else:
        pair = [u, v] if encoding == "i420" else [v, u]
        half = [np.pad(plane, ((0, 0), (0, padding // 2))).ravel() for plane in pair]
        data = np.concatenate([np.pad(y, pad).ravel(), *half])
    assert error_of(encoding, data, step=64 + padding) < 4


def test_nv12_with_the_bytes_of_all_planes_as_its_step() -> None:
    y, u, v = planes_420()
    data = np.vstack([y, np.dstack([u, v]).reshape(24, 64)])
    assert error_of("nv12", data, step=96) == error_of("nv12", data, step=64) < 4


@pytest.mark.parametrize("padding", [0, 6])
def test_nv24(padding: int) -> None:
    """Chroma of full size; grey levels as those of nv12."""
    y, u, v = (cv2.resize(plane, (64, 48)) for plane in planes_420())
    chroma = np.dstack([u, v]).reshape(48, 128)
    luma = np.pad(y, ((0, 0), (0, padding)))
    data = np.concatenate([luma.ravel(), np.pad(chroma, ((0, 0), (0, 2 * padding))).ravel()])
    assert error_of("nv24", data, step=64 + padding) < 5
    grey = np.concatenate([np.full(64 * 48, 90), np.full(64 * 96, 128)]).astype(np.uint8)
    nv12 = np.concatenate([np.full(64 * 48, 90), np.full(64 * 24, 128)]).astype(np.uint8)
    ours = decode_raw(raw("nv24", grey, step=64)).image
    assert np.abs(ours.astype(int) - decode_raw(raw("nv12", nv12, step=64)).image).max() <= 1


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("encoding", ["bgr16", "rgb16", "bgra16", "rgba16", "16UC3", "16UC4"])
def test_colours_of_16_bits_are_scaled_by_their_real_depth(
    encoding: str, bits: int, big: bool
) -> None:
    deep = np.round(SCENE / 255 * ((1 << bits) - 1)).astype(np.uint16)
    deep = deep[..., ::-1] if encoding.startswith("rgb") else deep
    if encoding.endswith(("a16", "C4")):
        deep = np.dstack([deep, np.full((48, 64), (1 << bits) - 1, np.uint16)])
    sent = np.ascontiguousarray(deep.astype(">u2" if big else "<u2"))
    assert error_of(encoding, sent, big=big) <= 0.5


@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_grey_of_12_bits_in_16(encoding: str) -> None:
    grey = cv2.cvtColor(SCENE, cv2.COLOR_BGR2GRAY)
    deep = (grey.astype("<u2") << 4) | (grey >> 4)
    pixels = decode_raw(raw(encoding, deep))
    assert pixels.bits == 12
    assert np.abs(pixels.image.astype(int) - grey[..., None]).max() <= 1
    assert ("depth_topic" in pixels.note) == (encoding == "16UC1")  # by REP 118 it is depth


def test_temperatures_as_16_bits_are_told() -> None:
    """Hundredths of kelvins, as thermal cameras send them: a person is 1 % brighter."""
    indoors = RNG.integers(29_300, 31_000, (48, 64), np.uint16)
    assert "thermal camera" in decode_raw(raw("mono16", indoors)).note
    for usual in (indoors - 29_300, RNG.integers(0, 2**16, (48, 64), np.uint16)):
        assert decode_raw(raw("mono16", usual)).note == ""


def test_odd_step_of_16_bits() -> None:
    deep = RNG.integers(0, 2**16, (48, 64), np.uint16)
    padded = np.pad(deep.view(np.uint8), ((0, 0), (0, 3)))
    image = decode_raw(raw("mono16", padded, step=131)).image
    np.testing.assert_array_equal(image[..., 0], to_8_bits(deep)[0])


def test_dark_images_of_a_deep_camera_stay_dark() -> None:
    dark = np.full((4, 4), 900, np.uint16)
    assert to_8_bits(dark)[1] == 10
    values, bits = to_8_bits(dark, least_bits=12)
    assert bits == 12 and abs(int(values[0, 0]) - 900 / 4095 * 255) < 1


@pytest.mark.parametrize(
    ("pattern", "red_at"),
    [("rggb", (0, 0)), ("bggr", (1, 1)), ("gbrg", (1, 0)), ("grbg", (0, 1))],
)
@pytest.mark.parametrize("depth", [8, 16])
def test_bayer_patterns(pattern: str, red_at: tuple[int, int], depth: int) -> None:
    mosaic = np.zeros((48, 64), np.uint16 if depth == 16 else np.uint8)
    mosaic[red_at[0] :: 2, red_at[1] :: 2] = 200 * (257 if depth == 16 else 1)
    image = decode_raw(raw(f"bayer_{pattern}{depth}", mosaic)).image[2:-2, 2:-2]
    assert image.reshape(-1, 3).max(axis=0).tolist() == [0, 0, 200]


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("", ["empty", "driver"]),
        ("RGB8", ["case-sensitive", "'rgb8'"]),
        ("bgr88", ["did you mean 'bgr8'"]),
        ("yuv420p", ["did you mean 'i420'"]),  # not yuv422, which is nearer by its letters
        ("BayerRG8", ["did you mean 'bayer_rggb8'"]),  # as GenICam calls it
        ("Y16", ["did you mean 'mono16'"]),
        ("jpeg", ["CompressedImage", "image_transport:=compressed"]),
        ("h264", ["video stream"]),
        ("32FC1", ["depth_topic"]),
        ("16SC1", ["depth_topic"]),
        ("8UC2", ["bgr8", "nv12"]),
        ("8uc3", ["has to say '8UC3'"]),
        ("bgr8 ", ["has to say 'bgr8'"]),
        ("32FC3", ["floating", "rgb8"]),
        ("32FC1", ["depth_topic"]),
    ],
)
def test_encodings_that_are_not_converted(encoding: str, words: list[str]) -> None:
    with pytest.raises(ImageError) as refused:
        decode_raw(RawImage(encoding, 4, 4, 16, False, bytes(64)))
    assert f"encoding {encoding!r}, 4x4 pixels" in str(refused.value)
    assert all(word in str(refused.value) for word in words)
    assert "cv_bridge" not in str(refused.value)  # it converts none of them either


@pytest.mark.parametrize(
    ("encoding", "width", "height", "words"),
    [
        ("yuv422_yuy2", 5, 4, "even width"),
        ("nv12", 5, 4, "even width and height"),
        ("nv21", 4, 3, "even width and height"),
        ("bayer_rggb8", 8, 2, "3x3"),
        ("mono8", 40000, 1, "32766"),
        ("bgr8", 0, 5, "no pixels"),
    ],
)
def test_sizes_that_cannot_be(encoding: str, width: int, height: int, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decode_raw(RawImage(encoding, width, height, 3 * width, False, bytes(10**6)))


@settings(max_examples=400, deadline=None)
@given(
    encoding=st.sampled_from([*ENCODINGS, "32FC1", "bgr", "x", "8", "16"]),
    width=st.integers(0, 9) | st.sampled_from([32767, 2**31, 2**32 - 1]),
    height=st.integers(0, 9) | st.sampled_from([32767, 2**31, 2**32 - 1]),
    step=st.integers(0, 80) | st.sampled_from([2**31, 2**32 - 1]),
    size=st.integers(0, 900),
    big=st.booleans(),
)
def test_whatever_comes_is_an_image_or_an_image_error(
    encoding: str, width: int, height: int, step: int, size: int, big: bool
) -> None:
    data = RNG.integers(0, 255, size, np.uint8).tobytes()
    try:
        image = decode_raw(RawImage(encoding, width, height, step, big, data)).image
    except ImageError as error:
        assert repr(encoding) in str(error) or "mosaic" in str(error)
    else:
        assert (image.shape, image.dtype) == ((height, width, 3), np.uint8)
        image.sum()  # touches every byte
