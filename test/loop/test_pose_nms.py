# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.loop import BMPLoop, Frame, LoopSettings
from bmp_ros.loop.pose_nms import object_keypoint_similarity, pairwise_similarity, pose_nms
from bmp_ros.loop.protocols import Detections, Poses
from bmp_ros.loop.skeletons import COCO_17, COCO_SIGMAS


def poses(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random people in three heaps, so that many pairs are alike, and a few without a pose."""
    rng = np.random.default_rng(seed)
    heap = rng.integers(0, 3, count)
    corners = np.array([[0, 0], [40, 10], [300, 300]])[heap] + rng.normal(0, 4, (count, 2))
    limbs = np.random.default_rng(0).uniform(0, 90, (17, 2))
    keypoints = corners[:, None] + limbs + rng.normal(0, 2, (count, 17, 2))
    scores = rng.choice([0.1, 0.5, 0.9], (count, 17)) * rng.choice([0.1, 1, 1, 1], (count, 1))
    boxes = np.concatenate([corners, corners + rng.uniform(60, 120, (count, 2))], axis=1)
    return keypoints, scores, boxes


def suppress(keypoints: np.ndarray, scores: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    return pose_nms(keypoints, scores, boxes, confidence_threshold=0.3, oks_threshold=0.8)


@given(st.integers(0, 10_000), st.integers(0, 12))
def test_survivors_have_a_pose_and_are_unlike_each_other(seed: int, count: int) -> None:
    keypoints, scores, boxes = poses(seed, count)
    kept = suppress(keypoints, scores, boxes)
    assert kept.dtype == np.int64 and (np.diff(kept) > 0).all()
    has_pose = (scores > 0.3).any(axis=1)
    assert has_pose[kept].all()
    assert bool(len(kept)) == bool(has_pose.any()), "somebody of every heap stays"
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    similarity = pairwise_similarity(keypoints, scores, areas, 0.3)[np.ix_(kept, kept)]
    np.fill_diagonal(similarity, 0)
    assert (similarity <= 0.8).all()


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_order_of_people_does_not_matter_without_full_ties(seed: int, count: int) -> None:
    keypoints, scores, boxes = poses(seed, count)
    scores += np.random.default_rng(seed).uniform(0, 1e-3, scores.shape)  # no two means are equal
    order = np.random.default_rng(seed + 1).permutation(count)
    kept = suppress(keypoints[order], scores[order], boxes[order])
    assert sorted(order[kept]) == suppress(keypoints, scores, boxes).tolist()


@given(st.integers(0, 10_000), st.integers(1, 10))
def test_whoever_is_removed_was_alike_a_better_pose(seed: int, count: int) -> None:
    keypoints, scores, boxes = poses(seed, count)
    kept = set(suppress(keypoints, scores, boxes).tolist())
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    similarity = pairwise_similarity(keypoints, scores, areas, 0.3)
    found = (scores > 0.3).sum(axis=1)
    for removed in set(np.flatnonzero(found).tolist()) - kept:
        alike = np.maximum(similarity[removed], similarity[:, removed]) > 0.8
        better = (found > found[removed]) | (
            (found == found[removed]) & (scores.mean(axis=1) >= scores[removed].mean())
        )
        assert (alike & better & (np.arange(count) != removed)).any()


def test_full_tie_keeps_the_earlier_pose() -> None:
    keypoints, scores, boxes = (np.repeat(array[:1], 3, axis=0) for array in poses(3, 2))
    scores[:] = 0.9
    assert suppress(keypoints, scores, boxes).tolist() == [0]


def test_more_confident_keypoints_beat_a_higher_mean() -> None:
    keypoints, scores, boxes = (np.repeat(array[:1], 2, axis=0) for array in poses(3, 2))
    scores[0], scores[1] = 0.31, 0.9
    scores[1, 0] = 0.2
    assert suppress(keypoints, scores, boxes).tolist() == [0]
    scores[1, 0] = 0.9
    assert suppress(keypoints, scores, boxes).tolist() == [1], "same number: the higher mean"


def test_what_equals_a_threshold_is_not_above_it() -> None:
    keypoints, scores, boxes = (np.repeat(array[:1], 2, axis=0) for array in poses(3, 2))
    scores[:] = 0.3
    assert suppress(keypoints, scores, boxes).tolist() == [], "no keypoint counts"
    scores[:] = 0.9
    options = {"confidence_threshold": 0.3, "oks_threshold": 1.0}
    assert pose_nms(keypoints, scores, boxes, **options).tolist() == [0, 1], "their OKS is 1"


def test_nobody() -> None:
    nobody = suppress(np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros((0, 4)))
    assert nobody.shape == (0,)


def test_similarity_follows_the_formula() -> None:
    keypoints, scores, _ = poses(5, 2)
    area = 5000.0
    terms = [
        np.exp(-((keypoints[0, k] - keypoints[1, k]) ** 2).sum() / (2 * area * (2 * sigma) ** 2))
        for k, sigma in enumerate(COCO_SIGMAS)
        if scores[0, k] > 0.3
    ]
    similarity = object_keypoint_similarity(keypoints[0], scores[0], keypoints[1], area, 0.3)
    assert similarity == pytest.approx(np.mean(terms), rel=1e-12)


def test_similarity_of_a_pose_with_itself_is_one_and_without_keypoints_nothing() -> None:
    keypoints, scores, _ = poses(5, 1)
    same = object_keypoint_similarity(keypoints[0], np.ones(17), keypoints[0], 1.0, 0.3)
    assert same == 1.0
    point = object_keypoint_similarity(keypoints[0], np.ones(17), keypoints[0], 0.0, 0.3)
    assert point == 1.0, "a box without area divides nothing by zero"
    nothing = object_keypoint_similarity(keypoints[0], np.zeros(17), keypoints[0], 1.0, 0.3)
    assert np.isnan(nothing)


def test_wrong_number_of_joints_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(N, 17, 2\).*got \(2, 23, 2\)"):
        pairwise_similarity(np.zeros((2, 23, 2)), np.zeros((2, 23)), np.ones(2), 0.3)


@given(st.integers(0, 10_000), st.integers(1, 10))
def test_whoever_is_removed_by_rank_was_alike_one_of_a_higher_rank(seed: int, count: int) -> None:
    keypoints, scores, boxes = poses(seed, count)
    ranks = np.random.default_rng(seed).permutation(count).astype(np.float32)
    options = {"confidence_threshold": 0.3, "oks_threshold": 0.8}
    kept = set(pose_nms(keypoints, scores, boxes, ranks=ranks, **options).tolist())
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    similarity = pairwise_similarity(keypoints, scores, areas, 0.3)
    for removed in set(np.flatnonzero((scores > 0.3).any(axis=1)).tolist()) - kept:
        alike = np.maximum(similarity[removed], similarity[:, removed]) > 0.8
        assert (alike & (ranks > ranks[removed])).any()
    equal = pose_nms(keypoints, scores, boxes, ranks=np.zeros(count), **options)
    assert equal.tolist() == suppress(keypoints, scores, boxes).tolist()


@pytest.mark.parametrize(("keeps", "row"), [("keypoints", 1), ("score", 0)])
def test_the_loop_keeps_the_pose_that_it_is_told_to(keeps: str, row: int) -> None:
    """Two boxes of one person: the better scored one has the pose with fewer sure keypoints."""
    boxes = np.array([[10, 10, 60, 150], [12, 12, 62, 190]], np.float32)
    place = np.random.default_rng(0).uniform([15, 15], [55, 145], (17, 2))
    sure = np.full((2, 17), 0.9, np.float32)
    sure[0, 5:] = 0.1

    class Networks:
        skeleton = COCO_17

        def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
            return Detections(boxes, np.array([0.9, 0.5], np.float32), None)

        def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
            return Poses(np.stack([place, place]).astype(np.float32), sure)

    networks = Networks()
    settings = LoopSettings(iterations=1, box_nms_iou=1.0, pose_nms_keeps=keeps)
    people = BMPLoop(networks, networks, None, settings)(np.zeros((200, 100, 3), np.uint8))
    assert people.boxes.tolist() == [boxes[row].tolist()]
