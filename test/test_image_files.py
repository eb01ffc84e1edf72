# SPDX-License-Identifier: Apache-2.0
"""Images from files and into files."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.image_files import (
    IMAGE_SUFFIXES,
    UnreadableImageError,
    UnwritableImageError,
    holds_colors,
    image_orientation,
    natural_key,
    read_annotated_image,
    read_image,
    shown_name,
    write_image,
)

IMAGE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm", ".PNG"])
def test_round_trip_below_any_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"Ärger 人群 %03d{suffix}"
    write_image(path, IMAGE)
    np.testing.assert_array_equal(read_image(path), IMAGE)


@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_other_kinds_of_pixels_become_bgr(tmp_path: Path, shape: tuple, dtype: type) -> None:
    image = np.full(shape, 100 if dtype is np.uint8 else 100 * 257, dtype)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    read = read_image(tmp_path / "a.png")
    assert read.dtype == np.uint8 and (read == 100).all() and read.shape == (24, 32, 3)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm", ".jp2"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_images_of_few_of_16_bits_are_not_black(tmp_path: Path, suffix: str, bits: int) -> None:
    """As sensors of 10, 12 and 14 bits have them, and as the same image in a bag is read."""
    full = (1 << bits) - 1
    image = np.linspace(0, full, 96 * 128).reshape(96, 128).astype(np.uint16)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), image)
    read = read_image(tmp_path / f"a{suffix}")
    assert read.dtype == np.uint8 and read.shape == (96, 128, 3)
    assert np.abs(read[:, :, 1] - image * (255 / full)).max() <= 2


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "Bäume.png"
    path.write_bytes(content)
    with pytest.raises(
        UnreadableImageError, match=rf"Bäume.png \({len(content)} bytes\) is no whole"
    ):
        read_image(path)


def test_missing_files_and_unknown_formats(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone.png"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ValueError, match="no image format is called '.doc'"):
        write_image(tmp_path / "a.doc", IMAGE)


STORED = np.zeros((40, 64, 3), np.uint8)
STORED[:16, :16] = 255
STORED[24:, 48:, 0] = 200
STORED[:8, 48:, 1] = 120
UPRIGHT = {
    1: STORED,
    2: STORED[:, ::-1],
    3: STORED[::-1, ::-1],
    4: STORED[::-1],
    5: STORED.transpose(1, 0, 2),
    6: STORED[::-1].transpose(1, 0, 2),
    7: STORED[::-1, ::-1].transpose(1, 0, 2),
    8: STORED[:, ::-1].transpose(1, 0, 2),
}


def tiff_block(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """An EXIF block with one field."""
    value = struct.pack(f"{order}{ {1: 'B', 3: 'H', 4: 'I'}[kind] }", orientation)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, 1)
    return head + struct.pack(f"{order}HHI", 0x0112, kind, 1) + value.ljust(4, b"\0") + bytes(4)


def jpeg(image: np.ndarray, block: bytes) -> bytes:
    full = [cv2.IMWRITE_JPEG_QUALITY, 100]
    full += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    encoded = cv2.imencode(".jpg", image, full)[1].tobytes()
    comment = b"\xff\xfe\0\x06abcd\xff"  # before it another segment, and a padding byte
    exif = b"Exif\0\0" + block
    return (
        encoded[:2] + comment + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + encoded[2:]
    )


def png(image: np.ndarray, block: bytes) -> bytes:
    encoded = cv2.imencode(".png", image)[1].tobytes()
    checksum = struct.pack(">I", zlib.crc32(b"eXIf" + block))
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + checksum
    return encoded[:-12] + chunk + encoded[-12:]  # behind the pixels, which is allowed


def webp(image: np.ndarray, block: bytes) -> bytes:
    encoded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    height, width = image.shape[:2]
    extended = struct.pack("<I", 8) + (width - 1).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", 10) + extended + (height - 1).to_bytes(3, "little")
    exif = b"EXIF" + struct.pack("<I", len(block)) + block + b"\0" * (len(block) % 2)
    body = b"WEBP" + chunk + encoded[12:] + exif
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(image: np.ndarray, block: bytes) -> bytes:
    """As OpenCV writes it, with an orientation in its directory (it writes none, or 1)."""
    encoded = bytearray(cv2.imencode(".tiff", image)[1].tobytes())
    order = "<" if encoded[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(f"{order}I", encoded, 4)
    (count,) = struct.unpack_from(f"{order}H", encoded, directory)
    size = 2 + 12 * count
    fields = [bytes(encoded[i : i + 12]) for i in range(directory + 2, directory + size, 12)]
    fields = [field for field in fields if struct.unpack_from(f"{order}H", field)[0] != 0x0112]
    value = image_orientation(block)
    fields.append(struct.pack(f"{order}HHIHH", 0x0112, 3, 1, value, 0))
    fields.sort(key=lambda field: struct.unpack_from(f"{order}H", field)[0])
    struct.pack_into(f"{order}I", encoded, 4, len(encoded))
    return bytes(encoded) + struct.pack(f"{order}H", len(fields)) + b"".join(fields) + bytes(4)


def jp2(image: np.ndarray, block: bytes) -> bytes:
    encoded = cv2.imencode(".jp2", image, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1]
    content = encoded.tobytes()
    box = struct.pack(">I4s", 24 + len(block), b"uuid") + b"JpgTiffExif->JP2" + block
    place = content.index(b"jp2c") - 4
    return content[:place] + box + content[place:]


WRITERS = {"jpg": jpeg, "png": png, "webp": webp, "tiff": tiff, "jp2": jp2}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_are_turned_as_their_metadata_says(
    tmp_path: Path, name: str, orientation: int
) -> None:
    if f".{name}" not in IMAGE_SUFFIXES:
        pytest.skip(f"this build of OpenCV has no {name}")
    path = tmp_path / f"a.{name}"
    path.write_bytes(WRITERS[name](STORED, tiff_block(orientation)))
    upright = UPRIGHT[orientation]
    tolerance = {"jpg": 12}.get(name, 1)
    read = read_image(path)
    assert read.shape == upright.shape
    np.testing.assert_allclose(read.astype(int), upright, atol=tolerance)
    height, width = upright.shape[:2]
    as_annotated = read_annotated_image(path, width, height)
    # Of an image that only stands on its head sizes tell nothing: as stored, as COCO means it.
    expected = STORED if orientation < 5 else upright
    np.testing.assert_allclose(as_annotated.astype(int), expected, atol=tolerance)
    np.testing.assert_allclose(
        read_annotated_image(path, 64, 40).astype(int), STORED, atol=tolerance
    )
    np.testing.assert_allclose(
        read_annotated_image(path, None, None).astype(int), STORED, atol=tolerance
    )


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [1, 3, 4])
def test_orientation_in_any_byte_order_and_number(order: str, kind: int) -> None:
    assert image_orientation(jpeg(STORED, tiff_block(6, order, kind))) == 6


def test_orientation_in_big_tiff() -> None:
    field = struct.pack("<HHQH6x", 0x0112, 3, 1, 8)
    assert image_orientation(b"II" + struct.pack("<HHHQQ", 43, 8, 0, 16, 1) + field) == 8


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_invalid_orientation_is_none(value: int) -> None:
    assert image_orientation(png(STORED, tiff_block(value))) == 1


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(list(WRITERS)))
def test_damaged_metadata_is_no_failure(noise: bytes, name: str) -> None:
    if f".{name}" not in IMAGE_SUFFIXES:
        return
    encoded = WRITERS[name](STORED, tiff_block(6))
    for content in (encoded[: len(noise)] + noise, encoded[:30] + noise, noise):
        assert image_orientation(content) in range(1, 9)


def test_annotations_of_another_size_are_a_conflict(tmp_path: Path) -> None:
    path = tmp_path / "Ä.jpg"
    path.write_bytes(jpeg(STORED, tiff_block(6)))
    with pytest.raises(ValueError, match=r"Ä.jpg has 64x40 .*\(40x64 when turned\).* 65x40"):
        read_annotated_image(path, 65, 40)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_listed_suffix_is_read_and_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix.upper()}"
    grey = np.full((48, 64, 3), 255, np.uint8)
    write_image(path, grey)
    read = read_image(path)
    assert read.shape == grey.shape and read.min() > 250
    assert holds_colors(suffix) == (suffix not in (".pgm", ".pbm"))


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_cut_files_are_unreadable(tmp_path: Path, name: str, part: float) -> None:
    if f".{name}" not in IMAGE_SUFFIXES:
        pytest.skip(f"this build of OpenCV has no {name}")
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    encoded = cv2.imencode(f".{name}", noise)[1].tobytes()
    (tmp_path / f"a.{name}").write_bytes(encoded[: int(part * len(encoded))])
    with pytest.raises(UnreadableImageError, match="is no whole image"):
        read_image(tmp_path / f"a.{name}")


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000), (3, 20000), (20000, 3)])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".bmp", ".ppm"])
def test_sizes_that_a_format_cannot_hold_are_named(
    tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    path, image = tmp_path / f"a{suffix}", np.zeros((*size, 3), np.uint8)
    if suffix == ".webp" and max(size) > 16383:
        with pytest.raises(UnwritableImageError, match="at most 16383 .*20000"):
            write_image(path, image)
        return
    write_image(path, image)
    assert read_image(path).shape == image.shape


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    write_image(path, IMAGE)
    np.testing.assert_array_equal(read_image(path), IMAGE)
    assert shown_name(path.name) == "caf\\xe9.png"
    assert shown_name("Bäume 人.png") == "Bäume 人.png"
    path.write_bytes(b"x")
    with pytest.raises(UnreadableImageError) as error:
        read_image(path)
    str(error.value).encode("utf-8")


def test_numbers_in_names_count_as_numbers() -> None:
    names = [
        "10.jpg",
        "2.jpg",
        "a10b2.jpg",
        "a10b10.jpg",
        "A2.jpg",
        "a2.jpg",
        "b.jpg",
        "frame٣.jpg",
    ]
    ordered = ["2.jpg", "10.jpg", "A2.jpg", "a2.jpg", "a10b2.jpg", "a10b10.jpg", "b.jpg"]
    found = sorted(map(Path, names), key=natural_key)
    assert [path.name for path in found] == [*ordered, "frame٣.jpg"]


@given(st.lists(st.text("a1٣².0B_-", min_size=1), min_size=2))
def test_any_names_can_be_ordered(names: list[str]) -> None:
    paths = [Path(name) for name in names]
    assert sorted(sorted(paths, key=natural_key), key=natural_key) == sorted(
        paths, key=natural_key
    )


PHOTO = cv2.GaussianBlur(
    np.random.default_rng(1).integers(0, 255, (120, 160, 3), dtype=np.uint8), (0, 0), 2
)


@pytest.mark.parametrize("start", [b"", bytes(10)])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9", b"\xff\xd9" + bytes(30)])
def test_a_jpeg_with_all_its_pixels_is_read(tmp_path: Path, start: bytes, end: bytes) -> None:
    """Zeros around it, or no end mark."""
    content = jpeg(PHOTO, tiff_block(6))
    path = tmp_path / "a.jpg"
    path.write_bytes(start + content[:-2] + end)
    read = read_image(path)
    assert read.shape == (160, 120, 3)
    assert np.abs(read.astype(int) - PHOTO[::-1].transpose(1, 0, 2)).mean() < 2


@pytest.mark.parametrize("grey", [False, True])
def test_a_jpeg_that_lost_bytes_is_unreadable(tmp_path: Path, grey: bool) -> None:
    image = cv2.cvtColor(PHOTO, cv2.COLOR_BGR2GRAY) if grey else PHOTO
    content = cv2.imencode(".jpg", image)[1].tobytes()
    middle = len(content) // 2
    path = tmp_path / "a.jpg"
    for damaged in (
        content[:middle] + content[middle + 400 :], content[:middle],
        content[:middle] + b"\xff\xd9", content[:middle] + bytes(30),
    ):  # fmt: skip
        path.write_bytes(damaged)
        with pytest.raises(UnreadableImageError, match="a.jpg.* is no whole image"):
            read_image(path)
    path.write_bytes(content)
    assert read_image(path).shape == (120, 160, 3)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_cut_progressive_jpegs_are_unreadable(tmp_path: Path, part: float) -> None:
    content = cv2.imencode(".jpg", PHOTO, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert read_image(path).shape == PHOTO.shape
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(UnreadableImageError, match="a.jpg.* is no whole image"):
        read_image(path)
