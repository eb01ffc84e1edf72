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


def test_service_is_explained() -> None:
    path = INTERFACES / "srv" / "EstimatePeople.srv"
    service = parse_service_file("bmp_msgs", str(path))
    for field in [*service.request.fields, *service.response.fields]:
        assert field.annotations.get("comment"), f"{field.name} has no comment"
    assert installed(path).read_text() == path.read_text()
