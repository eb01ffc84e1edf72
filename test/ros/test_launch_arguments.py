# SPDX-License-Identifier: Apache-2.0
"""Launch arguments follow the table of parameters; values and misspellings, without launch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bmp_ros.interaction.zones import parse_zones
from bmp_ros.ros.launch_arguments import (
    NODE_ARGUMENTS,
    TOPICS,
    parameter_arguments,
    parameter_value,
    program,
    unknown_arguments,
)
from bmp_ros.ros.settings import CAMERAS, GROUPS

ARGUMENTS = {each.name: each for each in parameter_arguments()}


def test_every_parameter_is_an_argument_with_a_description() -> None:
    names = [name for group in GROUPS for name, _ in group.rows()]
    assert list(ARGUMENTS) == [CAMERAS, *names]
    assert not {each.name for each in NODE_ARGUMENTS} & set(ARGUMENTS)
    for each in ARGUMENTS.values():
        assert each.default == "" and (not each.choices or "" in each.choices)
        assert len(each.description) > 10 and each.description.endswith(".")
    assert ARGUMENTS["device"].description.startswith("auto (a GPU")
    assert "from 0 to 1" in ARGUMENTS["detection_threshold"].description
    assert ARGUMENTS["image_transport"].choices == ("", "raw", "compressed")
    assert ARGUMENTS["autostart"].choices == ("", "true", "false", "True", "False")
    assert ARGUMENTS["rectified"].choices == ("", "auto", "true", "false", "True", "False")
    assert {"image_topic", "boxes_topic", "depth_camera_info_topic"} <= set(TOPICS)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("image_topic", "5", "5"),
        ("autostart", "false", False),
        ("iterations", "2", 2),
        ("detection_threshold", "1e-1", 0.1),
        ("detection_threshold", "high", "high"),  # the node refuses it with the reason
        ("crowd_iou", "-1", -1.0),
        ("tracking", "false", False),
        ("tracking", "True", True),  # as Python writes it, and those who write launch files
        ("rectified", "True", "true"),
        ("boxes_class", "True", "True"),
        ("tracker.confirm_hits", "3", 3),
        ("smoothing.beta", "8", 8.0),
        ("accepted_licences", "Apache-2.0, GPL-3.0", ["Apache-2.0", "GPL-3.0"]),
        (CAMERAS, "front,rear,", ["front", "rear"]),
    ],
)
def test_values(name: str, text: str, value: Any) -> None:
    found = parameter_value(name, text)
    assert found == value and type(found) is type(value)


def test_python_of_the_node() -> None:
    assert program("") is None
    assert program(sys.executable) == sys.executable
    assert program(f"{sys.executable} -X dev").endswith(" -X dev")  # type: ignore[union-attr]
    with pytest.raises(FileNotFoundError, match=r"^python:=/nowhere/python: there is no program"):
        program("/nowhere/python")
    with pytest.raises(ValueError, match=r"^python:='/venv/python cannot .*; close the quote"):
        program("'/venv/python")


def test_python_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "python").symlink_to(sys.executable)
    assert program("~/python") == str(tmp_path / "python")


def test_misspelt_arguments() -> None:
    given = ["detection_treshold", "image_topic", "source", "rate", "qos", "rvis"]
    found = unknown_arguments(given, [*ARGUMENTS, "rviz"])
    assert len(found) == 2
    assert "detection_treshold" in found[0] and "mean detection_threshold?" in found[0]
    assert "rvis" in found[1] and "mean rviz?" in found[1]


def test_zones_are_one_argument() -> None:
    given = "door: 0 0; 0.5 0; 0.5 1, desk in map: -1 0; 3 0; 3 2"
    texts = parameter_value("zones", given)
    assert [zone.name for zone in parse_zones(texts)] == ["door", "desk"]
