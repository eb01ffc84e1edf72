# SPDX-License-Identifier: Apache-2.0
"""Which pixels hide a person, and what is shown instead."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.covering import KINDS, MARGIN, Patch, RecentCovers, between, cover, hidden
from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import COCO_17

HEIGHT, WIDTH = 240, 320


def walker(frame: int, person: int) -> np.ndarray:
    """The true mask of a person who walks 4 pixels a frame and sways."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    x = 40 + 70 * person + (4 if person % 2 else -4) * (frame % 15) + 30
    y = 120 + round(4 * np.sin(frame / 3 + person))
    cv2.ellipse(mask, (x, y), (16, 60), 0, 0, 360, 1, -1)
    cv2.circle(mask, (x, y - 66), 12, 1, -1)
    return mask.astype(np.bool_)


def people_of(masks: list[np.ndarray], score: float = 0.9) -> People:
    count = len(masks)
    stacked = np.array(masks, np.bool_).reshape(count, HEIGHT, WIDTH)
    boxes = np.zeros((count, 4), np.float32)
    keypoints = np.zeros((count, 17, 2), np.float32)
    for row, mask in enumerate(stacked):
        y, x = np.nonzero(mask)
        boxes[row] = x.min(), y.min(), x.max() + 1, y.max() + 1
        keypoints[row, 5:] = x.mean(), y.mean()
        keypoints[row, :5] = (x.mean(), y.min() + 12) + np.array(
            [[0, 0], [3, -2], [-3, -2], [8, 0], [-8, 0]]
        )
    joint_scores = np.full((count, 17), score, np.float32)
    ones = np.ones(count, np.float32)
    return People(
        boxes=boxes, scores=ones, pose_scores=ones, mask_scores=ones, keypoints=keypoints,
        keypoint_scores=joint_scores, visibility=joint_scores, presence=joint_scores,
        masks=stacked, raw_masks=stacked, has_mask=stacked.any(axis=(1, 2)),
        iterations=np.ones(count, np.int32), track_ids=np.full(count, -1, np.int32),
        skeleton=COCO_17,
    )  # fmt: skip


def test_faces_are_covered_by_joints_or_by_the_upper_part_of_the_box() -> None:
    mask = walker(0, 1)
    y, x = np.nonzero(mask)
    head = np.zeros_like(mask)
    head[y.min() : y.min() + 24] = mask[y.min() : y.min() + 24]
    for scores in (0.9, 0.0):  # joints seen, and not
        covered = cover(people_of([mask], scores), "faces")
        assert (head & ~covered).sum() <= 0.02 * head.sum()
        legs = mask.copy()
        legs[: y.min() + 80] = False
        assert not (legs & covered).any()


