# SPDX-License-Identifier: Apache-2.0
"""Images between messages and NumPy: ``bgr8`` as a view, everything else with one conversion.

Images are read as the middleware hands them over, without copying a pixel:
``rclpy.serialization.deserialize_message`` copies the pixels twice, out of the buffer and into a
Python array, of 1920x1080 pixels a millisecond and a half.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np
from builtin_interfaces.msg import Time as Stamp
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from bmp_ros.ros.compatibility import array_of_bytes, how_to_install

# The first two bytes of plain CDR, which is what all middlewares of ROS 2 write.
_BYTE_ORDERS = {b"\0\0": ">", b"\0\1": "<"}
_START = 4  # the length of what they stand in; the alignment counts from its end

# Bytes per pixel and OpenCV's conversion to BGR. A Bayer pattern is named in ROS after its first
# row, in OpenCV after the second and third pixel of its second row.
_DIRECT: dict[str, tuple[int, int | None]] = {
    "bgr8": (3, None),
    "8UC3": (3, None),
    "rgb8": (3, cv2.COLOR_RGB2BGR),
    "bgra8": (4, cv2.COLOR_BGRA2BGR),
    "8UC4": (4, cv2.COLOR_BGRA2BGR),
    "rgba8": (4, cv2.COLOR_RGBA2BGR),
    "mono8": (1, cv2.COLOR_GRAY2BGR),
    "8UC1": (1, cv2.COLOR_GRAY2BGR),
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2BGR),
    "yuv422": (2, cv2.COLOR_YUV2BGR_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2BGR_YUYV),
    "yuyv": (2, cv2.COLOR_YUV2BGR_YUYV),
}


class ImageError(ValueError):
    """An image message cannot be used; the message names encoding, sizes and what was expected."""


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

    def to_message(self) -> Image:
        """The same as a message of its own; one copy."""
        message = Image(header=self.header, encoding=self.encoding)
        message.height, message.width = self.height, self.width
        message.is_bigendian, message.step = self.is_bigendian, self.step
        message.data = array_of_bytes(np.frombuffer(self.data, np.uint8))
        return message


def read_image(serialised: bytes) -> ReceivedImage | Image:
    """Read a serialised ``sensor_msgs/Image``; its pixels stay where they are.

    In an encoding other than plain CDR it is deserialised by rclpy.
    Raises ImageError when it ends before its pixels do.
    """
    order = _BYTE_ORDERS.get(serialised[:2])
    if order is None:
        return deserialize_message(serialised, Image)
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
    """Return the picture of a message: (H, W, 3) uint8 BGR.

    The image of a ``bgr8`` message is a view into the message, its row padding left out; do not
    write to it. Encodings that are not in the table above go through cv_bridge.
    Raises ImageError for what is malformed, or of an encoding that nobody here can convert.
    """
    if isinstance(message, CompressedImage):
        return _decode_compressed(message)
    if message.encoding not in _DIRECT:
        return _through_cv_bridge(message)
    channels, conversion = _DIRECT[message.encoding]
    pixels = _view(message, channels)
    if conversion is None:
        return pixels
    try:
        return cv2.cvtColor(pixels, conversion)
    except cv2.error as error:  # an odd width in YUV 4:2:2, a Bayer image of one row
        raise ImageError(f"{_described(message)}: {error.err}") from error


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


def _view(message: Image | ReceivedImage, channels: int) -> np.ndarray:
    """(H, W, channels) uint8, or (H, W) for one channel, on the message's own memory."""
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        raise ImageError(f"{_described(message)}: it has no pixels")
    if step < width * channels:
        raise ImageError(
            f"{_described(message)}: a row of {width} pixels needs a step of at least "
            f"{width * channels} bytes"
        )
    # The last row needs no padding: some drivers leave it out.
    needed = step * (height - 1) + width * channels
    if len(message.data) < needed:
        raise ImageError(f"{_described(message)}: at least {needed} bytes are needed")
    shape, strides = (height, width, channels), (step, channels, 1)
    view: np.ndarray = np.ndarray(
        shape, np.uint8, memoryview(message.data).cast("B"), strides=strides
    )
    return view[:, :, 0] if channels == 1 else view


def _decode_compressed(message: CompressedImage) -> np.ndarray:
    if "compressedDepth" in message.format:
        raise ImageError(f"format {message.format!r} is a depth image, a colour image is needed")
    data = np.frombuffer(message.data, np.uint8)
    # OpenCV's decoders complain on stderr and return nothing, or raise for data of zero length.
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise ImageError(
            f"{data.size} bytes of format {message.format!r} are no image that OpenCV can decode"
        )
    return image


def _through_cv_bridge(message: Image | ReceivedImage) -> np.ndarray:
    try:
        from cv_bridge import CvBridge
    except (ImportError, AttributeError) as error:  # AttributeError: built for another NumPy
        raise ImageError(
            f"{_described(message)}: besides {', '.join(_DIRECT)}, images are converted by "
            f"cv_bridge, which cannot be imported ({error}): {how_to_install('cv_bridge')}"
        ) from error
    try:
        whole = message if isinstance(message, Image) else message.to_message()
        return np.asarray(CvBridge().imgmsg_to_cv2(whole, desired_encoding="bgr8"))
    except Exception as error:  # its own CvBridgeError, cv2.error, TypeError, ValueError, …
        raise ImageError(f"{_described(message)}: cv_bridge: {error}") from error


def _described(message: Image | ReceivedImage) -> str:
    return (
        f"encoding {message.encoding!r}, {message.width}x{message.height} pixels, step "
        f"{message.step}, {len(message.data)} bytes"
    )


def _string(serialised: bytes, at: int, order: str) -> tuple[str, int]:
    """A string, after whose length (uint32) a zero byte counts as well, and where it ends."""
    (size,) = struct.unpack_from(f"{order}I", serialised, at)
    end = at + 4 + size
    return serialised[at + 4 : max(end - 1, at + 4)].decode("utf-8", "replace"), end


def _aligned(at: int) -> int:
    return (at + 3) & ~3
