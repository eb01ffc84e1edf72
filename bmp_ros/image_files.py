# SPDX-License-Identifier: Apache-2.0
"""Image files to BGR arrays and back: any name, the right way up, formats that OpenCV decodes."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from bmp_ros.image_size import TiffNumber, announced_size, png_breaks_off, tiff_numbers
from bmp_ros.jpeg_data import decode_jpeg, jpeg_header, whole_jpeg
from bmp_ros.pixels import to_8_bits
from bmp_ros.reading import MAX_IMAGE_BYTES, FileTooLargeError, read_limited

_FORMATS = {
    ".jpg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    ".png": (".png", ".apng"),
    ".webp": (".webp",),
    ".tiff": (".tiff", ".tif"),
    ".jp2": (".jp2", ".j2k", ".j2c", ".jpc"),
    ".bmp": (".bmp", ".dib"),
    ".ppm": (".ppm", ".pgm", ".pbm", ".pnm"),
    ".ras": (".ras", ".sr"),
}
"""Suffixes by the one under which OpenCV knows the format. Float formats (EXR, HDR, PFM) hold
radiance, not colours of a screen, and are left out."""
IMAGE_SUFFIXES = tuple(
    suffix for known, names in _FORMATS.items() if cv2.haveImageWriter(f"a{known}")
    for suffix in names
)  # fmt: skip
"""Of the formats that this build of OpenCV decodes; it has a reader wherever it has a writer."""
_MOST_PIXELS = 1 << 28
"""268 million, 805 MB decoded: a file of a few kilobytes may claim any size."""
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_COLORLESS = (".pgm", ".pbm")
_LARGEST = {".jpg": 65500, ".webp": 16383}
"""Most pixels per side that the format, as OpenCV writes it, can hold."""
_TURNS = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""What makes an image upright, by the value of its EXIF tag 0x0112 (TIFF 6.0, page 36)."""
_ORIENTATION = 0x0112
_JP2_EXIF = b"JpgTiffExif->JP2"


class UnreadableImageError(ValueError):
    """A file is there but is no image; the message names it."""


class UnwritableImageError(ValueError):
    """The format cannot hold the image; the message names file, size and limit."""


def shown_name(path: Path | str) -> str:
    """A path as text that can be printed and encoded: bytes that are no UTF-8 become ``\\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def natural_key(path: Path) -> list[tuple[int, str]]:
    """Sorts by name with numbers as numbers, frame2 before frame10; case decides last."""
    parts = re.split(r"(\d+)", path.name)
    key = [(int(part), "") if part.isdecimal() else (-1, part.casefold()) for part in parts]
    return [*key, (-1, path.name)]


def read_image(path: Path) -> np.ndarray:
    """Read an image as BGR uint8 (H, W, 3), turned as its metadata says, as viewers do.

    Grey images and those with alpha as well; 16 bits are scaled by the depth that the image
    uses, see `pixels.to_8_bits`. The orientation is that of EXIF in JPEG,
    PNG, WebP, TIFF and JPEG 2000.
    Raises OSError when the file cannot be opened, UnreadableImageError when it is no whole image,
    has more than `reading.MAX_IMAGE_BYTES` or announces more than 268 million pixels.
    """
    encoded = _read(path)
    return turned(_decode(path, encoded), image_orientation(encoded))


def read_annotated_image(path: Path, width: int | None, height: int | None) -> np.ndarray:
    """Read an image as its annotations see it: BGR uint8 (height, width, 3).

    width, height: as the annotations say, None where they do not. Data sets are annotated on the
    pixels as stored or on the upright image; the sizes tell. It is turned only where they fit the
    turned image and not the stored one.
    Raises ValueError naming file and sizes when they fit neither; else as `read_image`.
    """
    encoded = _read(path)
    image = _decode(path, encoded)
    stored = image.shape[1::-1]
    wanted = (stored[0] if width is None else width, stored[1] if height is None else height)
    if stored == wanted:
        return image
    image = turned(image, image_orientation(encoded))
    if image.shape[1::-1] != wanted:
        either = "" if image.shape[1::-1] == stored else f" ({stored[1]}x{stored[0]} when turned)"
        raise ValueError(
            f"{shown_name(path)} has {stored[0]}x{stored[1]} pixels{either}, its annotations say "
            f"{wanted[0]}x{wanted[1]}; they must belong to this very image"
        )
    return image


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a BGR uint8 image (H, W, 3) in the format of the path's suffix.

    Raises OSError when it cannot be written, ValueError for a suffix of no image format,
    UnwritableImageError for a size that the format cannot hold.
    """
    known = _format_of(path.suffix)
    if known is None:
        raise ValueError(f"{shown_name(path)}: no image format is called {path.suffix!r}")
    size = f"an image of {image.shape[1]}x{image.shape[0]} pixels"
    if max(image.shape[:2]) > _LARGEST.get(known, 2**31):
        raise UnwritableImageError(
            f"{shown_name(path)}: {path.suffix} holds at most {_LARGEST[known]} pixels per side, "
            f"not {size}; write it as .png"
        )
    written, encoded = cv2.imencode(known, image)
    if not written:
        raise UnwritableImageError(
            f"{shown_name(path)}: OpenCV {cv2.__version__} cannot encode {size} as "
            f"{path.suffix}; write it as .png"
        )
    path.write_bytes(encoded.tobytes())


