# SPDX-License-Identifier: Apache-2.0
"""Images and boxes of two topics find each other; no ROS is needed for that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.ros.box_pairing import MOST_IMAGES, BoxPairing, Pair

S = 10**9


def pairing(slop_s: float = 0.0, wait_s: float = 1.0) -> BoxPairing[str, str]:
    return BoxPairing(slop_s, wait_s)


def test_boxes_come_after_their_image_or_before_it() -> None:
    pairs = pairing()
    assert pairs.add_image(1 * S, "image 1", 0.0) is None
    assert pairs.add_boxes(2 * S, "boxes 2") is None
    assert pairs.add_boxes(1 * S, "boxes 1") == Pair("image 1", "boxes 1", 0)
    assert pairs.add_image(2 * S, "image 2", 0.1) == Pair("image 2", "boxes 2", 0)
    assert pairs.overdue(10.0) is None, "nothing waits any more"


def test_stamps_are_the_same_or_within_the_slop() -> None:
    exact, near = pairing(), pairing(slop_s=0.02)
    for pairs in (exact, near):
        assert pairs.add_image(1 * S, "image", 0.0) is None
    assert exact.add_boxes(1 * S + 1, "boxes") is None
    assert near.add_boxes(1 * S + 30_000_000, "boxes") is None
    assert near.add_boxes(1 * S - 20_000_000, "boxes") == Pair("image", "boxes", 0)


def test_images_before_one_with_boxes_are_passed_over() -> None:
    pairs = pairing()
    for stamp in (1, 2, 3, 4):
        assert pairs.add_image(stamp * S, f"image {stamp}", 0.0) is None
    assert pairs.add_boxes(3 * S, "boxes") == Pair("image 3", "boxes", 2)
    assert pairs.overdue(1.0) == Pair("image 4", None, 0)


def test_images_wait_no_longer_than_asked() -> None:
    pairs = pairing(wait_s=0.5)
    assert pairs.add_image(1 * S, "image 1", 10.0) is None
    assert pairs.add_image(2 * S, "image 2", 10.2) is None
    assert pairs.overdue(10.4) is None
    assert pairs.overdue(10.6) == Pair("image 1", None, 0)
    assert pairs.add_boxes(1 * S, "late") is None
    assert pairs.add_image(3 * S, "image 3", 10.6) is None
    assert pairs.overdue(12.0) == Pair("image 3", None, 1), "the newest"
    assert pairs.overdue(99.0) is None


def test_no_more_wait_than_there_is_room_for() -> None:
    pairs = pairing(wait_s=60.0)
    for stamp in range(MOST_IMAGES + 3):
        assert pairs.add_image(stamp * S, f"image {stamp}", 0.0) is None
    assert pairs.overdue(0.1) == Pair("image 2", None, 2)
    assert pairs.forget_images() == MOST_IMAGES
    assert pairs.overdue(100.0) is None


def test_stamps_that_jump_back_take_their_boxes_along() -> None:
    pairs = pairing()
    pairs.add_boxes(5 * S, "of the last run")
    pairs.drop_newer_boxes(1 * S)
    assert pairs.add_image(5 * S, "image", 0.0) is None


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.floats(0, 0.4)), max_size=60),
    st.sampled_from([0.0, 1.0]),
)
def test_every_image_is_handed_on_once_or_passed_over(
    events: list[tuple[bool, int, float]], slop_s: float
) -> None:
    """Whatever the order: none is lost, none comes twice, pairs are within the slop."""
    pairs: BoxPairing[tuple[int, int], int] = BoxPairing(slop_s, 1.0)
    now, taken, images, passed_over = 0.0, [], 0, 0
    for is_image, stamp, step in events:
        now += step
        found = [pairs.overdue(now)]
        if is_image:
            found.append(pairs.add_image(stamp * S, (images, stamp), now))
            images += 1
        else:
            found.append(pairs.add_boxes(stamp * S, stamp))
        for pair in found:
            if pair is not None:
                taken.append(pair.image[0])
                passed_over += pair.passed_over
                assert pair.passed_over >= 0
                assert pair.boxes is None or abs(pair.boxes - pair.image[1]) <= slop_s
    assert len(set(taken)) == len(taken)
    assert len(taken) + passed_over + pairs.forget_images() == images
