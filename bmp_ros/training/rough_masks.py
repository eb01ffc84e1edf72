# SPDX-License-Identifier: Apache-2.0
"""Masks as a network gives them, not as the renderer knows them: swollen, thin, blobby, cut."""

from __future__ import annotations

import cv2
import numpy as np


def rough_mask(
    random: np.random.Generator, mask: np.ndarray, others: np.ndarray | None = None
) -> np.ndarray:
    """Return a plausible wrong version of ``mask`` (H, W) bool; it may even be empty.

    others: (M, H, W) bool, the masks of the other people; at times a piece of one is added.
    Thickness of the damage follows the person's size, so that near and far people suffer alike.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return mask.copy()
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    size = float(np.sqrt((bottom - top) * (right - left)))
    result: np.ndarray = mask.astype(np.uint8)

    if random.random() < 0.6:  # outline moved in or out
        reach = max(1, int(size * abs(random.normal(0, 0.035)) + 0.5))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        change = cv2.dilate if random.random() < 0.5 else cv2.erode
        result = change(result, kernel)
    if random.random() < 0.6:  # outline of a coarse grid, wavy
        step = max(1.0, size * random.uniform(0.02, 0.07))
        small = (max(2, int(mask.shape[1] / step)), max(2, int(mask.shape[0] / step)))
        coarse = cv2.resize(result.astype(np.float32), small, interpolation=cv2.INTER_AREA)
        coarse += random.normal(0, 0.12, coarse.shape).astype(np.float32) * (coarse > 0)
        result = (cv2.resize(coarse, mask.shape[::-1]) > 0.5).astype(np.uint8)
    if random.random() < 0.2:  # one end cut off
        keep = random.uniform(0.45, 0.9)
        side = random.integers(4)
        if side == 0:
            result[int(top + keep * (bottom - top)) :] = 0
        elif side == 1:
            result[: int(bottom - keep * (bottom - top))] = 0
        elif side == 2:
            result[:, int(left + keep * (right - left)) :] = 0
        else:
            result[:, : int(right - keep * (right - left))] = 0
    for _ in range(random.poisson(0.4)):  # holes, and blobs beside the person
        centre = random.integers(left, right), random.integers(top, bottom)
        radius = max(1, int(size * random.uniform(0.03, 0.15)))
        cv2.circle(
            result, (int(centre[0]), int(centre[1])), radius, int(random.random() < 0.4), -1
        )
    if others is not None and len(others) and random.random() < 0.15:  # a piece of a neighbour
        other = others[random.integers(len(others))]
        spill = np.zeros_like(result)
        reach = int(size * random.uniform(0.1, 0.4)) + 1
        near = cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach), np.uint8))
        spill[other & (near > 0)] = 1
        result |= spill
    return result.astype(bool)
