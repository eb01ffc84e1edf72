# SPDX-License-Identifier: Apache-2.0
"""What depends on the name of the distribution; behaviour is tested with the node."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bmp_ros.ros.compatibility import NOT_RELEASED, how_to_install, local_discovery

MANIFEST = Path(__file__).parents[2] / "package.xml"


@pytest.mark.parametrize("distribution", ["humble", "jazzy", "kilted", "lyrical"])
def test_a_package_is_named_with_the_command_that_brings_it(monkeypatch, distribution) -> None:
    monkeypatch.setenv("ROS_DISTRO", distribution)
    command = f"sudo apt-get install ros-{distribution}-"
    assert how_to_install("tf2_ros_py") == f"{command}tf2-ros-py"
    if distribution == "kilted":
        assert (
            how_to_install("hri_msgs")
            == "hri_msgs is not released for kilted: build it from source"
        )
    else:
        assert how_to_install("hri_msgs") == f"{command}hri-msgs"


def test_what_is_not_released_is_what_the_manifest_makes_conditional() -> None:
    conditions = re.findall(
        r'condition="\$ROS_DISTRO != (\w+)">(\w+)<', MANIFEST.read_text(encoding="utf-8")
    )
    assert set(conditions) == NOT_RELEASED


@pytest.mark.parametrize("distribution", ["humble", "jazzy", "lyrical"])
def test_discovery_stays_on_the_machine(monkeypatch, distribution) -> None:
    monkeypatch.setenv("ROS_DISTRO", distribution)
    variables = local_discovery()
    assert variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert ("ROS_LOCALHOST_ONLY" in variables) == (distribution == "humble")
