# SPDX-License-Identifier: Apache-2.0
"""Slots and turns, without ROS and without threads where they are not the subject."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from scripted_networks import LIMIT_S

from bmp_ros.ros.worker import MAX_REQUESTS, Worker


def worker(clock: Callable[[], float] = time.monotonic) -> Worker:
    """A worker whose thread is not running: tests take in its place."""

    def unexpected(*_: object) -> None:
        raise AssertionError("the thread was not started")

    return Worker(unexpected, unexpected, unexpected, clock)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_newer_message_takes_the_place_of_the_one_that_waits() -> None:
    frames = worker()
    assert frames.put("front", 1) is False
    assert frames.put("front", 2) is True
    assert frames.take() == ("front", 2)
    assert frames.put("front", 3) is False


def test_requests_beyond_the_limit_are_not_kept() -> None:
    frames = worker()
    assert all(frames.request(number) for number in range(MAX_REQUESTS))
    assert not frames.request("one more")
    assert frames.take() == (None, 0)
    assert frames.request("one more")
    assert frames.close() == [*range(1, MAX_REQUESTS), "one more"]


def test_sources_take_turns_and_requests_are_one_of_them() -> None:
    frames = worker()
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
    frames = worker(clock)
    frames.hold("front", 10.0)
    frames.put("front", "old")
    frames.put("rear", "other")
    assert frames.take() == ("rear", "other")
    frames.put("front", "new")
    clock.now = 10.0
    assert frames.take() == ("front", "new")


def test_hold_ends_by_itself() -> None:
    frames = worker()
    frames.hold("front", time.monotonic() + 0.05)
    frames.put("front", "frame")
    assert frames.take() == ("front", "frame")


def test_a_hold_that_is_shortened_ends() -> None:
    frames = worker()
    frames.hold("front", time.monotonic() + 3600.0)
    frames.put("front", "frame")
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(frames.take()), daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert not taken
    frames.hold("front", 0.0)
    waiting.join(LIMIT_S)
    assert taken == [("front", "frame")]


def test_clear_forgets_frames_and_holds_of_these_cameras_only() -> None:
    frames = worker(Clock())
    frames.put("front", 1)
    frames.put("rear", 2)
    frames.hold("front", 99.0)
    assert frames.clear(["front", "side"]) == 1
    assert frames.take() == ("rear", 2)
    frames.put("front", 3)
    assert frames.take() == ("front", 3)


def test_close_wakes_whoever_waits_and_returns_the_requests() -> None:
    frames = worker()
    taken = []
    thread = threading.Thread(target=lambda: taken.append(frames.take()))
    thread.start()
    assert frames.close() == []
    thread.join(30)
    assert taken == [None]

    frames = worker()
    frames.request("job")
    assert frames.close() == ["job"]
    assert frames.take() is None


def test_exceptions_go_to_on_bug_and_the_thread_goes_on() -> None:
    bugs: list[Exception] = []
    done = threading.Event()

    def on_frame(camera: str, message: int) -> None:
        if message == 1:
            raise KeyError(camera)
        done.set()

    working = Worker(on_frame, lambda job: None, bugs.append)
    working.start()
    working.put("front", 1)
    deadline = time.monotonic() + 30
    while not bugs and time.monotonic() < deadline:
        time.sleep(0.005)
    working.put("front", 2)
    assert done.wait(30)
    assert [repr(bug) for bug in bugs] == ["KeyError('front')"]
    working.close()
    assert working.join(30)
