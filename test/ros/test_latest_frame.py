# SPDX-License-Identifier: Apache-2.0
"""Slots and turns, without ROS and without threads where they are not the subject."""

from __future__ import annotations

import threading

from bmp_ros.ros.latest_frame import LatestFrames


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_newer_message_takes_the_place_of_the_one_that_waits() -> None:
    frames = LatestFrames()
    assert frames.put("front", 1) is False
    assert frames.put("front", 2) is True
    assert frames.take() == ("front", 2)
    assert frames.put("front", 3) is False


def test_sources_take_turns_and_requests_are_one_of_them() -> None:
    frames = LatestFrames()
    for job in ("a", "b", "c"):
        frames.request(job)
    order = []
    for number in range(6):
        frames.put("front", number)
        frames.put("rear", number)
        order.append(frames.take())
    sources = [source for source, _ in order]
    assert sources[:3].count("front") == sources[:3].count("rear") == sources[:3].count(None) == 1
    assert sources[3:] == sources[:3]
    assert [item for source, item in order if source is None] == ["a", "b"]


def test_held_camera_waits_and_others_do_not() -> None:
    clock = Clock()
    frames = LatestFrames(clock)
    frames.hold("front", 10.0)
    frames.put("front", "old")
    frames.put("rear", "other")
    assert frames.take() == ("rear", "other")
    frames.put("front", "new")
    clock.now = 10.0
    assert frames.take() == ("front", "new")


def test_hold_ends_by_itself() -> None:
    import time

    frames = LatestFrames()
    frames.hold("front", time.monotonic() + 0.05)
    frames.put("front", "frame")
    assert frames.take() == ("front", "frame")


def test_clear_forgets_frames_and_holds_of_these_cameras_only() -> None:
    frames = LatestFrames(Clock())
    frames.put("front", 1)
    frames.put("rear", 2)
    frames.hold("front", 99.0)
    assert frames.clear(["front", "side"]) == 1
    assert frames.take() == ("rear", 2)
    frames.put("front", 3)
    assert frames.take() == ("front", 3)


def test_close_wakes_whoever_waits_and_returns_the_requests() -> None:
    frames = LatestFrames()
    taken = []
    thread = threading.Thread(target=lambda: taken.append(frames.take()))
    thread.start()
    assert frames.close() == []
    thread.join(30)
    assert taken == [None]

    frames = LatestFrames()
    frames.request("job")
    assert frames.close() == ["job"]
    assert frames.take() is None
