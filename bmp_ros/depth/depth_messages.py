# SPDX-License-Identifier: Apache-2.0
"""Messages with depth images to NumPy, whichever library has read them."""

from __future__ import annotations

from typing import Any

import numpy as np

from bmp_ros.depth.compressed_depth import (
    CompressedDepthError,
    decode_compressed_depth,
    decode_png,
)
from bmp_ros.pixels import ImageError

_TYPES = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
"""Encodings of REP 118: whole millimetres, or metres."""


def depth_image(message: Any) -> np.ndarray:
    """Return the depth of a message, (h, w): uint16 millimetres or float32 metres.

    message: any object with the fields of sensor_msgs' Image or CompressedImage.
    A view into the message where its bytes are in this machine's order; do not write to it.
    Raises ImageError for another encoding, for sizes that do not fit and for damaged data.
    """
    if hasattr(message, "format"):
        return _compressed_depth(message)
    if message.encoding not in _TYPES:
        raise ImageError(
            f"encoding {message.encoding!r} is no depth; use {', '.join(_TYPES)} (REP 118)"
        )
    kind = np.dtype(_TYPES[message.encoding])
    height, width, step = message.height, message.width, message.step
    row = width * kind.itemsize
    if height == 0 or width == 0 or step < row or step % kind.itemsize:
        raise ImageError(
            f"depth of {width}x{height} pixels in {message.encoding} with a step of {step} "
            f"bytes; a row needs at least {row}, in whole pixels"
        )
    if len(message.data) < step * (height - 1) + row:
        raise ImageError(
            f"depth of {width}x{height} pixels and step {step} has {len(message.data)} bytes, "
            f"at least {step * (height - 1) + row} are needed"
        )
    ordered = kind.newbyteorder(">" if message.is_bigendian else "<")
    buffer = memoryview(message.data).cast("B")
    view: np.ndarray = np.ndarray((height, width), ordered, buffer, strides=(step, kind.itemsize))
    return view if ordered.isnative else view.astype(kind)


def why_unregistered(frame: str, depth_frame: str) -> str:
    """Say why depth images may not be registered to images, by the frames in their headers.

    Registered means: as the camera of the images would see depth, so in its frame. Empty where
    the frames are the same, or one is not named.
    """
    frame, depth_frame = frame.lstrip("/"), depth_frame.lstrip("/")
    if not frame or not depth_frame or frame == depth_frame:
        return ""
    return (
        f"they are in the frame {depth_frame!r}, the images in {frame!r}: depth that is not "
        "registered to the images gives wrong metres (RealSense: align_depth.enable:=true and "
        "aligned_depth_to_color; others: depth_image_proc's register node). If it is registered, "
        "let its driver name the images' frame"
    )


def _compressed_depth(message: Any) -> np.ndarray:
    """Decode what compressed_depth_image_transport published.

    Its format is ``16UC1; compressedDepth png``, or rvl; older ones name no codec. A PNG of whole
    millimetres may also come from compressed_image_transport, ``16UC1; png compressed``.
    """
    encoding, _, rest = message.format.partition(";")
    words = rest.split()
    is_png = words[:2] == ["png", "compressed"] and encoding.strip() in ("16UC1", "mono16")
    if words[:1] != ["compressedDepth"] and not is_png:
        raise ImageError(
            f"format {message.format!r} is no depth; compressed depth is "
            "'16UC1; compressedDepth png' or the like: set depth_topic to the topic that ends in "
            "/compressedDepth"
        )
    try:
        if is_png:
            return decode_png(memoryview(message.data).cast("B"))
        return decode_compressed_depth(
            memoryview(message.data), encoding.strip(), words[1] if len(words) > 1 else "png"
        )
    except CompressedDepthError as error:
        raise ImageError(f"format {message.format!r}: {error}") from error
