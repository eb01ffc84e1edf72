# SPDX-License-Identifier: Apache-2.0
"""The mask conditioning that MaskPose and PMPose were trained with: everything but the person is
dimmed, by a mask that is damaged first as a detector's masks are.

Written from a description of BBoxMaskPose's ``MaskBackground`` (ICCV 2025); compared with vectors
that the published code gave. The legacy generator of NumPy is used, since the vectors were made
with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

ERODE_SEEDS, DILATE_SEEDS = 10, 50
"""Voronoi cells into which a mask, or everything beside it, is cut."""
SMOOTHING = 5
"""Side in pixels of the square that opens and closes every mask; also the least of any kernel."""
CLOSING_AREA, GROWING_AREA = 1000, 3000
"""Pixels of a mask per pixel of the kernels' sides: of the first step, and of the second."""


@dataclass(frozen=True)
class MaskBackground:
    """How the background is dimmed.

    dim: share of the brightness that the background loses, 0 to 1; 0.25 for MaskPose 1.1.0 and
    PMPose, 0.2 for MaskPose 1.0.0. prob: of the people, those whose background is dimmed.
    dilate_prob, erode_prob: how often a mask is enlarged and shrunk; their sum is at most 1.
    dilate_amount, erode_amount: the largest part of the Voronoi cells that is added or removed.
    """

    dim: float = 0.25
    prob: float = 1.0
    dilate_prob: float = 0.5
    dilate_amount: float = 0.1
    erode_prob: float = 0.5
    erode_amount: float = 0.5

    def __post_init__(self) -> None:
        for name in ("dim", "prob", "dilate_prob", "dilate_amount", "erode_prob", "erode_amount"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"mask_background: {name} is {value}, allowed: 0 to 1")
        if self.dilate_prob + self.erode_prob > 1:
            raise ValueError(
                f"mask_background: dilate_prob and erode_prob are {self.dilate_prob} and "
                f"{self.erode_prob}, together they may be 1 at most"
            )

    def apply(
        self, image: np.ndarray, mask: np.ndarray, random: np.random.RandomState
    ) -> np.ndarray:
        """Dim ``image`` (H, W, 3) uint8 outside of a damaged ``mask`` (H, W) bool.

        An empty mask says nothing about the background: the image is returned as it is.
        """
        if not mask.any() or random.rand() >= self.prob:
            return image
        return dimmed(image, self.damaged(mask, random), self.dim)

    def damaged(self, mask: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        """A mask (H, W) bool as a detector may give it; unchanged without any probability."""
        if random.rand() >= self.dilate_prob + self.erode_prob:
            return mask
        smooth = smoothed(mask)
        shares = np.array([self.erode_prob, self.dilate_prob])
        enlarge = bool(random.choice([False, True], p=shares / shares.sum()))
        patches = random.rand() < 0.5
        if not patches:
            return enlarged(smooth) if enlarge else shrunk(smooth)
        if enlarge:
            return ~without_patches(~smooth, DILATE_SEEDS, self.dilate_amount, random)
        return without_patches(smooth, ERODE_SEEDS, self.erode_amount, random)


def dimmed(image: np.ndarray, mask: np.ndarray, dim: float) -> np.ndarray:
    """``image`` (H, W, 3) uint8 with (1 - dim) of its brightness outside of ``mask`` (H, W) bool,
    halves rounded to even."""
    inside = image * mask[..., None].astype(np.uint8)
    return cv2.addWeighted(image, 1 - dim, inside, dim, 0)


def smoothed(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool opened, then closed by a small square."""
    kernel = np.ones((SMOOTHING, SMOOTHING), np.uint8)
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    return cv2.morphologyEx(opened, cv2.MORPH_CLOSE, kernel).astype(bool)


def enlarged(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool closed and dilated, the more the larger it is."""
    return _morphology(mask, cv2.MORPH_CLOSE, cv2.MORPH_DILATE)


def shrunk(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool opened and eroded, the more the larger it is."""
    return _morphology(mask, cv2.MORPH_OPEN, cv2.MORPH_ERODE)


def _morphology(mask: np.ndarray, first: int, second: int) -> np.ndarray:
    area = int(np.count_nonzero(mask))
    pixels = mask.astype(np.uint8)
    for operation, unit in ((first, CLOSING_AREA), (second, GROWING_AREA)):
        side = max(area // unit, SMOOTHING)
        pixels = cv2.morphologyEx(pixels, operation, np.ones((side, side), np.uint8))
    return pixels.astype(bool)


def without_patches(
    mask: np.ndarray, seeds: int, amount: float, random: np.random.RandomState
) -> np.ndarray:
    """(H, W) bool without some of its Voronoi cells around ``seeds`` of its pixels.

    Up to ``amount`` of the cells go. What is outside of the mask counts as one cell more, which
    may be drawn and takes nothing away. A mask of fewer pixels than seeds stays as it is.
    """
    places = np.flatnonzero(mask)
    if len(places) < seeds:
        return mask
    chosen = random.choice(places, seeds, replace=False)
    cells = _nearest(mask.shape, chosen) + 1
    cells[~mask] = 0
    count = int(seeds * random.uniform(0, amount))
    labels = np.unique(cells)
    removed = random.choice(labels, min(count, len(labels)), replace=False)
    kept: np.ndarray = mask & ~np.isin(cells, removed)
    return kept


def _nearest(shape: tuple[int, ...], seeds: np.ndarray) -> np.ndarray:
    """(H, W) int32, which of the pixels ``seeds`` (flat indices) is nearest; first on ties."""
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    nearest = np.zeros(shape, np.int32)
    best = np.full(shape, np.iinfo(np.int32).max, np.int32)
    for number, (y, x) in enumerate(zip(*np.divmod(seeds, shape[1]), strict=True)):
        distance = ((rows - y) ** 2 + (columns - x) ** 2).astype(np.int32)
        closer = distance < best
        best[closer] = distance[closer]
        nearest[closer] = number
    return nearest
