# SPDX-License-Identifier: Apache-2.0
"""Reading a pickle as data: what it would call is written down, nothing is called.

A pickle is a program for a stack machine. The machine here knows the instructions that
``torch.save`` writes (protocol 2) and has none that reaches Python: a type stays a name
(`Global`), a call stays a name with arguments (`Called`), an object stays the name of its type and
the state it would get (`Made`). Names must be allowed by the caller, and every step consumes at
least one byte, so a small file cannot ask for much memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LONGEST_PICKLE = 16 << 20
"""Bytes. Those of YOLOv5-l with the state of its optimizer take well under one MiB."""


class DamagedPickle(ValueError):  # noqa: N818  (says what happened)
    """Not a pickle of protocol 2, or one that was cut short or altered."""


class RefusedName(ValueError):  # noqa: N818
    """The pickle names a type or function that is not allowed; ``args[0]`` is that name."""


@dataclass(frozen=True, eq=False)
class Global:
    """A type or function by its full name, e.g. ``collections.OrderedDict``."""

    name: str


@dataclass(eq=False)
class Called:
    """What ``function(*arguments)`` would have returned, and the state set on it afterwards."""

    function: str
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(eq=False)
class Made:
    """An object of the type ``kind``, and its state: a dict, or None."""

    kind: str
    state: Any = None


@dataclass(frozen=True, eq=False)
class Reference:
    """Something that lies outside of the pickle; ``key`` is what the pickle calls it by."""

    key: Any


class Mark:
    """Where a list of items begins on the stack."""


def read_pickle(
    data: bytes | memoryview, allowed: Callable[[str], bool], start: int = 0
) -> tuple[Any, int]:
    """Read the pickle that begins at ``data[start]``: its value and the position behind it.

    allowed: tells whether a name (``module.name``) may occur. Dicts, OrderedDicts and sets become
    dicts and lists; their keys must be texts or whole numbers.
    Raises RefusedName at the first name that is not allowed, DamagedPickle for anything else that
    is no pickle of ``torch.save``.
    """
    machine = _Machine(memoryview(data), start, allowed)
    try:
        return machine.run(), machine.position
    except (struct.error, UnicodeDecodeError, IndexError, KeyError) as error:
        raise DamagedPickle(
            f"the pickle is damaged near byte {machine.position} ({type(error).__name__})"
        ) from error


class _Machine:
    def __init__(self, data: memoryview, start: int, allowed: Callable[[str], bool]) -> None:
        self.data, self.position, self.allowed = data, start, allowed
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while (code := self.take(1)[0]) != _STOP:
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise DamagedPickle(
                    f"the instruction {code:#04x} at byte {self.position - 1} is none that "
                    "torch.save writes"
                )
            instruction(self)
        value = self.pop()
        if self.stack:
            raise DamagedPickle("the pickle ends with values left over")
        return value

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            raise DamagedPickle("the pickle ends too early")
        found = bytes(self.data[self.position : self.position + count])
        self.position += count
        return found

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        start, end = self.position, self.position
        while self.data[end] != 10:  # IndexError at the end of the data
            end += 1
        self.position = end + 1
        return bytes(self.data[start:end]).decode("utf-8")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is Mark:
            raise DamagedPickle(f"the pickle takes a value where none is, byte {self.position}")
        return value

    def pop_to_mark(self) -> list[Any]:
        items = []
        while (value := self.stack.pop()) is not Mark:
            items.append(value)
        return items[::-1]

    def top(self) -> Any:
        if self.stack[-1] is Mark:
            raise DamagedPickle(f"the pickle changes a value where none is, byte {self.position}")
        return self.stack[-1]

    # ------------------------------------------------------------ what instructions do

    def find_global(self) -> None:
        name = f"{self.line()}.{self.line()}"
        if not self.allowed(name):
            raise RefusedName(name)
        self.stack.append(Global(name))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise DamagedPickle("the pickle calls something that is no function")
        self.stack.append(_plain_container(function.name, arguments))

    def make(self) -> None:
        arguments, kind = self.pop(), self.pop()
        if not isinstance(kind, Global) or arguments != ():
            raise DamagedPickle("the pickle makes an object of something that is no type")
        self.stack.append(Made(kind.name))

    def set_state(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Made | Called):
            target.state = state
        elif not isinstance(target, dict):  # attributes of an OrderedDict say nothing about it
            raise DamagedPickle(f"the pickle sets the state of a {type(target).__name__}")

    def refer(self) -> None:
        key = self.pop()
        if isinstance(key, tuple) and len(key) > 1 and key[0] == "module":
            # torch's old format: a class, with the text of its source, which nobody needs.
            if not isinstance(key[1], Global):
                raise DamagedPickle("the pickle calls something a class that is not one")
            self.stack.append(key[1])
        else:
            self.stack.append(Reference(key))

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise DamagedPickle(f"the pickle appends to a {type(target).__name__}")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(items) % 2:
            raise DamagedPickle(f"the pickle sets items of a {type(target).__name__}")
        _fill(target, zip(items[::2], items[1::2], strict=True))

    def remember(self, index: int) -> None:
        self.memo[index] = self.top()

    def make_tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(items[::-1]))


def _fill(target: dict[Any, Any], pairs: Any) -> None:
    for key, value in pairs:
        if not isinstance(key, str | int):  # hashing a deep tuple would exhaust the C stack
            raise DamagedPickle(f"a dict of the pickle has a {type(key).__name__} as a key")
        target[key] = value


def _plain_container(name: str, arguments: tuple[Any, ...]) -> Any:
    """OrderedDicts and sets as dicts and lists, anything else as a call that is not made."""
    items = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list) else []
    if name == "collections.OrderedDict":
        if not all(isinstance(item, list | tuple) and len(item) == 2 for item in items):
            raise DamagedPickle(
                "an OrderedDict of the pickle is made of something else than pairs"
            )
        made: dict[Any, Any] = {}
        _fill(made, items)
        return made
    if name in ("builtins.set", "__builtin__.set"):
        return list(items)
    return Called(name, arguments)


def _read_long(machine: _Machine) -> int:
    return int.from_bytes(machine.take(machine.number("<B")), "little", signed=True)


def _read_text(machine: _Machine) -> str:
    return machine.take(machine.number("<I")).decode("utf-8", "surrogatepass")


def _check_protocol(machine: _Machine) -> None:
    protocol = machine.number("<B")
    if protocol > 2:
        raise DamagedPickle(f"its pickle has protocol {protocol}, torch.save writes protocol 2")


def _pushing(read: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(read(machine))


_STOP = ord(".")
_INSTRUCTIONS: dict[int, Callable[[_Machine], Any]] = {
    0x80: _check_protocol,
    ord("("): _pushing(lambda machine: Mark),
    ord("0"): _Machine.pop,
    ord("1"): _Machine.pop_to_mark,
    ord("N"): _pushing(lambda machine: None),
    0x88: _pushing(lambda machine: True),
    0x89: _pushing(lambda machine: False),
    ord("J"): _pushing(lambda machine: machine.number("<i")),
    ord("K"): _pushing(lambda machine: machine.number("<B")),
    ord("M"): _pushing(lambda machine: machine.number("<H")),
    0x8A: _pushing(_read_long),
    ord("G"): _pushing(lambda machine: machine.number(">d")),
    ord("X"): _pushing(_read_text),
    ord("]"): _pushing(lambda machine: []),
    ord("}"): _pushing(lambda machine: {}),
    ord(")"): _pushing(lambda machine: ()),
    0x85: lambda machine: machine.make_tuple(1),
    0x86: lambda machine: machine.make_tuple(2),
    0x87: lambda machine: machine.make_tuple(3),
    ord("t"): _pushing(lambda machine: tuple(machine.pop_to_mark())),
    ord("a"): lambda machine: machine.append([machine.pop()]),
    ord("e"): lambda machine: machine.append(machine.pop_to_mark()),
    ord("s"): lambda machine: machine.set_items([machine.pop(), machine.pop()][::-1]),
    ord("u"): lambda machine: machine.set_items(machine.pop_to_mark()),
    ord("q"): lambda machine: machine.remember(machine.number("<B")),
    ord("r"): lambda machine: machine.remember(machine.number("<I")),
    ord("h"): _pushing(lambda machine: machine.memo[machine.number("<B")]),
    ord("j"): _pushing(lambda machine: machine.memo[machine.number("<I")]),
    ord("c"): _Machine.find_global,
    ord("R"): _Machine.call,
    0x81: _Machine.make,
    ord("b"): _Machine.set_state,
    ord("Q"): _Machine.refer,
}
"""By the byte of the instruction, as `pickletools` documents them."""
