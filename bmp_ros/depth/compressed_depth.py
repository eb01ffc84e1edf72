# SPDX-License-Identifier: Apache-2.0
"""Depth images as compressed_depth_image_transport writes them: PNG or RVL behind a header.

The header has 12 bytes, in the byte order of the sender (little-endian on every machine that ROS
runs on): an int32 that says nothing to a reader, and two float32, a and b, by which depth in
metres was made into 16 bits: ``quantised = a / depth + b``. Whole millimetres are kept as they
are.

RVL (A. D. Wilson, "Fast Lossless Depth Image Compression", ISS 2017): the pixels, row by row, are
runs of zeros and of others in turns. Each run of zeros is its length; each run of others is its
length and the differences to the pixel before (0 before the first), zigzag-coded (0, -1, 1, -2 …).
Every number is written in groups of three bits, the lowest first, each with a fourth bit on top
that says whether more follow; eight such nibbles fill a 32-bit word from its highest bits down.
"""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

HEADER_BYTES = 12
MOST_PIXELS = 1 << 26
"""Sizes beyond are refused before anything is allocated: a run of zeros costs its sender nothing,
so a few bytes may claim any size."""
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_LONGEST_NUMBER = 11  # groups of three bits that hold 32


class CompressedDepthError(ValueError):
    """Bytes are no compressed depth image; the message says what about them is wrong."""


def decode_compressed_depth(data: bytes | memoryview, encoding: str, codec: str) -> np.ndarray:
    """Decode to (h, w): uint16 millimetres, or float32 metres with NaN where depth is unknown.

    data: with the header. encoding: ``16UC1`` (or ``mono16``), or ``32FC1``. codec: ``png`` or
    ``rvl``. Raises CompressedDepthError for other names and for whatever is damaged, cut off or
    larger than `MOST_PIXELS`.
    """
    if encoding not in ("16UC1", "mono16", "32FC1"):
        raise CompressedDepthError(
            f"encoding {encoding!r} is no depth, 16UC1 and 32FC1 are (REP 118)"
        )
    data = memoryview(data).cast("B")
    if len(data) <= HEADER_BYTES:
        raise CompressedDepthError(
            f"{len(data)} bytes are no depth image: the header alone has {HEADER_BYTES}"
        )
    _, a, b = struct.unpack_from("<iff", data)
    decode = {"png": decode_png, "rvl": _decode_rvl_image}.get(codec)
    if decode is None:
        raise CompressedDepthError(f"codec {codec!r} is unknown, png and rvl are known")
    stored = decode(data[HEADER_BYTES:])
    if encoding != "32FC1":
        return stored
    if not (np.isfinite(a) and np.isfinite(b) and a > 0):
        raise CompressedDepthError(
            f"the header's quantisation of 32FC1 is a = {a:g}, b = {b:g}; a must be above 0"
        )
    above = stored.astype(np.float32) - np.float32(b)
    known = (stored != 0) & (above > 0)
    metres = np.full(stored.shape, np.nan, np.float32)
    np.divide(np.float32(a), above, out=metres, where=known)
    return metres


def decode_rvl(data: bytes | memoryview, pixels: int) -> np.ndarray:
    """Decode an RVL stream of whole 32-bit little-endian words to (pixels,) uint16.

    Raises CompressedDepthError where the stream and the number of pixels disagree.
    """
    if not 0 <= pixels <= MOST_PIXELS:
        raise CompressedDepthError(f"{pixels} pixels, at most {MOST_PIXELS} are decoded")
    numbers = _numbers(data)
    runs, at, filled = [], 0, 0  # runs: first pixel and length of the others, where they begin
    count, plain = len(numbers), numbers.tolist()  # a list: its elements cost nothing to read
    while filled < pixels:
        if at + 1 >= count:
            raise CompressedDepthError(f"RVL ends after {filled} of {pixels} pixels")
        zeros, others = plain[at], plain[at + 1]
        start = filled + zeros
        filled = start + others
        if filled > pixels or at + 2 + others > count:
            raise CompressedDepthError(
                f"RVL has a run to pixel {filled} of {pixels}, and {count} numbers in all"
            )
        if not zeros and not others:
            raise CompressedDepthError(f"RVL has an empty run at pixel {filled} of {pixels}")
        runs.append((start, others, at + 2))
        at += 2 + others
    starts, lengths, firsts = np.array(runs, np.int64).reshape(-1, 3).T
    total = int(lengths.sum())
    # For each pixel that is not 0, its place in the image and that of its number.
    within = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    zigzag = numbers[np.repeat(firsts, lengths) + within]
    values = np.cumsum((zigzag >> 1) ^ -(zigzag & 1))
    if total and (values.min() < 0 or values.max() > 0xFFFF):
        raise CompressedDepthError("RVL has depths outside of 16 bits: the stream is damaged")
    image = np.zeros(pixels, np.uint16)
    image[np.repeat(starts, lengths) + within] = values
    return image


