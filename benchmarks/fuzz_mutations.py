# SPDX-License-Identifier: Apache-2.0
"""How benchmarks/fuzz.py alters bytes and documents."""

from __future__ import annotations

import copy
import math
import random
import struct
import zlib
from typing import Any

INTERESTING = (0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
ODD = (
    None, True, False, 0, -1, 1, 1.5, 1e300, -1e300, 1e39, 10**30, 10**400, "", "a", "1", "x/y",
    [], [1], {}, {"a": 1}, [None], [[1, 2, 3]], math.inf, math.nan, "\u20ac", "a" * 10_000,
    [[]] * 1000,
)  # fmt: skip


def mutated(data: bytes, dice: random.Random, other: bytes = b"") -> bytes:
    """``data`` after one to eight changes. other: another valid input, parts of which come in."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        if not changed:
            break
        at = dice.randrange(len(changed))
        kind = dice.randrange(9)
        if kind == 0:
            changed[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            changed[at] = dice.choice(INTERESTING) & 0xFF
        elif kind == 2:
            _put(changed, at, dice, "I")
        elif kind == 3:
            _put(changed, at, dice, dice.choice("HQ"))
        elif kind == 4:
            del changed[at:]
        elif kind == 5:
            del changed[at : at + dice.randrange(1, 64)]
        elif kind == 6:
            changed[at:at] = dice.randbytes(dice.randrange(1, 64))
        elif kind == 7:
            changed[at:at] = changed[at : at + dice.randrange(1, 256)] * dice.randrange(1, 4)
        elif other:
            start = dice.randrange(len(other))
            changed[at:] = other[start:]
    return bytes(changed)


def _put(data: bytearray, at: int, dice: random.Random, code: str) -> None:
    """An interesting number of that size over what is there, in either order of bytes."""
    size = struct.calcsize(code)
    if at + size <= len(data):
        value = dice.choice((*INTERESTING, len(data), len(data) - at, dice.getrandbits(8 * size)))
        order = dice.choice("<>")
        struct.pack_into(order + code, data, at, value & ((1 << 8 * size) - 1))


def with_checksums(png: bytes) -> bytes:
    """A PNG whose checksums are right again, so that a decoder looks behind them."""
    data, at = bytearray(png), 8
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        end = at + 8 + size
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


def altered(document: Any, dice: random.Random) -> Any:
    """A copy of lists and dicts with one to three values exchanged, removed or put elsewhere."""
    changed = copy.deepcopy(document)
    for _ in range(dice.choice((1, 1, 2, 3))):
        places = [place for place in _places(changed) if place]
        if not places:
            break
        *way, last = dice.choice(places)
        holder = changed
        for key in way:
            holder = holder[key]
        kind = dice.randrange(4)
        if kind == 0:
            del holder[last]
        elif kind == 1 and isinstance(holder, dict):
            holder[dice.choice(("", "engine", "weights", "loop", last * 2))] = holder[last]
        else:
            holder[last] = copy.deepcopy(dice.choice(ODD))
    return changed


def _places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [way]
    items = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list) and len(value) < 100:
        items = enumerate(value)
    for key, each in items:
        found += _places(each, (*way, key))
    return found
