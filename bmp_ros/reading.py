# SPDX-License-Identifier: Apache-2.0
"""Files read whole, as long as they are not larger than what they are meant to hold."""

from __future__ import annotations

from pathlib import Path

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
