# SPDX-License-Identifier: Apache-2.0
"""One camera's image as another one with the same viewpoint and another lens would show it.

A depth image that is registered to the rectified colour image lies, pixel by pixel, elsewhere
than the raw colour image does. No scale and shift leads from one to the other; a map of pixels
does.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from bmp_ros.depth.camera_model import CameraModel

LARGEST_SIDE = 32766
"""Pixels per side that OpenCV's ``remap`` can address."""


def seen_by(
    target: CameraModel, image: np.ndarray, source: CameraModel, unknown: float
) -> np.ndarray:
    """Return ``image`` (h, w), taken by ``source``, in the pixels of ``target``: (H, W).

    The nearest pixel is taken, none is mixed; what ``source`` does not show becomes ``unknown``.
    uint8, uint16 or floating (float32 comes back for what is neither float32 nor 64). The map is
    computed once for each pair of cameras.
    Raises ValueError for an image of another size than its calibration's, or of more than
    `LARGEST_SIDE` pixels per side.
    """
    if image.shape != (source.height, source.width):
        raise ValueError(
            f"the image is {image.shape[1]}x{image.shape[0]} pixels, its calibration is of "
            f"{source.width}x{source.height}"
        )
    if image.dtype.kind == "f" and image.dtype.itemsize not in (4, 8):
        image = image.astype(np.float32)  # OpenCV knows no other
    if max(target.width, target.height, *image.shape) > LARGEST_SIDE:
        raise ValueError(f"images of more than {LARGEST_SIDE} pixels per side cannot be mapped")
    result: np.ndarray = cv2.remap(
        image, *_maps(target, source), cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT, borderValue=unknown,
    )  # fmt: skip
    return result


@lru_cache(maxsize=8)
def _maps(target: CameraModel, source: CameraModel) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of ``target`` lies in ``source``: x and y, (H, W) float32 each."""
    columns, rows = np.meshgrid(np.arange(target.width), np.arange(target.height))
    places = source.project(target.rays(np.stack([columns, rows], axis=-1)))
    places = np.clip(np.nan_to_num(places, nan=-2.0), -2, 2 * LARGEST_SIDE).astype(np.float32)
    return np.ascontiguousarray(places[..., 0]), np.ascontiguousarray(places[..., 1])
