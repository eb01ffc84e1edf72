# SPDX-License-Identifier: Apache-2.0
"""Compressed images: formats as image_transport writes them, and buffers as webcams send them."""

from __future__ import annotations

import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.compressed_images import decode_compressed
from bmp_ros.pixels import ImageError

RNG = np.random.default_rng(3)
SCENE = cv2.resize(RNG.integers(20, 235, (24, 32, 3), np.uint8), (320, 240))
GREY = cv2.cvtColor(SCENE, cv2.COLOR_BGR2GRAY)
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 90]


def encoded(suffix: str, image: np.ndarray, *parameters: int) -> bytes:
    return bytes(cv2.imencode(suffix, image, [*QUALITY, *parameters])[1])


def error_of(data: bytes, form: str) -> float:
    pixels = decode_compressed(data, form)
    assert pixels.damage == ""
    return float(np.abs(pixels.image.astype(int) - SCENE).mean())


def mosaic(pattern: str) -> np.ndarray:
    values = np.zeros((240, 320), np.uint8)
    for at, letter in enumerate(pattern):
        y, x = divmod(at, 2)
        values[y::2, x::2] = SCENE[y::2, x::2, "bgr".index(letter)]
    return values


@pytest.mark.parametrize(
    "form",
    [
        "bgr8; jpeg compressed bgr8",
        "rgb8; jpeg compressed bgr8",
        "jpeg",
        "",
        "bgra8; jpeg compressed bgr8",
    ],
)
def test_colours_are_those_of_the_file(form: str) -> None:
    assert error_of(encoded(".jpg", SCENE), form) < 4


@pytest.mark.parametrize(
    "form", ["rgb8; png compressed rgb8", "bgr8; png compressed", "rgb8; jpeg compressed "]
)
def test_older_writers_exchange_red_and_blue(form: str) -> None:
    """They gave OpenCV, which takes BGR, an image of RGB; readers of image_transport know."""
    suffix = ".png" if "png" in form else ".jpg"
    assert error_of(encoded(suffix, SCENE[..., ::-1]), form) < 4


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize(
    ("suffix", "rest"), [(".png", "png compressed "), (".jpg", "jpeg compressed mono8")]
)
def test_bayer_mosaic_that_was_compressed_as_grey(pattern: str, suffix: str, rest: str) -> None:
    assert error_of(encoded(suffix, mosaic(pattern)), f"bayer_{pattern}8; {rest}") < 5


def test_bayer_mosaic_that_was_compressed_in_colour() -> None:
    assert error_of(encoded(".jpg", SCENE), "bayer_rggb8; jpeg compressed bgr8") < 4


@pytest.mark.parametrize("bits", [12, 16])
def test_16_bits_in_png_are_scaled_by_their_real_depth(bits: int) -> None:
    deep = np.round(SCENE / 255 * ((1 << bits) - 1)).astype(np.uint16)
    assert error_of(encoded(".png", deep), "rgb16; png compressed bgr16") < 0.5
    pixels = decode_compressed(encoded(".png", deep[..., 1]), "mono16; png compressed ")
    assert pixels.bits == bits
    assert np.abs(pixels.image.astype(int) - SCENE[..., 1:2]).max() <= 1


def test_depth_and_temperatures_in_png_are_told() -> None:
    near = np.full((48, 64), 1500, np.uint16)
    assert "depth_topic" in decode_compressed(encoded(".png", near), "16UC1; png compressed ").note
    warm = near + 28_500  # hundredths of kelvins
    assert "thermal" in decode_compressed(encoded(".png", warm), "mono16; png compressed ").note


def test_grey_and_alpha() -> None:
    pixels = decode_compressed(encoded(".jpg", GREY), "mono8; jpeg compressed mono8")
    assert np.abs(pixels.image.astype(int) - GREY[..., None]).mean() < 3
    with_alpha = np.dstack([SCENE, np.full((240, 320), 9, np.uint8)])
    assert error_of(encoded(".png", with_alpha), "bgra8; png compressed bgra8") == 0


def test_orientation_in_the_file_is_not_that_of_the_camera() -> None:
    tag = b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: by 90 degrees
    body = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + tag
    exif = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    data = encoded(".jpg", SCENE)
    turned = data[:2] + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), 1).shape == (320, 240, 3)
    assert decode_compressed(turned, "jpeg").image.shape == (240, 320, 3)


JPEG = encoded(".jpg", SCENE)


