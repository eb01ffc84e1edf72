# SPDX-License-Identifier: Apache-2.0
"""Ids over time: who keeps theirs, who gets a new one, what begins anew."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from walkers import HEIGHT, WIDTH, picture, walkers

from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import MPII_16, Skeleton
from bmp_ros.tracking import IdCounter, PersonTracker, TrackerSettings
from bmp_ros.tracking.appearance import BINS
from bmp_ros.tracking.motion import local_motion, move_points, rotation_homography
from bmp_ros.tracking.swap_guard import Encounter, judge
from bmp_ros.tracking.tracks import State

RED, GREEN, BLUE = (30, 30, 220), (30, 220, 30), (220, 30, 30)


def ids(tracker: PersonTracker, people: People, stamp: float, **facts: object) -> list[int]:
    result = tracker.update(people, stamp, **facts)  # type: ignore[arg-type]
    assert np.array_equal(result.boxes, people.boxes), "people stay as they are"
    return result.track_ids.tolist()


def test_people_keep_their_ids_in_any_order() -> None:
    tracker = PersonTracker()
    first = ids(tracker, walkers([(60, 120), (160, 120), (260, 120)]), 0.0)
    assert first == [1, 2, 3]
    for step in range(1, 20):
        moved = [(60 + 2 * step, 120), (160 + step, 120), (260 - 2 * step, 120)]
        order = [2, 0, 1] if step % 2 else [1, 2, 0]
        people = walkers(moved)[order]
        assert ids(tracker, people, step / 30) == [first[i] for i in order]


def test_an_id_comes_with_the_second_image() -> None:
    tracker = PersonTracker()
    ids(tracker, walkers([(60, 120)]), 0.0)
    both = walkers([(60, 120), (220, 120)])
    assert ids(tracker, both, 0.1) == [1, -1]
    assert ids(tracker, both, 0.2) == [1, 2]


def test_who_was_seen_once_leaves_no_id_behind() -> None:
    tracker = PersonTracker()
    ids(tracker, walkers([(60, 120)]), 0.0)
    ids(tracker, walkers([(60, 120), (220, 120)]), 0.1)
    for step in range(2, 8):
        ids(tracker, walkers([(60, 120)]), step / 10)
    both = walkers([(60, 120), (150, 120)])
    ids(tracker, both, 0.8)
    assert ids(tracker, both, 0.9) == [1, 2]


def found_twice(step: int, *, apart: bool = False) -> People:
    """Somebody who walks, and once more their upper half, as if it were another person's."""
    people = walkers([(60 + 3 * step, 120), (260 if apart else 60 + 3 * step, 120)])
    people.boxes[1, 3] -= 45
    return people


@pytest.mark.parametrize("rate", [30.0, 10.0, 4.0])
def test_a_person_found_twice_gets_no_second_id(rate: float) -> None:
    tracker = PersonTracker()
    ids(tracker, found_twice(0)[[0]], 0.0)
    for step in range(1, int(rate)):
        assert ids(tracker, found_twice(step), step / rate) == [1, -1], step
    assert ids(tracker, found_twice(int(rate) + 1), 1.05 + 1 / rate) == [1, 2], "they may be two"


def test_somebody_half_hidden_gets_an_id_where_images_are_seconds_apart() -> None:
    tracker = PersonTracker()
    ids(tracker, found_twice(0)[[0]], 0.0)
    assert min(ids(tracker, found_twice(1), 1.4)) > 0


def test_one_missed_image_does_not_start_the_wait_again() -> None:
    tracker = PersonTracker()
    ids(tracker, found_twice(0)[[0]], 0.0)
    for step in range(1, 31):
        people = found_twice(step)
        ids(tracker, people[[0]] if step in (20, 26) else people, step / 30)
    assert ids(tracker, found_twice(31), 1.06) == [1, 2]


def test_who_steps_out_of_anothers_box_gets_an_id_at_once() -> None:
    tracker = PersonTracker()
    ids(tracker, found_twice(0)[[0]], 0.0)
    for step in range(1, 4):
        assert ids(tracker, found_twice(step), step / 10) == [1, -1]
    found = [ids(tracker, found_twice(step, apart=True), step / 10) for step in (4, 5)]
    assert found == [[1, -1], [1, 2]]


