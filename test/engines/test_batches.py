# SPDX-License-Identifier: Apache-2.0
"""People in portions and padded to few numbers: nobody is lost, nothing of the padding is left."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.engines.batches import SIZES, cut, joined, rows_of, split


@given(st.integers(0, 90), st.none() | st.integers(1, 40), st.booleans())
def test_portions_hold_everyone_once(people: int, most: int | None, padded: bool) -> None:
    parts = split(people, most, padded=padded)
    rows = [row for part, _ in parts for row in range(people)[part]]
    assert rows == list(range(people))
    for part, size in parts:
        held = part.stop - part.start
        assert 1 <= held <= size and (most is None or size <= max(most, 1))
        assert not padded or (size in SIZES and size - held <= held / 2)
        assert padded or size == held


def test_portions_by_example() -> None:
    def sizes(people: int, most: int | None = None, *, padded: bool = True) -> list[int]:
        return [size for _, size in split(people, most, padded=padded)]

    assert sizes(1) == [1] and sizes(3) == [4] and sizes(5) == [4, 1] and sizes(6) == [8]
    assert sizes(20) == [16, 4] and sizes(30) == [32] and sizes(70) == [32, 32, 8]
    assert sizes(7, 3) == [2, 2, 2, 1], "three is no size of a recorded graph"
    assert sizes(17, 16, padded=False) == [8, 9] and sizes(20, padded=False) == [20]


@given(st.integers(1, 40), st.integers(1, 2), st.booleans())
def test_what_comes_back_is_what_all_at_once_would_give(
    people: int, mirrored: int, padded: bool
) -> None:
    values = np.arange(people * 3, dtype=np.float32).reshape(people, 3)
    inputs = {"crops": values, "image": np.ones(4)}

    def network(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        crops = given["crops"]
        assert given["image"] is inputs["image"], "what is not of people passes as it is"
        return {"out": np.concatenate([crops, -crops]) if mirrored == 2 else crops * 1}

    answers = []
    for rows, size in split(people, 16, padded=padded):
        part = rows_of(inputs, ("crops", "weights"), rows, size)
        assert len(part["crops"]) == size
        answers.append(cut(network(part), rows.stop - rows.start, size))
    np.testing.assert_array_equal(joined(answers)["out"], network(inputs)["out"])
