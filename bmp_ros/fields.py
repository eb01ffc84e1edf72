# SPDX-License-Identifier: Apache-2.0
"""Settings as frozen dataclasses whose fields know their range, and mappings checked against them.

One declaration serves the presets (YAML), the node's live parameters and the documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from difflib import get_close_matches
from reprlib import Repr
from typing import Any, TypeVar

import numpy as np


class SettingsError(ValueError):
    """A setting is unknown, of the wrong type or out of range; the message names all three."""


_REPR = Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 3, 200, 200
_LONGEST = 500
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 8


def shown(value: Any) -> str:
    """``value`` for an error message: a few hundred characters, whatever YAML made of a file.

    A file of some lines can hold lists of lists that, written out, fill any memory.
    """
    try:
        text = _REPR.repr(value)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    except ValueError:  # Python writes no number of thousands of digits
        return f"a number of {value.bit_length()} bits" if isinstance(value, int) else "a value"


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """At most one name that ``name`` may be meant for: a similar one, or one that begins with it,
    such as image_topic for image."""
    known = list(known)
    longer = [each for each in known if each.startswith(f"{name}_")]
    return get_close_matches(name, known, n=1, cutoff=0.75) or longer[:1]


def number_field(
    default: Any = MISSING, *, low: float, high: float, text: str, integer: bool = False,
    optional: bool = False,
) -> Any:  # fmt: skip
    """Declare a number in [low, high]; with ``optional`` None is allowed as well."""
    kind = int if integer else float
    return _declare(default, {"kind": kind, "low": low, "high": high, "optional": optional}, text)


def size_field(default: Any = MISSING, *, low: int, high: int, multiple: int, text: str) -> Any:
    """Declare a size in pixels: a side, for a square, or [width, height].

    Sides are multiples of ``multiple`` in [low, high]. The value is an int or (width, height).
    """
    metadata = {"kind": tuple, "low": low, "high": high, "multiple": multiple, "optional": False}
    return _declare(default, metadata, text)


def choice_field(default: Any = MISSING, *, choices: tuple[str, ...], text: str) -> Any:
    """Declare a string out of ``choices``."""
    return _declare(default, {"kind": str, "choices": choices, "optional": False}, text)


def str_field(default: Any = MISSING, *, text: str, optional: bool = False) -> Any:
    """Declare a free string, such as the name of weights."""
    return _declare(default, {"kind": str, "optional": optional}, text)


def strings_field(
    default: Any = MISSING, *, text: str, choices: tuple[str, ...] | None = None,
    check: Callable[[Sequence[str]], object] | None = None,
) -> Any:  # fmt: skip
    """Declare a list of strings, each out of ``choices`` if given. The value is a tuple.

    check: raises ValueError, whose message says why, for strings that cannot be used.
    """
    metadata: dict[str, Any] = {"kind": list, "optional": False}
    metadata |= {"choices": choices} if choices else {}
    return _declare(default, metadata | ({"check": check} if check else {}), text)


def bool_field(default: Any = MISSING, *, text: str) -> Any:
    """Declare a true or false."""
    return _declare(default, {"kind": bool, "optional": False}, text)


def _declare(default: Any, metadata: dict[str, Any], text: str) -> Any:
    metadata["text"] = text
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


Settings = TypeVar("Settings")


def settings_from_mapping(cls: type[Settings], mapping: Mapping[str, Any], where: str) -> Settings:
    """Build the settings dataclass ``cls`` from ``mapping``; ``where`` leads error messages.

    Raises SettingsError naming ``where``, the key, the value found and the values allowed.
    """
    declared = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    for key in mapping:
        if key not in declared:
            near = get_close_matches(key if isinstance(key, str) else shown(key), declared, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise SettingsError(
                f"{where}: unknown key {shown(key)}{hint} Known keys: {', '.join(declared)}"
            )
    for name, item in declared.items():
        if item.default is MISSING and name not in mapping:
            raise SettingsError(f"{where}: key {name!r} is missing ({item.metadata['text']})")
    checked = {
        key: check_value(declared[key], value, f"{where}: {key}") for key, value in mapping.items()
    }
    return cls(**checked)


class CheckedSettings:
    """Base of settings that are also made in Python: their values are checked there as well.

    Numbers of NumPy count as Python's. Raises SettingsError naming the class, the field, the value
    found and the values allowed.
    """

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            value = value.item() if isinstance(value, np.generic) else value
            checked = check_value(item, value, f"{type(self).__name__}.{item.name}")
            object.__setattr__(self, item.name, checked)  # also where they are frozen


def check_value(item: Field[Any], value: Any, where: str) -> Any:
    """Return ``value`` in the type that ``item`` declares, or raise SettingsError."""
    spec = item.metadata
    kind = spec["kind"]
    if value is None and spec["optional"]:
        return None
    if kind is list:
        fits = isinstance(value, list | tuple) and all(_is_listed(each, spec) for each in value)
        kind = tuple
    elif kind is tuple:
        sides = value if isinstance(value, list | tuple) and len(value) == 2 else (value,)
        fits = all(_is_side(side, spec) for side in sides)
        kind = int if sides == (value,) else tuple
    else:
        # bool is an int to Python, never to a reader of YAML; 1 is as good as 1.0 to both.
        fits = type(value) is kind or (kind is float and type(value) is int)
        if fits and "choices" in spec:
            fits = value in spec["choices"]
        elif fits and "low" in spec:
            fits = spec["low"] <= value <= spec["high"]  # neither NaN nor infinity is in a range
    if not fits:
        raise SettingsError(f"{where} is {shown(value)}, allowed: {allowed_values(item)}")
    if "check" in spec:
        try:
            spec["check"](value)
        except ValueError as error:
            raise SettingsError(f"{where}: {error}") from error
    return kind(value)


def _is_listed(value: Any, spec: Mapping[str, Any]) -> bool:
    return type(value) is str and value in spec.get("choices", (value,))


def _is_side(side: Any, spec: Mapping[str, Any]) -> bool:
    in_range = type(side) is int and spec["low"] <= side <= spec["high"]
    return in_range and side % spec["multiple"] == 0


def allowed_values(item: Field[Any]) -> str:
    """Say in words which values a declared field takes, e.g. ``a number from 0 to 1``."""
    spec = item.metadata
    if spec["kind"] is list:
        text = "a list of " + (", ".join(spec["choices"]) if "choices" in spec else "strings")
    elif "choices" in spec:
        text = "one of " + ", ".join(spec["choices"])
    elif spec["kind"] is bool:
        text = "true or false"
    elif spec["kind"] is tuple:
        side = f"from {spec['low']} to {spec['high']}"
        text = f"a multiple of {spec['multiple']} {side}, or two of them as [width, height]"
    elif "low" in spec:
        what = "a whole number" if spec["kind"] is int else "a number"
        text = f"{what} from {spec['low']:g} to {spec['high']:g}"
    else:
        text = "a string"
    return text + (", or null" if spec["optional"] else "")
