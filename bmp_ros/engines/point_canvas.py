# SPDX-License-Identifier: Apache-2.0
"""Geometry of the point segmenter: image, points, masks -> canvas; mask logits -> image.

The longer side of the image is scaled to a given length; the canvas is padded at the right and at
the bottom to multiples of 32. NumPy and OpenCV only: every backend of the network uses this file.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from bmp_ros.engines.crops import RGB_MEAN, RGB_STD
from bmp_ros.engines.letterbox import STRIDES, Letterbox

CELL = 4
"""Canvas pixels per cell of the mask logits."""


def point_letterbox(image_height: int, image_width: int, side: int) -> Letterbox:
    """Return how an image lies on its canvas: its longer side is ``side`` pixels long there."""
    scaled = Letterbox.fit(image_height, image_width, side)
    step = STRIDES[-1]
    width, height = (
        -(-length // step) * step for length in (scaled.resized_width, scaled.resized_height)
    )
    return replace(scaled, canvas=(width, height))


def segmenter_input(image: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """Return the image (H, W, 3) uint8 BGR as the network reads it: (1, 3, h, w) float32 RGB."""
    canvas = letterbox.apply(image)
    inputs = canvas[None, ..., ::-1].transpose(0, 3, 1, 2).astype(np.float32, order="C")
    inputs -= RGB_MEAN[:, None, None]
    inputs /= RGB_STD[:, None, None]
    return inputs


def points_to_canvas(points: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """Map points (..., 2) x y from image to canvas pixels; centres at integers in both; float32.

    Resizing aligns the pictures' borders, which lie half a pixel outside of the first centre.
    """
    return ((points + 0.5) * letterbox.scale - 0.5).astype(np.float32)


def masks_to_canvas(masks: np.ndarray | None, people: int, letterbox: Letterbox) -> np.ndarray:
    """Shrink masks (G, H, W) bool to the cells of the logits: (G, h / 4, w / 4) float32 shares.

    None stands for ``people`` masks without a pixel.
    """
    width, height = letterbox.canvas
    shares = np.zeros((people, height // CELL, width // CELL), np.float32)
    if masks is None:
        return shares
    canvas = np.zeros((height, width), np.uint8)
    inner = letterbox.resized_width, letterbox.resized_height
    for share, mask in zip(shares, masks, strict=True):
        # A cell is the mean of 16 samples; exact areas cost up to eight times as much.
        canvas[: inner[1], : inner[0]] = cv2.resize(
            mask.view(np.uint8) * np.uint8(255), inner, interpolation=cv2.INTER_LINEAR
        )
        share[:] = cv2.resize(canvas, shares.shape[:0:-1], interpolation=cv2.INTER_AREA)
    shares /= 255
    return shares


def masks_on_image(logits: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """Upsample logits (G, h / 4, w / 4) float32 of the canvas; (G, H, W) bool, where they are > 0.

    Bilinear; cells on the padding are interpolated with as the others are, and cut off.
    """
    height, width = letterbox.image_height, letterbox.image_width
    factor_x, factor_y = (CELL / scale for scale in letterbox.scale)
    masks = np.empty((len(logits), height, width), np.bool_)
    for mask, grid in zip(masks, logits, strict=True):
        # Without a target size, OpenCV uses the factors as they are instead of rounding them.
        full = cv2.resize(grid, None, fx=factor_x, fy=factor_y, interpolation=cv2.INTER_LINEAR)
        np.greater(full[:height, :width], 0, out=mask)
    return masks
