# SPDX-License-Identifier: Apache-2.0
"""What can be read of an MCAP file that was cut short: all records up to the break.

A recording whose machine lost power ends in the middle of a record, and the summary that readers
begin with, at the end of the file, was never written (mcap.dev/spec).
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _DATA_END = 0x02, 0x0F
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