def test_another_pose_makes_somebody_else_within_a_third_of_a_second() -> None:
    """Their box lies in that of a person who is known, with joints of its own."""
    tracker = PersonTracker()
    ids(tracker, found_twice(0)[[0]], 0.0)
    found = []
    for step in range(1, 8):
        people = found_twice(step)
        people.keypoints[1] = people.keypoints[1, ::-1]  # head over heels
        found.append(ids(tracker, people, step / 10))
    assert found == [[1, -1]] * 3 + [[1, 2]] * 4


def test_unknown_poses_may_be_of_one_person() -> None:
    tracker = PersonTracker()
    ids(tracker, found_twice(0)[[0]], 0.0)
    for step in range(1, 8):
        people = found_twice(step)
        people.keypoints[1] = people.keypoints[1, ::-1]
        people.keypoint_scores[1, 3:] = 0.1
        assert ids(tracker, people, step / 10) == [1, -1], step


def test_doubles_wait_only_where_that_is_asked_for() -> None:
    tracker = PersonTracker(TrackerSettings(double_s=0.0))
    ids(tracker, found_twice(0)[[0]], 0.0)
    ids(tracker, found_twice(1), 0.1)
    assert ids(tracker, found_twice(2), 0.2) == [1, 2]


@pytest.mark.parametrize("rate", [4.0, 2.0])
def test_at_low_rates_an_id_comes_at_once(rate: float) -> None:
    tracker = PersonTracker()
    ids(tracker, walkers([(60, 120)]), 0.0)
    assert ids(tracker, walkers([(60, 120), (220, 120)]), 1 / rate) == [1, 2]


@pytest.mark.parametrize("rate", [30.0, 15.0, 7.5, 5.0])
def test_two_who_cross_keep_their_ids(rate: float) -> None:
    """The one who passes behind is not seen for about half a second."""
    tracker = PersonTracker()
    known: dict[str, int] = {}
    for stamp in np.arange(0, 4, 1 / rate):
        near, far = (60 + 50 * stamp, 130.0), (260 - 50 * stamp, 125.0)
        people = walkers([near, far])
        visible = np.count_nonzero(people.masks, axis=(1, 2)) > 700
        found = ids(tracker, people[visible], float(stamp))
        for name, number in zip(np.array(["near", "far"])[visible], found, strict=True):
            if number >= 0:
                assert known.setdefault(name, number) == number, f"{name} at {stamp:.2f} s"
    assert sorted(known) == ["far", "near"] and known["near"] != known["far"]


def test_a_sliver_beside_who_steps_in_front_is_nobody_else() -> None:
    """Of the one behind a sliver is seen, first on the right, then on the left: what was seen of
    each before is now where the other is."""
    tracker = PersonTracker()
    for step, near in enumerate([100.0] * 4 + [106.5, 112.0, 112.0]):
        people = walkers([(near, 130), (106, 130)])
        x, y = people.keypoints[1].astype(int).T
        people.keypoint_scores[1, ~people.masks[1][y, x]] = 0.1
        people = replace(people, boxes=rectangles(people.masks))
        found = ids(tracker, people, step / 7.5, image=picture(people, [RED, RED]))
        assert found == [1, 2], step


