# SPDX-License-Identifier: Apache-2.0
"""Images between messages and NumPy; `pixels` and `compressed_images` convert what is in them.

Images are read as the middleware hands them over, without copying a pixel:
``rclpy.serialization.deserialize_message`` copies the pixels twice, out of the buffer and into a
Python array, of 1920x1080 pixels a millisecond and a half.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time as Stamp
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from bmp_ros.compressed_images import decode_compressed
from bmp_ros.pixels import ImageError, Pixels, RawImage, decode_raw
from bmp_ros.ros.compatibility import array_of_bytes

# The first two bytes of plain CDR, which is what all middlewares of ROS 2 write.
_BYTE_ORDERS = {b"\0\0": ">", b"\0\1": "<"}
LEAST_BYTES = 12
"""Of a message that begins with a header: the byte order and a stamp."""
_START = 4  # the length of what they stand in; the alignment counts from its end


@dataclass(frozen=True)
class ReceivedImage:
    """A ``sensor_msgs/Image`` by the same names; ``data`` is a view of what was received."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


def read_image(serialised: bytes) -> ReceivedImage | Image:
    """Read a serialised ``sensor_msgs/Image``; its pixels stay where they are.

    In an encoding other than plain CDR it is deserialised by rclpy.
    Raises ImageError when it ends before its pixels do.
    """
    order = _BYTE_ORDERS.get(serialised[:2])
    if order is None:
        return read_message(serialised, Image)
    try:
        stamp = stamp_of(serialised)
        frame_id, at = _string(serialised, _START + 8, order)
        at = _aligned(at)
        height, width = struct.unpack_from(f"{order}II", serialised, at)
        encoding, at = _string(serialised, at + 8, order)
        is_bigendian = serialised[at]
        at = _aligned(at + 1)
        step, size = struct.unpack_from(f"{order}II", serialised, at)
        data = memoryview(serialised)[at + 8 : at + 8 + size]
    except (struct.error, IndexError) as error:
        raise ImageError(f"a message of {len(serialised)} bytes is no whole image") from error
    if len(data) < size:
        raise ImageError(f"{size} bytes of pixels were announced, {len(data)} arrived")
    header = Header(stamp=stamp, frame_id=frame_id)
    return ReceivedImage(header, height, width, encoding, is_bigendian, step, data)


def read_message(serialised: bytes, kind: type) -> Any:
    """Deserialise a message. Raises ImageError for bytes that are none of this kind."""
    try:
        return deserialize_message(serialised, kind)
    except Exception as error:  # rclpy has no class of its own for what it cannot read
        raise ImageError(
            f"{len(serialised)} bytes are no {kind.__name__}: {error}; what publishes them does "
            "not speak this type"
        ) from error


def stamp_of(serialised: bytes) -> Stamp:
    """The stamp of a serialised message that begins with a header.

    CDR: 4 bytes that tell the byte order (the lowest bit of the second one set: little endian),
    then the header's seconds (int32) and nanoseconds (uint32).
    """
    order = "<" if serialised[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", serialised, _START)
    return Stamp(sec=seconds, nanosec=nanoseconds)


def stamp_ns(stamp: Stamp) -> int:
    """Nanoseconds of a stamp, which may be negative: ``rclpy.time.Time`` takes no such seconds."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def bgr_image(message: Image | ReceivedImage | CompressedImage) -> np.ndarray:
    """Return the image of a message: (H, W, 3) uint8 BGR; see `decode_image`."""
    return decode_image(message).image


def decode_image(message: Image | ReceivedImage | CompressedImage, least_bits: int = 8) -> Pixels:
    """Return the image of a message and what there is to say about it.

    The image of a ``bgr8`` message is a view into the message, its row padding left out; do not
    write to it. least_bits: see `pixels.to_8_bits`.
    Raises ImageError for malformed images and for encodings that are not converted.
    """
    if isinstance(message, CompressedImage):
        return decode_compressed(bytes(memoryview(message.data)), message.format, least_bits)
    return decode_raw(
        RawImage(
            message.encoding,
            message.width,
            message.height,
            message.step,
            bool(message.is_bigendian),
            message.data,
        ),
        least_bits,
    )


def image_message(header: Header, image: np.ndarray, encoding: str) -> Image:
    """Make a message of (H, W) or (H, W, C) uint8 or uint16 pixels; one copy."""
    image = np.ascontiguousarray(image)
    message = Image(header=header, encoding=encoding)
    message.height, message.width = image.shape[:2]
    message.step = image.strides[0]
    message.data = array_of_bytes(image)
    return message


def jpeg_message(header: Header, image: np.ndarray, quality: int) -> CompressedImage:
    """Compress a BGR image; ``quality`` from 1 to 100."""
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    message = CompressedImage(header=header, format="bgr8; jpeg compressed bgr8")
    message.data = array_of_bytes(jpeg)
    return message


def _string(serialised: bytes, at: int, order: str) -> tuple[str, int]:
    """A string, after whose length (uint32) a zero byte counts as well, and where it ends."""
    (size,) = struct.unpack_from(f"{order}I", serialised, at)
    end = at + 4 + size
    return serialised[at + 4 : max(end - 1, at + 4)].decode("utf-8", "replace"), end


def _aligned(at: int) -> int:
    return (at + 3) & ~3
