# SPDX-License-Identifier: Apache-2.0
"""config/bmp.yaml and the table of docs/node.md, both written from the one table of parameters.

``python -m bmp_ros.ros.parameter_docs`` in a checkout writes them anew.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bmp_ros.ros.settings import (
    CAMERA,
    CAMERAS,
    CAMERAS_TEXT,
    ENGINE,
    GROUPS,
    INTERACTION,
    KEYFRAMES,
    LOOP,
    RUN,
    SMOOTHING,
    START,
    TRACKER,
    Group,
    allowed_parameter_values,
    default_of,
    text_of,
    to_parameter,
)

TABLE_BEGIN = "<!-- parameters: written by python -m bmp_ros.ros.parameter_docs -->"
TABLE_END = "<!-- end of parameters -->"

_TITLES = {
    id(START): "Read when the node starts",
    id(ENGINE): "The networks: may change while the node is unconfigured",
    id(CAMERA): "The camera: may change while the node is not active",
    id(RUN): "The node: may change at any time",
    id(INTERACTION): "Zones and following, of each camera: may change at any time",
    id(TRACKER): "The tracker: may change at any time",
    id(SMOOTHING): "Smoothing in poses_smooth, poses_3d_smooth, markers and of velocities: may "
    "change at any time",
    id(KEYFRAMES): "When the detector rests: may change at any time",
    id(LOOP): "The loop: may change at any time. Without a value here, the preset's counts",
}
_HEAD = """\
# Parameters of bmp_node, with their defaults. docs/node.md explains them.
# Written by python -m bmp_ros.ros.parameter_docs: copy it, change the copy and give its path to
#   ros2 launch bmp_ros bmp.launch.py params_file:=PATH
# /** is any node in any namespace, so renaming the node does not detach its parameters.
/**:
  ros__parameters:
"""


def parameters_yaml() -> str:
    """Text of config/bmp.yaml: all parameters; those of the loop commented out."""
    lines = []
    for group in GROUPS:
        lines.append(f"    # {_TITLES[id(group)]}.")
        if group is CAMERA:
            lines += [*_comment(CAMERAS_TEXT), "    # cameras: [front, rear]"]
        for name, default, text, allowed in _rows(group):
            lines += _comment(text if allowed == "a string" else f"{text} ({allowed})")
            lines.append(f"    {'# ' if group is LOOP else ''}{name}: {_yaml(default)}")
        lines.append("")
    return _HEAD + "\n".join(lines).rstrip() + "\n"


def parameters_markdown() -> str:
    """The tables of docs/node.md."""
    parts = []
    for group in GROUPS:
        rows = [
            f"| `{name}` | `{_yaml(default)}` | {allowed} | {text} |"
            for name, default, text, allowed in _rows(group)
        ]
        if group is ENGINE:
            rows.append(f"| `{CAMERAS}` | one camera | list of names | {CAMERAS_TEXT} |")
        head = "| parameter | default | values | |\n|---|---|---|---|"
        parts.append("\n".join([f"**{_TITLES[id(group)]}.**", "", head, *rows]))
    return "\n\n".join(parts)


def with_table(document: str) -> str:
    """Return docs/node.md with its table replaced by the present one."""
    before, _, rest = document.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    return f"{before}{TABLE_BEGIN}\n\n{parameters_markdown()}\n\n{TABLE_END}{after}"


def _rows(group: Group) -> Iterator[tuple[str, Any, str, str]]:
    for name, item in group.rows():
        default = to_parameter(item, default_of(item))
        yield name, default, text_of(item), allowed_parameter_values(item)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 92, initial_indent="    # ", subsequent_indent="    # ")


def _yaml(value: Any) -> str:
    """A scalar as YAML and JSON write it."""
    return json.dumps(value)


def main() -> None:
    """Write both files of the checkout that this module lies in."""
    root = Path(__file__).resolve().parents[2]
    (root / "config" / "bmp.yaml").write_text(parameters_yaml(), encoding="utf-8")
    document = root / "docs" / "node.md"
    document.write_text(with_table(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
