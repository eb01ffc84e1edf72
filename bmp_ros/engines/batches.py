# SPDX-License-Identifier: Apache-2.0
"""People through a graph in portions: as many as the memory holds, in few different numbers.

A graph that is recorded, or compiled for shapes, is so for a number of people. A frame with
another one is padded to the next of `SIZES`, by repeating the last person, whose copies are cut
off again. NumPy arrays with one row per person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SIZES = (1, 2, 4, 8, 16, 32)
"""Numbers of people that padded portions have."""


def split(people: int, most: int | None = None, *, padded: bool) -> list[tuple[slice, int]]:
    """Return the portions of so many people: their rows, and the size to pad them to.

    most: people in a portion, None: no limit. padded: only sizes of `SIZES`; where padding would
    add more than a half of the people, as of 5 to 8, the largest size that is filled goes first.
    """
    if not padded:
        count = -(-people // (most or max(people, 1)))
        # Of about equal size: 17 people in portions of 16 are 8 + 9, not 16 + 1.
        bounds = [people * part // max(count, 1) for part in range(count + 1)]
        return [(slice(a, b), b - a) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    sizes = [size for size in SIZES if most is None or size <= most]
    parts, first = [], 0
    while first < people:
        left = people - first
        size = next((size for size in sizes if size >= left), sizes[-1])
        if 2 * (size - left) > left:
            size = max(size for size in sizes if size <= left)
        taken = min(size, left)
        parts.append((slice(first, first + taken), size))
        first += taken
    return parts


def rows_of(
    inputs: Mapping[str, Any], names: Sequence[str], rows: slice, size: int
) -> dict[str, Any]:
    """Return the inputs of a portion: of ``names`` the rows, the last one repeated up to size."""
    chosen = dict(inputs)
    for name in names:
        if name in inputs:
            part = inputs[name][rows]
            missing = size - len(part)
            chosen[name] = (
                np.concatenate([part, part[-1:].repeat(missing, 0)]) if missing else part
            )
    return chosen


def cut(outputs: Mapping[str, np.ndarray], people: int, size: int) -> dict[str, np.ndarray]:
    """Drop the rows of padding: (m size, ...) -> (m, people, ...), m = 2 with mirror images."""
    return {
        name: value.reshape(len(value) // size, size, *value.shape[1:])[:, :people]
        for name, value in outputs.items()
    }


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Join outputs (m, n, ...) of portions: (m people, ...), first all people, then all mirrored.

    A copy is made only where there are several portions, or rows were cut off.
    """
    answers = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        whole = values[0] if len(values) == 1 else np.concatenate(values, axis=1)
        answers[name] = whole.reshape(-1, *whole.shape[2:])
    return answers
