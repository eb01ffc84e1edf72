# SPDX-License-Identifier: Apache-2.0
"""Image files to BGR arrays and back, whatever alphabet their path is written in."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class UnreadableImageError(ValueError):
    """A file is there but is no image; the message names it."""


def read_image(path: Path, *, orientation: bool = True) -> np.ndarray:
    """Read an image as BGR uint8 (H, W, 3); grey ones and those with alpha or 16 bits as well.

    orientation: turn the image as its EXIF tag says, as viewers do.
    Raises OSError when the file cannot be opened, UnreadableImageError when it is no whole image.
    """
    flags = cv2.IMREAD_COLOR | (0 if orientation else cv2.IMREAD_IGNORE_ORIENTATION)
    # Not cv2.imread, to which a missing file is the same as a broken one.
    encoded = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        image = cv2.imdecode(encoded, flags) if encoded.size else None
    except cv2.error as error:  # more pixels than OpenCV allows
        raise UnreadableImageError(f"{path}: {' '.join(str(error).split())}") from error
    if image is None:
        raise UnreadableImageError(
            f"{path} ({encoded.size} bytes) is no image that OpenCV can read "
            f"({', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES)})"
        )
    return image


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a BGR uint8 image (H, W, 3) in the format of the path's suffix.

    Raises OSError when it cannot be written, ValueError for a suffix of no image format.
    """
    try:
        _, encoded = cv2.imencode(path.suffix, image)
    except cv2.error as error:
        raise ValueError(f"{path}: no image format is called {path.suffix!r}") from error
    path.write_bytes(encoded.tobytes())
