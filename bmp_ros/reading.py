# SPDX-License-Identifier: Apache-2.0
"""Files read whole, as long as they are not larger than what they are meant to hold."""

from __future__ import annotations

from pathlib import Path

MAX_IMAGE_BYTES = 1 << 30
"""Of an image file: a gigabyte holds any picture without compression that is decoded."""
MAX_SETTINGS_BYTES = 1 << 20
"""Of a file of settings, such as a preset. Those that come with the package have 2 kB."""
MAX_JSON_BYTES = 1 << 30
"""Of annotations and results; read, they take about ten times as much memory."""


class FileTooLargeError(ValueError):
    """A file has more bytes than are read; the message names it, the limit and the remedy."""


def read_limited(path: Path, most: int, remedy: str) -> bytes:
    """The content of a file, or pipe, of at most ``most`` bytes.

    Raises OSError when it cannot be read, FileTooLargeError when it has more.
    """
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise FileTooLargeError(
            f"{path} has more than {most} bytes, which is the most that is read: {remedy}"
        )
    return content
