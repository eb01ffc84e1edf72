# SPDX-License-Identifier: Apache-2.0
"""Files read whole, as long as they are not larger than what they are meant to hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

MAX_IMAGE_BYTES = 1 << 30
"""Of an image file: a gigabyte holds any image without compression that is decoded."""
MAX_SETTINGS_BYTES = 1 << 20
"""Of a file of settings, such as a preset. Those that come with the package have 2 kB."""
MAX_JSON_BYTES = 1 << 30
"""Of annotations and results; read, they take about ten times as much memory."""
_PART = 1 << 20


class FileTooLargeError(ValueError):
    """A file has more bytes than are read; the message names it, the limit and the remedy."""


def read_limited(path: Path, most: int, remedy: str) -> bytes:
    """The content of a file, or pipe, of at most ``most`` bytes.

    Raises OSError when it cannot be read, FileTooLargeError when it has more.
    """
    parts, room = [], most + 1
    with path.open("rb") as stream:
        # Asked for a length, Python takes that much memory before it reads.
        while part := stream.read(min(_PART, room)):
            parts.append(part)
            room -= len(part)
    if not room:
        raise FileTooLargeError(
            f"{path} has more than {most} bytes, which is the most that is read: {remedy}"
        )
    return b"".join(parts)


def read_json(path: Path, most: int | None = None, remedy: str = "split it") -> Any:
    """What a JSON file says: in UTF-8, with the mark at its start that programs on Windows write
    or without, in UTF-16 or UTF-32. most: bytes, see `read_limited`.

    Raises OSError when it cannot be read, ValueError naming it when it is not JSON.
    """
    content = path.read_bytes() if most is None else read_limited(path, most, remedy)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # also of numbers with thousands of digits
        raise ValueError(f"{path} is not a JSON file: {error}") from error


class _EachKeyOnce(yaml.SafeLoader):
    """YAML forbids a key to be there twice; PyYAML takes the last one without a word."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if (key.tag, key.value) in seen:
                    raise yaml.composer.ComposerError(
                        None, None, f"the key {key.value!r} is there twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node


def read_yaml(path: Path, remedy: str) -> Any:
    """What a file of settings in YAML says.

    Raises OSError when it cannot be read, ValueError naming it when it is not YAML, or a key is
    there twice, FileTooLargeError with ``remedy`` beyond `MAX_SETTINGS_BYTES`.
    """
    content = read_limited(path, MAX_SETTINGS_BYTES, remedy)
    try:
        return yaml.load(content, Loader=_EachKeyOnce)  # noqa: S506 (a safe one)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # dates that are none, too
        raise ValueError(f"{path}: not a YAML file: {error}") from error