@pytest.mark.parametrize("blur", [False, True])
def test_covered_pixels_tell_nothing_of_what_they_cover(blur: bool) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    covered = np.zeros((HEIGHT, WIDTH), np.bool_)
    covered[40:200, 60:160] = True
    shown = hidden(picture, covered, blur=blur)
    np.testing.assert_array_equal(shown[~covered], picture[~covered])
    assert abs(shown[covered].astype(int) - 128).mean() < 12
    if not blur:
        assert len({tuple(colour) for colour in shown[covered].tolist()}) < 200
    # Within a cell, whatever is moved about changes nothing.
    cell = max(8, WIDTH // 24)
    moved = picture.copy()
    block = moved[5 * cell : 6 * cell, 6 * cell : 7 * cell]
    block[:] = block[::-1, ::-1].copy()
    again = hidden(moved, covered, blur=blur)
    assert abs(again[covered].astype(int) - shown[covered]).max() <= 8


def patch_at(x: int, y: int = 0, side: int = 1) -> Patch:
    return Patch(x, y, np.ones((side, side), np.bool_))


def test_limbs_that_the_mask_lacks_are_covered() -> None:
    """Two stretched arms with hands, and a foot, of which the mask has nothing."""
    trunk = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(trunk, (160, 120), (18, 70), 0, 0, 360, 1, -1)
    people = people_of([trunk.astype(np.bool_)])
    names = COCO_17.names
    places = {
        "left_shoulder": (174, 80), "left_elbow": (200, 78), "left_wrist": (226, 76),
        "right_shoulder": (146, 80), "right_elbow": (120, 82), "right_wrist": (94, 84),
        "left_knee": (170, 165), "left_ankle": (185, 200),
    }  # fmt: skip
    people.keypoint_scores[0, 5:] = 0
    for name, place in places.items():
        people.keypoints[0, names.index(name)] = place
        people.keypoint_scores[0, names.index(name)] = 0.8
    limbs = np.zeros((HEIGHT, WIDTH), np.uint8)
    for line in (((174, 80), (238, 75)), ((146, 80), (82, 85)), ((170, 165), (189, 209))):
        cv2.line(limbs, *line, 1, 7)
    left = limbs.astype(np.bool_) & ~cover(people, "bodies")
    assert left.sum() <= 0.01 * limbs.sum()
    people.keypoint_scores[:] = 0
    assert (limbs.astype(np.bool_) & ~cover(people, "bodies")).sum() > 0.4 * limbs.sum()


def test_masks_are_covered_with_a_margin() -> None:
    people = people_of([walker(0, 1)], score=0.0)
    x1, y1, x2, y2 = people.boxes[0].tolist()
    margin = round(MARGIN * ((x2 - x1) * (y2 - y1)) ** 0.5)
    assert margin > 3
    away = cv2.distanceTransform(
        1 - people.masks[0].view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )
    assert cover(people, "bodies")[away <= margin].all()


def test_joints_that_are_not_seen_cover_nothing() -> None:
    people = people_of([walker(0, 1)])
    for name in ("left_wrist", "right_ankle"):
        people.keypoints[0, COCO_17.names.index(name)] = 300, 20
        people.keypoint_scores[0, COCO_17.names.index(name)] = 0.0
    assert not cover(people, "bodies")[:60, 270:].any()


def test_the_way_between_two_patches() -> None:
    a, b = patch_at(0, 0, 4), patch_at(10, 20, 8)
    assert [(p.x, p.y, p.mask.shape) for p in between(a, b, 0.5)] == [(5, 10, (6, 6))] * 2
    assert [(p.x, p.y) for p in between(a, b, -1)] == [(-10, -20)] * 2
    assert max(p.mask.size for p in between(a, b, 1e6)) <= 16 * 16
    assert between(Patch(0, 0, np.zeros((0, 3), np.bool_)), b, 0.5) == []


def test_points_far_outside_and_people_at_the_edge() -> None:
    mask = walker(0, 0)
    people = people_of([mask, mask])
    people.keypoints[0] = [-1e9, 1e9]
    people.keypoints[1, :3] = [3e4, -3e4]
    for kind in ("bodies", "faces"):
        covered = cover(people, kind)
        assert covered.shape == mask.shape
    nobody = cover(people_of([]), "bodies")
    assert nobody.shape == mask.shape and not nobody.any()


def test_the_head_is_covered_though_the_mask_is_that_of_the_shirt() -> None:
    mask = walker(0, 1)
    y, _ = np.nonzero(mask)
    head = mask.copy()
    head[y.min() + 24 :] = False
    for scores in (0.9, 0.0):  # joints seen, and not
        people = people_of([mask], scores)
        people.raw_masks[0, : y.min() + 50] = False
        covered = cover(people, "bodies")
        assert (head & ~covered).sum() <= 0.02 * head.sum()


def test_the_head_of_a_person_whom_the_edge_cuts_off_is_covered() -> None:
    """Head and shoulders: 100 pixels wide, a head of 50 by 66 of them."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(mask, (160, 173), (25, 33), 0, 0, 360, 1, -1)
    head = mask.astype(np.bool_)
    mask[206:, 110:210] = 1
    for scores in (0.9, 0.0):
        people = people_of([mask.astype(np.bool_)], scores)
        people.keypoints[0, :5, 1] = 170
        assert (head & ~cover(people, "faces")).sum() <= 0.15 * head.sum()


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_whatever_the_joints_are_a_body_is_covered(seed: int) -> None:
    """Masks anywhere, joints anywhere, also far outside: nothing of a mask stays visible."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((2, HEIGHT, WIDTH), np.bool_)
    for mask in masks:
        y, x = int(rng.integers(0, HEIGHT)), int(rng.integers(0, WIDTH))
        mask[y : y + int(rng.integers(1, 90)), x : x + int(rng.integers(1, 60))] = True
    people = people_of(list(masks))
    people.keypoints[:] = rng.normal(150, 10.0 ** rng.integers(0, 7), people.keypoints.shape)
    people.keypoint_scores[:] = rng.random(people.keypoint_scores.shape)
    for kind in KINDS:
        covered = cover(people, kind)
        assert covered.shape == (HEIGHT, WIDTH)
    assert cover(people, "bodies")[masks.any(axis=0)].all()


def test_what_was_covered_just_before_stays_covered() -> None:
    recent = RecentCovers(window_s=0.3)
    shown = []
    for number, (stamp, column) in enumerate(
        ((1.0, 0), (1.2, 1), (1.4, 2), (1.75, 3), (1.74, 4), (0.2, 5))
    ):
        shown.append(_shown(recent, stamp, float(number), column))
    # A small step back is a driver's, and who was there stays covered; a jump begins anew.
    assert shown == [[0], [0, 1], [1, 2], [3], [3, 4], [5]]
    assert recent.add(0.3, 9.0, np.ones((2, 2), np.bool_)).shape == (2, 2), "another size"
    recent.clear()
    assert not recent.add(0.3, 9.1, np.zeros((2, 2), np.bool_)).any()


def test_of_images_without_stamps_the_time_of_arrival_counts() -> None:
    recent = RecentCovers(window_s=0.3)
    shown = [_shown(recent, 0.0, 5 + 0.2 * column, column) for column in range(5)]
    assert shown == [[0], [0, 1], [1, 2], [2, 3], [3, 4]], "nothing is kept for ever"


def _shown(recent: RecentCovers, stamp_s: float, arrival_s: float, column: int) -> list[int]:
    covered = np.zeros((1, 6), np.bool_)
    covered[0, column] = True
    return np.flatnonzero(recent.add(stamp_s, arrival_s, covered)).tolist()
