# SPDX-License-Identifier: Apache-2.0
"""Compressed images to BGR, as image_transport writes them, without ROS."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

from bmp_ros.image_size import announced_size, png_breaks_off
from bmp_ros.jpeg_data import decode_as_stored, decode_jpeg, jpeg_header, whole_jpeg
from bmp_ros.pixels import (
    ImageError,
    Pixels,
    bayer_pattern,
    check_sides,
    demosaic,
    doubts,
    is_rgb_or_bgr,
    to_8_bits,
)

_PNG_START = b"\x89PNG\r\n\x1a\n"
_STARTS = (b"\xff\xd8\xff", _PNG_START, b"RIFF", b"BM", b"II", b"MM")
_SEARCHED = 4096  # bytes before a JPEG that are skipped


def decode_compressed(data: bytes, form: str, least_bits: int = 8) -> Pixels:
    """Decode JPEG, PNG, WebP, BMP or TIFF.

    form: the message's ``format``, such as ``rgb8; jpeg compressed bgr8``. As in image_transport,
    what follows ``compressed`` is the order of the colours in the file, and a Bayer mosaic that
    was compressed as grey is interpolated. least_bits: see `pixels.to_8_bits`.
    Raises ImageError when there is nothing to decode.
    """
    if "compressedDepth" in form:
        raise ImageError(
            f"format {form!r} is a depth image, a colour image is needed; give its topic to "
            "depth_topic"
        )
    whole, damage = data, ""
    if b"\xff\xd8\xff" in data[:_SEARCHED] and not data.startswith(_PNG_START):
        whole = whole_jpeg(data)
    # What a decoder may be asked to allocate; other formats of OpenCV are in no message of ROS.
    facts = jpeg_header(whole)
    size = None
    if facts is not None:  # a whole header names it where decoders look
        size = (facts.width, facts.height)
    elif whole.startswith(_STARTS):
        size = announced_size(whole)
    if size is None:
        raise ImageError(f"{len(data)} bytes of format {form!r} {_why_not(data, form)}")
    check_sides(*size, f"format {form!r}")
    if png_breaks_off(whole):
        raise ImageError(f"{len(data)} bytes of format {form!r} are a PNG that ends too early")
    if facts is None and whole.startswith(_PNG_START):
        damage = _png_damage(whole)
    if facts is not None:
        image, damage = decode_jpeg(whole, facts)
    else:
        image = decode_as_stored(whole)
    if image is None:
        raise ImageError(f"{len(data)} bytes of format {form!r} {_why_not(data, form)}")
    return _to_bgr(image, form, damage, least_bits)


def _png_damage(data: bytes) -> str:
    """What is broken in a PNG that is there to its end."""
    at = len(_PNG_START)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        if zlib.crc32(body, zlib.crc32(kind)) != struct.unpack_from(">I", data, at + 8 + size)[0]:
            return f"the checksum of a part of the PNG ({kind!r}) is wrong"
        if kind == b"IEND":
            return ""
        at += 12 + size
    return ""


def _to_bgr(image: np.ndarray, form: str, damage: str, least_bits: int) -> Pixels:
    encoding, named, stored = (part.strip() for part in form.partition(";"))
    bits, note = 8, ""
    if image.dtype == np.uint16:
        samples = image
        image, bits = to_8_bits(samples, least_bits)
        note = doubts(encoding, samples, bits)
    elif image.dtype != np.uint8:
        raise ImageError(f"format {form!r} has pixels of {image.dtype}, 8 or 16 bits are needed")
    check_sides(image.shape[1], image.shape[0], f"format {form!r}")
    pattern = bayer_pattern(encoding)
    if image.ndim == 2:
        if pattern:
            return Pixels(demosaic(image, pattern), bits, damage, note)
        return Pixels(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), bits, damage, note)
    if named and is_rgb_or_bgr(encoding) and "compressed bgr" not in stored:
        # Older writers gave OpenCV, which takes BGR, their RGB: red and blue are exchanged.
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return Pixels(image, bits, damage, note)


def _why_not(data: bytes, form: str) -> str:
    if not data:
        return "are no image: the message is empty"
    if any(name in form.lower() for name in ("h264", "h265", "hevc", "av1", "vp9", "theora")):
        return "are a video stream, which is not decoded here; decode it in a node in between"
    return "are no whole JPEG, PNG, WebP, BMP or TIFF image"
