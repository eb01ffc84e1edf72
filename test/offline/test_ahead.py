# SPDX-License-Identifier: Apache-2.0
"""Several items in work at a time: order, errors, bounds."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.offline.ahead import ahead


@given(
    st.lists(st.integers(0, 9), max_size=12),
    st.integers(0, 4),
    st.one_of(st.none(), st.integers(0, 12)),
)
def test_answers_come_in_order_and_errors_in_their_place(
    numbers: list[int], at_once: int, breaks_at: int | None
) -> None:
    """Nine fails when it is asked for; the source breaks off after ``breaks_at`` numbers."""

    def source() -> Iterator[int]:
        for place, number in enumerate(numbers):
            if place == breaks_at:
                raise OSError("broke off")
            yield number

    def ask(number: int) -> int:
        if number == 9:
            raise ValueError("nine")
        return -number

    def take() -> Iterator[object]:
        try:
            for number, answer in ahead(source(), ask, at_once):
                try:
                    yield number, answer()
                except ValueError as error:
                    yield number, str(error)
        except OSError as error:
            yield str(error)

    expected: list[object] = [(each, "nine" if each == 9 else -each) for each in numbers]
    if breaks_at is not None and breaks_at < len(numbers):
        expected[breaks_at:] = ["broke off"]
    assert list(take()) == expected


@pytest.mark.parametrize("at_once", [1, 3])
def test_so_many_are_in_work_and_one_more_is_read(at_once: int) -> None:
    together = threading.Barrier(at_once)
    read = 0

    def source() -> Iterator[int]:
        nonlocal read
        for number in range(6 * at_once):
            read += 1
            yield number

    def ask(number: int) -> int:
        together.wait(timeout=60)  # breaks unless so many are in work at a time
        return number

    for number, answer in ahead(source(), ask, at_once):
        assert answer() == number
        assert read <= number + at_once + 1
    assert read == 6 * at_once


def test_who_stops_early_leaves_no_thread_and_drops_what_waits() -> None:
    asked = []
    before = set(threading.enumerate())
    answers = ahead(range(100), asked.append, 2)
    for number, answer in answers:
        answer()
        if number == 3:
            break
    answers.close()
    assert set(threading.enumerate()) <= before
    assert len(asked) <= 3 + 1 + 3