def holds_colors(suffix: str) -> bool:
    """Whether drawn images can be written under this suffix."""
    return _format_of(suffix) is not None and suffix.lower() not in _COLORLESS


def image_orientation(encoded: bytes) -> int:
    """EXIF's orientation, 1 (upright) to 8, of an encoded image; 1 when it says nothing valid."""
    for block in _exif_blocks(encoded):
        if field := _orientation_field(block):
            return field.value
    return 1


def _format_of(suffix: str) -> str | None:
    return next((known for known, names in _FORMATS.items() if suffix.lower() in names), None)


def _read(path: Path) -> bytes:
    """A file's bytes; of a JPEG without those around it, and with the end mark that it needs."""
    try:
        encoded = read_limited(path, MAX_IMAGE_BYTES, "it is no image, or has to be made smaller")
    except FileTooLargeError as error:
        raise UnreadableImageError(str(error)) from error
    if not encoded.lstrip(b"\0").startswith(b"\xff\xd8\xff"):
        return encoded
    whole = whole_jpeg(encoded)
    header = jpeg_header(whole)
    # What is missing of one in several scans would not be seen.
    return whole if header is not None and header.sequential else encoded


def _decode(path: Path, encoded: bytes) -> np.ndarray:
    """The pixels as stored."""
    size = announced_size(encoded)
    if size is not None and size[0] * size[1] > _MOST_PIXELS:
        raise UnreadableImageError(
            f"{shown_name(path)} announces {size[0]}x{size[1]} pixels, at most {_MOST_PIXELS} in "
            "all are decoded: make it smaller, or cut it into parts"
        )
    if png_breaks_off(encoded):
        raise UnreadableImageError(
            f"{shown_name(path)} ({len(encoded)} bytes) is no whole image: the PNG ends too early"
        )
    header = jpeg_header(encoded)
    if header is not None and header.sequential:
        image, damage = decode_jpeg(encoded, header)
        if damage:
            raise UnreadableImageError(f"{shown_name(path)} is no whole image: {damage}")
        if image is not None and image.dtype == np.uint8:
            return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image
    # Not cv2.imread, to which a missing file is the same as a broken one. OpenCV turns TIFF
    # whatever the flag says, and no WebP.
    data = np.frombuffer(encoded, np.uint8)
    if field := _orientation_field(encoded):
        upright = bytearray(encoded)
        struct.pack_into(field.code, upright, field.offset, 1)
        data = np.frombuffer(upright, np.uint8)
    try:
        image = _decode_apart(data) if encoded.startswith(_JPEG_2000) else _decode_here(data)
    except cv2.error as error:  # more pixels than OpenCV allows
        reason = " ".join(str(error).split())
        raise UnreadableImageError(f"{shown_name(path)}: {reason}") from error
    if image is None:
        raise UnreadableImageError(
            f"{shown_name(path)} ({data.size} bytes) is no whole image that OpenCV "
            f"{cv2.__version__} can read"
        )
    return image if image.dtype == np.uint8 else to_8_bits(image)[0]


