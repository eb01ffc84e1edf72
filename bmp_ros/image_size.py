# SPDX-License-Identifier: Apache-2.0
"""The size that an encoded image announces, read before a decoder allocates anything for it.

A file of a few kilobytes may claim any size; OpenCV refuses only what has more than 2**30 pixels,
which are 3 GB.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

Size = tuple[int, int]
"""Width and height."""

_PNG_START = b"\x89PNG\r\n\x1a\n"
# One character of space at a time: with \s+ there would be a way to split spaces for every subset.
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,10})(?:\s|#[^\n]*\n)+(\d{1,10})")
_FRAME_MARKS = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]", re.DOTALL)
_WIDTH, _HEIGHT = 256, 257  # tags of TIFF
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # TIFF's BYTE, SHORT, LONG and LONG8


def announced_size(encoded: bytes) -> Size | None:
    """Width and height of a JPEG, PNG, WebP, BMP, TIFF, JPEG 2000, PNM, GIF or Sun raster image.

    Of a JPEG the largest that any of its frame headers claims. None for anything else, and where
    the header is cut off.
    """
    for starts, read in _READERS:
        if encoded.startswith(starts):
            try:
                return read(encoded)
            except struct.error:
                return None
    return None


def png_breaks_off(encoded: bytes) -> bool:
    """Whether an encoded image is a PNG without its end.

    OpenCV decodes none of such a file, after it has taken as much memory as the length of the last
    part says, up to 4 GB, and read zeros into it for seconds.
    """
    if not encoded.startswith(_PNG_START):
        return False
    at = len(_PNG_START)
    while at + 12 <= len(encoded):
        (size,) = struct.unpack_from(">I", encoded, at)
        end = at + 12 + size
        if encoded[at + 4 : at + 8] == b"IEND" and end <= len(encoded):
            return False
        at = end
    return True


class TiffNumber(NamedTuple):
    """A single number of a directory: its tag, where it stands, its `struct` code and value."""

    tag: int
    offset: int
    code: str
    value: int


def tiff_numbers(tiff: bytes) -> Iterator[TiffNumber]:
    """The numbers in the first directory of a TIFF or BigTIFF, up to where it is cut off."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return
    try:
        (magic,) = struct.unpack_from(f"{order}H", tiff, 2)
        if magic not in (42, 43):
            return
        big = magic == 43
        (place,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", tiff, 8 if big else 4)
        (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", tiff, place)
        first, step, inner = (place + 8, 20, 12) if big else (place + 2, 12, 8)
        for entry in range(first, first + step * min(count, 4096), step):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if kind in _NUMBERS and (big or kind != 16):
                code = order + _NUMBERS[kind]
                (value,) = struct.unpack_from(code, tiff, entry + inner)
                yield TiffNumber(tag, entry + inner, code, value)
    except (struct.error, OverflowError):  # cut off
        return


def _jpeg(encoded: bytes) -> Size | None:
    """Decoders skip what is between segments, so every mark that may be a header counts."""
    sizes = []
    for match in _FRAME_MARKS.finditer(encoded):
        at = match.start()
        if at + 9 <= len(encoded):
            length, depth, height, width = struct.unpack_from(">HBHH", encoded, at + 2)
            # Else it stands in the data of a thumbnail or a table.
            if depth in (8, 12, 16) and length in (11, 14, 17, 20):
                sizes.append((width, height))
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _png(encoded: bytes) -> Size:
    width, height = struct.unpack_from(">II", encoded, 16)
    return width, height


def _webp(encoded: bytes) -> Size | None:
    kind = encoded[12:16]
    if encoded[8:12] != b"WEBP":
        return None
    if kind == b"VP8X":
        low = struct.unpack_from("<6B", encoded, 24)
        width, height = (low[at] | low[at + 1] << 8 | low[at + 2] << 16 for at in (0, 3))
        return width + 1, height + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", encoded, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", encoded, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _bmp(encoded: bytes) -> Size:
    (header,) = struct.unpack_from("<I", encoded, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", encoded, 18)
    return abs(width), abs(height)


def _tiff(encoded: bytes) -> Size | None:
    found = {number.tag: number.value for number in tiff_numbers(encoded)}
    if _WIDTH not in found or _HEIGHT not in found:
        return None
    return found[_WIDTH], found[_HEIGHT]


def _jpeg_2000(encoded: bytes) -> Size | None:
    """The segment SIZ of the codestream, which decoders go by."""
    at = encoded.find(b"\xff\x4f\xff\x51")
    if at < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", encoded, at + 8)
    return max(right - left, 0), max(bottom - top, 0)


def _gif(encoded: bytes) -> Size:
    width, height = struct.unpack_from("<HH", encoded, 6)
    return width, height


def _pnm(encoded: bytes) -> Size | None:
    match = _PNM.match(encoded[:4096])
    return None if match is None else (int(match[1]), int(match[2]))


def _sun_raster(encoded: bytes) -> Size:
    width, height = struct.unpack_from(">II", encoded, 4)
    return width, height


_READERS: tuple[tuple[tuple[bytes, ...], Callable[[bytes], Size | None]], ...] = (
    ((b"\xff\xd8",), _jpeg),
    ((_PNG_START,), _png),
    ((b"RIFF",), _webp),
    ((b"BM",), _bmp),
    ((b"II", b"MM"), _tiff),
    ((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), _jpeg_2000),
    ((b"GIF8",), _gif),
    ((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), _pnm),
    ((b"\x59\xa6\x6a\x95",), _sun_raster),
)
