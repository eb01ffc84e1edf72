# SPDX-License-Identifier: Apache-2.0
"""Training samples of the detector: canvases on which some people are painted out already."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from bmp_ros.training.pictures import (
    Picture,
    ViewRange,
    fitted_view,
    random_view,
    recolour,
)
from bmp_ros.training.rough_masks import rough_mask

MASK_STRIDE = 4
"""Masks are compared on a grid of this stride, twice as fine as the network's own."""


@dataclass(frozen=True)
class DetectorSample:
    """canvas: (h, w, 3) uint8 BGR. boxes: (N, 4) float32 xyxy in canvas pixels.

    masks: (N, h / 4, w / 4) float32, the covered share of each 4x4 block.
    """

    canvas: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray


def detector_sample(
    random: np.random.Generator, picture: Picture, size: tuple[int, int]
) -> DetectorSample:
    """One augmented sample on a canvas of ``size`` (width, height)."""
    view = random_view(random, picture, size, ViewRange())
    image = recolour(random, view.image)
    if len(view) and random.random() < 0.5:
        # What the loop does from its second iteration on: those found so far are black.
        count = int(random.integers(1, len(view) + 1))
        order = random.permutation(len(view))
        for row in order[:count]:
            mask = view.masks[row]
            if random.random() < 0.7:
                mask = rough_mask(random, mask, np.delete(view.masks, row, axis=0))
            image[mask] = 0
        view = view.only(np.sort(order[count:]))
    return _sample(image, view)


def fitted_detector_sample(picture: Picture, size: tuple[int, int]) -> DetectorSample:
    """The whole picture as the detector sees it at work, for validation."""
    view = fitted_view(picture, size)
    return _sample(view.image, view)


def _sample(image: np.ndarray, view: Picture) -> DetectorSample:
    grid = (image.shape[1] // MASK_STRIDE, image.shape[0] // MASK_STRIDE)
    masks = np.empty((len(view), grid[1], grid[0]), np.float32)
    for row, mask in enumerate(view.masks):
        masks[row] = cv2.resize(mask.astype(np.float32), grid, interpolation=cv2.INTER_AREA)
    return DetectorSample(image, view.boxes, masks)
