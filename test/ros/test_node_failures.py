# SPDX-License-Identifier: Apache-2.0
"""Networks that fail cost one frame each, never the node."""

from __future__ import annotations

from typing import Any

import numpy as np
from node_harness import Lab, image, stamp_of, wait_for
from rclpy.serialization import serialize_message

from bmp_ros.ros.interfaces import PersonArray


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


def test_bytes_that_are_no_message(lab: Lab) -> None:
    """Whoever speaks DDS may send any bytes; no layer of ROS looks into them."""
    lab.start_active(depth_topic="/depth", boxes_topic="/boxes", boxes_wait=0.0, boxes_slop=10.0)
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    depth, boxes = lab.camera("/depth"), lab.camera("/boxes", kind=PersonArray)
    for each in (camera, depth, boxes):
        each.wait_for_subscriber()
    whole = bytes(serialize_message(image()))
    statistics = lab.node._cameras["camera"].statistics
    damaged = (b"\0\1\0\0", b"\0\1\0\0\0", b"\0\1" + bytes(9), whole[:30], b"\x55" * 64)

    def is_refused() -> bool:
        # Again and again: a newer message takes the place of one that waits for its turn, and DDS
        # keeps the shortest to itself.
        for data in damaged:
            for each in (camera, depth, boxes):
                each.publisher.publish(data)
        return statistics.refused >= len(damaged)

    wait_for(is_refused, "refused images")
    wait_for(lambda: camera.send() and poses, "a result all the same")
    lab.wait_for_log("image refused")
    assert "[ERROR]" not in lab.log()


def test_ros_that_ends_while_an_image_is_published(lab: Lab) -> None:
    """As at Ctrl-C: what comes after costs that image, without a word about an error."""
    lab.start_active()
    camera = lab.camera()
    camera.wait_for_subscriber()
    node = lab.node
    publish = node._interaction.publish

    def end_of_ros(*arguments: Any) -> Any:
        node.context.try_shutdown()
        return publish(*arguments)

    node._interaction.publish = end_of_ros
    lab.set(zones=["door: 0 0; 1 0; 1 1"])
    camera.send()
    statistics = node._cameras["camera"].statistics
    wait_for(lambda: statistics.discarded == 1, "the end of the image")
    assert "interaction" not in lab.log()


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

    def dropped(status: Any) -> int:
        return int({pair.key: pair.value for pair in status.values}["people dropped for NaN"])

    lab.diagnosis(": camera", lambda status: dropped(status) >= 1, "a person dropped")
    lab.networks.nan = frozenset()
    camera.send()
    wait_for(lambda: len(poses) == 2, "the next frame")
    assert len(poses[1].people) == 2
