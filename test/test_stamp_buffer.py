# SPDX-License-Identifier: Apache-2.0
"""Messages found by stamp, against a search through all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.stamp_buffer import StampBuffer

STAMPS = st.one_of(st.integers(-30, 30), st.integers(-(2**63), 2**63))


@given(
    st.lists(STAMPS, max_size=25),
    st.lists(st.tuples(STAMPS, st.none() | st.integers(0, 40)), min_size=1, max_size=8),
    st.integers(1, 12),
)
def test_nearest_of_all_that_are_kept(
    stamps: list[int], asked: list[tuple[int, int | None]], capacity: int
) -> None:
    buffer: StampBuffer[int] = StampBuffer(capacity)
    for arrival, stamp in enumerate(stamps):
        buffer.put(stamp, arrival)
    kept = list(enumerate(stamps))[-capacity:]
    assert len(buffer) == len(kept)
    for wanted, slop in asked:
        # Least apart; of equally near ones who came last.
        near = [(abs(s - wanted), -arrival, s, arrival) for arrival, s in kept]
        near = [each for each in near if slop is None or each[0] <= slop]
        expected = min(near)[2:] if near else None
        assert buffer.nearest(wanted, slop) == expected


@given(st.lists(STAMPS, max_size=25), STAMPS, STAMPS)
def test_what_is_dropped_is_not_found_again(stamps: list[int], limit: int, one: int) -> None:
    buffer: StampBuffer[int] = StampBuffer(12)
    for arrival, stamp in enumerate(stamps):
        buffer.put(stamp, arrival)
    kept = stamps[-12:]
    assert buffer.drop_newer(limit) == sum(stamp > limit for stamp in kept)
    kept = [stamp for stamp in kept if stamp <= limit]
    assert buffer.drop_stamp(one) == kept.count(one)
    kept = [stamp for stamp in kept if stamp != one]
    assert len(buffer) == len(kept)
    found = buffer.nearest(limit)
    assert (found is None) == (not kept) and (found is None or found[0] == max(kept))
    buffer.put(one, -1)  # and it goes on
    assert buffer.nearest(one, 0) == (one, -1)
    buffer.clear()
    assert buffer.nearest(one) is None and not len(buffer)


def test_depth_that_overtook_depth() -> None:
    buffer: StampBuffer[str] = StampBuffer(40)
    for milliseconds in (0, 100, 50):
        buffer.put(milliseconds * 10**6, f"{milliseconds} ms")
    assert buffer.nearest(103 * 10**6) == (100 * 10**6, "100 ms")
