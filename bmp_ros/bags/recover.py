# SPDX-License-Identifier: Apache-2.0
"""What can be read of an MCAP file that was cut short: all records up to the break.

A recording whose machine lost power ends in the middle of a record, and the summary that readers
begin with, at the end of the file, was never written (mcap.dev/spec).
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from pathlib import Path
from typing import TypeVar

MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _DATA_END = 0x02, 0x0F
REORDER_NS = 2 * 10**9
"""Recorders write messages late by less than that: it is how long one waits for them here."""
_HEADER = struct.Struct("<BQ")  # opcode, length of what follows


def whole_part(path: Path) -> int | None:
    """Bytes of a file up to the end of its last complete record of data.

    None for a file that does not begin as an MCAP file does.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return None
        end = len(MAGIC)
        while True:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return end
            opcode, length = _HEADER.unpack(header)
            if opcode in (0, _FOOTER, _DATA_END) or end + _HEADER.size + length > size:
                return end
            end += _HEADER.size + length
            file.seek(end)


def recover(path: Path, target: Path) -> int | None:
    """Copy the whole part of a file and end it as a file without a summary ends.

    Returns the bytes that were left out, None for a file of another kind.
    """
    end = whole_part(path)
    if end is None:
        return None
    with path.open("rb") as source, target.open("wb") as file:
        remaining = end
        while remaining:
            block = source.read(min(remaining, 1 << 20))
            file.write(block)
            remaining -= len(block)
        file.write(_HEADER.pack(_DATA_END, 4) + struct.pack("<I", 0))
        file.write(_HEADER.pack(_FOOTER, 20) + struct.pack("<QQI", 0, 0, 0) + MAGIC)
    shutil.copystat(path, target)
    return path.stat().st_size - end


Message = TypeVar("Message", bound=tuple[object, int, bytes])


def in_order(messages: Iterable[Message], window_ns: int = REORDER_NS) -> Iterator[Message]:
    """Messages (connection, log time in nanoseconds, data) of a file without an index, by time.

    Those of one time stay in the file's order. One that is late by more than the window comes at
    once, after later ones. What ``messages`` raises is raised after all messages before it.
    """
    waiting: list[tuple[int, int, Message]] = []
    newest, broken = -(2**63), None
    numbered = enumerate(messages)
    while True:
        try:
            number, message = next(numbered)
        except StopIteration:
            break
        except Exception as error:  # whatever a damaged byte leads to
            broken = error
            break
        heappush(waiting, (message[1], number, message))
        newest = max(newest, message[1])
        while waiting[0][0] < newest - window_ns:
            yield heappop(waiting)[2]
    while waiting:
        yield heappop(waiting)[2]
    if broken is not None:
        raise broken
