# SPDX-License-Identifier: Apache-2.0
"""Whatever is detected, whenever: no id twice in an image, none given again, states restored."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bmp_ros.loop.people import People
from bmp_ros.tracking import IdCounter, PersonTracker

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
    return people


frame = st.tuples(
    people_strategy(),
    st.sampled_from(STEPS),
    st.sampled_from(["update", "update", "update", "reset", "restore"]),
    st.booleans(),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(frame, min_size=1, max_size=12), st.integers(0, 1000))
def test_invariants(frames: list[tuple[People, float, str, bool]], seed: int) -> None:
    random = np.random.default_rng(seed)
    counter = IdCounter()
    tracker, other = PersonTracker(counter=counter), PersonTracker(counter=counter)
    stamp = 0.0
    dead: set[int] = set()
    elsewhere: set[int] = set()
    alive: set[int] = set()
    for people, step, action, pictured in frames:
        stamp += step
        if action == "reset":
            tracker.reset()
            dead |= alive
        if action == "restore":
            saved = tracker.save()
            tracker = PersonTracker(counter=counter)
            tracker.restore(saved)
        image = random.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8) if pictured else None
        twin = PersonTracker(counter=IdCounter(1))
        twin.restore(tracker.save())
        result = tracker.update(people, stamp, image=image)
        again = twin.update(people, stamp, image=image)
        assert result.track_ids.tolist() == again.track_ids.tolist(), "restored equal"
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
        elsewhere |= set(other.update(people, stamp).track_ids.tolist()) - {-1}
