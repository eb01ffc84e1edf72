# SPDX-License-Identifier: Apache-2.0
"""Dockerfile and compose.yaml, read but not run: what they name has to exist."""

from __future__ import annotations

import fnmatch
import json
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bmp_ros.engines.presets import load_preset
from bmp_ros.ros.launch_arguments import NODE_ARGUMENTS, parameter_arguments

CHECKOUT = Path(__file__).resolve().parent.parent
INSTRUCTIONS = {
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL",
    "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
}  # fmt: skip
WORK = "/opt/bmp_ros/"


def read(name: str) -> str:
    return (CHECKOUT / name).read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """(name, arguments) of the Dockerfile, continued lines joined."""
    lines = [line for line in read("Dockerfile").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    parts = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, arguments.strip()) for name, _, arguments in parts]


def of(name: str) -> list[str]:
    return [arguments for found, arguments in instructions() if found == name]


def service() -> dict[str, Any]:
    (only,) = yaml.safe_load(read("compose.yaml"))["services"].values()
    return dict(only)


def substituted(text: str) -> str:
    """What compose makes of ``${NAME:-default}`` in an empty environment, also nested."""
    while (inner := re.sub(r"\$\{\w+:-([^${}]*)\}", r"\1", text)) != text:
        text = inner
    return text


def commands() -> list[list[str]]:
    """The command of the image and that of compose, in an empty environment."""
    (of_image,) = of("CMD")
    return [json.loads(of_image), [substituted(word) for word in service()["command"]]]


def ignored(path: Path) -> bool:
    """Whether .dockerignore keeps a path of the checkout out of the image."""
    relative = path.relative_to(CHECKOUT)
    above = [relative, *relative.parents][:-1]
    patterns = [p for p in read(".dockerignore").splitlines() if p and not p.startswith("#")]
    return any(
        fnmatch.fnmatch(part.name if pattern.startswith("**/") else str(part), name)
        for pattern in patterns
        for name in [pattern.removeprefix("**/")]
        for part in above
    )


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml"])
def test_says_that_it_was_not_run(name: str) -> None:
    assert re.search(r"NOT (BUILT OR )?RUN", "\n".join(read(name).splitlines()[:3]))
    assert "**untested**" in read("docs/docker.md")


def test_every_line_is_an_instruction() -> None:
    names = [name for name, _ in instructions()]
    assert set(names) <= INSTRUCTIONS
    assert names[:3] == ["ARG", "ARG", "FROM"] and names.count("FROM") == 1
    for name in ("SHELL", "ENTRYPOINT", "CMD"):
        (form,) = of(name)
        assert all(isinstance(word, str) for word in json.loads(form)), "the exec form is JSON"


def test_base_image_is_an_argument() -> None:
    assert of("FROM") == ["${BASE_IMAGE}"]
    assert of("ARG")[:2] == ["ROS_DISTRO=jazzy", "BASE_IMAGE=ros:${ROS_DISTRO}-ros-base"]
    arguments = service()["build"]["args"]
    assert substituted(arguments["BASE_IMAGE"]) == "ros:jazzy-ros-base"
    assert substituted(arguments["ROS_DISTRO"]) == "jazzy"
    assert substituted(service()["image"]) == "bmp_ros:jazzy"


def test_every_variable_is_declared() -> None:
    declared = {text.partition("=")[0] for text in of("ARG")} | {"ROS_DISTRO"}  # the base image's
    assert set(re.findall(r"\$\{?(\w+)", "\n".join(a for _, a in instructions()))) <= declared
    assert set(service()["build"]["args"]) <= declared


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    for arguments in of("COPY"):
        *sources, _ = shlex.split(arguments)
        for source in sources:
            path = (CHECKOUT / source).resolve()
            assert path.exists(), source
            assert path == CHECKOUT or not ignored(path), source


def test_what_the_build_reads_is_not_ignored() -> None:
    needed = ["setup.py", "setup.cfg", "package.xml", "README.md", "LICENSE", "resource/bmp_ros",
              "colcon_defaults.yaml", "bmp_msgs/CMakeLists.txt", "bmp_ros/ros/bmp_node.py",
              "config/bmp.yaml", "launch/bmp.launch.py", "models/zoo.yaml"]  # fmt: skip
    for name in needed:
        assert (CHECKOUT / name).is_file() and not ignored(CHECKOUT / name), name
    assert ignored(CHECKOUT / ".venv") and ignored(CHECKOUT / "bmp_ros" / "ros" / "__pycache__")


def test_layers_are_those_of_the_set_up() -> None:
    (layers,) = [text for text in of("ARG") if text.startswith("LAYERS=")]
    names = shlex.split(layers.partition("=")[2])[0].split()
    assert substituted(service()["build"]["args"]["LAYERS"]).split() == names
    known = set_up_layers()
    assert set(names) <= set(known)
    for name in names:
        for file in known[name]:
            assert (CHECKOUT / "requirements" / file).is_file(), file
    assert any("--no-build" in run for run in of("RUN"))


def set_up_layers() -> dict[str, list[str]]:
    """Files of requirements/ by layer, as scripts/set_up has them."""
    folder = str(CHECKOUT / "scripts" / "set_up")
    sys.path.insert(0, folder)
    try:
        found = runpy.run_path(f"{folder}/__main__.py", run_name="set_up")
    finally:
        sys.path.remove(folder)
        for module in ("machine", "steps", "workspace"):
            sys.modules.pop(module, None)
    return {layer: [each.file for each in found["LAYERS"][layer]] for layer in found["LAYERS"]}


def test_commands_start_a_launch_file_with_arguments_it_has() -> None:
    assert of("WORKDIR") == [WORK.rstrip("/")]
    (entry,) = (json.loads(form)[0] for form in of("ENTRYPOINT"))
    script = CHECKOUT / entry.removeprefix(WORK)
    assert entry.startswith(WORK) and script.is_file() and script.stat().st_mode & 0o100
    for command in commands():
        assert command[:3] == ["ros2", "launch", "bmp_ros"]
        launch = CHECKOUT / "launch" / command[3]
        text = launch.read_text()
        declared = {argument.name for argument in (*NODE_ARGUMENTS, *parameter_arguments())}
        assert "NODE_ARGUMENTS" in text and "parameter_arguments()" in text
        given = [word.partition(":=") for word in command[4:]]
        assert given and all(mark == ":=" and name in declared for name, mark, _ in given)


def test_compose_shares_network_memory_and_gpu() -> None:
    found = service()
    assert (found["network_mode"], found["ipc"]) == ("host", "host")
    (device,) = found["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and "gpu" in device["capabilities"]
    assert (CHECKOUT / found["build"]["context"]).resolve() == CHECKOUT
    (volume,) = found["volumes"]
    name, _, folder = volume.partition(":")
    assert name in yaml.safe_load(read("compose.yaml"))["volumes"] and [folder] == of("VOLUME")
    assert any(f"BMP_MODELS={folder}" in text for text in of("ENV"))


def test_default_preset_is_one() -> None:
    (preset,) = [word for word in commands()[1] if word.startswith("preset:=")]
    assert load_preset(preset.partition(":=")[2]).description
