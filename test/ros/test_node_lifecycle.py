# SPDX-License-Identifier: Apache-2.0
"""Transitions can be repeated, failing ones say what to do, and memory comes back."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from node_harness import Lab, image, stamp_of, wait_for

from bmp_ros.loop import BMPLoop


def test_configure_activate_deactivate_three_times(lab: Lab) -> None:
    lab.start(autostart=False)
    assert lab.transition("configure")
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    for round_trip in range(3):
        assert round_trip == 0 or lab.transition("configure")
        for _ in range(2):
            answers = len(poses)
            assert lab.transition("activate")
            camera.wait_for_subscriber()

            def answered(answers: int = answers) -> bool:
                camera.send()
                return len(poses) > answers

            wait_for(answered, "an answer")
            assert lab.transition("deactivate")
            wait_for(lambda: not poses[-1].people, "an empty array in the end")
            wait_for(lambda: camera.publisher.get_subscription_count() == 0, "no subscription")
        assert lab.transition("cleanup")
        assert lab.state() == "unconfigured"


def test_autostart_false_waits_for_a_manager(lab: Lab) -> None:
    lab.start(autostart=False)
    lab.diagnosis(": engines", lambda s: s.message == "not configured", "WARN")
    assert lab.state() == "unconfigured"
    assert lab.transition("configure")
    assert lab.state() == "inactive"
    assert lab.transition("activate")
    lab.diagnosis(": engines", lambda s: s.level == b"\0", "OK")


def test_wrong_transition_is_refused_and_harmless(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    camera.send()
    wait_for(lambda: poses, "an answer")
    for wrong in ("activate", "configure", "cleanup"):
        assert not lab.transition(wrong)
        assert lab.state() == "active"
    lab.wait_for_log("refused in active", "deactivate (4)")
    camera.send()
    wait_for(lambda: len(poses) == 2, "an answer as before")
    assert lab.transition("active_shutdown")
    assert not lab.transition("configure") and lab.state() == "finalized"
    lab.wait_for_log("refused in finalized: there are none, start the node again")


def test_deactivate_ends_with_an_empty_array(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    stamp = camera.send()
    wait_for(lambda: len(poses) == 1, "people")
    # A frame in the networks when the node is deactivated is not published after the empty array.
    lab.networks.in_work.clear()
    lab.networks.gate.clear()
    camera.send()
    wait_for(lab.networks.in_work.is_set, "a frame in the networks")
    statistics = lab.node._cameras["camera"].statistics
    assert lab.transition("deactivate")
    lab.networks.gate.set()
    wait_for(lambda: statistics.discarded == 1, "the end of that frame")
    wait_for(lambda: len(poses) == 2, "the empty array")
    assert [len(message.people) for message in poses] == [2, 0]
    assert stamp_of(poses[1]) == stamp
    assert poses[1].header.frame_id == poses[0].header.frame_id


def test_cleanup_frees_the_networks(lab: Lab) -> None:
    loops = []

    def build(preset: str, device: str, **options: Any) -> BMPLoop:
        loop = lab.networks.build_loop(preset, device, **options)
        loops.append(weakref.ref(loop))
        return loop

    lab.start(build_loop=build)
    lab.wait_for_state("active")
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    camera.send(image(640, 480))
    wait_for(lambda: poses, "an answer")
    assert lab.transition("deactivate") and lab.transition("cleanup")
    gc.collect()
    assert [loop() for loop in loops] == [None]


def test_missing_weights_fail_naming_the_command(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BMP_MODELS", str(tmp_path))
    there = []

    def build(preset: str, device: str, **options: Any) -> BMPLoop:
        from bmp_ros.engines.build import locate_weights
        from bmp_ros.engines.presets import load_preset

        if not there:
            locate_weights(load_preset(preset))
        return lab.networks.build_loop(preset, device)

    lab.start(build_loop=build, auto_download=False)
    line = lab.wait_for_log("cannot configure", "bmp models download bmp_d3", "auto_download")
    assert "ros2 lifecycle set /bmp/bmp_node configure" in line
    lab.wait_for_state("unconfigured")
    status = lab.diagnosis(": engines", lambda s: s.level == b"\2", "ERROR")
    assert "bmp models download" in status.message
    assert not lab.transition("configure")  # again, and again it says why
    there.append(True)
    assert lab.transition("configure") and lab.transition("activate")
    lab.diagnosis(": engines", lambda s: s.level == b"\0", "OK")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"preset": "bmp_d4"}, ["bmp_d4", "bmp_d3"]),
        ({"preset": "/nowhere/my.yaml"}, ["/nowhere/my.yaml"]),
    ],
)
def test_preset_that_is_not_there(lab: Lab, parameters: dict[str, Any], words: list[str]) -> None:
    lab.start(**parameters)
    lab.wait_for_log("cannot configure", *words)
    lab.wait_for_state("unconfigured")
    assert lab.set(preset="bmp_d3")[0].successful
    assert lab.transition("configure") and lab.transition("activate")


def test_networks_that_cannot_be_built_leave_a_clean_state(lab: Lab) -> None:
    def build(preset: str, device: str, **options: Any) -> BMPLoop:
        if len(tries) < 2:
            tries.append(1)
            raise [ValueError("device 'cuda:7' is not there"), KeyError("a bug")][len(tries) - 1]
        return lab.networks.build_loop(preset, device)

    tries: list[int] = []
    lab.start(build_loop=build)
    lab.wait_for_log("cannot configure", "device 'cuda:7' is not there")
    assert not lab.transition("configure")
    lab.wait_for_log("cannot configure", "KeyError", "Traceback")
    assert lab.transition("configure") and lab.transition("activate")


def test_loop_parameters_follow_the_preset_but_for_those_that_were_set(lab: Lab) -> None:
    lab.start(autostart=False, preset="bmp_v2", num_positive=6, oks_threshold=0.8)
    from bmp_ros.engines.presets import load_preset

    preset = load_preset("bmp_v2").loop
    assert preset.confidence_threshold != 0.3  # the default, which is that of bmp_d3
    assert (preset.num_positive, preset.oks_threshold) != (6, 0.8)
    assert lab.transition("configure")
    loop = lab.node.parameters.loop()
    assert loop.confidence_threshold == preset.confidence_threshold
    assert lab.get("confidence_threshold") == preset.confidence_threshold
    assert (loop.num_positive, loop.oks_threshold) == (6, 0.8)
    assert lab.transition("cleanup")
    assert lab.set(preset="bmp_d3", visibility_threshold=0.11)[0].successful
    assert lab.transition("configure")
    assert lab.get("confidence_threshold") == 0.3
    assert lab.node.parameters.loop().visibility_threshold == 0.11


@pytest.mark.parametrize("devices", [0, 1])
def test_cpu_warning_names_the_seconds_and_what_this_machine_has(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    from bmp_ros.ros import engine_loading

    lab.networks.device = "cpu"
    monkeypatch.setattr(engine_loading, "warm_up", lambda loop: 12.34)
    monkeypatch.setattr(engine_loading, "cuda_devices", lambda: devices)
    lab.start(preset="bmp_d3")
    line = lab.wait_for_log("on the CPU", "12.3 s per frame", "preset:=tiny")
    assert ("device:=cuda" in line) == bool(devices)


def test_a_topic_that_cannot_be_named_so_is_told_and_can_be_mended(lab: Lab) -> None:
    lab.start(image_topic="no such/topic")
    command = "lifecycle set /bmp/bmp_node activate"
    line = lab.wait_for_log("cannot activate", "no such/topic", "alphanumerics", command)
    assert ".c:" not in line, "no lines of rcl's source"
    lab.wait_for_state("inactive")
    for topic, why in (
        ("/eye/camera_info", "as Image: this node uses it as CameraInfo already"),
        ("/bmp/poses", "this node publishes it itself"),
    ):
        assert lab.set(image_topic=topic)[0].successful
        assert not lab.transition("activate")
        line = lab.wait_for_log(f"{topic} cannot be listened to", why)
        assert "Traceback" not in line
    assert lab.set(image_topic="/eye")[0].successful
    assert lab.transition("activate")
    poses = lab.listen("/bmp/poses")
    camera = lab.camera("/eye")
    camera.wait_for_subscriber()
    camera.send()
    wait_for(lambda: poses, "an answer")
