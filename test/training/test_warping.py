# SPDX-License-Identifier: Apache-2.0
"""Masks moved within their own window are those that moving the whole canvas gives."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.synthetic.ground_truth import mask_box
from bmp_ros.training.warping import moved_boxes, pixel_counts, warp_mask, window_of


def random_matrix(random: np.random.Generator) -> np.ndarray:
    angle, scale = random.uniform(-np.pi, np.pi), np.exp(random.uniform(-1, 1))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if random.random() < 0.5:
        turn[:, 0] *= -1
    return np.column_stack([turn, random.uniform(-60, 120, 2)])


def random_mask(random: np.random.Generator) -> np.ndarray:
    mask = np.zeros((48, 64), np.uint8)
    centre = tuple(int(value) for value in random.integers(-5, 70, 2))
    cv2.ellipse(mask, centre, (int(random.integers(1, 30)), 9), 20, 0, 360, 1, -1)
    return mask.astype(bool)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31))
def test_a_mask_in_its_window_is_the_mask_on_the_whole_canvas(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask, matrix, size = random_mask(random), random_matrix(random), (80, 56)
    target = np.zeros(size[::-1], bool)
    warp_mask(mask, matrix, target)
    whole = cv2.warpAffine(mask.view(np.uint8) * 255, matrix, size) > 127
    # OpenCV rounds places to 1/32 pixel, from another corner; only pixels of the outline differ.
    outline = cv2.morphologyEx(
        whole.view(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3)), borderValue=0
    )
    assert not ((target != whole) & (outline == 0)).any()
    assert (target != whole).sum() <= 0.1 * outline.sum() + 2


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31))
def test_the_window_holds_the_moved_box(seed: int) -> None:
    random = np.random.default_rng(seed)
    matrix, size = random_matrix(random), (80, 56)
    left, top = random.integers(0, 30, 2)
    box = (int(left), int(top), int(left + random.integers(1, 30)), int(top + 9))
    (rows, columns), local = window_of(matrix, box, size)
    shown = np.clip(moved_boxes(np.array([box], np.float32), matrix)[0], 0, [*size, *size])
    if (shown[2:] > shown[:2]).all():
        assert columns.start <= shown[0] and shown[2] <= columns.stop
        assert rows.start <= shown[1] and shown[3] <= rows.stop
    point = np.array([1.0, 2.0])  # of the box's pixels
    there = matrix[:, :2] @ (point + box[:2]) + matrix[:, 2]
    here = local[:, :2] @ point + local[:, 2] + [columns.start, rows.start]
    np.testing.assert_allclose(here, there)


def test_boxes_and_counts_of_masks() -> None:
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 3:7, 5:9] = True
    masks[1, 19, 29] = True
    assert pixel_counts(masks).tolist() == [16, 1, 0]
    assert pixel_counts(masks[:0]).shape == (0,)
    assert mask_box(masks[0]).tolist() == [5, 3, 9, 7]
    assert mask_box(masks[1]).tolist() == [29, 19, 30, 20]
    assert mask_box(masks[0][:, ::-1]).tolist() == [21, 3, 25, 7]  # a view that is no block
