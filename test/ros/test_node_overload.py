# SPDX-License-Identifier: Apache-2.0
"""A camera that is faster than the networks: newest frame first, everything else counted."""

from __future__ import annotations

import numpy as np
import pytest
from node_harness import Lab, image, stamp_of, wait_for

from bmp_ros.ros.diagnostics import Snapshot, camera_status


def values(status: object) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def test_fast_camera_slow_pipeline_answers_the_newest_frame(lab: Lab) -> None:
    """While a frame is in the networks, 30 more come: the last of them is computed next."""
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    statistics = lab.node._cameras["camera"].statistics
    lab.networks.gate.clear()
    lab.networks.in_work.clear()
    first = camera.send()
    wait_for(lab.networks.in_work.is_set, "a frame in the networks")
    for number in range(30):
        camera.send(image())
        # One after the other, so that the transport's queue of 5 loses none: it is not tested.
        wait_for(lambda number=number: statistics.received == number + 2, "its arrival")
    lab.networks.gate.set()
    wait_for(lambda: len(poses) == 2, "two answers")
    assert [stamp_of(message) for message in poses] == [first, camera.sent[-1]]

    status = lab.diagnosis(
        ": camera", lambda s: values(s).get("frames processed") == "2", "counts"
    )
    counts = {key: int(value) for key, value in values(status).items() if key[:6] == "frames"}
    assert counts["frames received"] == 31
    assert counts["frames replaced by newer ones"] == 31 - 2


def test_stream_gives_increasing_stamps_and_no_duplicates(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    statistics = lab.node._cameras["camera"].statistics
    for _ in range(100):
        camera.send()
    last = camera.sent[-1]
    wait_for(lambda: poses and stamp_of(poses[-1]) == last, "the answer to the last frame")
    stamps = [stamp_of(message) for message in poses]
    assert stamps == sorted(set(stamps))
    assert set(stamps) <= set(camera.sent)
    # DDS may take some away on both ways: each keeps the newest that were not taken yet.
    wait_for(lambda: statistics.received == statistics.processed + statistics.replaced, "counts")
    assert len(poses) <= statistics.processed


@pytest.mark.parametrize(
    ("total_ms", "words"), [(1500.0, "a smaller preset, a GPU"), (100.0, "old when they come")]
)
def test_what_makes_results_old_is_told(total_ms: float, words: str) -> None:
    snapshot = Snapshot(
        counts={}, error="", refusal="", damage="", ages_s=np.full(5, 2.0),
        stages_ms={"total": np.full(5, total_ms)},
    )  # fmt: skip
    status = camera_status(
        "bmp_node: camera", "cpu", snapshot, silent_s=0.1, timeout_s=5.0, budget_ms=500.0,
        source="/camera/image_raw",
    )  # fmt: skip
    assert "2000 ms old" in status.message and f"take {total_ms:.0f} ms" in status.message
    assert "latency_budget_ms" in status.message and words in status.message


def test_latency_budget_in_the_diagnostics(lab: Lab) -> None:
    lab.start_active(latency_budget_ms=1000.0)
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    now = lab.peer.get_clock().now().nanoseconds
    camera.send(stamp_ns=now - 3 * 10**9)  # taken three seconds ago
    wait_for(lambda: poses, "an answer")
    status = lab.diagnosis(": camera", lambda s: s.level == b"\1", "WARN")
    assert "the budget is 1000 ms" in status.message
    assert float(values(status)["age of the result p95 (ms)"]) >= 3000
    assert "detect p50 (ms)" in values(status)
    lab.set(latency_budget_ms=0)
    lab.diagnosis(": camera", lambda s: s.level == b"\0", "OK without a budget")
