# SPDX-License-Identifier: Apache-2.0
"""Recordings in which nobody is recognised: which topics show pictures, and frames that wait.

A detector misses people in single frames. So a frame is covered wherever people were found a short
time before it or will be found a short time after it, and a person with one id before and after a
gap is covered on the way between, and a short time before the first and after the last image with
the id, as far as they walk in it: frames wait for the ones that follow. Cuts change nothing: what
is found before and after one covers both sides of it for that short time, rather too much than too
little, and the tracker gives nobody the id of somebody before a cut.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from bmp_ros.covering import WINDOW_S, Patch, between, union

GAP_S = 1.0
"""Seconds in which the tracker may miss a person whom it knows before and after."""
# Names as in definitions, too: sensor_msgs/Image, sensor_msgs/msg/Image, sensor_msgs::msg::Image.
_SHOWS_PICTURES = re.compile(
    r"\b\w+(?:/|::)(?:msg(?:/|::))?\w*(?:Image|Video|Packet|PacketMsg|PointCloud2?)\b"
)
_COMMENT = re.compile(r"#.*")

Item = TypeVar("Item")


def shows_pictures(kind: str, definition: str | None) -> bool:
    """Whether messages of a type may hold images, video or point clouds, anywhere within.

    By the names of the type and of all types in its definition: sensor_msgs' Image,
    CompressedImage, PointCloud and PointCloud2 (which may have colours), CompressedPointCloud2 of
    point_cloud_interfaces, DisparityImage of stereo_msgs, packets of theora, FFmpeg, Foxglove and
    lidars. definition: as .msg or .idl, with those of the nested types. A type whose definition is
    not known (None) may hold anything.
    """
    if definition is None:
        return True
    names = f"{kind}\n{_COMMENT.sub('', definition)}"
    return _SHOWS_PICTURES.search(names) is not None


@dataclass
class _Cover:
    """Of one frame, packed bits: own: of the people found in it. filled: of those whom the
    tracker knows before and after it."""

    at_ns: int
    size: tuple[int, int]
    own: np.ndarray
    filled: np.ndarray


@dataclass(frozen=True)
class _Sighting:
    at_ns: int
    number: int
    size: tuple[int, int]
    patch: Patch


class WaitingFrames(Generic[Item]):
    """Frames that wait until everyone found shortly after them is known.

    window_ns: how long before and after it a person covers a frame; the frames next to it cover
    it up to ``gap_ns`` away, as there may be few in a second. gap_ns: how long a person with an id
    may be missed.
    """

    def __init__(self, window_ns: int = int(WINDOW_S * 1e9), gap_ns: int = int(GAP_S * 1e9)):
        self._window_ns, self._gap_ns = window_ns, max(gap_ns, window_ns)
        self._past: deque[_Cover] = deque()  # of frames given out, near to those that wait
        self._waiting: deque[_Cover] = deque()
        self._items: deque[Item] = deque()
        self._seen: dict[int, deque[_Sighting]] = {}  # by id, of the last window; at least one
        self._begun: dict[int, _Sighting] = {}  # the first of an id whose speed is not known yet
        self._number = -1

    def add(
        self,
        at_ns: int,
        item: Item,
        size: tuple[int, int],
        patches: Sequence[Patch],
        ids: Sequence[int],
    ) -> Iterator[tuple[Item, np.ndarray]]:
        """Keep one more frame; give those that waited long enough, with what covers them.

        at_ns: does not decrease. size: (H, W). patches: of its people, ids: theirs, -1 without.
        What covers a frame is (H, W) bool. Frames of another size than a frame's (the camera's
        mode changed) do not count for it.
        """
        self._number += 1
        own = np.packbits(union(patches, size))
        self._waiting.append(_Cover(at_ns, size, own, np.zeros_like(own)))
        self._items.append(item)
        for patch, person in zip(patches, ids, strict=True):
            if person >= 0:
                self._sight(person, _Sighting(at_ns, self._number, size, patch))
        for person, seen in list(self._seen.items()):
            if at_ns - seen[-1].at_ns > self._gap_ns:
                del self._seen[person]
                self._begun.pop(person, None)
            elif seen[-1].number < self._number and at_ns - seen[-1].at_ns <= self._window_ns:
                # Two sightings that are next to each other tell no speed.
                if seen[-1].at_ns - seen[0].at_ns >= self._window_ns // 3:
                    self._fill(seen[0], seen[-1], self._waiting[-1])
        while self._waiting and self._waiting[0].at_ns < at_ns - self._gap_ns:
            yield self._next()

    def rest(self) -> Iterator[tuple[Item, np.ndarray]]:
        """Give all frames that still wait."""
        while self._waiting:
            yield self._next()

    def _sight(self, person: int, now: _Sighting) -> None:
        """A person with an id: cover the way here in the frames since the last sighting, and, when
        their speed is known, the way to the first one."""
        seen = self._seen.setdefault(person, deque())
        if seen and now.at_ns - seen[-1].at_ns <= self._gap_ns:
            for frame in self._frames(seen[-1].number + 1, now.number):
                self._fill(seen[-1], now, frame)
        elif not seen:
            self._begun[person] = now
        seen.append(now)
        while now.at_ns - seen[0].at_ns > self._window_ns:
            seen.popleft()
        first = self._begun.get(person)
        if first is not None and now.at_ns - first.at_ns >= self._window_ns // 2:
            del self._begun[person]
            for frame in self._frames(0, first.number):
                if first.at_ns - frame.at_ns <= self._window_ns:
                    self._fill(first, now, frame)

    def _frames(self, first: int, stop: int) -> Iterator[_Cover]:
        """Those of the frames with these numbers that still wait."""
        waits = self._number - len(self._waiting) + 1  # number of the frame that waits longest
        for number in range(max(first, waits), stop):
            yield self._waiting[number - waits]

    def _fill(self, a: _Sighting, b: _Sighting, frame: _Cover) -> None:
        """Cover a person of two sightings in a frame between them, before or after both."""
        if a.size == b.size == frame.size and b.at_ns > a.at_ns:
            share = (frame.at_ns - a.at_ns) / (b.at_ns - a.at_ns)
            frame.filled |= np.packbits(union(between(a.patch, b.patch, share), frame.size))

    def _next(self) -> tuple[Item, np.ndarray]:
        frame = self._waiting.popleft()
        bits = frame.own | frame.filled
        neighbours = [*list(self._past)[-1:], *list(self._waiting)[:1]]
        for each in [*self._past, *self._waiting]:
            reach = self._gap_ns if any(each is n for n in neighbours) else self._window_ns
            if each.size == frame.size and abs(each.at_ns - frame.at_ns) <= reach:
                bits |= each.own
        self._past.append(frame)
        while len(self._past) > 1 and self._past[0].at_ns < frame.at_ns - self._window_ns:
            self._past.popleft()
        count = frame.size[0] * frame.size[1]
        covered = np.unpackbits(bits, count=count).view(np.bool_).reshape(frame.size)
        return self._items.popleft(), covered
