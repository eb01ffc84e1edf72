# SPDX-License-Identifier: Apache-2.0
"""Raw pixels of the encodings of ``sensor_msgs/image_encodings`` to BGR, without ROS.

Sizes are checked here before OpenCV sees them. ``bgr8`` is a view, everything else is converted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

import cv2
import numpy as np

MAX_SIDE = 32766
"""OpenCV's remapping and warping take no longer side."""
MAX_PIXELS = 1 << 26
"""67 million, 200 MB as BGR: a JPEG or PNG of a few kilobytes may claim any size, and the loop
keeps a mask of this size for every person."""

Buffer = bytes | bytearray | memoryview


class ImageError(ValueError):
    """An image message cannot be used; the message names encoding, sizes and what was expected."""


@dataclass(frozen=True)
class Pixels:
    """A decoded image.

    image: (H, W, 3) uint8 BGR. bits: significant bits per sample before the conversion.
    damage: what the decoder found broken, empty for a whole image. note: how an ambiguous
    encoding was read, empty for the others.
    """

    image: np.ndarray
    bits: int = 8
    damage: str = ""
    note: str = ""


# OpenCV's conversion to BGR by number of channels. A Bayer pattern is named in ROS after its first
# row, in OpenCV after the second and third pixel of its second row.
_PACKED: dict[str, tuple[int, int | None]] = {
    "bgr": (3, None),
    "rgb": (3, cv2.COLOR_RGB2BGR),
    "bgra": (4, cv2.COLOR_BGRA2BGR),
    "rgba": (4, cv2.COLOR_RGBA2BGR),
    "mono": (1, cv2.COLOR_GRAY2BGR),
}
_BAYER: dict[str, int] = {
    "bayer_rggb": cv2.COLOR_BayerBG2BGR,
    "bayer_bggr": cv2.COLOR_BayerRG2BGR,
    "bayer_gbrg": cv2.COLOR_BayerGR2BGR,
    "bayer_grbg": cv2.COLOR_BayerGB2BGR,
}
_UNNAMED = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}
_UNNAMED |= {"16UC1": "mono16", "16UC3": "bgr16", "16UC4": "bgra16"}
_YUV_422: dict[str, int] = {
    "yuv422": cv2.COLOR_YUV2BGR_UYVY,
    "uyvy": cv2.COLOR_YUV2BGR_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2BGR_YUYV,
    "yuyv": cv2.COLOR_YUV2BGR_YUYV,
}
# Planes: luma, then chroma of half the width and height; in nv24 of the same size.
_YUV_420: dict[str, int] = {
    "nv12": cv2.COLOR_YUV2BGR_NV12,
    "nv21": cv2.COLOR_YUV2BGR_NV21,
    "i420": cv2.COLOR_YUV2BGR_I420,
    "yv12": cv2.COLOR_YUV2BGR_YV12,
}
# ITU-R BT.601 with luma from 16 to 235, as OpenCV converts the other YUV encodings.
_BT601_TO_BGR = np.array(
    [
        [1.164, 2.018, 0.0, -276.928],
        [1.164, -0.391, -0.813, 135.488],
        [1.164, 0.0, 1.596, -222.912],
    ]
)
# What other programs call them; by their letters alone some are nearer to another one.
_OTHER_NAMES = {
    "i420": ("yuv420", "yuv420p", "yu12", "iyuv"),
    "nv12": ("yuv420sp",),
    "yuyv": ("yuyv422", "yuy2", "yuv422_yuyv"),
    "uyvy": ("uyvy422",),
    "nv24": ("yuv444sp",),
    "mono8": ("gray8", "grey8", "grey", "gray", "y8", "l8"),
    "mono16": ("y16", "gray16", "grey16"),
} | {f"bayer_{order}{bits}": (f"bayer{order[:2]}{bits}",)
     for order in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)}  # fmt: skip
_COMPRESSED = ("jpeg", "jpg", "mjpeg", "png", "webp", "tiff", "bmp")
_VIDEO = ("h264", "h265", "hevc", "av1", "vp8", "vp9", "mpeg4", "theora", "ffmpeg")
FLAT_ABOVE, FLAT_WITHIN = 0.25, 0.1
"""Shares of the range of 16-bit samples: all above the first and within the second are as good as
one grey. A dark image is not."""
_BIT_DEPTHS = (8, 10, 12, 14, 16)  # of image sensors

ENCODINGS = (
    *(name + bits for bits in ("8", "16") for name in (*_PACKED, *_BAYER)),
    *_UNNAMED,
    *_YUV_422,
    *_YUV_420,
    "nv24",
)
"""All encodings that are converted."""


@dataclass(frozen=True)
class RawImage:
    """Pixels as a message announces them. data: any contiguous buffer."""

    encoding: str
    width: int
    height: int
    step: int
    big_endian: bool
    data: Buffer

    def __str__(self) -> str:
        return (
            f"encoding {self.encoding!r}, {self.width}x{self.height} pixels, step {self.step}, "
            f"{len(memoryview(self.data).cast('B'))} bytes"
        )


