# SPDX-License-Identifier: Apache-2.0
"""Defects of the published code that a single rule shows: its answer beside ours.

Each test says in a few lines what the published rule does and asserts both outputs. The numbers
are those of docs/deviations.md; `test_published_loop.py` holds the ones about the whole loop.
"""

from __future__ import annotations

import numpy as np
import pytest
from scripted import Actor, grey_image, rectangle_mask, spread_keypoints, stage

from bmp_ros.fields import settings_from_mapping
from bmp_ros.loop import LoopSettings, People, SettingsError
from bmp_ros.loop.box_nms import box_iou
from bmp_ros.loop.masks import exclusive_masks
from bmp_ros.loop.pose_nms import object_keypoint_similarity, pairwise_similarity, pose_nms
from bmp_ros.loop.prompts import choose_prompts, select_prompts

K = np.arange(17)
POSE = np.stack([(37 * K) % 101, (53 * K) % 97], axis=1).astype(np.float32)
SCORES = ((29 * K + 7) % 17) / 17
VISIBILITY = ((11 * K + 5) % 17) / 17
SURE = np.full(17, 0.9)


def published_pose_nms(
    similarity: np.ndarray, confident: np.ndarray, threshold: float
) -> list[int]:
    """Survivors of the published rule: on a tie the row goes, and its row stays alive."""
    similarity = similarity.copy()
    np.fill_diagonal(similarity, -1)
    removed = set()
    while similarity.max() > threshold:
        row, column = np.unravel_index(similarity.argmax(), similarity.shape)
        loser = column if confident[row] > confident[column] else row
        removed.add(int(loser))
        similarity[:, loser] = 0
        similarity[loser, column] = 0
    return [index for index in range(len(similarity)) if index not in removed]


def our_pose_nms(keypoints: np.ndarray, scores: np.ndarray, boxes: np.ndarray) -> list[int]:
    kept = pose_nms(keypoints, scores, boxes, confidence_threshold=0.3, oks_threshold=0.8)
    return kept.tolist()


def test_defect_01_area_in_pose_nms_is_width_times_height() -> None:
    boxes = np.array([[1800, 860, 1900, 1060], [1820, 860, 1920, 1060]], np.float64)
    keypoints = np.stack([spread_keypoints(tuple(boxes[0]))] * 2) + [[[0, 0]], [[20, 0]]]
    published_area = boxes[0, 2] * boxes[0, 3]  # the corner read as width and height
    published = object_keypoint_similarity(keypoints[0], SURE, keypoints[1], published_area, 0.3)
    assert published > 0.95, "two people, 20 pixels apart, are taken for one"
    ours = object_keypoint_similarity(keypoints[0], SURE, keypoints[1], 100 * 200, 0.3)
    assert ours < 0.6
    assert our_pose_nms(keypoints, np.stack([SURE] * 2), boxes) == [0, 1]


def test_defect_01_crowd_test_reads_boxes_as_corners() -> None:
    boxes = np.array([[300, 300, 340, 400], [400, 300, 440, 400]], np.float32)
    read_as_sizes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    assert box_iou(read_as_sizes, read_as_sizes)[0, 1] > 0.4, "published: a crowd"
    assert box_iou(boxes, boxes)[0, 1] == 0, "ours: 60 pixels apart"


def test_defect_02_tie_keeps_the_earlier_pose() -> None:
    twins, boxes = np.stack([POSE, POSE]), np.array([[0, 0, 101, 97]] * 2)
    similarity = pairwise_similarity(twins, np.stack([SURE] * 2), np.full(2, 101 * 97), 0.3)
    assert published_pose_nms(similarity, np.array([17, 17]), 0.8) == [1]
    assert our_pose_nms(twins, np.stack([SURE] * 2), boxes) == [0]


def test_defect_02_removed_pose_suppresses_nobody() -> None:
    # In a row: A and B are alike, B and C are alike, A and C are not.
    keypoints = np.stack([POSE, POSE + [4, 0], POSE + [10.5, 0]])
    scores = np.stack([SURE] * 3)
    scores[1, :1], scores[2, :2] = 0.1, 0.1
    boxes = np.array([[0, 0, 101, 97]] * 3) + np.array([[0], [4], [10.5]]) * [[1, 0, 1, 0]]
    similarity = pairwise_similarity(keypoints, scores, np.full(3, 101 * 97), 0.3)
    alike = [(similarity + similarity.T)[pair] / 2 for pair in ((0, 1), (1, 2), (0, 2))]
    assert alike[0] > alike[1] > 0.8 > alike[2]
    assert published_pose_nms(similarity, np.array([17, 16, 15]), 0.8) == [0]
    assert our_pose_nms(keypoints, scores, boxes) == [0, 2]


def test_defect_03_pose_without_keypoints_is_like_nobody() -> None:
    far_apart = [Actor((10, 10, 60, 110)), Actor((130, 10, 190, 110), score=0.8)]
    for actor in far_apart:
        actor.keypoint_scores = 0.1
    published_similarity = np.ones((2, 2))  # "inside of the doubled box": distance 0 to everybody
    assert published_pose_nms(published_similarity, np.array([0, 0]), 0.8) == [1]
    keypoints = np.stack([actor.pose(17) for actor in far_apart])
    boxes = np.array([actor.box for actor in far_apart])
    assert our_pose_nms(keypoints, np.full((2, 17), 0.1), boxes) == [], "no pose, said so"
    people = stage(far_apart).loop(grey_image(120, 200))
    assert len(people) == 2, "and both stay, with the detector's masks"
    assert people.masks.any(axis=(1, 2)).all()


