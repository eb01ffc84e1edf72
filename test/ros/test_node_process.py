# SPDX-License-Identifier: Apache-2.0
"""The node as a process: how it starts, and that it ends with exit code 0."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lifecycle_msgs.srv import GetState
from node_harness import LIMIT_S, Lab, wait_for
from rcl_interfaces.srv import GetParameters

from bmp_ros.resources import resource_root
from bmp_ros.ros.interfaces import PersonArray

SCRIPTED = [sys.executable, str(Path(__file__).with_name("scripted_node.py"))]
INSTALLED = [sys.executable, "-m", "bmp_ros.ros.bmp_node"]


@contextmanager
def process(command: list[str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    # The directory of the package, for `python -m` from a checkout that is not installed.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    running = subprocess.Popen(
        [*command, "--ros-args", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait(LIMIT_S)


def state_of(lab: Lab, node: str) -> str:
    return str(lab.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_exit_code_0_on_signals_while_working(lab: Lab, number: signal.Signals) -> None:
    with process(SCRIPTED, "-r", "__ns:=/bmp") as node:
        wait_for(lambda: state_of(lab, "/bmp/bmp_node") == "active", "the node")
        poses: list[PersonArray] = []
        lab.peer.create_subscription(PersonArray, "/bmp/poses", poses.append, 5)
        camera = lab.camera()

        def answered() -> bool:
            camera.send()
            return bool(poses)

        wait_for(answered, "people")
        node.send_signal(number)
        output, _ = node.communicate(timeout=LIMIT_S)
        assert node.returncode == 0, output
        assert "Traceback" not in output


def test_exit_code_0_on_two_signals(lab: Lab) -> None:
    with process(SCRIPTED, "-r", "__ns:=/bmp") as node:
        wait_for(lambda: state_of(lab, "/bmp/bmp_node") == "active", "the node")
        node.send_signal(signal.SIGINT)
        node.send_signal(signal.SIGTERM)
        output, _ = node.communicate(timeout=LIMIT_S)
        assert node.returncode == 0, output


# What rclpy's C++ may make of an interrupt that strikes while it makes a message: an error that
# escapes a callback while ROS is ending.
INTERRUPTED = """
import os, signal, sys, time
import rclpy
from rclpy.node import Node
from bmp_ros.ros.process import run_node

class Struck(Node):
    def __init__(self):
        super().__init__("struck")
        self.create_timer(0.0, self.strike)

    def strike(self):
        os.kill(os.getpid(), signal.SIGINT)
        while rclpy.ok():
            time.sleep(0.01)
        raise RuntimeError("Unable to convert call argument")

    def close(self, timeout=None):
        return True

sys.exit(run_node(Struck))
"""


# Signals without end, from a moment of the node's life until its process is gone.
SENDER = """
import os, sys, time
pid, *numbers = map(int, sys.argv[1:])
print(flush=True)
while True:
    for number in numbers:
        os.kill(pid, number)
        time.sleep(0.0005)
"""
STORM = f"""
import os, subprocess, sys, time
from rclpy.node import Node
from bmp_ros.ros.process import run_node

