# SPDX-License-Identifier: Apache-2.0
"""Which part of the package may import which, as docs/architecture.md says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "bmp_ros"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
ROS = re.compile(r"(rclpy|cv_bridge|message_filters|tf2_\w+|\w+_msgs|builtin_interfaces)(\.|$)")


def module_of(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def statements(tree: ast.AST, *, late: bool) -> Iterator[ast.AST]:
    """Statements of a file; without ``late`` only those that run when it is imported."""
    for node in ast.iter_child_nodes(tree):
        if not late:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
        yield node
        yield from statements(node, late=late)


def imports(path: Path, *, late: bool = True) -> set[str]:
    """Full names of the modules that a file imports, anywhere or (not ``late``) when imported."""
    found: set[str] = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), late=late):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"  # may be a module, too
                found.add(full if full in MODULES else node.module)
    return found


def room_of(module: str) -> str | None:
    """The room of a module of the package; None for those at its top."""
    parts = module.split(".")
    return parts[1] if parts[0] == "bmp_ros" and len(parts) > 1 and parts[1] in ROOMS else None


def of_room(room: str) -> set[str]:
    return set().union(*(imports(path) for path in (PACKAGE / room).rglob("*.py")))


def rooms_of(names: Iterable[str]) -> set[str]:
    return {room for name in names if (room := room_of(name)) is not None}


def documented() -> dict[str, set[str]]:
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text[text.index("| folder | what | imports from |") :].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\|([^|]*)\|$", table, re.M)
    return {room: set(re.findall(r"`(\w+)`", cell)) for room, cell in rows}


def drawn() -> dict[str, set[str]]:
    """The arrows of the picture."""
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    arrows: dict[str, set[str]] = {}
    for line in text[text.index("flowchart TB") :].split("```")[0].splitlines()[1:]:
        stations = [station.split(" & ") for station in line.strip().split(" --> ")]
        for froms, tos in zip(stations, stations[1:], strict=False):
            for room in froms:
                arrows.setdefault(room, set()).update(tos)
    return arrows


def below(room: str, arrows: dict[str, set[str]]) -> set[str]:
    """All rooms to which arrows lead from ``room``."""
    direct = arrows.get(room, set())
    return direct.union(*(below(each, arrows) for each in direct))


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """One circle of the graph, or nothing."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        done.add(name)
        for target in sorted(arrows.get(name, ())):
            if found := visit(target, [*way, name]):
                return found
        return []

    return next((found for name in sorted(arrows) if (found := visit(name, []))), [])


def test_every_room_is_documented() -> None:
    assert set(documented()) == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_are_the_documented_ones(room: str) -> None:
    found = rooms_of(of_room(room)) - {room}
    expected = documented()[room]
    assert found == expected


@pytest.mark.parametrize("room", ROOMS)
def test_the_picture_shows_them(room: str) -> None:
    """Every arrow is an import, and every import can be followed along arrows."""
    imported = documented()[room]
    assert drawn().get(room, set()) <= imported <= below(room, drawn())


def test_no_two_rooms_import_each_other() -> None:
    assert circle(documented()) == []


def test_a_circle_would_be_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_no_files_form_a_circle() -> None:
    """Importing ``a.b`` also imports the package ``a``, whose file has arrows of its own."""
    arrows = {
        name: {target for target in imports(path, late=False) if target in MODULES} - {name}
        for name, path in MODULES.items()
    }
    assert sum(map(len, arrows.values())) > 300, "imports are read"
    assert circle(arrows) == []


@pytest.mark.parametrize("room", ["loop", "tracking", "depth"])
def test_pure_rooms_know_the_loops_data_only(room: str) -> None:
    if room not in ROOMS:
        pytest.skip(f"there is no room {room!r} yet")
    assert rooms_of(of_room(room)) <= {room, "loop"}


def test_ros_is_imported_in_two_rooms_and_by_three_verbs() -> None:
    outside = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.parent.name not in ("ros", "demo")
        and any(ROS.match(name) or name.startswith("bmp_ros.ros") for name in imports(path))
    }
    assert outside == {"cli/demo.py", "cli/bench_node.py", "cli/view.py"}
