# SPDX-License-Identifier: Apache-2.0
"""On which images the detector runs, and who is found on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from walkers import HEIGHT, WIDTH, picture, walkers

from bmp_ros.camera_tracking import CameraTracking
from bmp_ros.loop import BMPLoop, Frame, LoopSettings, People
from bmp_ros.loop.protocols import Detections, Poses, Segments
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.tracking import (
    IdCounter,
    Keyframes,
    KeyframeSettings,
    PersonTracker,
    TrackerSettings,
)
from bmp_ros.tracking.keyframes import HIDDEN_S, LONGEST_S, _shifted

COLOURS = [(20, 20, 200), (200, 40, 20), (20, 180, 30), (30, 160, 200)]
EVERY_THIRD = KeyframeSettings(detection_interval=3)


@dataclass
class Stage:
    """Networks that see the walkers ``here``: the pose of whoever stands nearest to a box."""

    here: People = field(default_factory=lambda: walkers([]))
    pose_score: float = 0.9
    detections: int = 0
    segmented: int = 0
    skeleton = COCO_17

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        self.detections += 1
        return Detections(self.here.boxes, self.here.scores, lambda rows: self.here.masks[rows])

    def _nearest(self, points: np.ndarray) -> np.ndarray:
        centres = (self.here.boxes[:, :2] + self.here.boxes[:, 2:]) / 2
        return np.linalg.norm(points[:, None] - centres[None], axis=2).argmin(axis=1)

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        rows = self._nearest((boxes[:, :2] + boxes[:, 2:]) / 2)
        joints = self.here.keypoints[rows]
        return Poses(joints, np.full(joints.shape[:2], self.pose_score, np.float32))

    def segment(
        self, frame: Frame, points: np.ndarray, labels: np.ndarray, masks: np.ndarray | None
    ) -> Segments:
        self.segmented += 1
        rows = self._nearest(points.mean(axis=1))
        return Segments(self.here.masks[rows], self.here.mask_scores[rows])


class Film:
    """Images one after the other through keyframes and tracker."""

    def __init__(self, settings: KeyframeSettings = EVERY_THIRD) -> None:
        self.stage = Stage()
        one = LoopSettings(iterations=1)
        self.loop = BMPLoop(self.stage, self.stage, self.stage, one)
        self.keyframes, self.tracker = Keyframes(settings), PersonTracker()
        self.iterations = 0
        self.now = 0.0

    def show(
        self, places: Sequence[tuple[float, float]], stamp_s: float, *,
        image: np.ndarray | None = None, scores: list[float] | None = None,
        ego_motion: np.ndarray | None = None,
    ) -> People:  # fmt: skip
        """The tracked people of an image with walkers at ``places``."""
        self.stage.here = walkers(list(places), scores=scores)
        if image is None:
            image = picture(self.stage.here, COLOURS[: len(places)])
        people, report = self.keyframes.find(
            self.loop, self.tracker, image, stamp_s, ego_motion=ego_motion
        )
        self.iterations, self.now = report.iterations, stamp_s
        tracked = self.tracker.update(people, stamp_s, ego_motion, image=image)
        self.keyframes.remember(tracked, image, stamp_s)
        return tracked

    def detected(
        self, places: Sequence[tuple[float, float]], stamp_s: float, **more: object
    ) -> bool:
        """Whether the detector ran on that image."""
        before = self.stage.detections
        self.show(places, stamp_s, **more)  # type: ignore[arg-type]
        return self.stage.detections > before


def test_every_third_image_is_detected_and_people_keep_their_ids() -> None:
    film = Film()
    ids = []
    for number in range(30):
        places = [(90 + 2 * number, 120.0), (230 - 1.5 * number, 110.0)][: 1 + (number < 10)]
        tracked = film.show(places, number / 30)
        ids.append(tracked.track_ids.tolist())
        if number > 3:
            assert np.abs(tracked.boxes[:1] - film.stage.here.boxes[:1]).max() < 3
    assert ids[2:10] == [[1, 2]] * 8
    assert all(each == [1] for each in ids[12:])
    assert 8 <= film.stage.detections <= 20  # who left is looked for
    assert film.keyframes.rests == 30 - film.stage.detections


def test_boxes_follow_joints_between_detections() -> None:
    film = Film(KeyframeSettings(detection_interval=2))
    for number in range(5):
        film.show([(100.0, 120.0)], number / 30)
    tracked = film.show([(108.0, 124.0)], 5 / 30)  # nobody could foresee that step
    assert film.iterations == 0
    assert np.allclose(tracked.boxes, film.stage.here.boxes, atol=1.6)
    assert np.array_equal(tracked.masks, film.stage.here.masks)


def test_people_are_looked_for_where_the_camera_s_turn_has_moved_them() -> None:
    """One comes to where the other was: both stand as far apart as the image moves."""
    film = Film(KeyframeSettings(detection_interval=4))
    pan = np.array([[1.0, 0, 60], [0, 1, 0], [0, 0, 1]])
    for number in range(9):
        film.show([(70.0, 120.0), (130.0, 120.0)], number / 30)
    tracked = film.show([(130.0, 120.0), (190.0, 120.0)], 9 / 30, ego_motion=pan)
    assert film.iterations == 0
    assert tracked.track_ids.tolist() == [1, 2]
    assert np.allclose(tracked.boxes, film.stage.here.boxes, atol=1.6)


def test_without_refinement_masks_move_and_the_segmenter_rests() -> None:
    film = Film(KeyframeSettings(detection_interval=2, refine_between=False))
    for number in range(5):
        film.show([(100.0 + 6 * number, 120.0)], number / 30)
    rest, masks = film.stage.segmented, walkers([(124.0, 120.0)]).masks
    tracked = film.show([(130.0, 120.0)], 5 / 30)
    assert film.iterations == 0
    assert film.stage.segmented == rest
    assert tracked.mask_scores == pytest.approx([0.9])
    moved = tracked.masks[0]
    assert moved.sum() == masks.sum()
    overlap = (moved & film.stage.here.masks[0]).sum() / (moved | film.stage.here.masks[0]).sum()
    assert overlap > 0.95


def test_interval_one_detects_always_and_remembers_nothing() -> None:
    film = Film(KeyframeSettings())
    for number in range(5):
        assert film.detected([(100.0, 120.0)], number / 30)
    assert film.keyframes._last is None


def test_a_later_iteration_is_told_where_everybody_should_be() -> None:
    """Also who is hidden; not after a reset, and only where ``behind_threshold`` needs it."""
    film, told = Film(KeyframeSettings()), []
    run = film.loop.run

    def told_run(*given: object, **more: object) -> object:
        told.append(more["tracked"])
        return run(*given, **more)  # type: ignore[arg-type]

    film.loop.run = told_run  # type: ignore[assignment, method-assign]
    film.show(STILL, 0.0)
    film.show(STILL, 0.1)
    assert told == [None, None], "nothing needs it"
    film.loop.settings = replace(film.loop.settings, behind_threshold=0.2)
    film.show(STILL[:1], 0.2)
    film.show(STILL[:1], 0.3)
    for boxes in told[2:]:
        assert np.allclose(boxes, walkers(STILL).boxes, atol=1)
    film.keyframes.reset()
    film.show(STILL, 0.4)
    assert told[4] is None
    film.show(STILL, 0.5)
    assert len(told[5]) == 2
    nobody = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    image = picture(walkers([]), [])
    film.keyframes.find(film.loop, film.tracker, image, 0.6, known=nobody)
    assert told[6] is None, "the boxes of another program are all there is"
    film.show(STILL, 3.0)
    assert told[7] is None, "nobody knows after a gap"


def test_detection_as_long_as_nobody_is_known() -> None:
    film = Film()
    assert all(film.detected([], number / 30) for number in range(5))


STILL = [(80.0, 120.0), (240.0, 120.0)]


def settled() -> Film:
    """Two people who stand still, the last image a keyframe; the next three need no detection."""
    film = Film(KeyframeSettings(detection_interval=4))
    while film.detected(STILL, film.now + 1 / 30) or film.now < 0.5:
        assert film.now < 2, "the detector runs on every image"
    while not film.detected(STILL, film.now + 1 / 30):
        pass
    return film


def test_standing_people_need_one_detection_in_four() -> None:
    film = settled()
    detected = [film.detected(STILL, film.now + 1 / 30) for _ in range(8)]
    assert detected == [False, False, False, True] * 2


def test_however_slow_the_images_come_the_detector_looks_again_in_time() -> None:
    film = Film(KeyframeSettings(detection_interval=30))
    stamps = [number / 10 for number in range(40)]
    detected = [stamp for stamp in stamps if film.detected([(100.0, 120.0)], stamp)]
    # 30 images would be 3 s.
    assert LONGEST_S < np.diff([*detected, stamps[-1]]).max() < LONGEST_S + 0.11


def test_on_keyframes_a_second_look_is_for_those_who_are_missing() -> None:
    film = settled()
    film.loop.settings = LoopSettings(iterations=2)
    film.keyframes._full_s, film.keyframes._cut = film.now, 0
    before = film.stage.detections
    for _ in range(8):
        film.show(STILL, film.now + 1 / 30)
    assert film.stage.detections == before + 2  # one look each
    missing = film.stage.detections
    film.show(STILL[:1], film.now + 1 / 30)
    while film.iterations == 0:
        film.show(STILL[:1], film.now + 1 / 30)
    assert film.stage.detections == missing + 2
    lost = film.now - 1 / 30
    film.keyframes._full_s, film.keyframes._cut = film.now, -10
    while film.now < lost + 0.48:  # the detector looks for who was lost, but soon only once
        before = film.stage.detections
        film.show(STILL[:1], film.now + 0.03)
        looks = 2 if film.now - lost < HIDDEN_S else 1
        assert (film.stage.detections, film.iterations) == (before + looks, looks)


def test_images_that_follow_slowly_are_all_detected() -> None:
    film = settled()
    assert all(film.detected(STILL, film.now + 0.13) for _ in range(4))
    assert not film.detected(STILL, film.now + 0.09)


@pytest.mark.parametrize("step", [1 / 30, 0.0])
def test_who_is_seen_in_a_later_iteration_only_is_found_before_long(step: float) -> None:
    """Also while stamps stand still."""
    film = settled()
    film.loop.settings = LoopSettings(iterations=2)
    detect, hidden = film.stage.detect, (160.0, 120.0)

    def one_behind(frame: Frame, *, score_threshold: float) -> Detections:
        again = not np.array_equal(frame.image, shown)  # people are painted out
        film.stage.here = walkers([hidden] if again else STILL)
        found = detect(frame, score_threshold=score_threshold)
        masks = film.stage.here.masks
        film.stage.here = walkers([*STILL, hidden])
        return Detections(found.boxes, found.scores, lambda rows: masks[rows])

    film.stage.detect = one_behind  # type: ignore[method-assign]
    shown = picture(walkers(STILL), COLOURS[:2])
    counts = [len(film.show(STILL, film.now + step, image=shown)) for _ in range(40)]
    assert 3 in counts


@pytest.mark.parametrize(
    ("what", "places", "more"),
    [
        ("somebody lost", STILL[:1], {}),
        ("people meet", [(80.0, 120.0), (92.0, 120.0)], {}),
    ],
)
def test_detection_at_once(what: str, places: list, more: dict) -> None:
    film = settled()
    film.show(places, film.now + 1 / 30, **more)
    assert film.detected(places, film.now + 1 / 30, **more), what
    assert film.detected(places, film.now + 1 / 30, **more), what


def test_detection_where_the_border_changes() -> None:
    film = settled()
    calm = picture(walkers(STILL), COLOURS[:2])
    assert not film.detected(STILL, film.now + 1 / 30, image=calm)
    dark = (calm // 2).astype(np.uint8)  # a lamp goes out: everything changes alike
    assert not film.detected(STILL, film.now + 1 / 30, image=dark)
    film = settled()
    entering = calm.copy()
    entering[100:200, :14] = 20
    assert film.detected(STILL, film.now + 1 / 30, image=entering)


def test_a_fallen_score_is_looked_at_again_in_the_same_image() -> None:
    film = settled()
    film.stage.pose_score = 0.4
    assert film.detected(STILL, film.now + 1 / 30)
    assert film.iterations == 1


def test_two_boxes_with_one_pose_are_not_believed() -> None:
    film = settled()
    # The second one is gone; the pose network finds the first one in both boxes.
    assert film.detected(STILL[:1], film.now + 1 / 30)


@pytest.mark.parametrize("step", [1.5, 5.0, -0.01, -3.0, 0.7])
def test_detection_after_gaps_and_steps_back(step: float) -> None:
    film = settled()
    assert film.detected(STILL, film.now + step)


def test_detection_after_reset_and_at_another_size() -> None:
    film = settled()
    film.keyframes.reset()
    assert film.detected(STILL, film.now + 1 / 30)
    film = settled()
    larger = np.zeros((HEIGHT * 2, WIDTH * 2, 3), np.uint8)
    film.loop.detector = Nobody()  # type: ignore[assignment]
    people, report = film.keyframes.find(film.loop, film.tracker, larger, film.now + 1 / 30)
    assert len(people) == 0
    assert report.iterations == 1


class Nobody:
    """A detector that finds nobody, in images of any size."""

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


def test_a_higher_threshold_asks_the_detector() -> None:
    film = settled()
    film.loop.settings = LoopSettings(iterations=1, detection_threshold=0.95)
    assert film.detected(STILL, film.now + 1 / 30)


def test_expect_changes_nothing() -> None:
    film = settled()
    before = film.tracker.save()
    first = film.tracker.expect(film.now + 0.1)
    again = film.tracker.expect(film.now + 0.1)
    assert first is not None and again is not None
    assert np.array_equal(first.boxes, again.boxes)
    after = film.tracker.save()
    assert after["state"].clock == before["state"].clock
    assert np.array_equal(after["state"].tracks.mean, before["state"].tracks.mean)
    assert np.array_equal(after["state"].tracks.shift, before["state"].tracks.shift)
    assert film.tracker.expect(film.now + 60) is None


@given(
    st.integers(0, 15), st.integers(0, 11), st.integers(1, 8), st.integers(1, 8),
    st.integers(-20, 20), st.integers(-20, 20),
)  # fmt: skip
def test_masks_move_by_whole_pixels(x: int, y: int, w: int, h: int, dx: int, dy: int) -> None:
    mask = np.zeros((12, 16), np.bool_)
    mask[y : y + h, x : x + w] = True
    ys, xs = mask.nonzero()
    wanted = np.zeros_like(mask)
    inside = (ys + dy >= 0) & (ys + dy < 12) & (xs + dx >= 0) & (xs + dx < 16)
    wanted[ys[inside] + dy, xs[inside] + dx] = True
    rectangle = np.array([xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1])
    moved = _shifted(mask[None], rectangle[None], np.array([[dx, dy]]))
    assert np.array_equal(moved[0], wanted)


place = st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT))


@settings(max_examples=30)
@example([([(0.0, 0.0), (27.0, 0.0)], 0.0), ([(0.0, 0.0), (1.0, 5.0)], 0.0)], False)
@given(
    st.lists(st.tuples(st.lists(place, max_size=4), st.floats(-0.2, 1.2)), max_size=12),
    st.booleans(),
)
def test_whatever_happens_people_stay_whole(
    images: list[tuple[list[tuple[float, float]], float]], refine: bool
) -> None:
    film = Film(KeyframeSettings(detection_interval=3, refine_between=refine))
    stamp = 0.0
    for places, step in images:
        places = [place for place in places if walkers([place]).masks.any()]
        stamp += step
        if places:
            tracked = film.show(places, stamp)
            known = tracked.track_ids[tracked.track_ids >= 0].tolist()
            assert len(set(known)) == len(known)
            assert (tracked.boxes[:, 2:] > tracked.boxes[:, :2]).all()
            assert tracked.masks.sum(axis=0).max(initial=0) <= 1


def test_stamps_that_stand_still_do_not_keep_the_detector_away() -> None:
    stage, settings = Stage(), KeyframeSettings(detection_interval=30)
    loop = BMPLoop(stage, stage, stage, LoopSettings(iterations=1))
    keyframes, tracker = Keyframes(settings), PersonTracker()
    stage.here = walkers(STILL)
    image = picture(stage.here, COLOURS[:2])
    for number in range(12):
        at = 0.3 * number
        people, _ = keyframes.find(loop, tracker, image, 0.0, arrival_s=at)
        keyframes.remember(tracker.update(people, 0.0, image=image, arrival_s=at), image, 0.0)
    assert keyframes.rests > 0
    assert stage.detections >= 4, "every 0.6 s"


class Eye:
    """A camera's tracking with the networks of a `Stage`; people stand still."""

    def __init__(self) -> None:
        self.stage = Stage(walkers(STILL))
        self.loop = BMPLoop(self.stage, self.stage, self.stage, LoopSettings(iterations=1))
        self.image = picture(self.stage.here, COLOURS[:2])
        self.tracking = CameraTracking(IdCounter())
        self.number = 0

    def look(
        self, interval: int = 4, known: Detections | None = None, *, reset: bool = False,
        ego_motion: np.ndarray | None = None,
    ) -> list[int]:  # fmt: skip
        """The ids of the next image. reset: all is forgotten while it is looked at."""
        self.number += 1
        stamp, arrival = 10**9 + self.number * 10**8 // 3, self.number / 30
        people, _ = self.tracking.find(
            self.loop, self.image, stamp, arrival_s=arrival, known=known,
            settings=KeyframeSettings(detection_interval=interval), ego_motion=ego_motion,
        )  # fmt: skip
        if reset:
            self.tracking.forget()
        self.tracked = self.tracking.track(
            people, stamp, self.image, arrival_s=arrival, settings=TrackerSettings(),
            ego_motion=ego_motion,
        )  # fmt: skip
        ids: list[int] = self.tracked.people.track_ids.tolist()
        return ids

    def detects(self, **given: object) -> bool:
        before = self.stage.detections
        self.look(**given)  # type: ignore[arg-type]
        return self.stage.detections > before


