# SPDX-License-Identifier: Apache-2.0
"""`bmp demo`: what it refuses before it needs ROS 2; test/ros/test_demo.py runs it."""

from __future__ import annotations

import pytest

from bmp_ros.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "0"], "--images is 0, needs at least 1"),
        (["--rate", "-1"], "--rate is -1, needs 0 to 1000 images a second"),
        (["--rate", "nan"], "--rate is nan, needs 0 to 1000 images a second"),
        (["--domain", "233"], "--domain is 233, needs 0 to 232"),
    ],
)
def test_failures_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *arguments]) == 1
    assert capsys.readouterr().err == f"bmp demo: {message}\n"
