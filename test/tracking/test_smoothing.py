# SPDX-License-Identifier: Apache-2.0
"""Still joints come to rest, moving ones are followed, gaps and jumps begin anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from walkers import HEIGHT, WIDTH, walkers

from bmp_ros.camera_tracking import CameraTracking, Tracked
from bmp_ros.depth.people_3d import People3D
from bmp_ros.loop.people import People
from bmp_ros.tracking import IdCounter, SmoothingSettings, TrackerSettings, smoothing
from bmp_ros.tracking.smoothing import JointSmoother

RATE = 30.0


def run(
    joints: np.ndarray,
    scale: float = 100.0,
    score: float = 0.9,
    settings: SmoothingSettings | None = None,
) -> np.ndarray:
    """Smoothed (F, K, D) of one person's joints (F, K, D) at 30 Hz."""
    smoother = JointSmoother(settings)
    scores = np.full((1, joints.shape[1]), score)
    return np.concatenate(
        [
            smoother.update(np.array([7]), frame[None], scores, np.array([scale]), i / RATE)[0]
            for i, frame in enumerate(joints)
        ]
    )


def test_jitter_of_still_joints_goes_down() -> None:
    noise = np.random.default_rng(0).normal(0, 1.5, (150, 17, 2))
    smooth = run(200 + noise)
    assert np.diff(smooth[30:], axis=0).std() < 0.4 * np.diff(noise[30:], axis=0).std()


def test_unsure_joints_are_smoothed_more() -> None:
    noise = np.random.default_rng(0).normal(0, 1.5, (150, 17, 2))
    spread = [np.diff(run(200 + noise, score=score)[30:], axis=0).std() for score in (0.2, 0.9)]
    assert spread[0] < 0.8 * spread[1]


@pytest.mark.parametrize("speed", [150.0, 300.0])
def test_moving_joints_lag_by_less_than_an_image(speed: float) -> None:
    """Pixels per second of a body 200 pixels high, whose scale is about 100."""
    places = np.arange(60)[:, None, None] * speed / RATE + np.zeros((1, 17, 2))
    lag = (places - run(places))[30:].mean() / (speed / RATE)
    assert 0 <= lag < 1


def test_trend_lets_joints_lag_less_and_those_that_stop_come_to_rest() -> None:
    """A body of scale 100 goes at 1.5 body scales per second and stops at once."""
    way = np.minimum(np.arange(120) * 150 / RATE, 200)
    places = way[:, None, None] + np.zeros((1, 17, 2))
    with_trend, without = (
        run(places, settings=SmoothingSettings(trend=trend))[:, 0, 0] for trend in (1.0, 0.0)
    )
    lags = [(way - each)[20:40].mean() * RATE / 150 for each in (with_trend, without)]
    assert 0 <= lags[0] < 0.5 * lags[1]
    assert with_trend.max() < 200 + 10, "a tenth of the body scale"
    assert with_trend[-30:] == pytest.approx(200, abs=1)


