# SPDX-License-Identifier: Apache-2.0
"""Colours of clothes: one histogram above the hips and one below, and how alike two are."""

from __future__ import annotations

import cv2
import numpy as np

from bmp_ros.tracking.association import Pixels

_HUES, _SATURATIONS, _GREYS = 12, 2, 5
_PART = _HUES * _SATURATIONS + _GREYS
BINS = 2 * _PART
_LEAST_SATURATION, _LEAST_VALUE = 45, 35
_VIVID = 120
_HUE_BINS = (np.arange(256) * _HUES // 180 * _SATURATIONS).astype(np.uint8)
_GREY_BINS = (_HUES * _SATURATIONS + np.arange(256) * _GREYS // 256).astype(np.uint8)


def colour_histograms(image: np.ndarray, pixels: Pixels, waists: np.ndarray) -> np.ndarray:
    """Histograms of N people, (N, BINS) float64; each half sums to 0.5, or 0 without a pixel.

    image: BGR uint8 (H, W, 3). pixels: of the masks. waists: (N,) y that divides a body in two.
    """
    count = len(waists)
    if not len(pixels.places):
        return np.zeros((count, BINS))
    if image.flags.c_contiguous:  # three times as fast
        bgr = image.reshape(1, -1, 3).take(pixels.places, axis=1)
    else:
        x, y = pixels.points.T.astype(np.int64)
        bgr = image[y, x][None]
    hue, saturation, value = np.ascontiguousarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)[0].T)
    bins = _HUE_BINS.take(hue) + (saturation > _VIVID)
    grey = (saturation < _LEAST_SATURATION) | (value < _LEAST_VALUE)
    bins = np.where(grey, _GREY_BINS.take(value), bins)
    bins += np.uint8(_PART) * (pixels.points[:, 1] > np.repeat(waists, pixels.areas))
    slots = pixels.owners * BINS + bins
    counts = np.bincount(slots, minlength=count * BINS).reshape(count, 2, _PART).astype(float)
    totals = counts.sum(axis=2, keepdims=True)
    return (0.5 * counts / np.maximum(totals, 1)).reshape(count, BINS)


def appearance_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(T, N) in [0, 1] for histograms (T, BINS) and (N, BINS): 1 - Hellinger distance.

    The Hellinger distance is sqrt(1 - Bhattacharyya coefficient). NaN where one has no pixel at
    all; where only one half is known of one, that half is compared.
    """
    roots = [np.sqrt(part) for part in (first, second)]
    halves = [part.reshape(len(part), 2, _PART).any(axis=2).astype(float) for part in roots]
    total = 0.5 * (halves[0] @ halves[1].T)
    with np.errstate(divide="ignore", invalid="ignore"):
        coefficient = (roots[0] @ roots[1].T) / total
    return 1 - np.sqrt(np.clip(1 - coefficient, 0, 1))
