# SPDX-License-Identifier: Apache-2.0
"""Training samples of the detector: canvases on which some people are painted out already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from bmp_ros.training.cut_outs import CutOuts
from bmp_ros.training.images import (
    TrainingImage,
    ViewRange,
    fitted_view,
    mosaic,
    random_view,
    recolour,
)
from bmp_ros.training.rough_masks import rough_mask

VIEW = ViewRange(zoom=(0.7, 2.0))
MOSAIC_SHARE = 0.5
"""Of the canvases, those that show four images."""
PAINTED_SHARE = 0.45
"""Of the canvases with people whose mask is known, those on which some are painted out."""
MASK_STRIDE = 4
"""Masks are compared on a grid of this stride, twice as fine as the network's own."""


@dataclass(frozen=True)
class DetectorSample:
    """canvas: (h, w, 3) uint8 BGR. boxes: (N, 4) float32 xyxy in canvas pixels.

    masks: (N, h / 4, w / 4) float32, the covered share of each 4x4 block. masked: (N,) bool, whose
    mask is known. ignore: (M, 4) float32, where nobody labelled the people.
    """

    canvas: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    masked: np.ndarray
    ignore: np.ndarray


def detector_sample(
    random: np.random.Generator,
    labelled: TrainingImage,
    size: tuple[int, int],
    others: Callable[[int], Sequence[TrainingImage]] | None = None,
    cut_outs: CutOuts | None = None,
    *,
    painted_share: float = PAINTED_SHARE,
    mosaic_share: float = MOSAIC_SHARE,
    zoom: tuple[float, float] = VIEW.zoom,
) -> DetectorSample:
    """One augmented sample on a canvas of ``size`` (width, height).

    others: draws more images, for mosaics; None for none. cut_outs: people to paste.
    painted_share, mosaic_share: see `PAINTED_SHARE`, `MOSAIC_SHARE`. zoom: of canvases that show
    one image.
    """
    if others is not None and random.random() < mosaic_share:
        view = mosaic(random, [labelled, *others(3)], size)
    else:
        view = random_view(random, labelled, size, replace(VIEW, zoom=zoom))
    if cut_outs is not None:
        view = cut_outs.crowd(random, view)
    image = recolour(random, view.image, rendered=view.rendered)
    # What the loop does from its second iteration on: those found so far are black. Of somebody
    # whose mask nobody knows, it is the detector's that is painted, as at work.
    guessed = [
        None if known or person is None else person.mask
        for known, person in zip(view.masked, view.detected or [None] * len(view), strict=True)
    ]
    paintable = [row for row in range(len(view)) if view.masked[row] or guessed[row] is not None]
    if paintable and random.random() < painted_share:
        count = int(random.integers(1, len(paintable) + 1))
        painted = random.permutation(paintable)[:count]
        for row in painted:
            mask = guessed[row]
            if mask is None:
                mask = view.masks[row]
                if random.random() < 0.7:
                    mask = rough_mask(random, mask, np.delete(view.masks, row, axis=0))
            image[mask] = 0
        view = view.only(np.setdiff1d(np.arange(len(view)), painted))
    return _sample(image, view)


def fitted_detector_sample(labelled: TrainingImage, size: tuple[int, int]) -> DetectorSample:
    """The whole image as the detector sees it at work, for validation."""
    view = fitted_view(labelled, size)
    return _sample(view.image, view)


def _sample(image: np.ndarray, view: TrainingImage) -> DetectorSample:
    grid = (image.shape[1] // MASK_STRIDE, image.shape[0] // MASK_STRIDE)
    masks = np.empty((len(view), grid[1], grid[0]), np.float32)
    for row, mask in enumerate(view.masks):
        pixels = mask.view(np.uint8) * np.uint8(255)
        masks[row] = cv2.resize(pixels, grid, interpolation=cv2.INTER_AREA)
    masks /= 255
    return DetectorSample(image, view.boxes, masks, view.masked, view.ignore)