def _numbers(data: bytes | memoryview) -> np.ndarray:
    """(M,) int64: all numbers of an RVL stream; what fills up its last word counts as zeros."""
    words = np.frombuffer(data, "<u4", count=len(data) // 4)
    # The highest nibble of a word comes first.
    pairs = words.byteswap().view(np.uint8)
    nibbles = np.empty(2 * len(pairs), np.uint8)
    nibbles[0::2], nibbles[1::2] = pairs >> 4, pairs & 15
    ends = np.flatnonzero(nibbles < 8)
    if not len(ends):
        return np.zeros(0, np.int64)
    lengths = np.diff(ends, prepend=-1)
    longest = int(lengths.max())
    if longest > _LONGEST_NUMBER:
        raise CompressedDepthError(f"RVL has a number of {longest} groups of bits: it is damaged")
    numbers = (nibbles[ends] & 7).astype(np.int64)
    for back in range(1, longest):
        # Groups before the last are lower ones: make room for them.
        more = np.flatnonzero(lengths > back)
        numbers[more] = (numbers[more] << 3) | (nibbles[ends[more] - back] & 7)
    return numbers


def _decode_rvl_image(data: memoryview) -> np.ndarray:
    if len(data) < 8:
        raise CompressedDepthError(f"RVL of {len(data)} bytes has no size")
    width, height = struct.unpack_from("<II", data)
    _check_size(width, height)
    return decode_rvl(data[8:], width * height).reshape(height, width)


def decode_png(data: memoryview) -> np.ndarray:
    """Decode a 16-bit grey PNG to (h, w) uint16; all is checked before OpenCV sees it.

    Raises CompressedDepthError for another PNG, and for one of which bytes are missing or wrong.
    """
    if bytes(data[:8]) != _PNG_MAGIC or bytes(data[12:16]) != b"IHDR" or len(data) < 33:
        raise CompressedDepthError(f"{len(data)} bytes after the header are no PNG")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    _check_size(width, height)
    if (bits, colour) != (16, 0):
        raise CompressedDepthError(
            f"the PNG has {bits} bits and colour type {colour}, depth is 16 bits of grey (0)"
        )
    at, kind = 8, b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise CompressedDepthError(f"the PNG of {len(data)} bytes breaks off")
        (size,) = struct.unpack_from(">I", data, at)
        kind = bytes(data[at + 4 : at + 8])
        end = at + 12 + size
        if end > len(data):
            raise CompressedDepthError(f"the PNG of {len(data)} bytes breaks off")
        if zlib.crc32(data[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise CompressedDepthError(f"the PNG is damaged: the checksum of {kind!r} is wrong")
        at = end
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise CompressedDepthError(f"the PNG cannot be decoded: {error.err}") from error
    if image is None or image.dtype != np.uint16 or image.shape != (height, width):
        raise CompressedDepthError("the PNG cannot be decoded")
    decoded: np.ndarray = image
    return decoded


def _check_size(width: int, height: int) -> None:
    if not width or not height or width * height > MOST_PIXELS:
        raise CompressedDepthError(
            f"depth of {width}x{height} pixels; at least 1, at most {MOST_PIXELS} are decoded"
        )
