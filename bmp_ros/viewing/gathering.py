# SPDX-License-Identifier: Apache-2.0
"""``Gathering``: image, people and people in space that belong together, by their stamp."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from bmp_ros.loop.people import People
from bmp_ros.viewing.moment import PeopleInSpace

Image = TypeVar("Image")
_WAITING, _IMAGES = 20, 40


@dataclass(frozen=True)
class Gathered(Generic[Image]):
    """image: as it was added, None if it did not come; in_space likewise."""

    stamp_ns: int
    people: People
    image: Image | None
    in_space: PeopleInSpace | None


class Gathering(Generic[Image]):
    """Messages of several topics overtake each other, and some never come.

    People wait for their image and their places in space, where there have been any before, until
    those of a later stamp are complete or `_WAITING` of them wait. Images without people, which a
    node that is busy leaves out, are forgotten.
    """

    def __init__(self) -> None:
        self._people: dict[int, People] = {}
        self._images: dict[int, Image] = {}
        self._spaces: dict[int, PeopleInSpace] = {}
        self._has_images = self._has_spaces = False

    def add_people(self, stamp_ns: int, people: People) -> None:
        self._people[stamp_ns] = people

    def add_image(self, stamp_ns: int, image: Image) -> None:
        self._has_images = True
        _keep(self._images, stamp_ns, image)

    def add_space(self, stamp_ns: int, in_space: PeopleInSpace) -> None:
        self._has_spaces = True
        _keep(self._spaces, stamp_ns, in_space)

    def take(self, *, all_of_it: bool = False) -> Iterator[Gathered[Image]]:
        """What is complete or was overtaken, in the order in which people came; each once."""
        stamps = list(self._people)
        complete = [index for index, stamp in enumerate(stamps) if self._is_complete(stamp)]
        last = max([*complete, len(stamps) - _WAITING - 1], default=-1)
        for stamp in stamps if all_of_it else stamps[: last + 1]:
            people = self._people.pop(stamp)
            space = self._spaces.pop(stamp, None)
            if space is not None and len(space.keypoints) != len(people):
                space = None  # a deactivation says once more, of the same image, that it is empty
            yield Gathered(stamp, people, self._images.pop(stamp, None), space)

    def _is_complete(self, stamp: int) -> bool:
        return (not self._has_images or stamp in self._images) and (
            not self._has_spaces or stamp in self._spaces
        )


Value = TypeVar("Value")


def _keep(store: dict[int, Value], stamp_ns: int, value: Value) -> None:
    store[stamp_ns] = value
    while len(store) > _IMAGES:
        del store[next(iter(store))]