def test_a_reset_while_an_image_is_looked_at_lets_the_detector_see_the_next() -> None:
    eye = Eye()
    while eye.detects() or eye.number < 6:
        assert eye.number < 30
    while not eye.detects():
        pass
    before = eye.stage.detections
    assert eye.look(reset=True) == [3, 4]
    assert eye.stage.detections == before, "this image needed no detection"
    assert eye.detects(), "the next one is like the first"


def test_a_camera_s_people_are_looked_for_with_its_turn() -> None:
    eye = Eye()

    def stand(*places: float) -> None:
        eye.stage.here = walkers([(x, 120.0) for x in places])
        eye.image = picture(eye.stage.here, COLOURS[:2])

    stand(70, 130)
    while eye.detects() or eye.number < 6:
        assert eye.number < 30
    while not eye.detects():
        pass
    before = eye.stage.detections
    stand(130, 190)
    assert eye.look(ego_motion=np.array([[1.0, 0, 60], [0, 1, 0], [0, 0, 1]])) == [1, 2]
    assert eye.stage.detections == before
    np.testing.assert_allclose(eye.tracked.people.boxes, eye.stage.here.boxes, atol=1.6)


def test_who_is_out_of_sight_is_expected_for_a_second() -> None:
    eye = Eye()
    for _ in range(10):
        eye.look()
        assert not len(eye.tracked.hidden), "all are seen"
    box = eye.stage.here.boxes[1]
    eye.stage.here = walkers(STILL[:1])
    eye.image = picture(eye.stage.here, COLOURS[:1])
    hidden = []
    for _ in range(36):
        assert eye.look(interval=1) == [1]
        hidden.append(eye.tracked.hidden)
    numbers = [len(boxes) for boxes in hidden]  # of 30 images per second
    assert numbers[:29] == [1] * 29 and numbers[30:] == [0] * 6
    np.testing.assert_allclose(hidden[0][0], box, atol=3)


