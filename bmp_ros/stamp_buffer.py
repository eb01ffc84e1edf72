# SPDX-License-Identifier: Apache-2.0
"""``StampBuffer``: the last messages of a topic, found by stamp in whatever order they came.

The pairing that message_filters offers as well (its Cache finds neighbours in time). This one
needs no ROS, knows what to do with equal stamps, and can forget what a clock that jumped back has
made newer than now.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class StampBuffer(Generic[Item]):
    """At most ``capacity`` items with stamps in nanoseconds; who came first goes first.

    most_bytes: that all items, which have a length then, may have together; the newest is kept in
    any case. All stamps are whole numbers of any sign. Not for several threads at once.
    """

    def __init__(self, capacity: int, most_bytes: int | None = None) -> None:
        self._capacity = capacity
        self._most_bytes = most_bytes
        self._arrivals: deque[tuple[int, int]] = deque()  # (stamp, number), as they came
        self._ordered: list[tuple[int, int]] = []  # the same by stamp, then by arrival
        self._items: dict[int, Item] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._ordered)

    def put(self, stamp_ns: int, item: Item) -> None:
        """Keep one more item, instead of the one that came first if there is no room."""
        entry = (stamp_ns, self._count)
        self._count += 1
        insort(self._ordered, entry)
        self._arrivals.append(entry)
        self._items[entry[1]] = item
        while len(self._arrivals) > self._capacity or self._too_large():
            oldest = self._arrivals.popleft()
            del self._ordered[bisect_left(self._ordered, oldest)]
            del self._items[oldest[1]]

    def nearest(self, stamp_ns: int, slop_ns: int | None = None) -> tuple[int, Item] | None:
        """Stamp and item nearest to a stamp; of equally near ones the newest arrival.

        slop_ns: the most that both may be apart, 0 for the very same stamp, None for any.
        """
        after = bisect_left(self._ordered, (stamp_ns, -1))
        near = self._ordered[after : after + 1] + self._ordered[max(after - 1, 0) : after]
        if not near:
            return None
        least = min(abs(stamp - stamp_ns) for stamp, _ in near)
        if slop_ns is not None and least > slop_ns:
            return None
        ties = [self._last_of(stamp_ns + side) for side in (least, -least)]
        stamp, number = max((tie for tie in ties if tie is not None), key=lambda tie: tie[1])
        return stamp, self._items[number]

    def drop_newer(self, stamp_ns: int) -> int:
        """Forget what has a stamp above ``stamp_ns``; return how many that were."""
        return self._keep([entry for entry in self._arrivals if entry[0] <= stamp_ns])

    def drop_older(self, stamp_ns: int) -> int:
        """Forget what has a stamp up to and including ``stamp_ns``; return how many that were."""
        return self._keep([entry for entry in self._arrivals if entry[0] > stamp_ns])

    def drop_stamp(self, stamp_ns: int) -> int:
        """Forget what has exactly this stamp; return how many that were."""
        return self._keep([entry for entry in self._arrivals if entry[0] != stamp_ns])

    def clear(self) -> None:
        self._keep([])

    def _too_large(self) -> bool:
        if self._most_bytes is None or len(self._items) < 2:
            return False
        return sum(map(len, self._items.values())) > self._most_bytes  # type: ignore[arg-type]

    def _last_of(self, stamp_ns: int) -> tuple[int, int] | None:
        """The newest arrival among those with exactly this stamp."""
        at = bisect_left(self._ordered, (stamp_ns + 1, -1)) - 1
        return self._ordered[at] if at >= 0 and self._ordered[at][0] == stamp_ns else None

    def _keep(self, entries: list[tuple[int, int]]) -> int:
        dropped = len(self._ordered) - len(entries)
        self._arrivals, self._ordered = deque(entries), sorted(entries)
        self._items = {number: self._items[number] for _, number in entries}
        return dropped
