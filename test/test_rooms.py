# SPDX-License-Identifier: Apache-2.0
"""Which part of the package may import which, as docs/architecture.md says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "bmp_ros"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
ROS = re.compile(r"(rclpy|cv_bridge|message_filters|tf2_\w+|\w+_msgs|builtin_interfaces)(\.|$)")


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            # `from bmp_ros.ros import qos` imports a module, too.
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def of_room(room: str) -> set[str]:
    return set().union(*(imports(path) for path in (PACKAGE / room).rglob("*.py")))


def rooms_of(names: set[str]) -> set[str]:
    parts = (name.split(".") for name in names if name.startswith("bmp_ros."))
    return {part[1] for part in parts} & set(ROOMS)


def documented() -> dict[str, set[str]]:
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text[text.index("| folder | what | imports from |") :].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", table, re.M)
    return {room: set(re.findall(r"`(\w+)`", cell)) for room, cell in rows if room != "cli"}


def test_every_room_is_documented() -> None:
    assert {*documented(), "loop", "engines", "ros", "cli"} == set(ROOMS)


@pytest.mark.parametrize("room", sorted(documented()))
def test_imports_are_the_documented_ones(room: str) -> None:
    assert rooms_of(of_room(room)) - {room} == documented()[room]


def test_loop_knows_the_engines_protocols_and_settings_only() -> None:
    names = of_room("loop")
    assert rooms_of(names) <= {"loop", "engines"}
    engines = {".".join(name.split(".")[:3]) for name in names if ".engines." in name}
    assert engines == {"bmp_ros.engines.protocols", "bmp_ros.engines.settings"}


def test_engines_know_the_loop_only() -> None:
    assert rooms_of(of_room("engines")) <= {"loop", "engines"}


def test_ros_is_imported_in_its_room_and_by_two_verbs() -> None:
    outside = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "ros"
        and any(ROS.match(name) or name.startswith("bmp_ros.ros") for name in imports(path))
    }
    assert outside == {"cli/demo.py", "cli/bench_node.py"}