def test_defect_05_older_people_give_pixels_to_a_better_mask() -> None:
    old, new = rectangle_mask(10, 30, (0, 0, 20, 10)), rectangle_mask(10, 30, (10, 0, 30, 10))
    masks, scores = np.stack([old, new]), np.array([0.6, 0.9])
    best = np.where(masks.any(axis=0), (masks * scores[:, None, None]).argmax(axis=0), -1)
    published = np.stack([old, best == 1])  # only the new people's masks are replaced
    assert published.all(axis=0).sum() == 100, "100 pixels belong to two people"
    ours = exclusive_masks(masks, scores)
    assert not ours.all(axis=0).any()
    assert ours.sum(axis=(1, 2)).tolist() == [100, 200]


def published_distance_confidence(scores: np.ndarray, misaligned: bool) -> list[int]:
    """Version 1.1's order of the joints of POSE; ``misaligned`` is the defect."""
    scores = np.where(scores >= 0.3, scores, 0)
    face = int(scores[:3].argmax())
    rows = np.array([face, *range(3, 17)]) if scores[face] >= 0.3 else np.arange(17)
    kept = rows[scores[rows] >= 0.3]
    order = np.argsort(scores[kept], kind="stable")[::-1]
    # The order indexes the kept joints, but the scores are read out of all of them.
    rank = (scores[rows][order] if misaligned else scores[kept][order]).copy()
    kept, chosen = kept[order], [0]
    rank[0] = -1
    while len(chosen) < len(kept):
        gaps = np.linalg.norm(POSE[kept][:, None] - POSE[kept[chosen]], axis=2).min(axis=1)
        gaps[rank < np.percentile(rank, 80)] = -1
        chosen.append(int(gaps.argmax()))
        rank[chosen[-1]] = -1
    return kept[chosen].tolist()


def test_defect_11_prompt_method_of_the_preset_is_used() -> None:
    configured, default = "k_most_visible", "distance+confidence"
    published_method = default or configured  # the default is truthy: the preset never counts
    first_three = [
        select_prompts(POSE, SCORES, VISIBILITY, method=method, visibility_threshold=0.5, limit=3)
        for method in (published_method, configured)
    ]
    assert first_three[0].tolist() != [1, 4, 7]
    assert first_three[1].tolist() == [1, 4, 7]
    settings = LoopSettings(prompt_method=configured, num_positive=3, visibility_threshold=0.5)
    actor = Actor((0, 0, 101, 97), keypoints=POSE, keypoint_scores=1.0, visibility=VISIBILITY)
    play = stage([actor], **vars(settings))
    play.loop(grey_image(100, 110))
    np.testing.assert_array_equal(play.segmenter.points[0][0], POSE[[1, 4, 7]])


def test_defect_12_confidences_belong_to_their_keypoints() -> None:
    published = published_distance_confidence(SCORES, misaligned=True)
    assert published == [5, 6, 2, 12, 3, 7, 9, 10, 16, 13]
    ours = select_prompts(
        POSE, SCORES, SCORES, method="distance+confidence", visibility_threshold=0.3
    ).tolist()
    assert ours == [5, 2, 9, 12, 6, 16, 3, 10, 7, 13]
    assert ours == published_distance_confidence(SCORES, misaligned=False)


def test_defect_13_nobody_is_prompted_at_the_corner_of_the_image() -> None:
    nothing = np.full(17, 0.1)
    published = np.where(nothing[:, None] >= 0.3, POSE, 0)[:6]  # nothing visible: all rows remain
    assert published.tolist() == [[0, 0]] * 6
    poseless = Actor((10, 10, 60, 110), keypoint_scores=0.1)
    play = stage([poseless], iterations=1)
    people = play.loop(grey_image(120, 200))
    assert play.segmenter.points == [], "ours: the segmenter is not asked"
    np.testing.assert_array_equal(people.masks[0], rectangle_mask(120, 200, poseless.box))
    assert people.mask_scores.tolist() == [0]


def crowded_people() -> People:
    boxes = np.array([[0, 0, 50, 100], [49, 0, 99, 100]], np.float32)
    people = People.from_boxes(boxes, np.ones(2, np.float32), 100, 100)
    people.keypoints[:] = [spread_keypoints(tuple(box)) for box in boxes]
    people.keypoint_scores[:] = 0.9
    return people


def test_defect_17_no_crowd_threshold_means_no_crowd() -> None:
    people = crowded_people()
    overlap = box_iou(people.boxes, people.boxes)[0, 1]
    assert overlap < 0.02
    crowd_by_max_iou = False  # as the published presets say it
    assert crowd_by_max_iou is not None and overlap > crowd_by_max_iou, "published: a crowd"
    settings = LoopSettings(crowd_iou=None, num_positive=2, num_positive_crowded=5)
    (group,) = choose_prompts(people, people[:0], settings)
    assert group.points.shape[1] == 2, "ours: nobody is in a crowd"
    with pytest.raises(SettingsError, match="crowd_iou is False, allowed: a number .* or null"):
        settings_from_mapping(LoopSettings, {"crowd_iou": False}, "preset.yaml: loop")
