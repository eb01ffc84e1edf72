# SPDX-License-Identifier: Apache-2.0
"""Geometry of SAM 2.1 without torch: image -> square input, prompts -> input, logits -> masks.

The ratio of the sides is not kept. Resampling is bilinear with antialiasing where the image
shrinks, as in sam2 (``torch.nn.functional.interpolate`` with ``antialias=True``).
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from bmp_ros.engines.crops import RGB_MEAN, RGB_STD


def sam2_input(image: np.ndarray, side: int) -> np.ndarray:
    """Return an image (H, W, 3) uint8 BGR as the encoder reads it: (1, 3, side, side) float32."""
    resized = _resize_rows(image.astype(np.float32), side)
    resized = _resize_rows(resized.transpose(1, 0, 2), side).transpose(1, 0, 2)
    inputs = resized[None, ..., ::-1].transpose(0, 3, 1, 2).copy()
    inputs -= RGB_MEAN[:, None, None]
    inputs /= RGB_STD[:, None, None]
    return inputs


def points_to_input(points: np.ndarray, width: int, height: int, side: int) -> np.ndarray:
    """Map points (..., 2) x y from pixels of the image to pixels of the input, as sam2 does."""
    image_size = np.array([width, height], np.float32)
    return points.astype(np.float32) / image_size * np.float32(side)


def masks_of_size(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    """Upsample logits (G, h, w) float32 of the whole image; (G, H, W) bool, where they are > 0."""
    masks = np.empty((len(logits), height, width), np.bool_)
    for mask, grid in zip(masks, logits, strict=True):
        full = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        np.greater(full, 0, out=mask)
    return masks


def _resize_rows(image: np.ndarray, length: int) -> np.ndarray:
    """Return the image (H, W, 3) float32 with ``length`` rows."""
    indices, weights = _taps(len(image), length)
    resized = image[indices[0]] * weights[0, :, None, None]
    for index, weight in zip(indices[1:], weights[1:], strict=True):
        resized += image[index] * weight[:, None, None]
    return resized


@lru_cache(maxsize=8)
def _taps(before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices (T, after) into ``before`` pixels, and weights (T, after) float32.

    A triangle around each new pixel's centre, as wide as the pixel (at least as one old one).
    """
    scale = before / after
    reach = max(scale, 1.0)
    centres = (np.arange(after) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.int64), before)
    indices = first + np.arange((last - first).max())[:, None]
    weights = np.maximum(1 - np.abs((indices - centres + 0.5) / reach), 0)
    weights[indices >= last] = 0
    weights /= weights.sum(axis=0)
    return np.minimum(indices, before - 1), weights.astype(np.float32)
