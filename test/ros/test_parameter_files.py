# SPDX-License-Identifier: Apache-2.0
"""Files of parameters for another node are named; those for this one are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_harness import Lab

from bmp_ros.ros.parameter_files import files_for_others

HELD = "ros__parameters: {max_people: 7}"


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        (f"/**: {{{HELD}}}", True),
        (f"/bmp/bmp_node: {{{HELD}}}", True),
        (f"bmp: {{bmp_node: {{{HELD}}}}}", True),
        (f"/**/bmp_node: {{{HELD}}}", True),
        (f"/*/bmp_node: {{{HELD}}}", True),
        (f"/bmp/*: {{{HELD}}}", True),
        (f"camera: {{{HELD}}}\n/**: {{{HELD}}}", True),
        (f"bmp_node: {{{HELD}}}", False),  # the namespace is missing
        (f"/*: {{{HELD}}}", False),
        (f"/bmp/people: {{{HELD}}}", False),
        (f"/robot: {{bmp_node: {{{HELD}}}}}", False),
    ],
)
def test_names_in_a_file_are_those_that_rcl_takes(
    lab: Lab, tmp_path: Path, text: str, taken: bool
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    arguments = ["--ros-args", "--params-file", str(file)]
    lab.start(autostart=False, cli_args=arguments)
    assert (lab.get("max_people") == 7) == taken
    found = files_for_others(arguments, "/bmp/bmp_node")
    assert bool(found) != taken
    if not taken:
        lab.wait_for_log(str(file), "none for /bmp/bmp_node", "write /bmp/bmp_node or /**")


def test_files_that_cannot_be_judged_are_left_to_rcl(tmp_path: Path) -> None:
    for name, data in (("a", b"\xff"), ("b", b"a: [1"), ("c", b""), ("d", b"- 1"), ("e", b"x: 1")):
        (tmp_path / name).write_bytes(data)
        assert files_for_others(["--params-file", str(tmp_path / name)], "/node") == []
    large = tmp_path / "large"
    large.write_bytes(b"x: {ros__parameters: {}}\n" + b"#" * (1 << 20))
    assert files_for_others(["--params-file", str(large), "--params-file"], "/node") == []
