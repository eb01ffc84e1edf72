# SPDX-License-Identifier: Apache-2.0
"""Networks that fail cost one frame each, never the node."""

from __future__ import annotations

import numpy as np
from node_harness import Lab, stamp_of, wait_for


class OutOfMemoryError(RuntimeError):
    """What torch.cuda raises has this name."""


def fail_with(error: Exception) -> object:
    def fail(_: np.ndarray) -> None:
        raise error

    return fail


def check_failing_and_recovering(lab: Lab, error: Exception, *words: str) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    statistics = lab.node._cameras["camera"].statistics
    lab.networks.before = fail_with(error)
    for count in range(1, 4):
        camera.send()
        wait_for(lambda count=count: statistics.failed == count, "a frame that is lost")
    status = lab.diagnosis(": camera", lambda s: s.level == b"\2", "ERROR")
    for word in words:
        assert word in status.message
    lab.wait_for_log("a frame was lost", type(error).__name__)
    lab.networks.before = None
    stamp = camera.send()
    wait_for(lambda: poses, "the next frame")
    assert [stamp_of(message) for message in poses] == [stamp]
    lab.diagnosis(": camera", lambda s: s.level == b"\0", "OK by itself")


def test_pipeline_raises(lab: Lab) -> None:
    check_failing_and_recovering(
        lab, RuntimeError("wrong shape"), "the last frame failed", "shape"
    )


def test_pipeline_raises_something_without_words(lab: Lab) -> None:
    check_failing_and_recovering(lab, AssertionError(), "AssertionError")


def test_cuda_out_of_memory(lab: Lab) -> None:
    error = OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    check_failing_and_recovering(lab, error, "out of memory", "max_people")


def test_nan_outputs_cost_the_person_not_the_frame(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    lab.networks.nan = frozenset({0})
    stamp = camera.send()
    wait_for(lambda: poses, "an array")
    assert stamp_of(poses[0]) == stamp
    assert len(poses[0].people) == 1
    status = lab.diagnosis(": camera", lambda s: True, "any")
    counts = {pair.key: pair.value for pair in status.values}
    assert int(counts["people dropped for NaN"]) >= 1
    lab.networks.nan = frozenset()
    camera.send()
    wait_for(lambda: len(poses) == 2, "the next frame")
    assert len(poses[1].people) == 2
