# SPDX-License-Identifier: Apache-2.0
"""Whom to follow, and that nobody is named where that person may be another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.interaction.follow import (
    Doubt,
    Follower,
    Mode,
    Scene,
    begin,
    choose,
    follow,
    raised_hands,
)
from bmp_ros.loop.people import People
from bmp_ros.tracking.appearance import BINS

LEFT, MIDDLE, RIGHT = [10, 50, 60, 200], [120, 80, 180, 180], [230, 20, 310, 230]


def scene(boxes: list[list[float]], ids: list[int] | None = None, **fields: Any) -> Scene:
    """People in an image of 320x240 pixels, of unknown depth unless ``distances`` says it."""
    count = len(boxes)
    numbers = list(range(1, count + 1)) if ids is None else ids
    distances = np.array(fields.pop("distances", [np.nan] * count), float)
    places = np.stack([np.zeros(count), np.zeros(count), distances], axis=1)
    values: dict[str, Any] = {
        "ids": np.array(numbers, np.int32),
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "raised": np.zeros(count, np.bool_),
        "places": places,
        "distances": distances,
        "colours": None,
        "hidden": np.zeros((0, 4)),
        "image_size": (240, 320),
        "known": frozenset(n for n in numbers if n >= 0),
        "swaps": 0,
        "stamp_s": 0.0,
        "arrival_s": 0.0,
    }
    return Scene(**(values | fields))


def test_who_is_meant() -> None:
    three = scene([LEFT, MIDDLE, RIGHT], [4, 5, 6])
    assert choose(three, Mode.NEAREST).row == 2  # the largest box
    assert choose(three, Mode.MOST_CENTRAL).row == 1
    assert choose(three, Mode.BY_ID, 4).row == 0
    near = replace(three, distances=np.array([3.0, 1.5, np.nan]))
    assert choose(near, Mode.NEAREST).row == 1
    raised = replace(near, raised=np.array([True, False, True]))
    assert choose(raised, Mode.RAISED_HAND).row == 0
    untracked = replace(near, ids=np.array([4, -1, 6]))
    assert choose(untracked, Mode.NEAREST).row == 0


@pytest.mark.parametrize("mode", list(Mode)[1:])
def test_nobody_is_meant_where_there_is_nobody(mode: Mode) -> None:
    for empty in (scene([]), scene([LEFT], [-1], raised=np.array([True]))):
        choice = choose(empty, mode, 7)
        assert choice.row is None and choice.problem


def test_an_id_that_is_not_there_is_named_with_those_that_are() -> None:
    problem = choose(scene([LEFT, RIGHT], [9, 4]), Mode.BY_ID, 7).problem
    assert "track_id 7" in problem and "4, 9" in problem
    assert choose(scene([LEFT], [-1]), Mode.BY_ID, -1).row is None


def pose(**joints: tuple[float, float]) -> People:
    """One person whose named joints are found; all others have the score 0."""
    people = People.from_boxes(np.array([LEFT], np.float32), np.ones(1, np.float32), 240, 320)
    keypoints, scores = people.keypoints.copy(), people.keypoint_scores.copy()
    for name, place in joints.items():
        index = people.skeleton.names.index(name)
        keypoints[0, index], scores[0, index] = place, 0.9
    return replace(people, keypoints=keypoints, keypoint_scores=scores)


def test_a_raised_hand_is_above_the_head() -> None:
    head = {"nose": (30, 60), "left_eye": (33, 55)}
    assert raised_hands(pose(**head, left_wrist=(50, 40), right_wrist=(20, 120))).tolist() == [
        True
    ]
    assert raised_hands(pose(**head, right_wrist=(50, 54))).tolist() == [True]
    assert raised_hands(pose(**head, left_wrist=(50, 57))).tolist() == [False]
    assert raised_hands(pose(left_wrist=(50, 10))).tolist() == [False]  # no head is seen
    assert raised_hands(pose(**head)).tolist() == [False]
    assert raised_hands(pose()[:0]).tolist() == []


def run(scenes: list[Scene], settle_s: float = 0.5) -> list[tuple[int | None, Doubt]]:
    """Follow the first person of the first scene."""
    follower, found = begin(scenes[0], 0), []
    for each in scenes[1:]:
        follower, row, doubt = follow(follower, each, settle_s)
        found.append((row, doubt))
    return found


def moved(by: float, box: list[int] = LEFT) -> list[float]:
    return [box[0] + by, box[1], box[2] + by, box[3]]


def test_a_person_who_walks_is_followed_at_once_and_in_every_row() -> None:
    boxes = [[moved(4 * step), RIGHT] for step in range(6)]
    scenes = [scene(each, [4, 5], stamp_s=0.1 * step) for step, each in enumerate(boxes)]
    assert run(scenes) == [(0, Doubt.NONE)] * 5
    other_order = [scene(each[::-1], [5, 4], stamp_s=0.1 + s) for s, each in enumerate(boxes[1:3])]
    assert run([scenes[0], other_order[0]]) == [(1, Doubt.NONE)]


def test_out_of_sight_for_an_image_and_for_long() -> None:
    def at(stamp: float, seen: bool) -> Scene:
        known = frozenset({4, 5})
        boxes, ids = ([LEFT, RIGHT], [4, 5]) if seen else ([RIGHT], [5])
        return scene(boxes, ids, stamp_s=stamp, known=known)

    short = run([at(0.0, True), at(0.1, False), at(0.2, True)])
    assert short == [(None, Doubt.UNSEEN), (0, Doubt.NONE)]
    long = run([at(0.0, True), at(0.5, False), at(2.0, True), at(2.3, True), at(2.6, True)])
    assert long == [
        (None, Doubt.UNSEEN), (None, Doubt.SETTLING), (None, Doubt.SETTLING), (0, Doubt.NONE),
    ]  # fmt: skip


def test_the_end_of_the_track_is_the_end() -> None:
    start, gone = scene([LEFT], [4]), scene([LEFT], [9], stamp_s=0.1)
    state, row, doubt = follow(begin(start, 0), gone, 0.5)
    assert (row, doubt, state) == (None, Doubt.ENDED, Follower())


def test_another_person_on_top_is_ambiguous_tracked_or_not() -> None:
    for number in (5, -1):
        crowd = scene([LEFT, moved(8)], [4, number], stamp_s=0.1)
        apart = [scene([LEFT, RIGHT], [4, number], stamp_s=t) for t in (0.2, 0.5, 0.7)]
        assert run([scene([LEFT], [4]), crowd, *apart]) == [
            (None, Doubt.CROWDED), (None, Doubt.SETTLING), (None, Doubt.SETTLING), (0, Doubt.NONE),
        ]  # fmt: skip


def test_a_person_hidden_behind_is_ambiguous_too() -> None:
    hidden = np.array([moved(10)], float)
    found = run([scene([LEFT], [4]), scene([LEFT], [4], stamp_s=0.1, hidden=hidden)])
    assert found == [(None, Doubt.CROWDED)]
    elsewhere = np.array([RIGHT], float)
    found = run([scene([LEFT], [4]), scene([LEFT], [4], stamp_s=0.1, hidden=elsewhere)])
    assert found == [(0, Doubt.NONE)]


def test_ids_that_were_exchanged_are_doubted() -> None:
    people = [scene([LEFT, RIGHT], stamp_s=t, swaps=s) for t, s in ((0, 2), (0.3, 3), (0.8, 3))]
    assert run(people) == [(None, Doubt.SWAPPED), (0, Doubt.NONE)]
    away = scene([RIGHT], [2], stamp_s=0.1, swaps=3, known=frozenset({1, 2}))
    back = [scene([LEFT, RIGHT], stamp_s=t, swaps=3) for t in (0.25, 0.75)]
    assert run([people[0], away, *back]) == [
        (None, Doubt.UNSEEN), (None, Doubt.SETTLING), (0, Doubt.NONE),
    ]  # fmt: skip


def clothes(*bins: int) -> np.ndarray:
    """(1, BINS) histogram of a person in some colours, half of it above and half below."""
    colours = np.zeros((1, BINS))
    for half in (0, BINS // 2):
        colours[0, [half + each for each in bins]] = 0.5 / len(bins)
    return colours


def test_other_clothes_are_those_of_another_person() -> None:
    def dressed(stamp: float, *bins: int) -> Scene:
        colours = clothes(*bins) if bins else np.zeros((1, BINS))
        return scene([LEFT], [4], stamp_s=stamp, colours=colours)

    red, blue = (1, 2), (15, 16)
    start = dressed(0.0, *red)
    assert run([start, dressed(0.1, *red), dressed(0.2, *blue), dressed(0.3, *blue)]) == [
        (0, Doubt.NONE), (None, Doubt.UNLIKE), (None, Doubt.UNLIKE),
    ]  # fmt: skip
    back = [dressed(t, *red) for t in (0.3, 0.6, 0.9)]
    assert [doubt for _, doubt in run([start, dressed(0.2, *blue), *back])] == [
        Doubt.UNLIKE, Doubt.SETTLING, Doubt.SETTLING, Doubt.NONE,
    ]  # fmt: skip
    # For ever: who was chosen is not forgotten for somebody else who stays.
    assert run([start, *[dressed(0.1 * t, *blue) for t in range(1, 200)]])[-1][1] is Doubt.UNLIKE
    assert run([start, dressed(0.1), dressed(0.2, *red)]) == [(0, Doubt.NONE)] * 2  # unknown
    late = run([dressed(0.0), dressed(0.1, *red), dressed(0.2, *blue)])
    assert late == [(0, Doubt.NONE), (None, Doubt.UNLIKE)]


def test_clothes_may_change_their_shade_slowly() -> None:
    shades = [
        scene(
            [LEFT], [4], stamp_s=0.1 * t, colours=(1 - t / 150) * clothes(1) + t / 150 * clothes(3)
        )
        for t in range(150)
    ]
    assert {doubt for _, doubt in run(shades)} == {Doubt.NONE}


def test_an_id_that_jumps_is_another_person() -> None:
    start = scene([LEFT, MIDDLE])
    jump = scene([moved(220, LEFT), MIDDLE], stamp_s=0.1)
    assert run([start, jump])[0] == (None, Doubt.JUMPED)
    near = scene([LEFT], distances=[2.0])
    assert run([near, scene([LEFT], distances=[3.5], stamp_s=0.1)])[0][1] is Doubt.JUMPED
    assert run([near, scene([LEFT], distances=[2.4], stamp_s=0.1)])[0] == (0, Doubt.NONE)
    # Depth knows better than the image: the camera turned.
    turned = scene([moved(220, LEFT)], distances=[2.1], stamp_s=0.1)
    assert run([near, turned])[0] == (0, Doubt.NONE)


@given(
    st.lists(
        st.tuples(
            st.floats(0.02, 1.0), st.sets(st.integers(1, 3)), st.sets(st.integers(1, 3)),
            st.integers(0, 1), st.floats(0, 250),
        ),
        max_size=15,
    ),
    st.floats(0, 1),
)  # fmt: skip
def test_whoever_is_named_has_the_chosen_id_and_was_clear_long_enough(
    steps: list[tuple[float, set[int], set[int], int, float]], settle_s: float
) -> None:
    """Whatever the tracker says: never another id, never in an image with a doubt."""
    stamp, swaps, doubtful_s = 0.0, 0, -np.inf
    follower = begin(scene([LEFT], [1]), 0)
    ended = False
    for dt, seen, remembered, swap, x in steps:
        stamp, swaps = stamp + dt, swaps + swap
        ids = sorted(seen)
        boxes = [moved(x if n == 1 else 100 * n) for n in ids]
        known = frozenset(seen | remembered)
        now = scene(boxes, ids, known=known, swaps=swaps, stamp_s=stamp)
        follower, row, doubt = follow(follower, now, settle_s)
        ended = ended or 1 not in known
        if ended:
            assert row is None and follower.track_id == -1
        elif row is not None:
            assert doubt is Doubt.NONE and ids[row] == 1 and not swap
            assert stamp - doubtful_s >= settle_s
        elif doubt in (Doubt.SWAPPED, Doubt.JUMPED, Doubt.CROWDED):
            doubtful_s = stamp