def decode_raw(raw: RawImage, least_bits: int = 8) -> Pixels:
    """Convert to BGR; the image of ``bgr8`` is a view into ``raw.data``: do not write to it.

    least_bits: samples of 16 bits are taken to have at least so many significant ones; see
    `to_8_bits`.
    Raises ImageError for unknown encodings and for sizes that contradict each other.
    """
    encoding = _UNNAMED.get(raw.encoding, raw.encoding)
    if encoding not in ENCODINGS:
        raise ImageError(f"{raw}: {_why_not(raw.encoding)}")
    check_sides(raw.width, raw.height, str(raw))
    note = ""
    if encoding in _YUV_422:
        _require_even(raw, width=True, height=False)
        return Pixels(cv2.cvtColor(_view(raw, 2), _YUV_422[encoding]))
    if encoding in _YUV_420:
        return Pixels(cv2.cvtColor(_planes_420(raw), _YUV_420[encoding]))
    if encoding == "nv24":
        return Pixels(cv2.transform(_planes_444(raw), _BT601_TO_BGR))
    name, deep = encoding.removesuffix("16").removesuffix("8"), encoding.endswith("16")
    channels, conversion = _PACKED.get(name, (1, _BAYER.get(name)))
    pixels, bits = _view(raw, channels, deep=deep), 8
    if deep:
        samples = pixels
        pixels, bits = to_8_bits(samples, least_bits)
        note = doubts(raw.encoding, samples, bits)
    if name in _BAYER:
        return Pixels(demosaic(pixels, name), bits, note=note)
    image = pixels if conversion is None else cv2.cvtColor(pixels, conversion)
    return Pixels(image, bits, note=note)


def to_8_bits(samples: np.ndarray, least_bits: int = 8) -> tuple[np.ndarray, int]:
    """Scale uint16 samples (H, W) or (H, W, C) to uint8; also return their significant bits.

    Sensors of 10, 12 or 14 bits are sent in 16 without a word about it: the depth is the least
    of 8, 10, 12, 14 and 16 bits, and at least ``least_bits``, that holds the largest sample. Give
    the largest depth seen of a camera, so that its dark images are not brightened.
    """
    largest = int(samples.max())
    bits = next(b for b in _BIT_DEPTHS if b >= least_bits and largest < 1 << b)
    scaled = cv2.convertScaleAbs(np.ascontiguousarray(samples), alpha=255 / ((1 << bits) - 1))
    return scaled.reshape(samples.shape), bits


def doubts(encoding: str, samples: np.ndarray, bits: int) -> str:
    """Say what uint16 samples (H, W, …) may be instead of an image: depth, or temperatures, which
    are all nearly the same, far from 0.

    Looks at every 16th pixel. The text has no numbers: it is said once.
    """
    if encoding == "16UC1":
        return "16UC1 is read as a grey image; a depth image belongs in depth_topic"
    some, full = samples[::4, ::4], (1 << bits) - 1
    least, largest = int(some.min()), int(some.max())
    if least < FLAT_ABOVE * full or largest - least > FLAT_WITHIN * full:
        return ""
    return (
        "the values of 16 bits differ by a small share of their range only: the image is nearly "
        "uniform, and people in it are hardly found; let a thermal camera's driver send 8 bits "
        "with gain control"
    )


def demosaic(mosaic: np.ndarray, pattern: str) -> np.ndarray:
    """Interpolate a Bayer mosaic (H, W) uint8; ``pattern`` such as ``bayer_rggb``.

    Raises ImageError below 3x3 pixels, which OpenCV would paint black.
    """
    height, width = mosaic.shape
    if min(height, width) < 3:
        raise ImageError(f"a {pattern} mosaic of {width}x{height} pixels; at least 3x3 are needed")
    return cv2.cvtColor(mosaic, _BAYER[pattern])


def bayer_pattern(encoding: str) -> str:
    """The pattern of a Bayer encoding such as ``bayer_rggb8``; empty for any other encoding."""
    name = encoding.removesuffix("16").removesuffix("8")
    return name if name in _BAYER and name != encoding else ""


def is_rgb_or_bgr(encoding: str) -> bool:
    """Whether an encoding has colours in the order RGB or BGR, of 8 or 16 bits, alpha or not."""
    name = encoding.removesuffix("16").removesuffix("8")
    return name in _PACKED and name not in ("mono", encoding)


def check_sides(width: int, height: int, what: str) -> None:
    """Raise ImageError for an image without pixels or beyond `MAX_SIDE` or `MAX_PIXELS`."""
    if width == 0 or height == 0:
        raise ImageError(f"{what}: it has no pixels")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{what}: at most {MAX_SIDE} pixels per side can be processed")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{what}: {width}x{height} are {width * height} pixels, at most {MAX_PIXELS} are "
            "processed: let the driver send smaller images"
        )


def _require_even(raw: RawImage, *, width: bool, height: bool) -> None:
    if (width and raw.width % 2) or (height and raw.height % 2):
        sides = "width and height" if height else "width"
        raise ImageError(f"{raw}: {raw.encoding} needs an even {sides}")