def storm():
    sender = subprocess.Popen(
        [sys.executable, "-c", {SENDER!r}, str(os.getpid()), *sys.argv[2:4]],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    sender.stdout.readline()
    time.sleep(9)

class Struck(Node):
    def __init__(self):
        if sys.argv[1] == "before":
            storm()
        super().__init__("struck")
        if sys.argv[1] == "making":
            storm()
        self.create_timer(0.0, storm)

    def close(self, timeout=None):
        time.sleep(0.1)
        return True

sys.exit(run_node(Struck, sys.argv[:1]))
"""


def test_interrupt_amid_of_a_message_ends_quietly(ros_domain: int) -> None:
    with process([sys.executable, "-c", INTERRUPTED]) as node:
        output, _ = node.communicate(timeout=LIMIT_S)
        assert node.returncode == 0, output
        assert "Traceback" not in output


@pytest.mark.parametrize("moment", ["before", "making", "spinning"])
@pytest.mark.parametrize("numbers", [(2, 15), (15, 2)], ids=["SIGINT", "SIGTERM"])
def test_signals_without_end_are_an_orderly_end(
    ros_domain: int, moment: str, numbers: tuple[int, int]
) -> None:
    command = [sys.executable, "-c", STORM, moment, *map(str, numbers)]
    with process(command) as node:
        output, _ = node.communicate(timeout=LIMIT_S)
    assert node.returncode == 0, output
    assert "Traceback" not in output


def test_module_runs_as_in_the_documentation_and_waits_for_a_manager(lab: Lab) -> None:
    arguments = ["-r", "__ns:=/bmp", "-p", "image_topic:=/cam", "-p", "autostart:=false"]
    with process(INSTALLED, *arguments) as node:
        assert state_of(lab, "/bmp/bmp_node") == "unconfigured"
        assert lab.get("image_topic") == "/cam"
        node.send_signal(signal.SIGINT)
        output, _ = node.communicate(timeout=LIMIT_S)
        assert node.returncode == 0, output


def test_renamed_and_namespaced_node_still_gets_its_parameters_file(
    lab: Lab, tmp_path: Path
) -> None:
    text = (resource_root() / "config" / "bmp.yaml").read_text(encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace('"/camera/image_raw"', '"/robot/eye"') + "    max_people: 3\n")
    arguments = ["-r", "__ns:=/robot/head", "-r", "__node:=people", "--params-file", str(file)]
    with process(SCRIPTED, *arguments) as node:
        wait_for(lambda: state_of(lab, "/robot/head/people") == "active", "the node")
        request = GetParameters.Request(names=["image_topic", "max_people"])
        answer = lab.call(GetParameters, "/robot/head/people/get_parameters", request)
        assert answer.values[0].string_value == "/robot/eye"
        assert answer.values[1].integer_value == 3
        node.send_signal(signal.SIGINT)
        output, _ = node.communicate(timeout=LIMIT_S)
        assert node.returncode == 0, output


def test_cameras_from_the_command_line(lab: Lab) -> None:
    arguments = ["-p", "cameras:=[front, rear]", "-p", "rear.image_topic:=/back"]
    with process(SCRIPTED, "-r", "__ns:=/bmp", *arguments):
        wait_for(lambda: state_of(lab, "/bmp/bmp_node") == "active", "the node")
        topics = ["/front/image_raw", "/back"]
        wait_for(lambda: all(lab.peer.count_subscribers(t) for t in topics), "subscriptions")
        wait_for(lambda: lab.peer.count_publishers("/bmp/rear/poses"), "a topic per camera")


def test_argument_that_is_not_utf_8_ends_with_exit_code_1_and_a_reason() -> None:
    with process(SCRIPTED, "-p", os.fsdecode(b"preset:=/old/\xff.yaml")) as node:
        said, _ = node.communicate(timeout=LIMIT_S)
        assert node.returncode == 1
    assert r"preset:=/old/\xff.yaml" in said and "not UTF-8" in said
    assert "Traceback" not in said


def test_refused_parameter_ends_with_exit_code_1_and_a_reason(lab: Lab) -> None:
    with process(SCRIPTED, "-p", "image_transport:=h264") as node:
        output, _ = node.communicate(timeout=LIMIT_S)
        assert node.returncode == 1
        assert "image_transport" in output and "raw, compressed" in output
        assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "content", "words"),
    [
        (["--params-file", "FILE"], "a:\n\t b: 1\n", ["FILE", "config/bmp.yaml"]),
        (["--params-file", "FILE"], "bmp_node:\n  rate: 1\n", ["FILE", "config/bmp.yaml"]),
        (["--params-file", "missing"], None, ["missing", "opening YAML file"]),
        (["-p", "image_topic:=["], None, ["image_topic:=["]),
        (["-r", "__ns:=a//b"], None, ["__ns:=a//b"]),
        (["--params"], None, ["no such arguments of ROS: ['--params']"]),
    ],
)
def test_what_ros_refuses_is_told_without_a_traceback(
    ros_domain: int, tmp_path: Path, arguments: list[str], content: str | None, words: list[str]
) -> None:
    file = tmp_path / "FILE"
    if content is not None:
        file.write_text(content)
    given = [str(file) if word == "FILE" else word for word in arguments]
    with process(SCRIPTED, *given) as node:
        output, _ = node.communicate(timeout=LIMIT_S)
    assert node.returncode == 1
    assert "ROS 2 does not start" in output and "Traceback" not in output
    assert "/project/" not in output
    for word in words:
        assert word in output


def test_misspelt_parameters_are_answered_with_did_you_mean(lab: Lab, tmp_path: Path) -> None:
    """Once, and the node goes on; parameters of ROS itself and empty lists are none of it."""
    file = tmp_path / "mine.yaml"
    file.write_text("/**:\n  ros__parameters:\n    max_poeple: 3\n    iterations: 1\n")
    arguments = [
        "--params-file", str(file), "-p", "detection_treshold:=0.3", "-p", "nothing_like_it:=1",
        "-p", "cameras:=[front]", "-p", "front.imagetopic:=/x", "-p", "side.image_topic:=/y",
        "-p", "image:=/x", "-p", "use_sim_time:=false", "-p", "accepted_licences:=[]",
        "-p", "qos_overrides./x.subscription.depth:=9", "-p", "use_sim_time:=true",
        "-p", "qos_overrides./clock.subscription.depth:=9",
    ]  # fmt: skip
    habits = ["--preset=tiny", "depth_topic:=/depth"]  # of other programs, and of ROS 1
    arguments += ["-r", "boxes_topic:=/boxes", "-r", "/x:=/y", "-p", "hri:=false"]
    with process([*SCRIPTED, *habits], "-r", "__ns:=/bmp", *arguments) as node:
        wait_for(lambda: state_of(lab, "/bmp/bmp_node") == "active", "the node")
        node.send_signal(signal.SIGINT)
        output, _ = node.communicate(timeout=LIMIT_S)
        assert node.returncode == 0, output
    without_effect = ", ".join([*habits, "boxes_topic:=/boxes"])
    assert f"without an effect: {without_effect}; a parameter is given as --ros-args" in output
    lines = [line for line in output.splitlines() if "does not have" in line]
    assert len(lines) == 1 and "WARN" in lines[0], output
    for words in (
        "detection_treshold (did you mean detection_threshold?)",
        "max_poeple (did you mean max_people?)",
        "front.imagetopic (did you mean front.image_topic?)",
        "side.image_topic (cameras has no 'side')",
        "nothing_like_it",
        "image (did you mean image_topic?)",
        "qos_overrides./x.subscription.depth (the node follows its publishers; image_qos",
    ):
        assert words in lines[0]
    assert "qos_overrides./clock" not in lines[0]
    assert not {"use_sim_time", "iterations", "accepted_licences"} & set(lines[0].split())