def test_another_program_s_boxes_are_used_and_count_as_a_detection() -> None:
    eye = Eye()
    boxes = Detections(eye.stage.here.boxes, eye.stage.here.scores)
    for _ in range(8):
        assert not eye.detects(known=boxes)
    for _ in range(4):
        assert [eye.detects() for _ in range(3)] == [False] * 3
        assert not eye.detects(known=boxes)
    assert not eye.detects(interval=1, known=boxes)
    assert eye.detects(), "nothing was remembered at interval 1"


def test_poses_without_masks_are_not_told_of_empty_ones() -> None:
    film, told = settled(), []
    film.loop = BMPLoop(Boxes(film.stage), film.stage, None, film.loop.settings)
    estimate = film.stage.estimate
    film.stage.estimate = lambda frame, boxes, masks: (  # type: ignore[method-assign]
        told.append(masks), estimate(frame, boxes, None),
    )[1]  # fmt: skip
    film.keyframes.reset()
    rests = film.keyframes.rests
    for _ in range(8):
        film.show(STILL, film.now + 1 / 30)
    assert film.keyframes.rests > rests
    assert told and all(masks is None for masks in told)


@dataclass
class Boxes:
    """The detector of a stage, without its masks."""

    stage: Stage

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        return replace(self.stage.detect(frame, score_threshold=score_threshold), masks=None)
