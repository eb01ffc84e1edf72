# SPDX-License-Identifier: Apache-2.0
"""Scenes played by scripted engines: who is found, in which order, with which pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scripted import (
    Actor,
    ScriptedPoseEstimator,
    grey_image,
    rectangle_mask,
    spread_keypoints,
    stage,
)

from bmp_ros.loop import BMPLoop, LoopSettings, People
from bmp_ros.loop.skeletons import MPII_16, MULTI_23, Skeleton
from bmp_ros.loop.trace import detector_masks

H, W = 120, 200
IMAGE = grey_image(H, W)
LEFT = Actor((10, 10, 60, 110), score=0.9)
RIGHT = Actor((120, 10, 180, 110), score=0.8)


def boxes_of(people: People) -> list[list[float]]:
    return people.boxes.tolist()


def test_nobody() -> None:
    play = stage([])
    people = play.loop(IMAGE)
    assert len(people) == 0
    assert people.masks.shape == people.raw_masks.shape == (0, H, W)
    assert people.keypoints.shape == (0, 17, 2)
    assert len(play.detector.frames) == 1, "the second look would see the same picture"
    assert play.pose_estimator.boxes == play.segmenter.points == []


def test_one_person() -> None:
    play = stage([LEFT])
    people = play.loop(IMAGE)
    assert boxes_of(people) == [[10, 10, 60, 110]]
    np.testing.assert_allclose(people.scores, [0.9])
    np.testing.assert_allclose(people.pose_scores, [0.9], rtol=1e-6)
    np.testing.assert_allclose(people.mask_scores, [0.8])
    np.testing.assert_array_equal(people.keypoints[0], LEFT.pose(17))
    np.testing.assert_array_equal(people.masks[0], rectangle_mask(H, W, LEFT.box))
    assert people.iterations.tolist() == [1]
    assert people.track_ids.tolist() == [-1]
    assert np.isnan(people.visibility).all() and np.isnan(people.presence).all()


@pytest.mark.parametrize(
    ("box", "score", "looks"),
    [
        ((40, 10, 90, 110), 0.26, 2),  # hidden in part, perhaps
        ((40, 10, 90, 110), 0.24, 1),  # too unsure
        ((120, 10, 180, 110), 0.26, 1),  # far from everybody
        ((11, 10, 60, 110), 0.26, 1),  # the same person again
    ],
)
def test_another_look_only_where_somebody_may_be_hidden(
    box: tuple[int, int, int, int], score: float, looks: int
) -> None:
    act = [LEFT, Actor(box, score=score)]
    play = stage(act, look_again_score=0.25)
    assert len(play.loop(IMAGE)) == 1
    assert len(play.detector.frames) == looks
    assert play.detector.thresholds[0] == 0.25
    always = stage(act)
    always.loop(IMAGE)
    assert len(always.detector.frames) == 2


@pytest.mark.parametrize(
    ("expected", "looks"),
    [
        ([LEFT.box], 1),
        ([(12, 10, 60, 110)], 1),  # about there
        ([(40, 10, 90, 110)], 2),  # somebody beside, with an IoU of 0.25
        ([LEFT.box, LEFT.box], 2),  # one person is not two
        ([LEFT.box, (100, 10, 150, 110)], 2),  # somebody is missing
        ([], 2),  # nobody is known
    ],
)
def test_no_second_look_where_all_who_are_expected_were_found(
    expected: list[tuple[int, int, int, int]], looks: int
) -> None:
    play = stage([LEFT])
    boxes = np.array(expected, np.float32).reshape(-1, 4)
    people, report = play.loop.run(IMAGE, expected=boxes)
    assert len(people) == 1
    assert len(play.detector.frames) == looks


def test_two_overlapping_people_share_no_pixel_and_lose_none() -> None:
    front = Actor((20, 10, 80, 110), score=0.8, mask_score=0.95)
    behind = Actor((65, 10, 130, 110), score=0.9, mask_score=0.7)
    people = stage([front, behind]).loop(IMAGE)
    assert people.scores.tolist() == sorted(people.scores.tolist(), reverse=True)
    back, fore = people.masks
    np.testing.assert_array_equal(fore, rectangle_mask(H, W, front.box))
    np.testing.assert_array_equal(back, rectangle_mask(H, W, behind.box) & ~fore)
    np.testing.assert_array_equal(people.raw_masks[0], rectangle_mask(H, W, behind.box))


def test_fifty_people() -> None:
    # A grid of 10 x 5 boxes that touch their neighbours.
    crowd = [
        Actor((20.0 * c, 24.0 * r, 20.0 * c + 19, 24.0 * r + 23), score=0.99 - 0.01 * (10 * r + c))
        for r in range(5)
        for c in range(10)
    ]
    people = stage(crowd[::-1]).loop(IMAGE)
    assert len(people) == 50
    assert boxes_of(people) == [list(actor.box) for actor in crowd]
    assert (people.masks.sum(axis=0) <= 1).all()


def test_max_people_keeps_the_best_and_the_second_round_fills_up_what_is_left() -> None:
    crowd = [Actor((20.0 * i, 5, 20.0 * i + 18, 50), score=0.5 + 0.04 * i) for i in range(8)]
    late = [Actor((20.0 * i, 60, 20.0 * i + 18, 110), score=0.5 + 0.04 * i) for i in range(8)]
    people = stage(crowd, late, max_people=10).loop(IMAGE)
    assert len(people) == 10
    assert people.iterations.tolist() == [1] * 8 + [2] * 2
    assert boxes_of(people)[8:] == [list(late[7].box), list(late[6].box)]
    play = stage(crowd, late, max_people=3)
    assert boxes_of(play.loop(IMAGE)) == [list(crowd[i].box) for i in (7, 6, 5)]
    assert len(play.detector.frames) == 1, "there is room for nobody else"


def test_second_iteration_finds_who_was_hidden_and_rows_keep_their_order() -> None:
    hidden = [Actor((30, 40, 90, 118), score=0.5), Actor((140, 30, 195, 118), score=0.95)]
    play = stage([LEFT, RIGHT], hidden, box_nms_iou=0.9)
    people = play.loop(IMAGE)
    assert people.iterations.tolist() == [1, 1, 2, 2]
    np.testing.assert_allclose(people.scores, [0.9, 0.8, 0.95, 0.5])
    seen = play.detector.frames[1].image
    covered = rectangle_mask(H, W, LEFT.box) | rectangle_mask(H, W, RIGHT.box)
    assert not seen[covered].any() and (seen[~covered] == 127).all()


@pytest.mark.parametrize(
    ("later", "scores"),
    [(None, [0.9, 0.8, 0.55, 0.45]), (0.5, [0.9, 0.8, 0.55]), (0.1, [0.9, 0.8, 0.55, 0.45])],
)
def test_later_iterations_may_ask_for_more(later: float | None, scores: list[float]) -> None:
    hidden = [
        Actor((30, 40, 90, 118), score=0.55), Actor((140, 30, 195, 118), score=0.45),
        Actor((95, 20, 110, 60), score=0.35),
    ]  # fmt: skip
    settings = {"detection_threshold": 0.4, "later_threshold": later, "box_nms_iou": 0.9}
    np.testing.assert_allclose(stage([LEFT, RIGHT], hidden, **settings).loop(IMAGE).scores, scores)
    faint = Actor(RIGHT.box, score=0.45)
    assert len(stage([faint], **settings).loop(IMAGE)) == 1, "the first iteration asks for less"


BEHIND = Actor((25, 10, 75, 110), score=0.25)
"""IoU with `LEFT` 0.54."""


@pytest.mark.parametrize(
    ("behind", "settings", "found"),
    [
        (BEHIND, {}, True),
        (BEHIND, {"behind_threshold": None}, False),
        (Actor(BEHIND.box, score=0.2), {}, False),  # too unsure
        (BEHIND, {"box_nms_iou": 0.6}, False),  # nothing has suppressed this box
        (BEHIND, {"behind_score": 0.91}, False),  # the person in front is none, perhaps
        (Actor((95, 10, 160, 110), score=0.25), {}, False),  # behind someone unsure
        (Actor((150, 20, 199, 119), score=0.25), {}, False),  # behind nobody
    ],
)
def test_less_is_asked_of_who_is_seen_behind_a_sure_person(
    behind: Actor, settings: dict[str, float | None], found: bool
) -> None:
    unsure = Actor((90, 10, 150, 110), score=0.5)
    given = {"behind_threshold": 0.2, "box_nms_iou": 0.5, "detection_threshold": 0.4} | settings
    play = stage([LEFT, unsure], [behind], **given)
    people = play.loop(IMAGE)
    assert boxes_of(people)[2:] == [list(behind.box)] * found
    assert people.iterations.tolist() == [1, 1, 2][: len(people)]
    sure = given["behind_threshold"] is not None and settings.get("behind_score", 0) < 0.9
    assert play.detector.thresholds == [0.4, 0.2 if sure else 0.4]


@pytest.mark.parametrize(
    ("tracked", "found"),
    [
        (None, True),  # nobody tracks
        ([], False),  # nobody is known
        ([LEFT.box], False),  # the one in front, who was found
        ([LEFT.box, (140, 10, 190, 110)], False),  # somebody is missing, but elsewhere
        ([BEHIND.box], False),  # it may be the one in front, who moved
        ([LEFT.box, BEHIND.box], True),
        ([(35, 10, 85, 110), LEFT.box], True),  # about there, in any order
        ([LEFT.box, (50, 10, 100, 110)], False),  # beside: IoU 0.33
    ],
)
def test_while_people_are_tracked_less_is_asked_where_one_is_missing(
    tracked: list[tuple[int, int, int, int]] | None, found: bool
) -> None:
    play = stage([LEFT], [BEHIND], behind_threshold=0.2, box_nms_iou=0.5)
    places = None if tracked is None else np.array(tracked, np.float64).reshape(-1, 4)
    people, _ = play.loop.run(IMAGE, tracked=places)
    assert boxes_of(people)[1:] == [list(BEHIND.box)] * found


def test_a_higher_threshold_behind_people_changes_nothing() -> None:
    play = stage([LEFT], [Actor(BEHIND.box, score=0.45)], behind_threshold=0.5, box_nms_iou=0.5)
    assert len(play.loop(IMAGE)) == 2


@pytest.mark.parametrize(("weight", "owner"), [(0.0, 1), (0.125, 0), (1.0, 0)])
def test_a_pixel_may_go_to_the_better_box(weight: float, owner: int) -> None:
    person = Actor((20, 10, 80, 110), score=0.9, mask_score=0.80)
    double = Actor((20, 40, 80, 118), score=0.1, mask_score=0.85)
    people = stage(
        [person, double], detection_threshold=0.05, box_nms_iou=1.0, box_score_weight=weight
    ).loop(IMAGE)
    shared = rectangle_mask(H, W, person.box) & rectangle_mask(H, W, double.box)
    assert people.masks[owner][shared].all() and not people.masks[1 - owner][shared].any()


def test_person_accepted_and_later_suppressed_gives_the_pixels_back() -> None:
    # The first look finds A (sixteen joints) and its neighbour B, who loses the shared pixels to
    # A. The second look finds A again, with all joints: the first A goes, and the new one has a
    # smaller mask that leaves B alone.
    joints = np.full(17, 0.9, np.float32)
    joints[16] = 0.1
    first = Actor((20, 10, 80, 110), keypoint_scores=joints, segment=(20, 10, 90, 110))
    neighbour = Actor((82, 10, 140, 110), score=0.8, segment=(70, 10, 140, 110), mask_score=0.7)
    again = Actor(
        (21, 10, 81, 110), score=0.6, keypoints=first.pose(17) + 0.5, segment=(20, 10, 60, 110)
    )
    before = stage([first, neighbour], iterations=1).loop(IMAGE)
    after = stage([first, neighbour], [again]).loop(IMAGE)
    assert before.masks[1].sum() == (140 - 90) * 100, "the neighbour lost the shared pixels"
    assert boxes_of(after) == [list(neighbour.box), list(again.box)]
    np.testing.assert_array_equal(after.masks[0], rectangle_mask(H, W, (70, 10, 140, 110)))


def test_pose_that_is_found_again_but_worse_changes_nothing() -> None:
    worse = Actor((11, 10, 61, 110), keypoints=LEFT.pose(17) + 0.5, keypoint_scores=0.5)
    play = stage([LEFT], [worse])
    people = play.loop(IMAGE)
    assert boxes_of(people) == [list(LEFT.box)]
    assert len(play.segmenter.points) == 1


def test_nobody_leaves_for_a_pose_that_does_not_stay_itself() -> None:
    # The new pose beats the first person, then loses to the second one: nothing new was found.
    def standing(offset: float, joints: int) -> Actor:
        box = (offset, 0, offset + 101, 97)
        scores = np.where(np.arange(17) < 17 - joints, 0.1, 0.9)
        keypoints = spread_keypoints((0, 0, 101, 97)) + np.float32([offset, 0])
        return Actor(box, keypoints=keypoints, keypoint_scores=scores)

    accepted = [standing(0, 15), standing(10.5, 17)]
    play = stage(accepted, [standing(4, 16)], box_nms_iou=1.0)
    trace = play.loop.trace(IMAGE)
    survivors = trace.iterations[1].survivors
    assert survivors is not None and len(survivors) == 0
    assert boxes_of(trace.people) == [list(actor.box) for actor in accepted]
    nothing_between = stage([accepted[0]], [standing(4, 16)], box_nms_iou=1.0)
    assert boxes_of(nothing_between.loop(IMAGE)) == [[4, 0, 105, 97]], "it does beat the first"


def test_one_pixel_image() -> None:
    people = stage([Actor((0, 0, 1, 1))]).loop(grey_image(1, 1))
    assert len(people) == 1 and people.masks.tolist() == [[[True]]]


def test_twelve_megapixel_image() -> None:
    far = [Actor((100, 100, 900, 2900)), Actor((3000, 500, 3990, 2990), score=0.7)]
    people = stage(far).loop(grey_image(3000, 4000))
    assert people.masks.shape == (2, 3000, 4000)
    assert people.masks.sum(axis=(1, 2)).tolist() == [800 * 2800, 990 * 2490]


@pytest.mark.parametrize("keep, count", [("first", 2), ("never", 1)])
def test_person_without_a_keypoint_keeps_the_detector_mask(keep: str, count: int) -> None:
    poseless = Actor((120, 10, 180, 110), keypoint_scores=0.1, segment=(0, 0, 5, 5))
    late = Actor((70, 60, 110, 110), keypoint_scores=0.1)
    people = stage([LEFT, poseless], [late], keep_poseless=keep).loop(IMAGE)
    assert len(people) == count, "in the second iteration nobody is kept without a pose"
    if count == 2:
        np.testing.assert_array_equal(people.masks[1], rectangle_mask(H, W, poseless.box))
        assert people.mask_scores.tolist()[1] == 0


def test_without_segmenter_the_detector_masks_are_shared_out() -> None:
    # Both scores are 0: on a tie the one who was accepted first keeps the pixels.
    other = Actor((50, 10, 130, 110), score=0.8)
    people = stage([LEFT, other], segmenter=False).loop(IMAGE)
    assert people.mask_scores.tolist() == [0, 0]
    np.testing.assert_array_equal(people.masks[0], rectangle_mask(H, W, LEFT.box))
    assert people.masks[1].sum() == 70 * 100


def test_detector_without_masks() -> None:
    play = stage([LEFT, RIGHT], detector_masks=False)
    people = play.loop(IMAGE)
    assert play.pose_estimator.masks == [None]
    assert people.masks.any(axis=(1, 2)).all()
    nothing = stage([LEFT, RIGHT], detector_masks=False, segmenter=False)
    people = nothing.loop(IMAGE)
    assert len(people) == 2 and not people.masks.any()
    assert len(nothing.detector.frames) == 1, "nobody is painted out: nothing new to see"


def test_pose_estimator_gets_the_detector_mask_of_each_person() -> None:
    play = stage([RIGHT, LEFT])
    play.loop(IMAGE)
    (masks,) = play.pose_estimator.masks
    assert masks is not None
    np.testing.assert_array_equal(masks[0], rectangle_mask(H, W, LEFT.box))
    np.testing.assert_array_equal(masks[1], rectangle_mask(H, W, RIGHT.box))


def test_extra_keypoints_are_kept_and_do_not_count() -> None:
    scores = np.full(23, 0.9, np.float32)
    scores[17:] = 0.1
    play = stage([Actor(LEFT.box, keypoint_scores=scores)], skeleton=MULTI_23)
    people = play.loop(IMAGE)
    assert people.keypoints.shape == (1, 23, 2) and people.skeleton is MULTI_23
    np.testing.assert_allclose(people.pose_scores, [0.9], rtol=1e-6)


def test_extra_keypoints_neither_save_a_pose_nor_prompt() -> None:
    scores = np.full(23, 0.1, np.float32)
    scores[17:] = 0.9
    play = stage([Actor(LEFT.box, keypoint_scores=scores)], skeleton=MULTI_23)
    assert len(play.loop(IMAGE)) == 1 and play.segmenter.points == []


@pytest.mark.parametrize(
    "skeleton",
    [MPII_16, Skeleton("hands", ("wrist", "thumb", "little"), ((0, 1),), (), (0.1,) * 3)],
    ids=lambda skeleton: skeleton.name,
)
def test_any_complete_skeleton_goes_through_the_loop(skeleton: Skeleton) -> None:
    scores = np.full(len(skeleton), 0.9, np.float32)
    scores[-1] = 0.6
    doubles = [Actor(LEFT.box, keypoint_scores=scores), RIGHT, Actor(LEFT.box, score=0.5)]
    play = stage(doubles, skeleton=skeleton, box_nms_iou=1.0, keep_poseless="never")
    people = play.loop(IMAGE)
    assert people.skeleton is skeleton and len(people) == 2  # pose NMS used its sigmas
    rows = sorted(people.pose_scores.tolist())
    assert rows[0] == pytest.approx(0.9) and people.has_mask.all()
    prompts = np.concatenate([points.reshape(-1, 2) for points in play.segmenter.points])
    assert len(prompts) >= 2 * min(len(skeleton), 3) - 1


def test_nose_and_eyes_are_found_by_their_names_and_prompt_once() -> None:
    skeleton = Skeleton(
        "turned", ("left_knee", "left_eye", "nose", "right_eye"), (), (), (0.1,) * 4
    )
    play = stage([LEFT], skeleton=skeleton, iterations=1)
    play.loop(IMAGE)
    assert play.segmenter.points[0].shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sigmas": ()}, r"'bad' has 3 joints and the sigmas \(\)"),
        ({"sigmas": (0.1, 0, 0.1)}, "one above 0 per joint"),
        ({"names": ("a", "b", "b")}, "joints with different names"),
        ({"edges": ((0, 3),)}, r"the edge \(0, 3\), needs two of its 3 joints"),
        ({"flip_pairs": ((1, 1),)}, r"the flip pair \(1, 1\)"),
    ],
)
def test_an_incomplete_skeleton_is_refused(changed: dict[str, Any], message: str) -> None:
    parts = {"names": ("a", "b", "c"), "edges": (), "flip_pairs": (), "sigmas": (0.1,) * 3}
    skeleton = Skeleton("bad", **{**parts, **changed})
    with pytest.raises(ValueError, match=message):
        BMPLoop(stage([]).detector, ScriptedPoseEstimator([], skeleton), None)


def test_boxes_from_masks() -> None:
    shrunk = Actor(LEFT.box, segment=(20, 30, 50, 90))
    lost = Actor((120, 10, 180, 110), score=0.5, segment=np.zeros((H, W), np.bool_))
    people = stage([shrunk, lost], boxes_from_masks=True).loop(IMAGE)
    assert boxes_of(people) == [[20, 30, 50, 90], list(lost.box)]
    assert people.boxes.dtype == np.float32


def test_number_of_prompts_in_a_crowd() -> None:
    crowd = [Actor((10, 10, 70, 110)), Actor((20, 10, 80, 110), score=0.8), RIGHT]
    play = stage(
        crowd, iterations=1, box_nms_iou=1.0, num_positive=2, num_positive_crowded=5,
        crowd_iou=0.5,
    )  # fmt: skip
    play.loop(IMAGE)
    assert [points.shape for points in play.segmenter.points] == [(1, 2, 2), (2, 5, 2)]


def test_negative_prompts_come_from_the_nearest_others() -> None:
    play = stage([LEFT, RIGHT], iterations=1, num_positive=3, num_negative=2)
    play.loop(IMAGE)
    (points,), (labels,) = play.segmenter.points, play.segmenter.labels
    assert labels.tolist() == [[1, 1, 1, 0, 0]] * 2
    centre = np.array([35.0, 60.0])
    others = RIGHT.pose(17)
    nearest = others[np.argsort(np.linalg.norm(others - centre, axis=1))[:2]]
    np.testing.assert_array_equal(points[0, 3:], nearest)


def test_prompts_of_both_point_counts_reach_the_right_people() -> None:
    few = np.full(17, 0.1, np.float32)
    few[5:7] = 0.9
    actors = [
        Actor((10, 10, 50, 110), segment=(12, 12, 40, 100)),
        Actor((60, 10, 100, 110), score=0.8, keypoint_scores=few, segment=(62, 12, 90, 90)),
        Actor((110, 10, 150, 110), score=0.7, segment=(112, 12, 140, 80)),
    ]
    play = stage(actors, iterations=1)
    people = play.loop(IMAGE)
    assert [points.shape[:2] for points in play.segmenter.points] == [(1, 2), (2, 6)]
    assert people.masks.sum(axis=(1, 2)).tolist() == [28 * 88, 28 * 78, 28 * 68]


def test_the_segmenter_is_given_the_masks_of_whom_it_is_asked_about() -> None:
    few = np.full(17, 0.1, np.float32)
    few[5:7] = 0.9
    actors = [LEFT, Actor((65, 10, 110, 110), score=0.85, keypoint_scores=few), RIGHT]
    play = stage(actors, [Actor((20, 20, 60, 90), score=0.5)], oks_threshold=1.0)
    play.loop(IMAGE)
    given = [masks for masks in play.segmenter.masks if masks is not None]
    expected = [actors[1:2], [LEFT, RIGHT], [Actor((20, 20, 60, 90))]]
    assert [len(masks) for masks in given] == [1, 2, 1]
    for masks, asked in zip(given, expected, strict=True):
        for mask, actor in zip(masks, asked, strict=True):
            np.testing.assert_array_equal(mask, rectangle_mask(H, W, actor.box))


@pytest.mark.parametrize("twins", [0, 1])
def test_a_detector_without_masks_gives_none_whoever_is_suppressed(twins: int) -> None:
    twin = Actor((11, 10, 61, 110), score=0.7, keypoints=LEFT.pose(17) + 0.25)
    unseen = Actor((70, 10, 110, 110), score=0.6, keypoint_scores=0.0)
    play = stage(
        [LEFT, RIGHT, *[twin] * twins, unseen], detector_masks=False, iterations=1, box_nms_iou=1.0
    )
    trace = play.loop.trace(IMAGE)
    assert len(trace.people) == 3, "the twin is suppressed"
    assert play.pose_estimator.masks == [None] and play.segmenter.masks == [None]
    assert trace.people.has_mask.tolist() == [True, True, False], "nobody prompted for the last"
    assert trace.people.masks.any(axis=(1, 2)).tolist() == [True, True, False]
    assert detector_masks(trace) == [None, None, None]


class TestGivenBoxes:
    BOXES = np.array([RIGHT.box, LEFT.box], np.float32)

    def test_row_i_is_box_i(self) -> None:
        play = stage([LEFT, RIGHT])
        people = play.loop(IMAGE, self.BOXES)
        np.testing.assert_array_equal(people.boxes, self.BOXES)
        assert people.scores.tolist() == [1, 1] and people.iterations.tolist() == [1, 1]
        assert play.detector.frames == [] and play.pose_estimator.masks == [None]
        assert people.masks.any(axis=(1, 2)).all()

    def test_nobody_is_suppressed_and_nobody_needs_a_pose(self) -> None:
        twin = Actor((11, 10, 61, 110), keypoints=LEFT.pose(17) + 0.25)
        poseless = Actor(RIGHT.box, keypoint_scores=0.0)
        play = stage([LEFT, twin, poseless], keep_poseless="never")
        people = play.loop(IMAGE, [LEFT.box, twin.box, poseless.box])
        assert len(people) == 3
        assert not people.masks[2].any() and people.mask_scores[2] == 0

    def test_boxes_are_clipped(self) -> None:
        inside = Actor((0, 0, 50, H))
        people = stage([inside]).loop(IMAGE, np.array([[-30, -5, 50, H + 9]]))
        assert boxes_of(people) == [[0, 0, 50, H]]

    def test_none_given(self) -> None:
        assert len(stage([LEFT]).loop(IMAGE, np.zeros((0, 4)))) == 0

    @pytest.mark.parametrize(
        "boxes, message",
        [
            ([[1, 2, 3]], r"shape \(N, 4\) xyxy"),
            ([1, 2, 3, 4], r"shape \(N, 4\) xyxy"),
            ([[0, 0, np.nan, 5]], "finite"),
            ([[0, 0, 9, 9], [50, 20, 40, 60]], r"box 1 \[50.0, 20.0, 40.0, 60.0\].*200x120"),
            ([[300, 0, 400, 50]], "box 0 .* no area inside the image"),
            ([[0, 0, 9, 9]] * 51, "51 boxes, max_people is 50"),
        ],
    )
    def test_what_is_refused(self, boxes: list[list[float]], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            stage([LEFT]).loop(IMAGE, np.array(boxes))


class TestNotFinite:
    """NaN or infinity from a network costs that person, is counted, and nobody else."""

    @pytest.mark.parametrize(
        "broken",
        [
            Actor((120, np.nan, 180, 110)),
            Actor((120, 10, np.inf, 110)),
            Actor((120, 10, 180, 110), score=np.nan),
            Actor((120, 10, 180, 110), keypoints=np.full((17, 2), np.nan, np.float32)),
            Actor((120, 10, 180, 110), keypoint_scores=np.nan),
            Actor((120, 10, 180, 110), mask_score=np.nan),
            Actor((120, 10, 180, 110), mask_score=-np.inf),
        ],
    )
    def test_person_is_dropped_and_counted(self, broken: Actor) -> None:
        play = stage([LEFT, broken])
        people, report = play.loop.run(IMAGE)
        assert boxes_of(people) == [list(LEFT.box)]
        assert report.not_finite == 1

    def test_visibility(self) -> None:
        seen, unseen = Actor(LEFT.box, visibility=0.7), Actor(RIGHT.box, visibility=np.nan)
        people, report = stage([seen, unseen]).loop.run(IMAGE)
        assert boxes_of(people) == [list(LEFT.box)]
        assert report.not_finite == 1

    @pytest.mark.parametrize("field", ["score", "keypoint_scores", "mask_score"])
    def test_everybody(self, field: str) -> None:
        play = stage([Actor(LEFT.box, **{field: np.nan}), Actor(RIGHT.box, **{field: np.nan})])
        people, report = play.loop.run(IMAGE)
        assert len(people) == 0 and report.not_finite == 2


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((5, 5), np.uint8), r"shape \(5, 5\).*cv2.cvtColor"),
        (np.zeros((5, 5, 4), np.uint8), r"shape \(5, 5, 4\)"),
        (np.zeros((5, 5, 3), np.uint16), "dtype uint16"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        ([[[1, 2, 3]]], "NumPy array.*got list$"),
        (None, "got NoneType; cv2.imread returns None"),
    ],
)
def test_other_images_are_refused(image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage([LEFT]).loop(image)


def test_boxes_that_leave_the_image_are_clipped_and_empty_ones_dropped() -> None:
    clipped = Actor((0, 0, 50, H))
    play = stage([Actor((-20, -20, 50, H + 50)), Actor((W + 5, 0, W + 50, 50)), clipped])
    people = play.loop(IMAGE)
    assert boxes_of(people) == [[0, 0, 50, H]]


def test_settings_may_change_between_frames() -> None:
    play = stage([LEFT, RIGHT], [], [LEFT, RIGHT])
    assert len(play.loop(IMAGE)) == 2
    play.loop.settings = LoopSettings(detection_threshold=0.85)
    assert len(play.loop(IMAGE)) == 1
