# SPDX-License-Identifier: Apache-2.0
"""The launch files with the real ``launch``: their arguments, what they start, how that ends."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.srv import GetState
from node_harness import LIMIT_S, Lab, wait_for
from rcl_interfaces.srv import GetParameters
from sensor_msgs.msg import Image

FILES = Path(__file__).resolve().parents[2] / "launch"
NAMES = ["bmp.launch.py", "demo.launch.py"]

LAUNCH = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

file, *given = sys.argv[1:]
service = LaunchService()
service.include_launch_description(
    IncludeLaunchDescription(
        PythonLaunchDescriptionSource(file),
        launch_arguments=[tuple(each.split(":=", 1)) for each in given],
    )
)
sys.exit(service.run())
"""


def _missing() -> str | None:
    for name in ("launch", "launch_ros"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # no origin: the folder launch/ of this repository
            return name
    return None


pytestmark = pytest.mark.skipif(
    _missing() is not None,
    reason=f"{_missing()} is not installed (it is not on PyPI; a sourced ROS 2 has it)",
)


def arguments_of(name: str) -> dict[str, Any]:
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    from launch import LaunchContext

    source = PythonLaunchDescriptionSource(str(FILES / name))
    description = source.get_launch_description(LaunchContext())
    return {argument.name: argument for argument in description.get_launch_arguments()}


@contextmanager
def launched(name: str, arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A launch file at work, in a process of its own as with ``ros2 launch``."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    running = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(FILES / name), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            print(running.communicate()[0])  # pytest shows it when the test has failed


def require_clean_end(running: subprocess.Popen[str]) -> str:
    """Ctrl-C reaches the whole process group, the nodes as well as launch."""
    os.killpg(running.pid, signal.SIGINT)
    output, _ = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 0, output
    assert "process has finished cleanly" in output, output
    assert "process has died" not in output and "Traceback" not in output, output
    return output


def state_of(lab: Lab, node: str) -> str:
    return str(lab.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label)


def parameters_of(lab: Lab, node: str, *names: str) -> list[Any]:
    from rclpy.parameter import parameter_value_to_python

    request = GetParameters.Request(names=list(names))
    answer = lab.call(GetParameters, f"{node}/get_parameters", request)
    return [parameter_value_to_python(value) for value in answer.values]


@pytest.mark.parametrize("name", NAMES)
def test_show_args_lists_every_argument_with_a_description(name: str) -> None:
    arguments = arguments_of(name)
    common = {"preset", "device", "namespace", "log_level", "rviz", "python"}
    own = {
        "bmp.launch.py": {"image_topic", "cameras", "params_file", "use_sim_time", "autostart"},
        "demo.launch.py": {"source", "rate", "qos"},
    }
    assert common | own[name] <= set(arguments)
    for argument in arguments.values():
        assert len(argument.description) > 10, argument.name
        assert "no description" not in argument.description, argument.name
    assert arguments["rviz"].choices == ["true", "false", "True", "False"]


def test_every_argument_of_the_node_can_be_left_out(lab: Lab) -> None:
    """A misspelt argument inside of the file would show when it starts, not before."""
    with launched("bmp.launch.py", ["autostart:=false"]) as running:
        assert state_of(lab, "/bmp/bmp_node") == "unconfigured"
        assert parameters_of(lab, "/bmp/bmp_node", "image_topic") == ["/camera/image_raw"]
        require_clean_end(running)


def test_arguments_reach_the_node(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("/**:\n  ros__parameters:\n    max_people: 7\n    preset: bmp_v2\n")
    arguments = [
        "autostart:=false", "namespace:=robot", "node_name:=people", "image_topic:=/eye",
        "preset:=bmp_j1", "precision:=bf16", "image_transport:=compressed", "use_sim_time:=True",
        f"params_file:={file}", f"python:={sys.executable}",
    ]  # fmt: skip
    with launched("bmp.launch.py", arguments) as running:
        names = ["image_topic", "preset", "precision", "image_transport", "max_people"]
        names += ["use_sim_time"]
        expected = ["/eye", "bmp_j1", "bf16", "compressed", 7, True]
        assert parameters_of(lab, "/robot/people", *names) == expected
        require_clean_end(running)


def test_several_cameras(lab: Lab) -> None:
    arguments = ["autostart:=false", "cameras:=front, rear", "image_transport:=compressed"]
    with launched("bmp.launch.py", arguments) as running:
        names = ["cameras", "rear.image_topic", "rear.image_transport"]
        expected = [["front", "rear"], "/rear/image_raw", "compressed"]
        assert parameters_of(lab, "/bmp/bmp_node", *names) == expected
        require_clean_end(running)


def test_file_of_parameters_that_is_not_there() -> None:
    with launched("bmp.launch.py", ["params_file:=/nowhere.yaml"]) as running:
        output, _ = running.communicate(timeout=LIMIT_S)
        assert running.returncode == 1
        assert "params_file:=/nowhere.yaml: there is no such file" in output


def test_rviz_that_is_not_installed_costs_nothing_but_rviz(lab: Lab) -> None:
    """launch would fail after it has started the node, which then ran on without a terminal."""
    from ament_index_python.packages import get_packages_with_prefixes

    if "rviz2" in get_packages_with_prefixes():
        pytest.skip("rviz2 is installed")
    with launched("bmp.launch.py", ["autostart:=false", "rviz:=true"]) as running:
        assert state_of(lab, "/bmp/bmp_node") == "unconfigured"
        assert "rviz2 is not installed; going on without it" in require_clean_end(running)


def test_python_that_is_not_there() -> None:
    with launched("bmp.launch.py", ["python:=/nowhere/python"]) as running:
        output, _ = running.communicate(timeout=LIMIT_S)
        assert running.returncode == 1
        assert "python:=/nowhere/python: there is no program" in output


@pytest.mark.parametrize("topic", ["depth_topic", "boxes_topic"])
def test_a_topic_of_several_cameras_is_refused(topic: str) -> None:
    with launched("bmp.launch.py", ["cameras:=front,rear", f"{topic}:=/x"]) as running:
        output, _ = running.communicate(timeout=LIMIT_S)
        assert running.returncode == 1
        assert f"{topic}:=/x is of one camera" in output and f"front.{topic}" in output


def test_demo_starts_camera_and_node(lab: Lab, tmp_path: Path) -> None:
    # Networks that are not there: the node says so and waits, which is all that is needed here.
    preset = tmp_path / "nothing.yaml"
    preset.write_text("detector: {engine: nothing}\n")
    images: list[Image] = []
    lab.peer.create_subscription(Image, "/camera/image_raw", images.append, 5)
    arguments = ["rate:=20.0", "rviz:=false", f"preset:={preset}"]
    with launched("demo.launch.py", arguments) as running:
        wait_for(lambda: len(images) > 3, "images of the camera")
        assert (images[0].width, images[0].height) == (640, 480)
        node = "/bmp/bmp_node"
        assert parameters_of(lab, node, "image_topic", "preset") == [
            "/camera/image_raw", str(preset),
        ]  # fmt: skip
        assert parameters_of(lab, "/camera/camera", "source", "rate") == ["clip", 20.0]
        assert "cannot configure" in require_clean_end(running)


def test_demo_without_a_source_ends(lab: Lab) -> None:
    with launched("demo.launch.py", ["source:=/nowhere.mp4", "rviz:=false"]) as running:
        output, _ = running.communicate(timeout=LIMIT_S)
        assert "'/nowhere.mp4' is no file or folder" in output


def test_rate_that_is_no_number() -> None:
    with launched("demo.launch.py", ["rate:=fast"]) as running:
        output, _ = running.communicate(timeout=LIMIT_S)
        assert running.returncode == 1 and "rate:=fast: images per second are a number" in output
