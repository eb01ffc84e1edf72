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


def colour_histograms(image: np.ndarray, pixels: Pixels, waists: np.ndarray) -> np.ndarray:
    """Histograms of N people, (N, BINS) float64; each half sums to 0.5, or 0 without a pixel.

    image: BGR uint8 (H, W, 3). pixels: of the masks. waists: (N,) y that divides a body in two.
    """
    count, owners = len(waists), pixels.owners
    height, width = pixels.labels.shape
    coarse = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
    hsv = cv2.cvtColor(coarse, cv2.COLOR_BGR2HSV).reshape(-1, 3)
    x, y = (pixels.points.astype(np.int64) // pixels.stride).T
    hue, saturation, value = hsv[y * width + x].T.astype(np.int64)
    bins = (hue * _HUES // 180) * _SATURATIONS + (saturation > _VIVID)
    grey = (saturation < _LEAST_SATURATION) | (value < _LEAST_VALUE)
    bins = np.where(grey, _HUES * _SATURATIONS + value * _GREYS // 256, bins)
    lower = pixels.points[:, 1] > waists[owners]
    slots = owners * BINS + lower * _PART + bins
    counts = np.bincount(slots, minlength=count * BINS).reshape(count, 2, _PART).astype(float)
    totals = counts.sum(axis=2, keepdims=True)
    return (0.5 * counts / np.maximum(totals, 1)).reshape(count, BINS)


def appearance_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(T, N) in [0, 1] for histograms (T, BINS) and (N, BINS): 1 - Hellinger distance.

    The Hellinger distance is sqrt(1 - Bhattacharyya coefficient). NaN where one has no pixel at
    all; where only one half is known of one, that half is compared.
    """
    halves = [np.sqrt(part.reshape(len(part), 2, _PART)) for part in (first, second)]
    alike = np.einsum("thb,nhb->tnh", *halves)
    known = np.einsum("th,nh->tnh", *[(half.max(axis=2) > 0).astype(float) for half in halves])
    total = 0.5 * known.sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        coefficient = alike.sum(axis=2) / total
    return 1 - np.sqrt(np.clip(1 - coefficient, 0, 1))