def _decode_here(data: np.ndarray) -> np.ndarray | None:
    """In 8 or 16 bits."""
    if not data.size:
        return None
    image = cv2.imdecode(data, _FLAGS | cv2.IMREAD_ANYDEPTH)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        return cv2.imdecode(data, _FLAGS)
    return image


def _decode_apart(data: np.ndarray) -> np.ndarray | None:
    """Decode in a process of its own. OpenCV's reader of JPEG 2000 (4.11) frees a pointer that it
    never set when it refuses a header, which ends the process now and then."""
    program = (
        # With -c, Python looks for modules in the current folder first, which may be a stranger's.
        "import sys; sys.path[:] = filter(None, sys.path); "
        "import cv2, numpy as np; d = np.frombuffer(sys.stdin.buffer.read(), np.uint8); "
        f"i = cv2.imdecode(d, {_FLAGS | cv2.IMREAD_ANYDEPTH}); "
        "i is None or np.save(sys.stdout.buffer, i)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=data.tobytes(), capture_output=True
    )
    if done.returncode != 0 or not done.stdout:
        return None
    image: np.ndarray = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return image


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """The upright image (H, W, 3) of one stored as EXIF's ``orientation`` (1 to 8) says."""
    return _TURNS[orientation](image) if orientation in _TURNS else image


def _exif_blocks(encoded: bytes) -> Iterator[bytes]:
    """Blocks in TIFF's structure that a file holds, most often one."""
    if encoded[:2] == b"\xff\xd8":
        yield from _jpeg_blocks(encoded)
    elif encoded[:8] == b"\x89PNG\r\n\x1a\n":
        yield from _png_blocks(encoded)
    elif encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        yield from _webp_blocks(encoded)
    elif encoded[:2] in (b"II", b"MM"):
        yield encoded
    elif encoded[4:8] == b"jP  ":
        yield from _jp2_blocks(encoded)


def _jpeg_blocks(encoded: bytes) -> Iterator[bytes]:
    """APP1 segments before the first scan (Exif 2.32, 4.7.2)."""
    place = 2
    while place + 4 <= len(encoded) and encoded[place] == 0xFF:
        marker = encoded[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        if marker in (0xD9, 0xDA):
            return
        (length,) = struct.unpack_from(">H", encoded, place + 2)
        if marker == 0xE1 and encoded[place + 4 : place + 10] == b"Exif\0\0":
            yield encoded[place + 10 : place + 2 + length]
        place += 2 + max(length, 2)


def _png_blocks(encoded: bytes) -> Iterator[bytes]:
    """Chunk eXIf (PNG 3rd edition, 11.3.4.4), before or after the pixels."""
    place = 8
    while place + 8 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, place)
        if kind == b"eXIf":
            yield encoded[place + 8 : place + 8 + length]
        place += 12 + length


def _webp_blocks(encoded: bytes) -> Iterator[bytes]:
    """Chunk EXIF of the extended format; some writers keep JPEG's prefix."""
    place = 12
    while place + 8 <= len(encoded):
        kind, length = struct.unpack_from("<4sI", encoded, place)
        if kind == b"EXIF":
            yield encoded[place + 8 : place + 8 + length].removeprefix(b"Exif\0\0")
        place += 8 + length + length % 2


def _jp2_blocks(encoded: bytes) -> Iterator[bytes]:
    """Box uuid with the identifier that ExifTool and others use for EXIF."""
    place = 0
    while place + 8 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, place)
        if kind == b"uuid" and encoded[place + 8 : place + 24] == _JP2_EXIF:
            yield encoded[place + 24 : place + length].removeprefix(b"Exif\0\0")
        if length < 8:  # to the end, or a length of 64 bits: pixels
            return
        place += length


def _orientation_field(tiff: bytes) -> TiffNumber | None:
    """The orientation in the first directory of a TIFF or BigTIFF; None without a valid one."""
    numbers = (number for number in tiff_numbers(tiff) if number.tag == _ORIENTATION)
    field = next(numbers, None)
    return field if field is not None and field.value in range(1, 9) else None
