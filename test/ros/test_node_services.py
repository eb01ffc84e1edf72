# SPDX-License-Identifier: Apache-2.0
"""Services and parameters, above all while a frame is being computed.

"During inference" is literal: the networks are held until the answer has come.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from node_harness import LIMIT_S, CameraStandIn, Lab, image, stamp_of, wait_for
from rcl_interfaces.srv import DescribeParameters
from std_srvs.srv import SetBool, Trigger

from bmp_ros.ros.interfaces import EstimatePeople
from bmp_ros.ros.worker import MAX_REQUESTS


@pytest.fixture
def camera(lab: Lab) -> CameraStandIn:
    """The node is active and has a frame in the networks, which are held."""
    lab.start_active()
    camera = lab.camera()
    camera.wait_for_subscriber()
    lab.networks.in_work.clear()
    lab.networks.gate.clear()
    camera.send()
    wait_for(lab.networks.in_work.is_set, "a frame in the networks")
    return camera


def test_services_answer_during_inference(lab: Lab, camera: CameraStandIn) -> None:
    assert lab.call(SetBool, "/bmp/bmp_node/enable", SetBool.Request(data=True)).success
    assert lab.call(Trigger, "/bmp/bmp_node/reset", Trigger.Request()).success
    assert lab.get("preset") == "bmp_d3"
    assert not lab.networks.gate.is_set()


def test_param_set_during_inference_is_visible_at_the_next_frame(
    lab: Lab, camera: CameraStandIn
) -> None:
    poses = lab.listen("/bmp/poses")
    assert lab.set(detection_threshold=0.85)[0].successful
    assert not lab.networks.gate.is_set()
    lab.networks.gate.set()
    wait_for(lambda: len(poses) == 1, "the frame that was in work")
    assert len(poses[0].people) == 2  # as begun
    camera.send()
    wait_for(lambda: len(poses) == 2, "the next frame")
    assert len(poses[1].people) == 1  # scores are 0.9 and 0.8
    assert lab.networks.thresholds[-1] == 0.85


@pytest.mark.parametrize(
    ("name", "value", "reasons"),
    [
        ("detection_threshold", 1.5, ["detection_threshold", "1.5"]),
        ("detection_threshold", "high", ["detection_threshold", "'high'", "from 0 to 1"]),
        ("iterations", 0, ["iterations", "0"]),
        ("keep_poseless", "always", ["keep_poseless", "'always'", "first, never"]),
        ("crowd_iou", -0.5, ["crowd_iou", "-0.5", "or -1"]),
        ("jpeg_quality", 101, ["jpeg_quality", "101"]),
        ("preset", "tiny", ["preset", "unconfigured", "cleanup"]),
        ("image_topic", "/other", ["image_topic", "not active", "deactivate"]),
        ("cameras", ["a", "b"], ["cameras", "unconfigured"]),
        ("autostart", False, ["autostart"]),
    ],
)
def test_param_out_of_range_is_rejected_with_reason(
    lab: Lab, name: str, value: object, reasons: list[str]
) -> None:
    lab.start_active()
    before = lab.get(name)
    result = lab.set(**{name: value})[0]
    assert not result.successful
    for words in reasons:
        assert words in result.reason, result.reason
    assert lab.get(name) == before


def test_whole_number_is_as_good_as_a_float(lab: Lab) -> None:
    lab.start_active()
    assert lab.set(detection_threshold=1)[0].successful
    assert lab.node.parameters.loop().detection_threshold == 1.0
    assert lab.set(crowd_iou=0.5)[0].successful
    assert lab.node.parameters.loop().crowd_iou == 0.5
    assert lab.set(crowd_iou=-1.0)[0].successful
    assert lab.node.parameters.loop().crowd_iou is None


def test_parameters_are_described_with_their_range(lab: Lab) -> None:
    lab.start(autostart=False)
    request = DescribeParameters.Request(names=["oks_threshold", "iterations"])
    described = lab.call(DescribeParameters, "/bmp/bmp_node/describe_parameters", request)
    oks, iterations = described.descriptors
    assert (oks.floating_point_range[0].from_value, oks.floating_point_range[0].to_value) == (0, 1)
    assert iterations.integer_range[0].to_value == 5
    assert "OKS" in oks.description


def test_estimate(lab: Lab) -> None:
    lab.start_active()
    message = image(80, 60, "rgb8")
    message.header.stamp.sec, message.header.frame_id = 12, "asked"
    answer = lab.call(
        EstimatePeople, "/bmp/bmp_node/estimate", EstimatePeople.Request(image=message)
    )
    assert answer.success, answer.message
    assert answer.message == ""
    assert (answer.people.header.stamp.sec, answer.people.header.frame_id) == (12, "asked")
    assert len(answer.people.people) == 2


def test_estimate_waits_for_the_worker_and_keeps_nobody_waiting(
    lab: Lab, camera: CameraStandIn
) -> None:
    poses = lab.listen("/bmp/poses")
    client = lab.peer.create_client(EstimatePeople, "/bmp/bmp_node/estimate")
    lab.wait_for_service(client)
    futures = [client.call_async(EstimatePeople.Request(image=image())) for _ in range(3)]
    # Answered by the same thread that has the three requests open.
    assert lab.call(Trigger, "/bmp/bmp_node/reset", Trigger.Request()).success
    assert not any(future.done() for future in futures)
    stamp = camera.send()
    lab.networks.gate.set()
    wait_for(lambda: all(future.done() for future in futures), "three answers")
    assert all(future.result().success for future in futures)
    wait_for(lambda: poses and stamp_of(poses[-1]) == stamp, "the camera's turn")


def test_requests_in_flight_are_limited(lab: Lab, camera: CameraStandIn) -> None:
    client = lab.peer.create_client(EstimatePeople, "/bmp/bmp_node/estimate")
    lab.wait_for_service(client)
    request = EstimatePeople.Request(image=image())
    futures = [client.call_async(request) for _ in range(MAX_REQUESTS + 1)]
    wait_for(lambda: any(future.done() for future in futures), "a refusal")
    for future in futures:
        if future.done():
            assert not future.result().success
            assert f"{MAX_REQUESTS} requests wait already" in future.result().message
    lab.networks.gate.set()
    wait_for(lambda: all(future.done() for future in futures), "all answers")
    assert sum(future.result().success for future in futures) == MAX_REQUESTS


def test_estimate_says_what_is_wrong(lab: Lab) -> None:
    lab.start(autostart=False)
    request = EstimatePeople.Request(image=image())
    answer = lab.call(EstimatePeople, "/bmp/bmp_node/estimate", request)
    assert not answer.success
    assert "not configured" in answer.message and "lifecycle set" in answer.message
    assert lab.transition("configure")
    assert lab.call(
        EstimatePeople, "/bmp/bmp_node/estimate", request
    ).success  # inactive is enough
    broken = EstimatePeople.Request(image=image(step=1))
    answer = lab.call(EstimatePeople, "/bmp/bmp_node/estimate", broken)
    assert not answer.success
    assert "step" in answer.message
    lab.networks.before = failing
    answer = lab.call(EstimatePeople, "/bmp/bmp_node/estimate", request)
    assert not answer.success
    assert "the networks failed: they are tired" in answer.message


def failing(_: object) -> None:
    raise RuntimeError("they are tired")


def test_disable_clears_displays_and_enable_goes_on(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    stamp = camera.send()
    wait_for(lambda: len(poses) == 1, "people")
    assert lab.call(SetBool, "/bmp/bmp_node/enable", SetBool.Request(data=False)).success
    wait_for(lambda: len(poses) == 2, "the empty array")
    assert list(poses[1].people) == [] and stamp_of(poses[1]) == stamp
    statistics = lab.node._cameras["camera"].statistics
    camera.send()
    wait_for(lambda: statistics.discarded == 1, "a frame that nobody looks at")
    assert lab.call(SetBool, "/bmp/bmp_node/enable", SetBool.Request(data=True)).success
    stamp = camera.send()
    wait_for(lambda: len(poses) == 3, "people again")
    assert stamp_of(poses[2]) == stamp


def test_frame_in_work_is_not_published_after_disable(lab: Lab, camera: CameraStandIn) -> None:
    poses = lab.listen("/bmp/poses")
    assert lab.call(SetBool, "/bmp/bmp_node/enable", SetBool.Request(data=False)).success
    statistics = lab.node._cameras["camera"].statistics
    lab.networks.gate.set()
    wait_for(lambda: statistics.discarded == 1, "the end of the frame")
    assert lab.call(SetBool, "/bmp/bmp_node/enable", SetBool.Request(data=True)).success
    stamp = camera.send()
    wait_for(lambda: poses, "the next frame")
    assert [stamp_of(message) for message in poses] == [stamp]


@pytest.mark.parametrize("ended_by", ["enable", "deactivate"])
def test_message_taken_before_the_empty_array_is_not_published_after_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, ended_by: str
) -> None:
    """The worker is held after it took a message and before it begins with it."""
    held, go_on = threading.Event(), threading.Event()

    def slow_to_begin(*arguments: Any) -> None:
        held.set()
        assert go_on.wait(LIMIT_S), "the test never went on"
        process(*arguments)

    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    camera.send()
    wait_for(lambda: len(poses) == 1, "people")
    statistics = lab.node._cameras["camera"].statistics
    worker = lab.node._worker
    process = worker._on_frame
    monkeypatch.setattr(worker, "_on_frame", slow_to_begin)
    camera.send()
    wait_for(held.is_set, "the worker to take the message")
    if ended_by == "enable":
        for wanted in (False, True):
            request = SetBool.Request(data=wanted)
            assert lab.call(SetBool, "/bmp/bmp_node/enable", request).success
    else:
        assert lab.transition("deactivate") and lab.transition("activate")
    go_on.set()
    wait_for(lambda: statistics.discarded + statistics.processed == 2, "the end of the frame")
    wait_for(lambda: len(poses) >= 2, "the empty array")
    # What the worker publishes comes after it on the same topic: one more frame flushes it.
    camera.wait_for_subscriber()
    monkeypatch.undo()
    stamp = camera.send()
    wait_for(lambda: stamp_of(poses[-1]) == stamp, "the next frame")
    assert [len(message.people) for message in poses] == [2, 0, 2]
