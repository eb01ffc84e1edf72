# SPDX-License-Identifier: Apache-2.0
"""Settings as frozen dataclasses whose fields know their range, and mappings checked against them.

One declaration serves the presets (YAML), the node's live parameters and the documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from bmp_ros.loop.prompts import PROMPT_METHODS


class SettingsError(ValueError):
    """A setting is unknown, of the wrong type or out of range; the message names all three."""


def number(
    default: Any = MISSING, *, low: float, high: float, text: str, integer: bool = False,
    optional: bool = False,
) -> Any:  # fmt: skip
    """Declare a number in [low, high]; with ``optional`` None is allowed as well."""
    kind = int if integer else float
    return _declare(default, {"kind": kind, "low": low, "high": high, "optional": optional}, text)


def size(default: Any = MISSING, *, low: int, high: int, multiple: int, text: str) -> Any:
    """Declare a size in pixels: a side, for a square, or [width, height].

    Sides are multiples of ``multiple`` in [low, high]. The value is an int or (width, height).
    """
    metadata = {"kind": tuple, "low": low, "high": high, "multiple": multiple, "optional": False}
    return _declare(default, metadata, text)


def choice(default: Any = MISSING, *, choices: tuple[str, ...], text: str) -> Any:
    """Declare a string out of ``choices``."""
    return _declare(default, {"kind": str, "choices": choices, "optional": False}, text)


def word(default: Any = MISSING, *, text: str, optional: bool = False) -> Any:
    """Declare a free string, such as the name of weights."""
    return _declare(default, {"kind": str, "optional": optional}, text)


def switch(default: Any = MISSING, *, text: str) -> Any:
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
            near = get_close_matches(str(key), declared, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise SettingsError(
                f"{where}: unknown key {key!r}{hint} Known keys: {', '.join(declared)}"
            )
    for name, item in declared.items():
        if item.default is MISSING and name not in mapping:
            raise SettingsError(f"{where}: key {name!r} is missing ({item.metadata['text']})")
    checked = {
        key: check_value(declared[key], value, f"{where}: {key}") for key, value in mapping.items()
    }
    return cls(**checked)


def check_value(item: Field[Any], value: Any, where: str) -> Any:
    """Return ``value`` in the type that ``item`` declares, or raise SettingsError."""
    spec = item.metadata
    kind = spec["kind"]
    if value is None and spec["optional"]:
        return None
    if kind is tuple:
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
        raise SettingsError(f"{where} is {value!r}, allowed: {allowed_values(item)}")
    return kind(value)


def _is_side(side: Any, spec: Mapping[str, Any]) -> bool:
    in_range = type(side) is int and spec["low"] <= side <= spec["high"]
    return in_range and side % spec["multiple"] == 0


def allowed_values(item: Field[Any]) -> str:
    """Say in words which values a declared field takes, e.g. ``a number from 0 to 1``."""
    spec = item.metadata
    if "choices" in spec:
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


@dataclass(frozen=True)
class LoopSettings:
    """Everything that steers the loop itself; the defaults are those of the preset ``bmp_d3``."""

    iterations: int = number(
        2, low=1, high=5, integer=True, text="detection rounds; from the second on, the people "
        "found so far are painted out",
    )  # fmt: skip
    detection_threshold: float = number(
        0.3, low=0.0, high=1.0, text="people need a detector score above this"
    )
    box_nms_iou: float = number(
        0.3, low=0.0, high=1.0, text="of two boxes that overlap more (IoU), the worse one goes"
    )
    max_people: int = number(
        50, low=1, high=1000, integer=True, text="at most so many people per frame, best first"
    )
    confidence_threshold: float = number(
        0.3, low=0.0, high=1.0, text="keypoints count as found with a score above this"
    )
    visibility_threshold: float = number(
        0.3, low=0.0, high=1.0, text="keypoints may prompt the segmenter with a visibility (or, "
        "for networks without one, a score) of at least this",
    )  # fmt: skip
    oks_threshold: float = number(
        0.8, low=0.0, high=1.0, text="poses more similar than this (OKS) are one person"
    )
    keep_poseless: str = choice(
        "first", choices=("first", "never"), text="people without a keypoint above the confidence "
        "threshold: keep those found in the first iteration, or none",
    )  # fmt: skip
    prompt_method: str = choice(
        "distance+confidence", choices=PROMPT_METHODS, text="which keypoints prompt the segmenter"
    )
    num_positive: int = number(6, low=1, high=17, integer=True, text="prompt points on the person")
    num_positive_crowded: int = number(
        6, low=1, high=17, integer=True, text="prompt points on a person in a crowd"
    )
    crowd_iou: float | None = number(
        None, low=0.0, high=1.0, optional=True, text="a box that overlaps another one more than "
        "this (IoU) is in a crowd; null: nobody is",
    )  # fmt: skip
    num_negative: int = number(
        0, low=0, high=17, integer=True, text="prompt points on the nearest other people"
    )
    boxes_from_masks: bool = switch(
        False, text="replace the detector's boxes by those of the final masks"
    )
