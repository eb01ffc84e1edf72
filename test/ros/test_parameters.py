# SPDX-License-Identifier: Apache-2.0
"""One table of parameters: the node, config/bmp.yaml and the documentation agree."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from node_harness import SET_BY_THE_LAB, Lab
from rclpy.parameter import Parameter

from bmp_ros.fields import SettingsError
from bmp_ros.loop import LoopSettings
from bmp_ros.resources import resource_root
from bmp_ros.ros.parameter_docs import parameters_markdown, parameters_yaml, with_table
from bmp_ros.ros.settings import CAMERAS, GROUPS, LOOP, default_of, to_parameter

ROOT = resource_root()
ANEW = "run python -m bmp_ros.ros.parameter_docs"


def test_bmp_yaml_is_up_to_date() -> None:
    assert (ROOT / "config" / "bmp.yaml").read_text(encoding="utf-8") == parameters_yaml(), ANEW


def test_bmp_yaml_has_every_parameter_with_its_default() -> None:
    text = parameters_yaml()
    commented = text.replace("    # ", "    #")
    for group in GROUPS:
        for name, item in group.rows():
            given = f"    {'#' if group is LOOP else ''}{name}: "
            lines = [line for line in commented.splitlines() if line.startswith(given)]
            assert len(lines) == 1, name
            value = yaml.safe_load(lines[0].removeprefix(given))
            assert value == to_parameter(item, default_of(item))
    settings = yaml.safe_load(text)["/**"]["ros__parameters"]
    assert not set(settings) & {item.name for item in fields(LoopSettings)}  # the preset's


def test_documentation_is_up_to_date() -> None:
    document = (ROOT / "docs" / "node.md").read_text(encoding="utf-8")
    assert with_table(document) == document, ANEW
    for group in GROUPS:
        for name, _ in group.rows():
            assert f"| `{name}` |" in parameters_markdown()


def test_no_parameter_has_others_below_it() -> None:
    """``ros2 param dump`` writes ``a.b`` as a map below ``a``, which cannot have a value then."""
    names = {name for group in GROUPS for name, _ in group.rows()}
    assert "tracker.birth_score" in names and "smoothing.beta" in names
    assert not {name.partition(".")[0] for name in names if "." in name} & names


def test_node_declares_the_table(lab: Lab) -> None:
    lab.start(autostart=False, preset="auto")
    expected = {name for group in GROUPS for name, _ in group.rows()} | {CAMERAS}
    lab.wait_for_log("autostart is false", "lifecycle set /bmp/bmp_node configure, then activate")
    declared = set(lab.node._parameters)
    assert expected <= declared
    # What rclpy declares itself; everything else is in the table.
    assert {name for name in declared - expected if "start_type" not in name} <= {"use_sim_time"}
    for group in GROUPS:
        for name, item in group.rows():
            descriptor = lab.node.describe_parameter(name)
            assert descriptor.description and descriptor.additional_constraints
            if name not in ("autostart", *SET_BY_THE_LAB):
                value = lab.node.get_parameter(name).value
                assert value == to_parameter(item, default_of(item))


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("max_rate", -1.0, "-1.0, allowed: a number from 0 to 1000"),
        ("precision", "fp8", "'fp8', allowed: one of fp32, fp16, bf16"),
        ("iterations", 9, "9, allowed: a whole number from 1 to 5"),
        ("max_people", "ten", "'ten', allowed: a whole number from 1 to 1000"),
        ("autostart", 1, "1, allowed: true or false"),
        ("device", 0, "0, allowed: a string .*quote it twice: \"'0'\""),
    ],
)
def test_refused_value_at_the_start_is_told(
    lab: Lab, name: str, value: object, allowed: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is {allowed}"):
        lab.start(**{name: value})


def test_any_value_of_any_type_is_answered(lab: Lab) -> None:
    """An exception in a check would leave whoever asked without an answer."""
    lab.start(autostart=False, cameras=["front"])
    values = [True, 2, -1.5, 1e300, math.nan, "x", "", [b"x"], [True], [3], [0.5], ["x"], []]
    names = [*lab.node.parameters._rows, CAMERAS]
    assert "front.zones" in names
    for name in names:
        for value in values:
            (result,) = lab.node.set_parameters([Parameter(name, value=value)])
            assert result.successful or result.reason, (name, value)
        (result,) = lab.node.set_parameters([Parameter(name)])  # as `ros2 param delete` does
        assert not result.successful and lab.node.has_parameter(name), name


def test_files_are_named_at_the_start_only(lab: Lab, tmp_path: Path) -> None:
    """Whoever reaches the node's services could have it run what a preset names."""
    own = tmp_path / "mine.yaml"
    lab.start(autostart=False, preset=str(own))
    (result,) = lab.set(preset=str(tmp_path / "other.yaml"))
    assert not result.successful
    assert "other.yaml" in result.reason and "only when the node starts" in result.reason
    assert lab.get("preset") == str(own)
    (result,) = lab.set(preset=str(own))  # as `ros2 param load` does with what was dumped
    assert result.successful, result.reason
    assert lab.set(preset="tiny")[0].successful
    assert not lab.set(preset=str(own))[0].successful
    (result,) = lab.set(cameras=[f"c{number}" for number in range(17)])
    assert not result.successful and "17 names, at most 16" in result.reason


def test_what_stays_as_it_is_may_be_set_at_any_time(lab: Lab) -> None:
    """``ros2 param load`` sets every parameter of a file that ``ros2 param dump`` wrote."""
    lab.start_active(image_topic="/eye")
    names = [*lab.node.parameters._rows, CAMERAS]
    dumped = {name: lab.node.get_parameter(name).value for name in names if name != "autostart"}
    results = lab.node.set_parameters([Parameter(name, value=dumped[name]) for name in dumped])
    assert [result.reason for result in results if not result.successful] == []
    (result,) = lab.set(image_topic="/other")
    assert not result.successful
    assert "ros2 lifecycle set /bmp/bmp_node deactivate" in result.reason
    (result,) = lab.set(preset="tiny_fast")
    assert not result.successful and "`cleanup`, set it, then `configure`" in result.reason


def test_names_with_a_dot_in_a_file_of_parameters(lab: Lab, tmp_path: Path) -> None:
    """As config/bmp.yaml writes them, and as ``ros2 param dump`` does."""
    file = tmp_path / "given.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    tracker.lost_s: 2.5\n    smoothing:\n      beta: 7\n"
    )
    lab.start(autostart=False, cli_args=["--ros-args", "--params-file", str(file)])
    assert lab.node.parameters.tracker().lost_s == 2.5
    assert lab.node.parameters.smoothing().beta == 7.0
    assert lab.node.parameters.unknown() == []


def test_cameras_take_over_what_is_said_without_a_name_but_topics(lab: Lab) -> None:
    lab.start(
        cameras=["front", "rear"], image_transport="compressed", depth_topic="/depth",
        autostart=False, parameters={"rear.image_transport": "raw"},
    )  # fmt: skip
    assert lab.get("front.image_transport") == "compressed"
    assert lab.get("rear.image_transport") == "raw"
    assert lab.get("front.depth_topic") == ""
    assert lab.transition("configure")
    said = lab.wait_for_log("every one of several cameras has its own topics; ignored:")
    assert "depth_topic (/depth; did you mean front.depth_topic?)" in said
    assert "image_topic" not in said