def rectangles(masks: np.ndarray) -> np.ndarray:
    """(N, 4) float32 boxes around what is seen; empty ones around nothing."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        y, x = mask.nonzero()
        if len(x):
            box[:] = x.min(), y.min(), x.max() + 1, y.max() + 1
    return boxes


def test_hidden_people_are_reported_as_occluded_and_go_on_moving() -> None:
    tracker = PersonTracker()
    for step in range(10):
        people = walkers([(160, 130), (100 + 6 * step, 130)])
        tracker.update(people, step / 10)
    tracker.update(walkers([(160, 130)]), 1.0)
    report = tracker.report()
    assert report.ids.tolist() == [1, 2]
    assert report.state.tolist() == [State.CONFIRMED, State.OCCLUDED]
    assert report.unseen == pytest.approx([0, 0.1])
    assert report.ages == pytest.approx([1.0, 1.0])
    assert report.velocities[1, 0] == pytest.approx(60, rel=0.15)
    assert (report.boxes[1, [0, 2]].mean()) == pytest.approx(160, abs=6)


def test_a_report_stays_as_it_was() -> None:
    tracker = PersonTracker()
    for step in range(5):
        tracker.update(walkers([(60 + 4 * step, 120), (200, 120)]), step / 10)
    report = tracker.report()
    before = pickle.dumps(report)
    for step in range(5, 8):
        tracker.update(walkers([(60 + 9 * step, 120)]), step / 10)
    assert pickle.dumps(report) == before


def test_somebody_recognised_by_colour_after_a_longer_absence() -> None:
    tracker = PersonTracker()
    colours = [RED, GREEN]
    people = walkers([(60, 120), (200, 120)])
    for step in range(10):
        ids(tracker, people, step / 10, image=picture(people, colours))
    alone = people[[0]]
    for step in range(10, 45):
        ids(tracker, alone, step / 10, image=picture(alone, colours[:1]))
    back = walkers([(60, 120), (250, 120)])
    ids(tracker, back, 4.5, image=picture(back, colours))
    assert ids(tracker, back, 4.6, image=picture(back, colours)) == [1, 2]


def test_who_comes_back_in_at_the_border_is_recognised_when_enough_is_seen() -> None:
    """At first only a green arm is seen, which looks like nobody."""
    tracker = PersonTracker()

    def seen(place: float, stamp: float) -> list[int]:
        people = walkers([(220, 120), (place, 120)])
        image = picture(people, [RED, BLUE])
        image[:, :6][people.masks[1][:, :6]] = GREEN
        return ids(tracker, people, stamp, image=image)

    for step in range(10):
        first = seen(60 - 6 * step, step / 10)
    alone = walkers([(220, 120)])
    for step in range(10, 35):
        ids(tracker, alone, step / 10, image=picture(alone, [RED]))
    found = [seen(-15 + 3 * step, 3.5 + step / 20) for step in range(10)]
    assert found[0] == [first[0], -1], "nobody new yet"
    assert found[-1] == first
    assert {number for _, number in found} == {-1, first[1]}


def test_somebody_else_at_the_same_place_gets_another_id() -> None:
    tracker = PersonTracker()
    people = walkers([(60, 120), (200, 120)])
    for step in range(10):
        ids(tracker, people, step / 10, image=picture(people, [RED, GREEN]))
    alone = people[[0]]
    for step in range(10, 45):
        ids(tracker, alone, step / 10, image=picture(alone, [RED]))
    for stamp in (4.5, 4.6):
        found = ids(tracker, people, stamp, image=picture(people, [RED, BLUE]))
    assert found == [1, 3]


def test_who_comes_by_where_somebody_was_lost_is_somebody_else() -> None:
    """Half a second later, at the place and speed of who was lost, but in other clothes."""
    tracker = PersonTracker()
    for step in range(10):
        people = walkers([(60, 120), (150 + 4 * step, 120)])
        ids(tracker, people, step / 10, image=picture(people, [RED, GREEN]))
    alone = walkers([(60, 120)])
    for step in range(10, 14):
        ids(tracker, alone, step / 10, image=picture(alone, [RED]))
    for step in (14, 15):
        people = walkers([(60, 120), (150 + 4 * step, 120)])
        other = ids(tracker, people, step / 10, image=picture(people, [RED, BLUE]))
    assert other == [1, 3]


def test_colours_that_everybody_wears_recognise_nobody() -> None:
    tracker = PersonTracker()
    people = walkers([(60, 120), (200, 120)])
    for step in range(10):
        ids(tracker, people, step / 10, image=picture(people, [RED, RED]))
    alone = people[[0]]
    for step in range(10, 45):
        ids(tracker, alone, step / 10, image=picture(alone, [RED]))
    for stamp in (4.5, 4.6):
        found = ids(tracker, people, stamp, image=picture(people, [RED, RED]))
    assert found == [1, 3]


def test_ids_that_were_exchanged_in_a_hug_are_put_right() -> None:
    """Both look like one for a while, then part with each other's place in the list of tracks."""
    tracker = PersonTracker(TrackerSettings(appearance_weight=0, pose_weight=0))
    for step in range(10):
        people = walkers([(100 + 5 * step, 120), (200 - 5 * step, 120)])
        first = ids(tracker, people, step / 10, image=picture(people, [RED, GREEN]))
    for step in range(10, 13):  # they turn around each other: the green one is left now
        people = walkers([(142, 120), (158, 120)])
        ids(tracker, people, step / 10, image=picture(people, [GREEN, RED]))
    for step in range(13, 24):
        apart = 5 * (step - 12)
        people = walkers([(142 - apart, 120), (158 + apart, 120)])
        found = ids(tracker, people, step / 10, image=picture(people, [GREEN, RED]))
    assert found == first[::-1]
    assert tracker.counts["swaps"] == 1
    tracker.reset()  # forgets people, not what is counted
    assert tracker.counts == {"swaps": 1, "resets": 1}


