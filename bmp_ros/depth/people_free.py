# SPDX-License-Identifier: Apache-2.0
"""Depth images without the people: for maps and costmaps that should not remember them."""

from __future__ import annotations

import cv2
import numpy as np

from bmp_ros.loop.masks import mask_rectangles


def depth_without_people(depth: np.ndarray, masks: np.ndarray, margin: int) -> np.ndarray:
    """A copy of ``depth`` in which every person is unknown: 0, or NaN where it is floating.

    depth: (h, w) uint16 or floating. masks: (N, H, W) bool, of the same size or another one of
    the same view. margin: pixels of the image by which masks are grown, for outlines that are a
    little tight. Raises ValueError for a negative margin.
    """
    if margin < 0:
        raise ValueError(f"margin must be >= 0 pixels, got {margin}")
    result: np.ndarray = depth.copy()
    unknown = np.nan if depth.dtype.kind == "f" else 0
    height, width = masks.shape[1:]
    scale = np.array([depth.shape[1] / width, depth.shape[0] / height])
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    for mask, (x, y, w, h) in zip(masks, mask_rectangles(masks), strict=True):
        if not w:
            continue
        left, top = max(0, x - margin), max(0, y - margin)
        right, bottom = min(width, x + w + margin), min(height, y + h + margin)
        grown = mask[top:bottom, left:right].view(np.uint8)
        if margin:
            grown = cv2.dilate(grown, kernel)
        if depth.shape == masks.shape[1:]:
            result[top:bottom, left:right][grown.view(bool)] = unknown
            continue
        low = np.floor(np.array([left, top]) * scale).astype(int)
        high = np.ceil(np.array([right, bottom]) * scale).astype(int)
        # Whatever part of a depth pixel the person covers makes it unknown.
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        covered = cv2.resize(grown.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
        target = result[low[1] : high[1], low[0] : high[0]]
        target[covered[: target.shape[0], : target.shape[1]]] = unknown
    return result