def _view(raw: RawImage, channels: int, *, deep: bool = False) -> np.ndarray:
    """(H, W, C), or (H, W) for one channel: uint8 on the message's own memory, or uint16."""
    item = 2 if deep else 1
    row = raw.width * channels * item
    if raw.step < row:
        raise ImageError(
            f"{raw}: a row of {raw.width} pixels needs a step of at least {row} bytes"
        )
    # The last row needs no padding: some drivers leave it out.
    _require_bytes(raw, raw.step * (raw.height - 1) + row)
    kind = np.dtype("u1" if not deep else ">u2" if raw.big_endian else "<u2")
    shape, strides = (raw.height, raw.width, channels), (raw.step, channels * item, item)
    view: np.ndarray = np.ndarray(shape, kind, memoryview(raw.data).cast("B"), strides=strides)
    if deep and (not kind.isnative or raw.step % 2):
        view = view.astype(np.uint16)
    return view[:, :, 0] if channels == 1 else view


def _plane(raw: RawImage, start: int, height: int, width: int, step: int) -> np.ndarray:
    """(height, width) bytes of a plane that begins at ``start``."""
    buffer = memoryview(raw.data).cast("B")
    return np.ndarray((height, width), np.uint8, buffer, offset=start, strides=(step, 1))


def _luma_step(raw: RawImage, bytes_per_pixel: float) -> int:
    """Bytes per row of luma. Some drivers announce the bytes of all planes per row instead."""
    if raw.step < raw.width:
        raise ImageError(
            f"{raw}: a row of {raw.width} pixels of luma needs a step of at least {raw.width} "
            "bytes"
        )
    size = len(memoryview(raw.data).cast("B"))
    whole = int(raw.width * bytes_per_pixel)
    if raw.step == whole and whole * raw.height <= size < int(raw.step * bytes_per_pixel) * (
        raw.height
    ):
        return raw.width
    return raw.step


def _planes_420(raw: RawImage) -> np.ndarray:
    """(H * 3 / 2, W): luma above chroma, as OpenCV takes it; a view where rows are not padded."""
    _require_even(raw, width=True, height=True)
    width, height, step = raw.width, raw.height, _luma_step(raw, 1.5)
    if raw.encoding in ("nv12", "nv21"):
        rows = height * 3 // 2
        _require_bytes(raw, step * (rows - 1) + width)
        return _plane(raw, 0, rows, width, step)
    if step % 2:
        raise ImageError(f"{raw}: {raw.encoding} needs an even step")
    half = step // 2
    _require_bytes(raw, step * height + half * (height - 1) + width // 2)
    chroma = [
        _plane(raw, step * height + half * (height // 2) * number, height // 2, width // 2, half)
        for number in (0, 1)
    ]
    rest = np.concatenate([plane.reshape(-1) for plane in chroma]).reshape(height // 2, width)
    return np.concatenate([_plane(raw, 0, height, width, step), rest])


def _planes_444(raw: RawImage) -> np.ndarray:
    """(H, W, 3) YUV of nv24: luma, then pairs of chroma whose rows are twice as long."""
    width, height, step = raw.width, raw.height, _luma_step(raw, 3)
    _require_bytes(raw, step * height + 2 * step * (height - 1) + 2 * width)
    luma = _plane(raw, 0, height, width, step)
    chroma = _plane(raw, step * height, height, 2 * width, 2 * step).reshape(height, width, 2)
    return np.dstack([luma, chroma])


def _require_bytes(raw: RawImage, needed: int) -> None:
    if len(memoryview(raw.data).cast("B")) < needed:
        raise ImageError(f"{raw}: at least {needed} bytes are needed")


def _why_not(encoding: str) -> str:
    """Why an encoding cannot be converted and what would help."""
    low = encoding.lower()
    if not encoding:
        return "the encoding is empty; the camera's driver has to set it"
    named = {each.lower(): each for each in ENCODINGS}.get(low.strip())
    if named is not None:
        return f"encodings are case-sensitive; the driver has to say {named!r}"
    if any(name in low for name in _VIDEO):
        return "a video stream, which is not decoded here; decode it in a node in between"
    if any(name in low for name in _COMPRESSED):
        return (
            "compressed data in a sensor_msgs/Image; it has to be published as "
            "sensor_msgs/CompressedImage (image_transport:=compressed)"
        )
    if re.fullmatch(r"(32|64)fc[234]", low):
        return (
            "colours as floating numbers, whose range is not known; publish 8 bits (rgb8 or bgr8, "
            "0 to 255)"
        )
    if low[:2] in ("32", "64") or "sc" in low:
        return (
            "neither a colour nor a grey image of 8 or 16 bits; if it is a depth image, give its "
            "topic to depth_topic"
        )
    known_as = {key: name for name, keys in _OTHER_NAMES.items() for key in keys}
    near = [known_as[low]] if low in known_as else get_close_matches(low, ENCODINGS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}Encodings that are converted: {', '.join(ENCODINGS)}"
