# SPDX-License-Identifier: Apache-2.0
"""Stamps and clocks: bags that begin anew, simulated time, cameras that stamp nothing."""

from __future__ import annotations

import math

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
        wait_for(lambda count=count: len(latency) == count, "an answer")
        assert latency[-1].data == (seconds - stamp) * 1e3
    assert [stamp_of(message) for message in poses] == [49 * 10**9, 50 * 10**9, 8 * 10**9]
    # Timers do not depend on the simulated time, which stands still now.
    lab.diagnosis(": camera", lambda s: True, "while time stands still")
