# SPDX-License-Identifier: Apache-2.0
"""Stamps and clocks: bags that begin anew, simulated time, cameras that stamp nothing."""

from __future__ import annotations

import math

import pytest
from node_harness import Lab, stamp_of, wait_for
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64


def test_stamp_zero(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    latency = lab.listen("/bmp/debug/pipeline_latency_ms", Float64)
    camera = lab.camera()
    camera.wait_for_subscriber()
    for count in (1, 2):
        camera.send(stamp_ns=0)
        wait_for(lambda count=count: len(poses) == count, "an answer")
    assert [stamp_of(message) for message in poses] == [0, 0]
    wait_for(lambda: latency, "the latency")
    assert math.isnan(latency[0].data)
    status = lab.diagnosis(": camera", lambda s: "stamped 0" in s.message, "WARN")
    assert status.level == b"\1" and "use_sim_time" not in status.message
    assert lab.log().count("stamped 0") == 1


def test_stamps_jump_back_as_when_a_bag_begins_anew(lab: Lab) -> None:
    lab.start_active(max_rate=1000.0)
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    statistics = lab.node._cameras["camera"].statistics
    second = 10**9
    stamps = [100 * second, 101 * second, 5 * second, 6 * second]
    for count, stamp in enumerate(stamps, start=1):
        camera.send(stamp_ns=stamp)
        wait_for(lambda count=count: len(poses) == count, "an answer")
    assert [stamp_of(message) for message in poses] == stamps
    lab.wait_for_log("stamps went back by 96.000 s", "starting afresh")
    wait_for(lambda: statistics.processed == 4, "the counts")
    assert len(statistics.snapshot().ages_s) == 2  # of the frames after the jump


def test_a_second_back_begins_anew_in_the_node_and_in_the_tracker(lab: Lab) -> None:
    lab.start_active(max_rate=1000.0)
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    second = 10**9
    for count, stamp in enumerate((100 * second, 99 * second), start=1):
        camera.send(stamp_ns=stamp)
        wait_for(lambda count=count: len(poses) == count, "an answer")
    lab.wait_for_log("stamps went back by 1.000 s", "starting afresh")
    assert "change nothing" not in lab.log()
    ids = [{person.track_id for person in message.people} for message in poses]
    assert ids[0] and not ids[0] & ids[1]


@pytest.mark.parametrize("back_ms", [2, 999])
def test_stamps_that_step_back_reset_nothing(lab: Lab, back_ms: int) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    statistics = lab.node._cameras["camera"].statistics
    stamps = [10**11 + step * 10**6 for step in (0, 33, 33 - back_ms, 66, 66 - back_ms, 100)]
    for count, stamp in enumerate(stamps, start=1):
        camera.send(stamp_ns=stamp)
        wait_for(lambda count=count: len(poses) == count, "an answer")
    assert [stamp_of(message) for message in poses] == stamps
    wait_for(lambda: statistics.processed == len(stamps), "the counts")
    assert len(statistics.snapshot().ages_s) == len(stamps)
    lab.wait_for_log("stamps step back by", "less than 1 s change nothing")
    assert lab.log().count("stamps step back") == 1
    assert "starting afresh" not in lab.log()


@pytest.mark.parametrize(
    "stamp", [-5 * 10**9, -1, -(2**31) * 10**9, (2**31 - 1) * 10**9 + 999_999_999]
)
def test_people_are_found_whatever_the_stamp(lab: Lab, stamp: int) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    statistics = lab.node._cameras["camera"].statistics
    for count in (1, 2):
        camera.send(stamp_ns=stamp)
        wait_for(lambda count=count: len(poses) == count, "an answer")
    assert [stamp_of(message) for message in poses] == [stamp, stamp]
    assert all(len(message.people) == 2 for message in poses)
    wait_for(lambda: statistics.processed == 2, "the counts")
    assert statistics.failed == 0
    lab.diagnosis(": camera", lambda s: "use_sim_time" in s.message, "WARN")


def test_one_stamp_of_0_among_good_ones_resets_nothing(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    statistics = lab.node._cameras["camera"].statistics
    for count, stamp in enumerate((10**11, 0, 10**11 - 10**6, 10**11 + 10**8), start=1):
        camera.send(stamp_ns=stamp)
        wait_for(lambda count=count: len(poses) == count, "an answer")
    wait_for(lambda: statistics.processed == 4, "the counts")
    assert len(statistics.snapshot().ages_s) == 4
    lab.wait_for_log("stamped 0", "driver")


def test_stamps_of_another_clock_are_told(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    camera.send(stamp_ns=10**9)
    wait_for(lambda: poses, "an answer")
    lab.diagnosis(": camera", lambda s: "use_sim_time" in s.message, "WARN")


def test_use_sim_time(lab: Lab) -> None:
    """Simulated time stands still and jumps back: nothing stalls, ages are in its time."""
    lab.start_active(use_sim_time=True)
    poses = lab.listen("/bmp/poses")
    latency = lab.listen("/bmp/debug/pipeline_latency_ms", Float64)
    clock = lab.peer.create_publisher(Clock, "/clock", 10)
    camera = lab.camera()
    camera.wait_for_subscriber()

    def set_clock(seconds: int) -> None:
        def arrived() -> bool:
            message = Clock()
            message.clock.sec = seconds
            clock.publish(message)
            return lab.node.get_clock().now().nanoseconds == seconds * 10**9

        wait_for(arrived, "the simulated time")

    for count, (seconds, stamp) in enumerate([(50, 49), (50, 50), (10, 8)], start=1):
        set_clock(seconds)
        camera.send(stamp_ns=stamp * 10**9)
        wait_for(lambda count=count: len(latency) == len(poses) == count, "an answer")
        assert latency[-1].data == (seconds - stamp) * 1e3
    assert [stamp_of(message) for message in poses] == [49 * 10**9, 50 * 10**9, 8 * 10**9]
    # Timers do not depend on the simulated time, which stands still now.
    lab.diagnosis(": camera", lambda s: True, "while time stands still")
