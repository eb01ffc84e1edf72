# SPDX-License-Identifier: Apache-2.0
"""A JSON document with one value at a time that does not belong there, or is missing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, "x", -1, 1.5, float("nan"), 10**30, [], {}, [[]], [1, 2, 3], [["a"]],
    {"size": [48, 64]}, {"size": [48, 64], "counts": "@@@"}, {"size": [48, 64], "counts": [1]},
)  # fmt: skip


def mutations(document: Any) -> Iterator[Any]:
    """Copies of the document; of each list the first two items are changed."""
    for place in _places(document):
        for value in ODD if place else ():
            changed = copy.deepcopy(document)
            _parent(changed, place)[place[-1]] = value
            yield changed
        if place:
            changed = copy.deepcopy(document)
            del _parent(changed, place)[place[-1]]
            yield changed
    yield from ODD


def _places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield before
    keys: Any = value if isinstance(value, dict) else ()
    for key in range(min(2, len(value))) if isinstance(value, list) else keys:
        yield from _places(value[key], (*before, key))


def _parent(document: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        document = document[key]
    return document
