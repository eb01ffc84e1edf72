# SPDX-License-Identifier: Apache-2.0
"""The messages as they were built, and as they are documented."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rosidl_adapter.parser import parse_message_file, parse_service_file

from bmp_ros.ros import interfaces

INTERFACES = Path(__file__).resolve().parents[2] / "bmp_msgs"
MESSAGES = sorted(INTERFACES.glob("msg/*.msg"))
SERVICES = sorted(INTERFACES.glob("srv/*.srv"))


def installed(path: Path) -> Path:
    """The file that `ros2 interface show` prints."""
    relative = Path("share/bmp_msgs", path.relative_to(INTERFACES))
    prefixes = os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)
    return next(Path(p) / relative for p in prefixes if (Path(p) / relative).is_file())


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_every_field_is_explained_and_built(path: Path) -> None:
    fields = parse_message_file("bmp_msgs", str(path)).fields
    built = getattr(interfaces, path.stem).get_fields_and_field_types()
    assert list(built) == [field.name for field in fields]
    for field in fields:
        assert field.annotations.get("comment"), f"{path.name}: {field.name} has no comment"


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_comments_are_shown(path: Path) -> None:
    assert installed(path).read_text() == path.read_text()
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_services_are_explained_and_built(path: Path) -> None:
    service = parse_service_file("bmp_msgs", str(path))
    built = getattr(interfaces, path.stem)
    for part, message in ((service.request, built.Request), (service.response, built.Response)):
        assert list(message.get_fields_and_field_types()) == [each.name for each in part.fields]
        for field in part.fields:
            assert field.annotations.get("comment"), f"{field.name} has no comment"
        for constant in part.constants:
            assert constant.annotations.get("comment"), f"{constant.name} has no comment"
            assert getattr(message, constant.name) == constant.value
    assert installed(path).read_text() == path.read_text()


def test_what_came_with_0_2_is_documented() -> None:
    """The table of changes names every new field, message and service."""
    document = (INTERFACES.parent / "docs" / "messages.md").read_text(encoding="utf-8")
    table = document[document.index("## Changes") :]
    new = ["track_age", "velocity", "FollowPerson", "ZoneState", "ZoneStates"]
    assert all(f"`{name}`" in table for name in new)
