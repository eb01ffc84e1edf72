# SPDX-License-Identifier: Apache-2.0
"""Images and boxes of two topics find each other; no ROS is needed for that."""

from __future__ import annotations

import pytest
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


def test_boxes_that_wait_have_no_more_bytes_than_allowed() -> None:
    pairs: BoxPairing[str, bytes] = BoxPairing(0.0, 1.0, most_box_bytes=100)
    for stamp in range(1, 5):
        pairs.add_boxes(stamp * S, bytes(40))
    assert pairs.add_image(2 * S, "image 2", 0.0) is None, "its boxes made room"
    assert pairs.add_image(3 * S, "image 3", 0.0) == Pair("image 3", bytes(40), 1)
    pairs.add_boxes(5 * S, bytes(1000))
    assert pairs.add_image(4 * S, "image 4", 0.0) is None
    assert pairs.add_image(5 * S, "image 5", 0.0) == Pair("image 5", bytes(1000), 1)


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


# ---------------------------------------------------------------- and message_filters'

MS = 10**6
Event = tuple[str, int]
"""Which topic a message comes on, image or boxes, and its stamp in milliseconds."""
CASES: dict[str, tuple[float, list[Event], list[tuple[int, int]]]] = {
    "boxes after their image": (
        0.0, [("image", 0), ("boxes", 0), ("image", 33), ("boxes", 33)], [(0, 0), (33, 33)],
    ),
    "boxes before their image": (
        0.0, [("boxes", 0), ("image", 0), ("boxes", 33), ("image", 33)], [(0, 0), (33, 33)],
    ),
    "boxes two images late": (
        0.0,
        [("image", 0), ("image", 33), ("boxes", 0), ("image", 66), ("boxes", 33), ("boxes", 66)],
        [(0, 0), (33, 33), (66, 66)],
    ),
    "an image without boxes": (
        0.0, [("image", 0), ("image", 33), ("boxes", 33), ("image", 66)], [(33, 33)],
    ),
    "boxes without an image": (
        0.0, [("boxes", 0), ("image", 33), ("boxes", 33), ("boxes", 66)], [(33, 33)],
    ),
    "near is not the same": (0.0, [("image", 0), ("boxes", 1), ("image", 2)], []),
    "near enough": (
        0.02, [("image", 0), ("boxes", 12), ("image", 100), ("boxes", 91)], [(0, 12), (100, 91)],
    ),
    "not near enough": (0.02, [("image", 0), ("boxes", 30), ("image", 70), ("boxes", 95)], []),
    "the nearest of two": (
        0.02, [("boxes", 0), ("boxes", 15), ("image", 10)], [(10, 15)],
    ),
}  # fmt: skip


def pairs_of_ours(slop_s: float, events: list[Event]) -> list[tuple[int, int]]:
    pairs: BoxPairing[int, int] = BoxPairing(slop_s, wait_s=60.0)
    found = []
    for topic, stamp in events:
        if topic == "image":
            pair = pairs.add_image(stamp * MS, stamp, 0.0)
        else:
            pair = pairs.add_boxes(stamp * MS, stamp)
        if pair is not None:
            found.append((pair.image, pair.boxes))
    return found


def pairs_of_message_filters(slop_s: float, events: list[Event]) -> list[tuple[int, int]]:
    """Of the synchronizers that ROS offers, exact or approximate, on messages with such stamps."""
    reason = "message_filters (the ROS package) is not installed"
    filters = pytest.importorskip("message_filters", reason=reason)
    from std_msgs.msg import Header

    class Stamped:
        def __init__(self, milliseconds: int) -> None:
            self.milliseconds = milliseconds
            self.header = Header()
            self.header.stamp.sec, rest = divmod(milliseconds, 1000)
            self.header.stamp.nanosec = rest * MS

    topics = {"image": filters.SimpleFilter(), "boxes": filters.SimpleFilter()}
    inputs = list(topics.values())
    if slop_s:
        synchronizer = filters.ApproximateTimeSynchronizer(inputs, MOST_IMAGES, slop_s)
    else:
        synchronizer = filters.TimeSynchronizer(inputs, MOST_IMAGES)
    found: list[tuple[int, int]] = []
    synchronizer.registerCallback(
        lambda image, boxes: found.append((image.milliseconds, boxes.milliseconds))
    )
    for topic, stamp in events:
        topics[topic].signalMessage(Stamped(stamp))
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("pairs_of", [pairs_of_ours, pairs_of_message_filters])
def test_pairs_are_those_of_message_filters(pairs_of, case: str) -> None:
    slop_s, events, expected = CASES[case]
    assert pairs_of(slop_s, events) == expected


@pytest.mark.parametrize("pairs_of", [pairs_of_ours, pairs_of_message_filters])
@given(frames=st.lists(st.tuples(st.integers(-8, 8), st.integers(0, 3)), min_size=1, max_size=12))
def test_streams_in_order_give_the_pairs_of_message_filters(
    pairs_of, frames: list[tuple[int, int]]
) -> None:
    """Images at 20 Hz, boxes whose stamps jitter and that come up to three images late."""
    events: list[tuple[float, Event]] = []
    latest = 0.0
    for number, (jitter, late) in enumerate(frames):
        stamp = 1000 + 50 * number
        events.append((number, ("image", stamp)))
        latest = max(latest + 1e-3, number + late + 0.5)  # one topic keeps its order
        events.append((latest, ("boxes", stamp + jitter)))
    expected = [(1000 + 50 * n, 1000 + 50 * n + jitter) for n, (jitter, _) in enumerate(frames)]
    assert pairs_of(0.02, [event for _, event in sorted(events)]) == expected
