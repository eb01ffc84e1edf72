# SPDX-License-Identifier: Apache-2.0
"""Files of parameters that say nothing to the node that they were given to.

rcl takes from a file what stands below a name that is the node's, namespace included, and says
nothing about a file without such a name: the node runs with its defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

_OPTION, _HOLDS = "--params-file", "ros__parameters"
_MOST_BYTES = 1 << 20


def files_for_others(arguments: Sequence[str], node: str) -> list[str]:
    """Files on a command line without parameters for ``node`` (a full name), in words."""
    found = []
    for at, word in enumerate(arguments[:-1]):
        names = _names(Path(arguments[at + 1])) if word == _OPTION else []
        if names and not any(_fits(name, node) for name in names):
            found.append(
                f"{arguments[at + 1]} has parameters for {', '.join(names)}, none for {node}, so "
                f"nothing of it counts: write {node} or /** instead"
            )
    return found


def _names(file: Path) -> list[str]:
    """The names of nodes in a file; none where that is not to be read, which rcl says itself."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            return []
        return list(_named("", yaml.safe_load(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return []


def _named(name: str, content: Any) -> Iterator[str]:
    """Names may be nested, each level a part of the namespace."""
    for key, below in content.items() if isinstance(content, dict) else ():
        if key == _HOLDS:
            yield name or "/"
        else:
            yield from _named(f"{name}/{str(key).strip('/')}", below)


def _fits(name: str, node: str) -> bool:
    """Whether a name of a file is the node's: ``*`` is one level, ``**`` any number of them."""
    levels = {"*": r"/[^/]+", "**": r"(/[^/]+)*"}
    parts = [part for part in name.split("/") if part]
    pattern = "".join(levels.get(part, "/" + re.escape(part)) for part in parts)
    return re.fullmatch(pattern, node) is not None
