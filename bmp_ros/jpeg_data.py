# SPDX-License-Identifier: Apache-2.0
"""JPEG data, from a driver or a file: whole ones out of what is around them, and what is broken.

OpenCV's decoders say nothing about lost bytes. simplejpeg, which has the same libjpeg-turbo and
gives the same pixels, does; where it is not installed, most losses are found by their traces.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import cv2
import numpy as np

# Of 16 bits where the file has them; the orientation that a file may tell is that of the image,
# not of the camera, and no other ROS node turns images.
_FLAGS = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_HARMLESS = 64  # bytes that webcams leave before the end mark
_FILLER = bytes([0x5A, 0xC3, 0x96, 0x3C, 0xA5, 0x69]) * 40
_BETWEEN_SCANS = frozenset((0xC4, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)))


def whole_jpeg(data: bytes) -> bytes:
    """The JPEG in ``data`` from its start mark to an end mark, which is added where it is missing.

    Drivers of webcams send buffers with bytes before, and zeros after it.
    """
    data = data[data.index(b"\xff\xd8\xff") :]
    if _JPEG_END in data[-2:]:
        return data
    rest = data.rstrip(b"\0")
    if rest.endswith(_JPEG_END):
        return rest
    if rest.endswith(b"\xff"):  # whose 0 belongs to it
        rest += b"\0"
    return rest + _JPEG_END


@dataclass(frozen=True)
class JpegHeader:
    """What the segments before the first scan say.

    components: 1 for grey. unit: (width, height) of an MCU in pixels. interval: MCUs between
    restart marks, 0: none. scan: where the entropy-coded data begin.
    """

    width: int
    height: int
    components: int
    unit: tuple[int, int]
    interval: int
    sequential: bool
    scan: int


def decode_jpeg(data: bytes, header: JpegHeader) -> tuple[np.ndarray | None, str]:
    """The image, (H, W) or (H, W, 3), and what is broken in its data."""
    color = {1: "GRAY", 3: "BGR"}.get(header.components)
    try:
        import simplejpeg
    except ImportError:
        color = None
    if color is None:
        image = decode_as_stored(data)
        return image, "" if image is None else traces_of_damage(data, header, image)
    try:
        pixels = simplejpeg.decode_jpeg(data, color)
        return (pixels[:, :, 0] if color == "GRAY" else pixels), ""
    except ValueError as error:
        complaint = str(error)
    left_over = _LEFT_OVER.search(complaint)
    if left_over is not None and int(left_over[1]) <= _HARMLESS:
        return decode_as_stored(data), ""
    return decode_as_stored(data), f"the JPEG decoder says: {complaint}"


def traces_of_damage(data: bytes, header: JpegHeader, image: np.ndarray) -> str:
    """Say what is broken in the data of a decoded JPEG; empty when nothing is seen.

    Where data are missing libjpeg goes on with blocks of zeros, which are exactly mid-grey, until
    the next restart mark or the end. Where the last block before one is, the image is decoded
    once more with other data put in: an image that changes had too few. Bytes that are lost
    within one block leave a valid JPEG behind, which cannot be told from a whole one.
    """
    if not header.sequential or image.shape[:2] != (header.height, header.width):
        return ""
    ends, last_mark = _interval_ends(data, header.scan)
    if last_mark in _BETWEEN_SCANS:  # several scans, which are not looked into
        return ""
    if last_mark == 0:
        return "restart marks are missing in the data of the JPEG, or not in order"
    if last_mark != 0xD9:
        return f"there is an unknown mark 0x{last_mark:02x} in the data of the JPEG"
    grey = _is_grey(image, header, len(ends))
    if grey is None:
        return "restart marks are missing in the data of the JPEG, or not in order"
    if not grey.any():
        return ""
    parts, at = [], 0
    for end, suspicious in zip(ends, grey, strict=True):
        parts += [data[at:end], _FILLER if suspicious else b""]
        at = end
    again = decode_as_stored(b"".join(parts) + data[at:])
    if again is not None and np.array_equal(again, image):
        return ""
    return "bytes are missing in the data of the JPEG: part of the image is wrong or grey"


def _interval_ends(data: bytes, scan: int) -> tuple[list[int], int]:
    """Where each restart interval of the first scan ends, and the mark that ends the last one.

    That mark is 0 where restart marks are not in order, and where there is none.
    """
    ends: list[int] = []
    for match in _MARKER.finditer(data, scan):
        mark = data[match.start() + 1]
        ends.append(match.start())
        if not 0xD0 <= mark <= 0xD7:
            return ends, mark
        if mark - 0xD0 != (len(ends) - 1) % 8:
            break
    return ends, 0


def _is_grey(image: np.ndarray, header: JpegHeader, intervals: int) -> np.ndarray | None:
    """Per restart interval, whether its last MCU is mid-grey; None for another number of them."""
    columns = -(-header.width // header.unit[0])
    units = columns * -(-header.height // header.unit[1])
    length = header.interval or units
    if intervals != -(-units // length):
        return None
    last = np.minimum(np.arange(1, intervals + 1) * length, units) - 1
    x = np.minimum((last % columns) * header.unit[0] + header.unit[0] // 2, header.width - 1)
    y = np.minimum((last // columns) * header.unit[1] + header.unit[1] // 2, header.height - 1)
    grey: np.ndarray = (image[y, x].reshape(intervals, -1) == 128).all(axis=1)
    return grey


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Read the segments of a JPEG up to its first scan; None where they make no sense."""
    if not data.startswith(_JPEG_START):
        return None
    at, interval, frame = 2, 0, None
    while at + 4 <= len(data) and data[at] == 0xFF:
        mark = data[at + 1]
        if mark == 0xFF:  # padding
            at += 1
            continue
        (size,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + size]
        if mark == 0xDD and len(body) >= 2:
            (interval,) = struct.unpack_from(">H", body)
        elif 0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:
            frame = (mark, body)
        elif mark == 0xDA:
            return _with_frame(frame, interval, at + 2 + size)
        at += 2 + size
    return None


def _with_frame(frame: tuple[int, bytes] | None, interval: int, scan: int) -> JpegHeader | None:
    if frame is None:
        return None
    mark, body = frame
    _, height, width, count = struct.unpack_from(">BHHB", body)
    sampling = body[7 : 6 + 3 * count : 3]
    factors = [(each >> 4, each & 15) for each in sampling]
    in_range = all(1 <= factor <= 4 for pair in factors for factor in pair)
    if not count or len(factors) != count or not in_range:
        return None
    # A single component is not interleaved: its unit is one block whatever its factors.
    across, down = (1, 1) if count == 1 else map(max, zip(*factors, strict=True))
    return JpegHeader(
        width, height, count, (8 * across, 8 * down), interval, mark in (0xC0, 0xC1), scan
    )


def decode_as_stored(data: bytes) -> np.ndarray | None:
    """OpenCV's image or None; its decoders also complain on stderr."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS) if data else None
    except cv2.error:
        return None