def test_expected_places_are_not_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was not seen for two seconds has not gone on for that long: they stopped after a bit."""

    def last() -> float:
        smoother, seen = JointSmoother(SmoothingSettings(beta=0.0)), []
        for stamp in (*np.arange(30) / RATE, 2.9):
            joints = np.full((1, 17, 2), 150 * min(stamp, 1.2))
            smooth, _ = smoother.update(
                np.array([1]), joints, np.ones((1, 17)), np.array([100.0]), stamp
            )
            seen.append(smooth)
        return float(np.abs(seen[-1] - 180).max())

    assert last() < 10
    monkeypatch.setattr(smoothing, "AHEAD_S", 2.0)
    assert last() > 10


def test_body_scale_makes_near_and_far_the_same() -> None:
    places = np.cumsum(np.random.default_rng(0).normal(0, 2, (40, 17, 2)), axis=0)
    assert run(3 * places, scale=300.0) == pytest.approx(3 * run(places, scale=100.0))


def test_everybody_has_a_filter_of_their_own() -> None:
    random = np.random.default_rng(0)
    both, alone = JointSmoother(), JointSmoother()
    for step in range(10):
        joints = random.normal(100, 3, (2, 17, 2))
        scores, scales = np.full((2, 17), 0.9), np.full(2, 50.0)
        order = [0, 1] if step % 2 else [1, 0]
        together, _ = both.update(np.array([3, 5])[order], joints[order], scores, scales, step / 9)
        single, _ = alone.update(np.array([5]), joints[1:], scores[1:], scales[1:], step / 9)
        assert np.array_equal(together[order.index(1)], single[0])


@pytest.mark.parametrize(
    ("between", "after_s", "anew"),
    [(True, 0.45, False), (True, 0.55, True), (False, 1.9, False), (False, 2.1, True)],
)
def test_who_was_away_for_long_begins_anew(between: bool, after_s: float, anew: bool) -> None:
    """between: whether an image came without the person; else images are slow."""
    smoother = JointSmoother()
    joints, scores = np.full((1, 17, 2), 50.0), np.full((1, 17), 0.9)
    smoother.update(np.array([7]), joints, scores, np.array([100.0]), 0.0)
    stamp_s = after_s
    if between:
        nobody = np.zeros(0, np.int64)
        smoother.update(nobody, joints[:0], scores[:0], np.zeros(0), 0.3)
    smooth, _ = smoother.update(np.array([7]), joints + 5, scores, np.array([100.0]), stamp_s)
    assert np.array_equal(smooth, joints + 5) == anew


def test_untracked_people_are_passed_through() -> None:
    smoother = JointSmoother()
    for step in range(3):
        joints = np.random.default_rng(step).normal(0, 9, (2, 17, 2))
        smooth, speed = smoother.update(
            np.array([-1, -1]), joints, np.ones((2, 17)), np.ones(2), step / RATE
        )
        assert np.array_equal(smooth, joints) and np.isnan(speed).all()


def test_a_gap_and_a_step_back_begin_anew() -> None:
    smoother = JointSmoother()
    joints = np.random.default_rng(0).normal(0, 1, (4, 1, 17, 3))
    for frame, stamp in zip(joints, (10.0, 12.1, 3.0, 1.0), strict=True):
        smooth, _ = smoother.update(np.array([1]), frame, np.ones((1, 17)), np.ones(1), stamp)
        assert np.array_equal(smooth, frame)


def test_an_image_of_the_same_time_changes_nothing() -> None:
    """Of one sent twice, or while time goes back by a little: joints and speeds go on after it."""
    joints = np.cumsum(np.random.default_rng(0).normal(2, 0.5, (6, 1, 17, 2)), axis=0)
    scores, scales, one = np.ones((1, 17)), np.array([100.0]), np.array([1])
    plain, doubled = JointSmoother(), JointSmoother()
    for step, frame in enumerate(joints):
        expected = plain.update(one, frame, scores, scales, step / RATE)
        found = doubled.update(one, frame, scores, scales, step / RATE)
        assert np.array_equal(found, expected, equal_nan=True)
        again = doubled.update(one, frame + 7, scores, scales, step / RATE)
        assert np.array_equal(again, expected, equal_nan=True)
    unseen = np.where(np.arange(34).reshape(1, 17, 2) < 2, np.nan, joints[0])
    smoother = JointSmoother()
    smoother.update(one, unseen, scores, scales, 0.0)
    smooth, _ = smoother.update(one, joints[0], scores, scales, 0.0)
    assert np.array_equal(smooth, joints[0]), "a joint that was not seen before is taken"


def test_a_sure_jump_is_taken_as_it_is() -> None:
    smoother = JointSmoother()
    scores = np.full((1, 17), 0.9)
    scores[0, 1] = 0.3
    before, after = np.zeros((1, 17, 2)), np.full((1, 17, 2), 90.0)
    smoother.update(np.array([1]), before, scores, np.array([100.0]), 0.0)
    smooth, _ = smoother.update(np.array([1]), after, scores, np.array([100.0]), 1 / RATE)
    assert np.array_equal(smooth[0, 0], [90, 90])
    assert (smooth[0, 1] < 90).all()


def test_joints_that_are_unknown_for_a_while() -> None:
    smoother = JointSmoother()
    frames = np.full((5, 1, 17, 3), 1.0)
    frames[2, 0, 4] = np.nan
    for i, frame in enumerate(frames):
        smooth, _ = smoother.update(np.array([1]), frame, np.ones((1, 17)), np.ones(1), i / RATE)
        assert np.array_equal(np.isnan(smooth), np.isnan(frame))


def test_velocity_of_a_steady_motion() -> None:
    smoother = JointSmoother()
    for step in range(60):
        joints = np.full((1, 17, 2), 2.0 * step)
        _, speed = smoother.update(
            np.array([1]), joints, np.full((1, 17), 0.9), np.array([100.0]), step / RATE
        )
        assert np.isnan(speed).all() == (step == 0)
    assert speed == pytest.approx(np.full((1, 17, 2), 60.0), rel=0.02)


@pytest.mark.parametrize("rate", [1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 30.0])
@pytest.mark.parametrize("pace", [1.4, 3.0, 5.0])
def test_whoever_walks_has_a_velocity_at_every_rate(rate: float, pace: float) -> None:
    """In metres, with noise; the body scale is one metre."""
    smoother, random = JointSmoother(), np.random.default_rng(0)
    for step in range(int(4 * rate) + 2):
        places = np.array([[[pace * step / rate, 0.0, 4.0]]]) + random.normal(0, 0.01, (1, 1, 3))
        smooth, speed = smoother.update(
            np.array([1]), places, np.ones((1, 1)), np.ones(1), step / rate
        )
        assert np.isfinite(speed).all() == (step > 0), step
    assert np.linalg.norm(speed - [pace, 0, 0]) < 0.2
    assert np.linalg.norm(smooth - places) < pace / rate + 0.1


@pytest.mark.parametrize("rate", [5.0, 15.0, 30.0])
def test_who_surely_is_elsewhere_has_no_velocity_at_any_rate(rate: float) -> None:
    smoother = JointSmoother()
    for step, place in enumerate((0.0, 0.0, 3.0)):
        joints = np.full((1, 17, 2), place)
        smooth, speed = smoother.update(
            np.array([1]), joints, np.ones((1, 17)), np.ones(1), step / rate
        )
    assert np.array_equal(smooth, joints) and np.isnan(speed).all()


@pytest.mark.parametrize("rate", [1.0, 2.5, 5.0, 7.5, 30.0])
@pytest.mark.parametrize("pace", [1.4, 3.0])
def test_people_in_space_have_velocities_at_every_rate(rate: float, pace: float) -> None:
    """One walks across, one comes nearer, one is new in every image."""
    tracking, settings = CameraTracking(IdCounter()), SmoothingSettings()
    people = People.from_boxes(np.array([[0, 0, 20, 40]] * 3), np.ones(3), 48, 64)
    for step in range(int(3 * rate) + 2):
        way = pace * step / rate
        centroids = np.array([[way, 0, 6], [0, 0, 12 - way], [0, 0, 5]], np.float32)
        found = People3D(
            np.zeros((3, 17, 3), np.float32), np.ones((3, 17), np.bool_), centroids,
            np.linalg.norm(centroids, axis=1),
        )  # fmt: skip
        ids = np.array([1, 2, 3 + step], np.int32)
        tracked = Tracked(replace(people, track_ids=ids), np.zeros(3), step / rate)
        placed, speeds = tracking.locate(tracked, found, settings)
        assert np.isfinite(speeds[:2]).all() == (step > 0), step
        assert np.isnan(speeds[2]).all()
    np.testing.assert_allclose(speeds[:2], [[pace, 0, 0], [0, 0, -pace]], atol=0.1)
    assert np.abs(placed.centroids - centroids).max() < 0.3


@pytest.mark.parametrize("stamp", ["none", "whole seconds"])
def test_joints_are_smoothed_where_stamps_stand_still(stamp: str) -> None:
    """By the times of arrival: cameras without a clock, or with one of whole seconds."""
    tracking, dice = CameraTracking(IdCounter()), np.random.default_rng(0)
    still, image = walkers([(100, 120)]), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    raw, smooth = [], []
    for number in range(90):
        jitter = dice.normal(0, 1, still.keypoints.shape).astype(np.float32)
        people = replace(still, keypoints=still.keypoints + jitter)
        stamp_ns = 0 if stamp == "none" else 10**9 * (1 + number // 30)
        tracked = tracking.track(
            people, stamp_ns, image, arrival_s=number / 30, settings=TrackerSettings(),
            ego_motion=None,
        )  # fmt: skip
        assert tracked.people.track_ids.tolist() == [1]
        raw.append(people.keypoints)
        smooth.append(tracking.smooth(tracked, SmoothingSettings()).keypoints)
    steps = [np.diff(each[10:], axis=0).std() for each in (np.array(raw), np.array(smooth))]
    assert steps[1] < 0.4 * steps[0]
