# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.loop.box_nms import box_iou, box_nms

corner = st.integers(0, 20)
side = st.integers(0, 12)


@st.composite
def some_boxes(draw: st.DrawFn, max_count: int = 8) -> np.ndarray:
    rows = draw(st.lists(st.tuples(corner, corner, side, side), max_size=max_count))
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def overlap_by_counting(first: np.ndarray, second: np.ndarray) -> float:
    """IoU of two boxes with whole corners, by counting unit squares."""

    def squares(box: np.ndarray) -> set[tuple[int, int]]:
        x1, y1, x2, y2 = (int(value) for value in box)
        return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}

    one, other = squares(first), squares(second)
    return len(one & other) / len(one | other) if one | other else 0.0


@given(some_boxes(4), some_boxes(4))
def test_box_iou_counts_squares(first: np.ndarray, second: np.ndarray) -> None:
    overlaps = box_iou(first, second)
    assert overlaps.shape == (len(first), len(second)) and overlaps.dtype == np.float64
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            assert overlaps[i, j] == pytest.approx(overlap_by_counting(one, other))


@given(some_boxes(4), some_boxes(4))
def test_extra_pixel_counts_the_last_row_and_column(first: np.ndarray, second: np.ndarray) -> None:
    grown = np.array([0, 0, 1, 1], np.float32)
    overlaps = box_iou(first, second, extra_pixel=1.0)
    np.testing.assert_allclose(overlaps, box_iou(first + grown, second + grown))


@given(
    some_boxes(), st.data(), st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]), st.sampled_from([0, 1])
)
def test_nms_keeps_exactly_what_no_better_survivor_covers(
    boxes: np.ndarray, data: st.DataObject, threshold: float, extra: int
) -> None:
    levels = st.sampled_from([0.2, 0.5, 0.5, 0.9])
    scores = np.array(data.draw(st.lists(levels, min_size=len(boxes), max_size=len(boxes))))
    kept = box_nms(boxes, scores, threshold, extra_pixel=extra).tolist()
    overlaps = box_iou(boxes, boxes, extra_pixel=extra)
    rank = sorted(range(len(boxes)), key=lambda index: (-scores[index], index))
    assert kept == sorted(kept, key=rank.index), "best first, ties by index"
    for place, index in enumerate(rank):
        better = [other for other in rank[:place] if other in kept]
        covered = any(overlaps[index, other] > threshold for other in better)
        assert (index in kept) == (not covered)


def test_overlap_of_exactly_the_threshold_survives() -> None:
    # 10 x 10 pixels each by the counting with one extra pixel; 5 columns are shared: 50 / 150.
    boxes = np.array([[0, 0, 9, 9], [5, 0, 14, 9]], np.float32)
    assert box_nms(boxes, np.array([0.9, 0.8]), 50 / 150).tolist() == [0, 1]
    assert box_nms(boxes, np.array([0.8, 0.9]), 0.33).tolist() == [1]


@given(st.integers(0, 150), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.317, 0.61]))
def test_many_boxes_one_after_the_other(number: int, seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 60, (number, 2))
    boxes = np.hstack([corners, corners + rng.integers(1, 30, (number, 2))]).astype(np.float32)
    scores = rng.choice([0.2, 0.4, 0.6, 0.8], number)
    overlaps = box_iou(boxes, boxes)
    expected: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        if not (overlaps[index, expected] > threshold).any():
            expected.append(index)
    assert box_nms(boxes, scores, threshold, extra_pixel=0.0).tolist() == expected


def test_nan_overlaps_nothing_and_comes_last() -> None:
    boxes = np.array([[0, 0, 9, 9], [0, 0, np.nan, 9], [0, 0, 9, 9], [0, 0, 9, 8]], np.float32)
    kept = box_nms(boxes, np.array([0.9, 0.8, np.nan, 0.7]), 0.3, extra_pixel=0.0)
    assert kept.tolist() == [0, 1]
    apart = boxes + np.array([[0], [0], [40], [80]], np.float32)
    assert box_nms(apart, np.array([0.9, 0.8, np.nan, 0.7]), 0.3).tolist() == [0, 1, 3, 2]


def test_a_threshold_of_one_half_spares_one_half_in_continuous_coordinates() -> None:
    boxes = np.array([[0, 0, 4, 2], [0, 0, 4, 1]], np.float32)
    scores = np.array([0.9, 0.8])
    assert box_nms(boxes, scores, 0.5, extra_pixel=0.0).tolist() == [0, 1]
    assert box_nms(boxes, scores, 0.49, extra_pixel=0.0).tolist() == [0]


def test_no_box() -> None:
    kept = box_nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.3)
    assert kept.shape == (0,) and kept.dtype == np.int64
