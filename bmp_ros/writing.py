# SPDX-License-Identifier: Apache-2.0
"""Files that get their name when they are whole; one at a time writes one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from bmp_ros.image_files import shown_name


class BeingWrittenError(RuntimeError):
    """Another run writes the same file; the message names it and what to do."""


def part_of(path: Path) -> Path:
    """Where a file is written until it is whole."""
    return path.with_name(path.name + ".part")


def open_part(path: Path, *, keep: bool = False, encoding: str = "utf-8") -> TextIO:
    """Open `part_of` a file to append text to; what is no text is written as ``\\xe9``.

    keep: what an earlier run left there stays. The one who opened it renames it in the end.
    Raises BeingWrittenError while it is open already, here or in another process: two would write
    into one file. On file systems without locks nobody knows.
    """
    part = part_of(path)
    while True:
        stream = part.open("a", encoding=encoding, errors="backslashreplace")
        _lock(stream, path)
        try:
            same = os.path.samestat(os.fstat(stream.fileno()), part.stat())
        except FileNotFoundError:
            same = False
        if same:
            break
        stream.close()  # another run has just renamed what it was
    if not keep:
        stream.truncate(0)
    return stream


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep others from writing a file that a library opens by its name; an empty one that nobody
    wrote into is gone afterwards. Where it cannot be opened, the library will say so.

    Raises BeingWrittenError as `open_part`.
    """
    try:
        stream = path.open("ab")
    except OSError:
        yield
        return
    with stream:
        _lock(stream, path)
        try:
            yield
        finally:
            if not os.fstat(stream.fileno()).st_size:
                path.unlink(missing_ok=True)


def _lock(stream: IO[Any], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has none
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            stream.close()
            raise BeingWrittenError(
                f"another run writes {shown_name(path)} at this moment; wait for it, or choose "
                "another --output"
            ) from error