def without_tables(data: bytes) -> bytes:
    """As Motion JPEG, whose Huffman tables are those of the standard."""
    out, at = bytearray(data[:2]), 2
    while data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        out += data[at : at + 2 + size] if data[at + 1] != 0xC4 else b""
        at += 2 + size
    return bytes(out) + data[at:]


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(
    "data",
    [
        JPEG, JPEG[:-2], JPEG[:-1], JPEG[:-2] + bytes(64), JPEG + bytes(4096), bytes(8) + JPEG,
        bytes(8) + JPEG[:-2], JPEG + b"rest of another buffer", without_tables(JPEG),
        encoded(".jpg", SCENE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encoded(".jpg", SCENE, cv2.IMWRITE_JPEG_RST_INTERVAL, 7),
        encoded(".jpg", SCENE, cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    ],
)  # fmt: skip
def test_buffers_of_webcams_are_read_and_whole(data: bytes) -> None:
    assert error_of(data, "jpeg") < 4


def test_png_is_not_taken_for_the_jpeg_inside_of_it() -> None:
    chunk = b"tEXt" + JPEG[:64]
    png = encoded(".png", SCENE)
    extra = len(JPEG[:64]).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    assert error_of(png[:33] + extra + png[33:], "png") == 0


@pytest.fixture(params=["simplejpeg", "OpenCV alone"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tests that use it run with simplejpeg, and as where it is not installed."""
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg", reason="simplejpeg is not installed")
    else:
        monkeypatch.setitem(sys.modules, "simplejpeg", None)
    return str(request.param)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("interval", [0, 5])
@pytest.mark.parametrize("lost", [300, 1000])
def test_jpeg_that_lost_bytes_in_the_middle_is_said(interval: int, lost: int) -> None:
    data = encoded(".jpg", SCENE, cv2.IMWRITE_JPEG_RST_INTERVAL, interval)
    middle = len(data) // 2
    pixels = decode_compressed(data[:middle] + data[middle + lost :], "jpeg")
    assert pixels.image.shape == SCENE.shape
    assert "JPEG" in pixels.damage


def test_pixels_are_the_same_with_both_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (JPEG, encoded(".jpg", GREY)):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "simplejpeg", None)
            alone = decode_compressed(data, "jpeg").image
        np.testing.assert_array_equal(decode_compressed(data, "jpeg").image, alone)


def test_bytes_before_the_end_mark_are_harmless() -> None:
    assert decode_compressed(JPEG[:-2] + bytes(20) + JPEG[-2:], "jpeg").damage == ""


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("kept", [0.3, 0.9])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_jpeg_that_was_cut_off_is_said(kept: float, end: bytes) -> None:
    pixels = decode_compressed(JPEG[: int(len(JPEG) * kept)] + end, "jpeg")
    assert "JPEG" in pixels.damage


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("grey", [0, 127, 128, 129, 255])
@pytest.mark.parametrize("size", [(480, 640, 3), (37, 53, 3), (48, 64), (1, 1, 3), (8, 17)])
@pytest.mark.parametrize("interval", [0, 3])
def test_grey_pictures_are_not_damaged(grey: int, size: tuple[int, ...], interval: int) -> None:
    """Mid-grey is what libjpeg paints where data are missing."""
    image = np.full(size, grey, np.uint8)
    if size[0] > 100:
        image[:200] = RNG.integers(0, 255, (200, 640, 3))
    data = encoded(".jpg", image, cv2.IMWRITE_JPEG_RST_INTERVAL, interval)
    assert decode_compressed(data, "jpeg").damage == ""


def test_most_losses_are_said(decoder: str) -> None:
    """Not all: bytes that are lost within one block may leave a valid JPEG behind."""
    rng, said, tries = np.random.default_rng(1), 0, 60
    for _ in range(tries):
        lost = int(rng.integers(20, 400))
        at = int(rng.integers(700, len(JPEG) - lost - 50))
        said += bool(decode_compressed(JPEG[:at] + JPEG[at + lost :], "jpeg").damage)
    assert said > (0.8 if decoder == "simplejpeg" else 0.7) * tries, said


def test_png_with_a_wrong_byte_is_said() -> None:
    png = bytearray(encoded(".png", SCENE))
    png[len(png) // 2] ^= 1
    try:
        assert "checksum" in decode_compressed(bytes(png), "png").damage
    except ImageError:
        pass  # where OpenCV's decoder gives up


@pytest.mark.parametrize(
    ("data", "form", "words"),
    [
        (b"", "jpeg", ["0 bytes", "empty"]),
        (b"GIF89a", "jpeg", ["6 bytes", "'jpeg'"]),
        (b"\0\0\0\1\x67abc" * 50, "h264", ["video stream"]),
        (b"", "16UC1; compressedDepth png", ["depth_topic"]),
        (encoded(".jpg", SCENE)[:300], "jpeg", ["300 bytes"]),
        (encoded(".tiff", SCENE.astype(np.float32)), "32FC3; tiff compressed ", ["float32"]),
        (encoded(".png", GREY[:2, :2]), "bayer_rggb8; png compressed ", ["3x3"]),
    ],
)
def test_what_cannot_be_decoded(data: bytes, form: str, words: list[str]) -> None:
    with pytest.raises(ImageError) as refused:
        decode_compressed(data, form)
    assert all(word in str(refused.value) for word in words)


def test_sizes_are_checked_before_memory_is_taken() -> None:
    """65000x65000 pixels in a header are 12 GB."""
    at = JPEG.index(b"\xff\xc0") + 5
    huge = JPEG[:at] + b"\xfd\xe8\xfd\xe8" + JPEG[at + 4 :]
    with pytest.raises(ImageError, match="32766"):
        decode_compressed(huge, "jpeg")
    png = bytearray(encoded(".png", SCENE))
    png[16:24] = (65000).to_bytes(4, "big") * 2
    with pytest.raises(ImageError, match="32766"):
        decode_compressed(bytes(png), "png")


@settings(max_examples=200, deadline=None)
@given(
    source=st.sampled_from(
        [encoded(suffix, SCENE[:24, :32]) for suffix in (".jpg", ".png", ".bmp", ".webp")]
        + [encoded(".jpg", SCENE[:24, :32], cv2.IMWRITE_JPEG_RST_INTERVAL, 2)]
    ),
    form=st.sampled_from(
        ["", ";", "jpeg", "bayer_rggb8; jpeg compressed", "rgb8; png compressed", "mono16; png"]
    ),
    cut=st.integers(0, 900),
    flips=st.lists(st.tuples(st.integers(0, 899), st.integers(0, 255)), max_size=6),
)
def test_whatever_comes_is_an_image_or_an_image_error(
    source: bytes, form: str, cut: int, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(source[: len(source) - cut] if cut < len(source) else source)
    for at, value in flips:
        if at < len(data):
            data[at] = value
    try:
        image = decode_compressed(bytes(data), form).image
    except ImageError:
        return
    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
