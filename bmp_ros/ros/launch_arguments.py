# SPDX-License-Identifier: Apache-2.0
"""Arguments of the launch files, from the one table of parameters; imports no ROS."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import Field
from typing import Any, NamedTuple

from bmp_ros.fields import near_names
from bmp_ros.ros.settings import (
    CAMERA,
    CAMERAS,
    CAMERAS_TEXT,
    GROUPS,
    allowed_parameter_values,
    default_of,
    text_of,
    to_parameter,
)

TRUTH = {"true": True, "false": False, "True": True, "False": False}
"""As YAML and as Python write them: launch files pass both on."""
YES_NO = tuple(TRUTH)


class Argument(NamedTuple):
    """An argument of a launch file. choices: empty for any text."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()


NODE_ARGUMENTS = (
    Argument("namespace", "bmp", "Namespace of the node and its topics; /: none."),
    Argument(
        "log_level", "info", "Least severe messages of the node that are logged.",
        ("debug", "info", "warn", "error", "fatal"),
    ),
    Argument(
        "python", "", "Python that has the networks' packages, such as /path/venv/bin/python; "
        "empty: python3 of this terminal (of a build with --symlink-install: the builder's).",
    ),
)  # fmt: skip
"""What all launch files have in common."""


TOPICS = tuple(name for name, _ in CAMERA.rows() if name.endswith("_topic"))
"""Arguments that are of one camera: with several, each has its own."""


def parameter_arguments() -> list[Argument]:
    """One argument per parameter of the node; empty leaves a parameter to the file."""
    arguments = [Argument(CAMERAS, "", f"{CAMERAS_TEXT}, separated by commas.")]
    for name, item in _fields().items():
        default = to_parameter(item, default_of(item))
        text = text_of(item)
        limits = f"{_allowed(item)}; default: {_text(default)}"
        # No capital letter: where a text begins with a value, that is written so.
        description = f"{text} ({limits})."
        arguments.append(Argument(name, "", description, _choices(item)))
    return arguments


def parameter_value(name: str, text: str) -> Any:
    """The value of a parameter from the text of an argument; lists are separated by commas.

    A text that is no such value stays one: the node refuses it with the reason.
    """
    spec: Mapping[str, Any] = {"kind": list} if name == CAMERAS else _fields()[name].metadata
    kind = spec["kind"]
    if kind is list:
        return split(text)
    if kind is bool:
        return TRUTH.get(text, text)
    if text in TRUTH and "true" in spec.get("choices", ()):
        return text.lower()
    try:
        return kind(text)
    except ValueError:
        return text


def unknown_arguments(given: Iterable[str], declared: Iterable[str]) -> list[str]:
    """Arguments that no launch file declares but that are near to one, in words.

    What is near to none may belong to a launch file that includes this one.
    """
    declared = list(declared)
    found = []
    for name in sorted(set(given) - set(declared)):
        near = near_names(name, declared)
        if near:
            found.append(f"{name} is no argument, and ignored; did you mean {near[0]}?")
    return found


def program(given: str) -> str | None:
    """The argument ``python`` as the prefix of a command, None if it is empty.

    ``~`` is the home folder, which the shell leaves alone after ``:=``. Raises FileNotFoundError
    for what cannot be run, where launch would answer with a traceback, and ValueError for a
    quote without its counterpart.
    """
    if not given:
        return None
    try:
        first, *rest = shlex.split(given)
    except ValueError as error:
        raise ValueError(
            f"python:={given} cannot be split into words ({error}); close the quote, or write a "
            "backslash before a quote that belongs to the path"
        ) from error
    path = os.path.expanduser(first)
    if shutil.which(path) is None:
        raise FileNotFoundError(
            f"python:={given}: there is no program {path}; give the interpreter of the virtual "
            "environment, such as /path/venv/bin/python"
        )
    return shlex.join([path, *rest])


def split(names: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in names.split(",") if name.strip()]


def _fields() -> dict[str, Field[Any]]:
    return {name: item for group in GROUPS for name, item in group.rows()}


def _choices(item: Field[Any]) -> tuple[str, ...]:
    kind, choices = item.metadata["kind"], item.metadata.get("choices", ())
    if kind is bool:
        return ("", *YES_NO)
    also = [each for each in YES_NO if "true" in choices and each not in choices]
    return ("", *choices, *also) if kind is str and choices else ()


def _allowed(item: Field[Any]) -> str:
    return allowed_parameter_values(item).replace("a list of", "separated by commas:")


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value) or "empty"
