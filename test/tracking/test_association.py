# SPDX-License-Identifier: Apache-2.0
"""Masks that move: what leaves the image overlaps nothing."""

from __future__ import annotations

import numpy as np
import pytest

from bmp_ros.tracking.association import Pixels, mask_overlap

WIDTH, HEIGHT = 60, 40


def pixels_of(x0: int, y0: int, x1: int, y1: int) -> Pixels:
    """One person, a rectangle."""
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    labels[y0:y1, x0:x1] = 1
    points = np.argwhere(labels)[:, ::-1].astype(np.float32)
    count = len(points)
    return Pixels(
        1, np.zeros(count, np.int64), points, np.array([count]), np.array([0, count]), labels
    )


@pytest.mark.parametrize("shift", [(5, 0), (-45, 0), (0, 10), (0, -5), (5, 10)])
def test_a_mask_that_is_moved_over_the_border_is_cut_off_there(shift: tuple[int, int]) -> None:
    first, everywhere = pixels_of(40, 0, 60, 30), pixels_of(0, 0, WIDTH, HEIGHT)
    x, y = (first.points + shift).T
    within = ((x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)).sum()
    found = mask_overlap([first.points], np.array([shift], np.float32), everywhere)
    assert found.iou[0, 0] == pytest.approx(within / (WIDTH * HEIGHT))
    assert found.of_new[0, 0] == found.iou[0, 0] and found.covered[0, 0] == 1


def test_a_mask_outside_of_the_image_has_no_overlap() -> None:
    first = pixels_of(40, 0, 60, 30)
    found = mask_overlap([first.points], np.array([(WIDTH, 0)], np.float32), first)
    assert np.isnan(found.iou).all() and not found.covered.any() and not found.of_new.any()
