# SPDX-License-Identifier: Apache-2.0
"""Topics overtake each other and lose messages: what belongs together is still shown together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.loop.people import People
from bmp_ros.viewing.gathering import Gathering
from bmp_ros.viewing.moment import PeopleInSpace

NOBODY = People.empty(4, 4)


def space(count: int = 0) -> PeopleInSpace:
    return PeopleInSpace(np.zeros((count, 17, 3)), np.zeros((count, 3)))


@given(st.permutations([(kind, stamp) for kind in ("people", "image") for stamp in range(6)]))
def test_whatever_the_order_each_has_its_image(order: list[tuple[str, int]]) -> None:
    gathering: Gathering[int] = Gathering()
    shown = []
    gathering.add_image(-1, -1)  # images are known to come
    for kind, stamp in order:
        if kind == "people":
            gathering.add_people(stamp, NOBODY)
        else:
            gathering.add_image(stamp, stamp)
        shown += list(gathering.take())
    shown += list(gathering.take(all_of_it=True))
    assert sorted(each.stamp_ns for each in shown) == list(range(6)), "each once"
    # Without its image is only who was overtaken: shown when a later one was complete.
    assert all(each.image in (each.stamp_ns, None) for each in shown)
    in_order = [each.stamp_ns for each in shown]
    first_people = [stamp for kind, stamp in order if kind == "people"]
    assert in_order == first_people


def test_lost_images_and_places_do_not_stop_the_rest() -> None:
    gathering: Gathering[int] = Gathering()
    gathering.add_image(0, 0)
    gathering.add_space(0, space())
    gathering.add_people(0, NOBODY)
    (first,) = gathering.take()
    assert first.image == 0 and first.in_space is not None
    gathering.add_people(1, NOBODY)
    assert not list(gathering.take()), "it waits for image and places"
    gathering.add_people(2, NOBODY)
    gathering.add_image(2, 2)
    assert not list(gathering.take())
    gathering.add_space(2, space())
    lost, complete = gathering.take()
    assert (lost.stamp_ns, lost.image, lost.in_space) == (1, None, None)
    assert (complete.stamp_ns, complete.image) == (2, 2)


def test_people_without_any_image_are_shown_at_once() -> None:
    gathering: Gathering[int] = Gathering()
    gathering.add_people(5, NOBODY)
    assert [each.stamp_ns for each in gathering.take()] == [5]


def test_no_more_than_some_wait_and_images_without_people_are_forgotten() -> None:
    gathering: Gathering[bytes] = Gathering()
    for stamp in range(1000):
        gathering.add_image(-1 - stamp, b"image")
        gathering.add_people(stamp, NOBODY)
        list(gathering.take())
    assert len(gathering._people) <= 20 and len(gathering._images) <= 40


def test_places_of_other_people_are_left_out() -> None:
    gathering: Gathering[int] = Gathering()
    gathering.add_space(1, space(2))
    gathering.add_people(1, NOBODY)
    (gathered,) = gathering.take()
    assert gathered.in_space is None
