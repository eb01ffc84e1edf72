# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from bmp_ros.engines.box_selection import select_people
from bmp_ros.engines.letterbox import Letterbox

LETTERBOX = Letterbox.fit(360, 640, 640)  # scale 1, the lower 280 rows are padding


def random_boxes(number: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 30, (number, 2))
    return np.hstack([corners, corners + rng.integers(1, 30, (number, 2))]).astype(np.float32)


def select(
    boxes: list, scores: list, threshold: float = 0.3, max_people: int = 100
) -> tuple[np.ndarray, ...]:
    return select_people(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        LETTERBOX,
        score_threshold=threshold,
        nms_iou=0.6,
        max_people=max_people,
    )


def test_scores_must_exceed_the_threshold_and_are_sorted() -> None:
    boxes = [[i * 50, 0, i * 50 + 40, 40] for i in range(4)]
    _, scores, chosen = select(boxes, [0.25, 0.5, 0.75, 0.875], threshold=0.5)
    assert chosen.tolist() == [3, 2] and scores.tolist() == [0.875, 0.75]


def test_empty_boxes_and_boxes_on_the_padding_go() -> None:
    boxes, scores, chosen = select(
        [[5, 5, 5, 50], [5, 50, 50, 50], [0, 370, 40, 640], [100, 300, 150, 500]],
        [0.9, 0.8, 0.7, 0.6],
    )
    assert chosen.tolist() == [3]
    np.testing.assert_array_equal(boxes, [[100, 300, 150, 360]])  # clipped to the image


def test_limit_counts_people_on_the_image_only() -> None:
    boxes = [[0, 370, 40, 640], *([i * 50, 0, i * 50 + 40, 40] for i in range(4))]
    _, _, chosen = select(boxes, [0.9, 0.8, 0.7, 0.6, 0.5], max_people=3)
    assert chosen.tolist() == [1, 2, 3]


def test_overlap_is_judged_before_clipping() -> None:
    """Clipped to the image, both would be the same box; on the canvas their IoU is 0.5."""
    _, _, chosen = select([[0, 320, 40, 400], [0, 320, 40, 360]], [0.9, 0.8])
    assert chosen.tolist() == [0, 1]


def test_nan_passes_and_comes_last() -> None:
    boxes, scores, chosen = select(
        [[0, 0, 9, 9], [20, 0, 29, 9], [np.nan, 0, 9, 9], [40, 0, 49, 9]],
        [np.nan, 0.5, 0.8, 0.6],
    )
    assert chosen.tolist() == [2, 3, 1, 0]
    assert np.isnan(boxes[0]).any() and np.isnan(scores[-1])


def test_nobody() -> None:
    boxes, scores, chosen = select([], [])
    assert boxes.shape == (0, 4) and scores.shape == (0,) and chosen.shape == (0,)