def test_three_who_part_at_once_with_each_others_ids_get_their_own() -> None:
    """Each has the next one's id: two exchanges put that right, three would not."""
    colours = np.zeros((3, BINS))
    colours[[0, 1, 2], [0, 10, 20]] = 0.5
    people = walkers([(50, 120), (150, 120), (250, 120)])
    tracker = PersonTracker()
    tracker.update(people, 0.0)
    tracks = tracker._state.tracks
    met = [
        Encounter((int(a) + 1, int(b) + 1), colours[[a, b]], 0.0)
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    now_seen = np.roll(colours, 1, axis=0)
    for step in range(4):
        met, swaps = judge(met, tracks, np.ones(3, np.bool_), now_seen, step / 10)
        for pair in swaps:
            tracks.ids[list(pair)] = tracks.ids[list(pair[::-1])]
    looks = {int(number): now_seen[row].argmax() for row, number in enumerate(tracks.ids)}
    assert looks == {1: 0, 2: 10, 3: 20}


def test_a_gap_begins_anew_and_no_id_comes_back() -> None:
    tracker = PersonTracker()
    people = walkers([(60, 120), (200, 120)])
    assert ids(tracker, people, 10.0) == [1, 2]
    assert ids(tracker, people, 11.9) == [1, 2]
    assert ids(tracker, people, 14.0) == [3, 4]
    assert tracker.counts["resets"] == 1


def test_a_bag_that_starts_again_begins_anew() -> None:
    tracker = PersonTracker()
    people = walkers([(60, 120)])
    assert ids(tracker, people, 100.0) == [1]
    assert ids(tracker, people, 50.0) == [2]


def test_a_small_step_back_and_an_equal_stamp_are_no_new_beginning() -> None:
    tracker = PersonTracker()
    people = walkers([(60, 120)])
    found = [ids(tracker, people, stamp) for stamp in (5.0, 5.1, 4.9, 4.9, 5.2)]
    assert found == [[1]] * 5


@pytest.mark.parametrize("back", [0.033, 0.5, 0.95])
def test_stamps_that_stray_to_and_fro_are_no_faster_than_time(back: float) -> None:
    """Two publishers on one topic, or images that overtake each other."""
    tracker, people = PersonTracker(), walkers([(60, 120)])
    for step in range(30):
        stamp = 5.0 + step / 30 - (back if step % 3 == 1 else 0.0)
        assert ids(tracker, people, stamp) == [1]
    assert tracker.time_s == pytest.approx(5.0 + 29 / 30)
    assert tracker.report().ages[0] == pytest.approx(29 / 30)


def test_after_a_step_back_stamps_go_on_from_there() -> None:
    """As a clock that is put right."""
    tracker, people = PersonTracker(), walkers([(60, 120)])
    for step in range(30):
        ids(tracker, people, 5.0 + step / 30 - 0.5 * (step >= 10))
    assert tracker.report().ages[0] == pytest.approx(28 / 30)


def test_why_everybody_was_forgotten_is_told() -> None:
    tracker, people = PersonTracker(), walkers([(60, 120)])
    told = []
    smaller = People.from_boxes(np.array([[40, 70, 80, 170]]), np.array([0.9]), 200, 300)
    for found, stamp in ((people, 1.0), (people, 3.5), (smaller, 3.6), (smaller, 1.0)):
        tracker.update(found, stamp)
        told.append((tracker.counts["resets"], tracker.why_reset))
    assert [count for count, _ in told] == [0, 1, 2, 3]
    assert told[0][1] == told[3][1] == "", "stamps that go back say enough"
    assert told[1][1].startswith("2.5 s between two images") and "keep ids" in told[1][1]
    assert "another size" in told[2][1]
    tracker.update(smaller, 9.0)
    assert tracker.why_reset.startswith("8.0 s")
    tracker.reset()
    assert tracker.why_reset == ""


def test_frozen_stamps_use_the_times_of_arrival() -> None:
    tracker = PersonTracker()
    for step in range(20):
        people = walkers([(60 + 4 * step, 120)])
        assert ids(tracker, people, 0.0, arrival_s=100 + step / 10) == [1]
    assert tracker.report().velocities[0, 0] == pytest.approx(40, rel=0.1)
    assert tracker.stamps_stand_still
    assert ids(tracker, people, 0.0, arrival_s=200.0) == [2], "a gap by the times of arrival"


def test_stamps_of_whole_seconds_are_no_faster_than_the_images() -> None:
    tracker, told = PersonTracker(), []
    for step in range(90):
        people = walkers([(60 + 2 * step, 120)])
        assert ids(tracker, people, float(step // 30), arrival_s=100 + step / 30) == [1]
        told.append(tracker.time_s)
    assert np.diff(told)[1:].min() > 0, "each image is later than the one before"
    assert np.diff(told).max() < 0.1
    assert told[-1] == pytest.approx(89 / 30, abs=0.1)
    assert tracker.report().ages[0] == pytest.approx(89 / 30, abs=0.1)
    assert tracker.report().velocities[0, 0] == pytest.approx(60, rel=0.1)


def test_stamps_that_stood_still_and_go_on_with_the_clock_are_no_gap() -> None:
    tracker, people = PersonTracker(), walkers([(60, 120)])
    for step in range(50):
        assert ids(tracker, people, 7.0, arrival_s=100 + step / 10) == [1]
    assert tracker.time_s == pytest.approx(11.8)
    assert ids(tracker, people, 12.0, arrival_s=105.0) == [1]
    assert tracker.time_s == pytest.approx(12.0) and tracker.counts["resets"] == 0
    assert ids(tracker, people, 12.1, arrival_s=105.1) == [1]
    assert tracker.report().unseen.tolist() == [0.0]


def test_stamps_that_stood_still_and_go_on_slowly_do_not_turn_time_back() -> None:
    tracker, people = PersonTracker(), walkers([(60, 120)])
    for step in range(50):
        ids(tracker, people, 7.0, arrival_s=100 + step / 10)
    assert ids(tracker, people, 7.1, arrival_s=105.0) == [1]
    assert tracker.time_s == pytest.approx(11.9)
    assert ids(tracker, people, 7.2, arrival_s=105.1) == [1]
    assert tracker.time_s == pytest.approx(12.0)
    assert ids(tracker, people, 3.0, arrival_s=105.2) == [2], "a bag that begins again"
    assert tracker.time_s == pytest.approx(3.0)


def without_masks(people: People) -> People:
    nobody = np.broadcast_to(np.False_, people.masks.shape)
    return replace(
        people, masks=nobody, raw_masks=nobody, has_mask=np.zeros(len(people), np.bool_),
        mask_scores=np.zeros(len(people), np.float32),
    )  # fmt: skip


def test_people_without_masks_have_colours_and_hide_each_other() -> None:
    """As a detector of boxes and a pose network find them; one stops in front of the other, who
    goes on after a while."""
    tracker = PersonTracker()
    for step in range(4):
        people = walkers([(60 + 10 * step, 124), (110, 120)])
        image = picture(people, [RED, BLUE])
        assert ids(tracker, without_masks(people), step / 10, image=image) == [1, 2]
    for step in range(4, 20):
        front = walkers([(min(60 + 10 * step, 110), 124)])
        assert ids(tracker, without_masks(front), step / 10, image=picture(front, [RED])) == [1]
    assert tracker.report().state.tolist() == [State.CONFIRMED, State.OCCLUDED]
    apart = walkers([(110, 124), (170, 120)])
    image = picture(apart, [RED, BLUE])
    assert ids(tracker, without_masks(apart), 2.0, image=image) == [1, 2]


def test_another_image_size_begins_anew() -> None:
    tracker = PersonTracker()
    assert ids(tracker, walkers([(60, 120)]), 0.0) == [1]
    smaller = People.from_boxes(np.array([[40, 70, 80, 170]]), np.array([0.9]), 200, 300)
    assert ids(tracker, smaller, 0.1) == [2]


def test_a_cut_begins_anew() -> None:
    random = np.random.default_rng(1)
    scenes = [random.integers(0, 255, (6, 8, 3), np.uint8) for _ in range(2)]
    first, second = (np.kron(s, np.ones((40, 40, 1), np.uint8)) for s in scenes)
    tracker = PersonTracker()
    for step in range(3):
        ids(tracker, walkers([(40, 120), (100, 120)]), step / 10, image=first)
    assert ids(tracker, walkers([(280, 120)]), 0.3, image=second) == [3]
    assert tracker.report().ids.tolist() == [3]


def test_a_cut_begins_anew_although_somebody_is_where_another_one_was() -> None:
    random = np.random.default_rng(1)
    scenes = [random.integers(0, 255, (6, 8, 3), np.uint8) for _ in range(2)]
    first, second = (np.kron(s, np.ones((40, 40, 1), np.uint8)) for s in scenes)
    people = walkers([(40, 120), (100, 120), (200, 120)])
    for image, colours in ((first, [RED, GREEN, BLUE]), (second, [GREEN, BLUE, RED])):
        for mask, colour in zip(people.masks, colours, strict=True):
            image[mask] = colour
    tracker = PersonTracker()
    for step in range(3):
        assert ids(tracker, people, step / 10, image=first) == [1, 2, 3]
    assert ids(tracker, people, 0.3, image=second) == [4, 5, 6]
    assert tracker.counts["resets"] == 1 and "another place" in tracker.why_reset


def test_an_unsure_find_is_not_followed_to_somebody_else() -> None:
    """Half a body aside and in other clothes: an id stays on a sure find only."""
    for score, expected in ((0.5, -1), (0.95, 1)):
        tracker = PersonTracker()
        people = walkers([(60, 120)])
        ids(tracker, people, 0.0, image=picture(people, [RED]))
        aside = walkers([(74, 120)], scores=[score])
        aside = replace(aside, keypoint_scores=np.zeros_like(aside.keypoint_scores))
        assert ids(tracker, aside, 0.04, image=picture(aside, [GREEN])) == [expected], score


def test_people_in_full_sight_keep_their_ids_whatever_the_patience() -> None:
    settings = TrackerSettings(lost_s=0.0, memory_s=0.0, occluded_s=0.0)
    tracker = PersonTracker(settings)
    for step in range(10):
        people = walkers([(60 + 4 * step, 120), (220, 120)])
        found = ids(tracker, people, step / 5, image=picture(people, [RED, GREEN]))
        assert found == [1, 2]


def test_a_short_memory_of_colours_does_not_shorten_the_patience() -> None:
    tracker = PersonTracker(TrackerSettings(memory_s=0.0))
    for step in range(7):
        people = walkers([] if step in (3, 4) else [(60 + 4 * step, 120)])
        found = ids(tracker, people, step / 10, image=picture(people, [RED] * len(people)))
        assert found == [1] * len(people)


def test_joints_that_are_no_numbers_do_not_stay() -> None:
    tracker = PersonTracker()
    for step in range(10):
        people = walkers([(60 + 4 * step, 120)])
        if step == 4:
            joints = people.keypoints.copy()
            joints[:, :10] = np.nan
            people = replace(people, keypoints=joints)
        assert ids(tracker, people, step / 10) == [1]
    assert tracker.report().velocities[0, 0] == pytest.approx(40, rel=0.1)


def test_reset_goes_on_counting() -> None:
    tracker = PersonTracker()
    ids(tracker, walkers([(60, 120)]), 0.0)
    tracker.reset()
    assert not len(tracker.report().ids)
    assert ids(tracker, walkers([(60, 120)]), 0.1) == [2]


def test_trackers_with_one_counter_share_their_ids() -> None:
    counter = IdCounter()
    trackers = [PersonTracker(counter=counter) for _ in range(2)]
    found = [ids(tracker, walkers([(60, 120), (200, 120)]), 0.0) for tracker in trackers]
    assert sorted(found[0] + found[1]) == [1, 2, 3, 4]


def test_a_camera_that_turns() -> None:
    """All move by half the image between two images; the homography says so."""
    matrix = np.array([[300.0, 0, WIDTH / 2], [0, 300, HEIGHT / 2], [0, 0, 1]])
    angle = np.arctan(100 / 300)
    turned = np.array(
        [[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]]
    )
    homography = rotation_homography(matrix, np.eye(3), turned)
    moved = homography @ np.array([250.0, HEIGHT / 2, 1])
    before = walkers([(150, 120), (250, 120)])
    places = homography @ np.array([[150.0, 250.0], [120, 120], [1, 1]])
    after = walkers([tuple(p) for p in (places[:2] / places[2]).T])
    assert abs(moved[0] / moved[2] - 150) < 15, "the second comes to where the first was"
    tracker = PersonTracker()
    assert ids(tracker, before, 0.0) == [1, 2]
    assert ids(tracker, after, 0.1, ego_motion=homography) == [1, 2]
    for factor in (-1, 1e-7, -1e5):  # a homography is one up to a factor
        again = PersonTracker()
        ids(again, before, 0.0)
        assert ids(again, after, 0.1, ego_motion=factor * homography) == [1, 2]
    alone = PersonTracker()
    ids(alone, before, 0.0)
    assert ids(alone, after, 0.1) != [1, 2], "without it they are mistaken"


def about_the_middle(matrix: np.ndarray) -> np.ndarray:
    """(3, 3) homography that turns or scales the image about its middle."""
    to_middle = np.array([[1.0, 0, -WIDTH / 2], [0, 1, -HEIGHT / 2], [0, 0, 1]])
    whole = np.eye(3)
    whole[:2, :2] = matrix
    return np.linalg.inv(to_middle) @ whole @ to_middle


@pytest.mark.parametrize(
    "matrix", [np.array([[0.0, -1], [1, 0]]), 2 * np.eye(2)], ids=["rolls", "zooms"]
)
def test_motions_turn_and_grow_with_the_image(matrix: np.ndarray) -> None:
    """Of people in sight, and of who is out of sight and expected elsewhere."""
    tracker = PersonTracker()
    for step in range(10):
        shown = [(100 + 2 * step, 120), (180.0, 100 + step)][: 1 + (step < 8)]
        tracker.update(walkers(shown), step / 10)
    tracks = tracker.save()["state"].tracks
    before = tracker.save()["state"].tracks
    assert tracks.shift[1, 1] > 1 and tracks.mean[0, 0, 1] > 10
    homography = about_the_middle(matrix)
    tracks.move_with_camera(homography)
    scale = abs(np.linalg.det(matrix))
    np.testing.assert_allclose(tracks.mean[:, :, 1], before.mean[:, :, 1] @ matrix.T)
    np.testing.assert_allclose(tracks.shift, before.shift @ matrix.T)
    np.testing.assert_allclose(tracks.covariance, before.covariance * scale)
    expected = move_points(homography, before.centres[:, :2])
    np.testing.assert_allclose(tracks.centres[:, :2], expected)


def test_local_motion_is_that_of_short_ways() -> None:
    homography = np.array([[1.1, 0.2, -30], [-0.1, 0.9, 12], [4e-4, -2e-4, 1]])
    points = np.array([[50.0, 60], [300, 20], [-5000, 0]])
    slopes = local_motion(homography, points)
    for axis, way in enumerate(1e-3 * np.eye(2)):
        step = move_points(homography, points + way) - move_points(homography, points - way)
        np.testing.assert_allclose(slopes[:, :, axis], step / 2e-3, rtol=1e-5, atol=1e-6)
    assert np.array_equal(slopes[2], np.eye(2)), "behind the camera"


def test_expected_places_turn_with_the_camera_and_nothing_is_changed() -> None:
    tracker, people = PersonTracker(), walkers([(120, 120), (200, 120)])
    for step in range(4):
        tracker.update(people, step / 10)
    before = tracker.save()["state"]
    pan = np.array([[1.0, 0, 40], [0, 1, -5], [0, 0, 1]])
    still, panned = tracker.expect(0.4), tracker.expect(0.4, ego_motion=pan)
    assert still is not None and panned is not None
    np.testing.assert_allclose(panned.boxes, still.boxes + [40, -5, 40, -5])
    after = tracker.save()["state"]
    for each in ("boxes", "joints", "anchor", "mean", "covariance", "shift"):
        assert np.array_equal(getattr(after.tracks, each), getattr(before.tracks, each)), each
    for old, new in zip(before.tracks.pixels, after.tracks.pixels, strict=True):
        assert np.array_equal(old, new)
    with pytest.raises(ValueError, match="invertible 3x3 homography"):
        tracker.expect(0.4, ego_motion=np.zeros((3, 3)))


def test_what_was_saved_goes_on_the_same() -> None:
    tracker = PersonTracker()
    for step in range(5):
        tracker.update(walkers([(60 + step, 120), (200 - step, 120)]), step / 10)
    saved = pickle.loads(pickle.dumps(tracker.save()))
    other = PersonTracker(counter=IdCounter())
    other.restore(saved)
    people = walkers([(150, 120), (66, 120), (194, 120)])
    for stamp in (0.5, 0.6):
        assert ids(other, people, stamp) == ids(tracker, people, stamp)
    assert other.report().velocities.tolist() == tracker.report().velocities.tolist()


def test_what_save_did_not_give_is_refused() -> None:
    tracker = PersonTracker()
    saved = tracker.save()
    with pytest.raises(ValueError, match=r"saved by bmp_ros 0\.0\.1.*skips to next_id"):
        tracker.restore(saved | {"version": "0.0.1"})
    for nothing in ({}, None, {"state": saved["state"]}):
        with pytest.raises(ValueError, match=r"nothing that PersonTracker.save\(\) gave"):
            tracker.restore(nothing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "facts, message",
    [
        ({"stamp_s": float("nan")}, "stamp_s is nan"),
        ({"ego_motion": np.zeros((3, 3))}, "invertible 3x3 homography"),
        ({"ego_motion": np.eye(2)}, "invertible 3x3 homography"),
        ({"image": np.zeros((10, 10, 3), np.uint8)}, "the image is"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(facts: dict, message: str) -> None:
    tracker = PersonTracker()
    people = walkers([(60, 120)])
    assert ids(tracker, people, 0.0) == [1]
    with pytest.raises(ValueError, match=message):
        tracker.update(people, **{"stamp_s": 0.1, **facts})
    assert ids(tracker, people, 0.2) == [1]


def test_rectangles_that_are_known_stay_known() -> None:
    people = walkers([(60, 120)])
    rectangles = people.mask_rectangles
    assert PersonTracker().update(people, 0.0).mask_rectangles is rectangles


def test_people_without_masks_and_joints_are_tracked_by_their_boxes() -> None:
    tracker = PersonTracker()
    whole = walkers([(60, 120), (200, 120)])
    for step in range(5):
        boxes = whole.boxes + np.float32(2 * step)
        people = People.from_boxes(boxes, whole.scores, HEIGHT, WIDTH)
        assert ids(tracker, people, step / 10) == [1, 2]


def test_low_scores_go_on_but_begin_nothing() -> None:
    tracker = PersonTracker()
    assert ids(tracker, walkers([(60, 120)]), 0.0) == [1]
    both = walkers([(61, 120), (200, 120)], scores=[0.31, 0.31])
    assert ids(tracker, both, 0.1) == [1, -1]
    assert ids(tracker, replace(both), 0.2) == [1, -1]


@pytest.mark.parametrize("joints", [16, 3])
def test_people_of_any_skeleton_are_tracked(joints: int) -> None:
    """Hips are found by name; a skeleton without them is split at the middle of its box."""
    hands = Skeleton("hands", ("wrist", "thumb", "little"), (), (), (0.1,) * 3)
    skeleton = MPII_16 if joints == 16 else hands
    tracker = PersonTracker()
    for step in range(6):
        places = [(60 + 2 * step, 120), (160 - step, 120)]
        people = walkers(places)
        people = replace(
            people,
            skeleton=skeleton,
            **{
                name: getattr(people, name)[:, :joints]
                for name in ("keypoints", "keypoint_scores", "visibility", "presence")
            },
        )
        found = tracker.update(people, step / 30, image=picture(people, [RED, GREEN]))
    assert found.track_ids.tolist() == [1, 2]
