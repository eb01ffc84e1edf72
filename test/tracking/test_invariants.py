# SPDX-License-Identifier: Apache-2.0
"""Whatever is detected, whenever: no id twice in an image, none given again, states restored."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bmp_ros.loop.people import People
from bmp_ros.tracking import IdCounter, PersonTracker
from bmp_ros.tracking.tracker import TrackReport

HEIGHT, WIDTH = 24, 40
STEPS = (0.0, 0.03, 0.2, 0.4, 0.7, 1.9, 2.5, -0.3, -1.0, -30.0)


@st.composite
def people_strategy(draw: st.DrawFn) -> People:
    seed = draw(st.integers(0, 2**32 - 1))
    count = draw(st.integers(0, 5))
    random = np.random.default_rng(seed)
    low = random.uniform([0, 0], [WIDTH, HEIGHT], (count, 2))
    size = random.choice([0.0, 1.0, 8.0, 30.0], (count, 2))
    high = np.minimum(low + size, [WIDTH, HEIGHT])
    boxes = np.concatenate([low, high], axis=1).astype(np.float32)
    owner = random.integers(-3, count, (HEIGHT, WIDTH)) if count else np.full((HEIGHT, WIDTH), -1)
    masks = owner[None] == np.arange(count)[:, None, None]
    people = People.from_boxes(boxes, random.random(count), HEIGHT, WIDTH, masks=masks)
    people.keypoints[:] = random.uniform(-20, 60, people.keypoints.shape)
    people.keypoint_scores[:] = random.random(people.keypoint_scores.shape)
    if draw(st.booleans()):
        people.keypoints[random.random(people.keypoints.shape) < 0.2] = np.nan
    if draw(st.booleans()):
        has_mask = random.random(count) < 0.5
        masks = masks & has_mask[:, None, None]
        people = replace(people, masks=masks, raw_masks=masks, has_mask=has_mask)
    return people


TURNS = {
    "unknown": None,
    "little": np.array([[0.99, -0.05, 2.0], [0.05, 0.99, -1.0], [0.0, 0.0, 1.0]]),
    "much": np.array([[0.8, 0.3, -30.0], [-0.2, 1.1, 9.0], [0.005, -0.003, 1.0]]),
    "behind the camera": np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-0.05, 0.0, 1.0]]),
}
frame = st.tuples(
    people_strategy(),
    st.sampled_from(STEPS),
    st.sampled_from(["update", "update", "update", "reset", "restore", "other size"]),
    st.booleans(),
    st.sampled_from(sorted(TURNS)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(frame, min_size=1, max_size=12),
    st.integers(0, 1000),
    st.sampled_from(["stamps", "arrivals", "whole seconds", "one stamp"]),
)
def test_invariants(
    frames: list[tuple[People, float, str, bool, str]], seed: int, clock: str
) -> None:
    random = np.random.default_rng(seed)
    counter = IdCounter()
    tracker, other = PersonTracker(counter=counter), PersonTracker(counter=counter)
    stamp = arrival = 0.0
    dead: set[int] = set()
    elsewhere: set[int] = set()
    alive: set[int] = set()
    for people, step, action, pictured, turn in frames:
        stamp += step
        arrival += max(step, 0.01)
        given_s = {"whole seconds": float(np.floor(stamp)), "one stamp": 7.0}.get(clock, stamp)
        when = {"stamp_s": given_s, "arrival_s": None if clock == "stamps" else arrival}
        if action == "other size":
            people = People.from_boxes(people.boxes / 2, people.scores, HEIGHT // 2, WIDTH)
        if action == "reset":
            tracker.reset()
            dead |= alive
            alive = set()
        if action == "restore":
            saved = tracker.save()
            tracker = PersonTracker(counter=counter)
            tracker.restore(saved)
        shape = (*people.image_size, 3)
        image = random.integers(0, 255, shape, np.uint8) if pictured else None
        resets, time_s = tracker.counts["resets"], tracker.time_s
        twin = PersonTracker(counter=IdCounter(1))
        twin.restore(tracker.save())
        result = tracker.update(people, ego_motion=TURNS[turn], image=image, **when)
        again = twin.update(people, ego_motion=TURNS[turn], image=image, **when)
        assert result.track_ids.tolist() == again.track_ids.tolist(), "restored equal"
        for field in fields(TrackReport):
            first, second = (getattr(each.report(), field.name) for each in (tracker, twin))
            assert np.array_equal(first, second), field.name
        if tracker.counts["resets"] == resets and alive:
            assert tracker.time_s >= time_s - 1e-9
        ids = result.track_ids[result.track_ids >= 0].tolist()
        assert len(result) == len(people) and len(set(ids)) == len(ids)
        report = tracker.report()
        assert len(set(report.ids.tolist())) == len(report.ids)
        assert np.isfinite(report.boxes).all() and np.isfinite(report.velocities).all()
        assert (report.unseen >= 0).all() and (report.ages >= report.unseen - 1e-9).all()
        now = set(report.ids.tolist())
        assert not set(ids) - now and not now & dead and not now & elsewhere
        dead |= alive - now
        alive = now
        elsewhere |= set(other.update(people, given_s).track_ids.tolist()) - {-1}
