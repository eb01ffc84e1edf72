# SPDX-License-Identifier: Apache-2.0
"""The rules against vectors computed with the published implementation (its second version)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bmp_ros.loop.box_nms import box_nms
from bmp_ros.loop.masks import exclusive_masks
from bmp_ros.loop.pose_nms import object_keypoint_similarity, pairwise_similarity, pose_nms
from bmp_ros.loop.prompts import select_prompts

GOLDEN = dict(np.load(Path(__file__).parents[1] / "data" / "loop_rules.npz", allow_pickle=False))


@pytest.mark.parametrize(
    "method, threshold",
    [("k_most_visible", 0.5), ("distance+confidence", 0.3), ("distance", 0.3), ("closest", 0.3)],
)
def test_prompt_order(method: str, threshold: float) -> None:
    for row, expected in enumerate(GOLDEN[f"sel_order/{method}@{threshold}"]):
        order = select_prompts(
            GOLDEN["sel_coords"][row],
            GOLDEN["sel_scores"][row],
            GOLDEN["sel_visibility"][row],
            method=method,
            visibility_threshold=threshold,
            box=GOLDEN["sel_boxes_xyxy"][row] if method in ("distance", "closest") else None,
        )
        assert order.tolist() == [index for index in expected if index >= 0], f"pose {row}"


def test_object_keypoint_similarity() -> None:
    threshold = float(GOLDEN["oks_score_threshold"])
    for row, expected in enumerate(GOLDEN["oks"]):
        similarity = object_keypoint_similarity(
            GOLDEN["oks_reference_xy"][row],
            GOLDEN["oks_reference_scores"][row],
            GOLDEN["oks_candidate_xy"][row],
            GOLDEN["oks_area"][row],
            threshold,
        )
        assert similarity == pytest.approx(expected, abs=1e-9), f"pair {row}"


@pytest.mark.parametrize("case", range(30))
def test_exclusive_masks(case: int) -> None:
    masks, scores, expected = (
        GOLDEN[f"excl/{case}/{name}"] for name in ("masks", "scores", "exclusive")
    )
    np.testing.assert_array_equal(exclusive_masks(masks > 0, scores), expected > 0)


@pytest.mark.parametrize("case", range(30))
def test_box_nms(case: int) -> None:
    table = GOLDEN[f"nms/{case}/boxes_xyxy_score"]
    kept = box_nms(table[:, :4], table[:, 4], 0.3)
    assert kept.tolist() == GOLDEN[f"nms/{case}/keep"].tolist()


class TestSeventeenJointsByFormula:
    """One pose made of remainders, small enough to be followed by hand."""

    K = np.arange(17)
    XY = np.stack([(37 * K) % 101, (53 * K) % 97], axis=1).astype(np.float32)
    SCORES = ((29 * K + 7) % 17) / 17
    VISIBILITY = ((11 * K + 5) % 17) / 17

    @pytest.mark.parametrize(
        "method, threshold, separate_visibility, expected",
        [
            ("distance+confidence", 0.3, False, [5, 2, 9, 12, 6, 16, 3, 10, 7, 13]),
            ("distance+confidence", 0.3, True, [5, 13, 10, 7, 14, 4, 11, 1, 8, 16]),
            ("k_most_visible", 0.5, True, [1, 4, 7, 10, 13, 16, 2, 5]),
            ("distance", 0.3, False, [6, 3, 9, 7, 12, 10, 13, 2, 16, 5]),
            ("closest", 0.3, False, [10, 12, 7, 5, 16, 6, 9, 3, 2, 13]),
        ],
    )
    def test_prompt_order(
        self, method: str, threshold: float, separate_visibility: bool, expected: list[int]
    ) -> None:
        visibility = self.VISIBILITY if separate_visibility else self.SCORES
        order = select_prompts(
            self.XY, self.SCORES, visibility, method=method, visibility_threshold=threshold
        )
        assert order.tolist() == expected

    # x, y of the pose's corner, and how many of its joints score 0.9; the others score 0.1.
    POSES = [
        (1000, 500, 17), (1012, 500, 17), (1100, 500, 17), (1000, 560, 10),
        (40, 40, 17), (52, 40, 17), (400, 400, 0),
    ]  # fmt: skip

    def test_pose_nms_with_true_areas(self) -> None:
        corners = np.array([pose[:2] for pose in self.POSES], np.float64)
        keypoints = self.XY[None] + corners[:, None]
        scores = np.where(self.K < np.array([[pose[2]] for pose in self.POSES]), 0.9, 0.1)
        boxes = np.concatenate([corners, corners + [101, 97]], axis=1)
        kept = pose_nms(keypoints, scores, boxes, confidence_threshold=0.3, oks_threshold=0.8)
        assert kept.tolist() == [0, 1, 2, 3, 4, 5]
        similarity = pairwise_similarity(keypoints, scores, np.full(7, 101 * 97), 0.3)
        pairs = [similarity[i, j] for i, j in ((0, 1), (1, 0), (4, 5), (5, 4))]
        np.testing.assert_allclose(pairs, 0.5653, atol=5e-5)


def test_exclusive_masks_on_one_row() -> None:
    masks = np.array([[[1, 1, 1, 0, 0]], [[0, 1, 1, 1, 0]], [[0, 0, 1, 0, 0]]], np.bool_)
    exclusive = exclusive_masks(masks, np.array([0.8, 0.9, 0.9]))
    expected = [[[1, 0, 0, 0, 0]], [[0, 1, 1, 1, 0]], [[0, 0, 0, 0, 0]]]
    assert exclusive.astype(int).tolist() == expected
