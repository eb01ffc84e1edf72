# SPDX-License-Identifier: Apache-2.0
"""People through messages: lossless masks, every number, other skeletons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import MULTI_21, Skeleton
from bmp_ros.received_people import people_from_message
from bmp_ros.ros.interfaces import PersonArray
from bmp_ros.ros.person_messages import person_array
from bmp_ros.ros.publishers import label_image


def through_the_wire(people: People, header: Header | None = None) -> tuple[PersonArray, People]:
    sent = person_array(header or Header(), people)
    received = deserialize_message(serialize_message(sent), PersonArray)
    return received, people_from_message(received)


def people_with_masks(masks: np.ndarray, skeleton: Skeleton = MULTI_21) -> People:
    rng = np.random.default_rng(len(masks))
    count = len(masks)
    boxes = rng.uniform(0, 100, (count, 4)).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    people = People.from_boxes(
        boxes, rng.random(count, np.float32), *masks.shape[1:], skeleton, masks=masks
    )
    shape = (count, len(skeleton))
    return People(
        **{
            **{name: getattr(people, name) for name in people.__dataclass_fields__},
            "keypoints": rng.normal(0, 500, (*shape, 2)).astype(np.float32),
            "keypoint_scores": rng.random(shape, np.float32),
            "presence": rng.random(shape, np.float32),
            "track_ids": np.arange(count, dtype=np.int32) - 1,
        }
    )


@given(arrays.arrays(np.bool_, arrays.array_shapes(min_dims=3, max_dims=3, min_side=0)))
def test_masks_are_bit_exact(masks: np.ndarray) -> None:
    _, received = through_the_wire(people_with_masks(masks))
    np.testing.assert_array_equal(received.masks, masks)


def holes() -> np.ndarray:
    mask = np.ones((9, 9), np.bool_)
    mask[2:7:2, 2:7:2] = False
    return mask


def one_pixel(row: int, column: int) -> np.ndarray:
    mask = np.zeros((9, 9), np.bool_)
    mask[row, column] = True
    return mask


@pytest.mark.parametrize(
    "mask",
    [holes(), np.ones((9, 9), np.bool_), np.zeros((9, 9), np.bool_), one_pixel(0, 0),
     one_pixel(8, 8), one_pixel(4, 0)],
    ids=["holes", "full", "empty", "first_pixel", "last_pixel", "border"],
)  # fmt: skip
def test_run_lengths_round_trip_and_area(mask: np.ndarray) -> None:
    message, received = through_the_wire(people_with_masks(mask[None]))
    np.testing.assert_array_equal(received.masks[0], mask)
    sent = message.people[0].mask
    assert sum(sent.counts[1::2]) == mask.sum()
    assert sum(sent.counts) == sent.width * sent.height


def test_every_number_arrives() -> None:
    people = people_with_masks(np.ones((3, 4, 5), np.bool_))
    header = Header(frame_id="left")
    header.stamp.sec, header.stamp.nanosec = 7, 8
    message, received = through_the_wire(people, header)
    assert message.header == header
    assert received.skeleton == MULTI_21
    for name in ("scores", "keypoints", "keypoint_scores", "visibility", "presence", "track_ids"):
        np.testing.assert_array_equal(getattr(received, name), getattr(people, name), name)
    np.testing.assert_allclose(received.boxes, people.boxes, rtol=1e-5)
    assert all(np.isnan(person.track_age) for person in message.people)


def test_ages_of_tracks_arrive() -> None:
    people = people_with_masks(np.ones((3, 4, 5), np.bool_))
    sent = person_array(Header(), people, np.array([np.nan, 0.0, 12.25]))
    received = deserialize_message(serialize_message(sent), PersonArray)
    np.testing.assert_array_equal([p.track_age for p in received.people], [np.nan, 0.0, 12.25])


def test_nobody() -> None:
    message, received = through_the_wire(People.empty(48, 64))
    assert (message.height, message.width, list(message.people)) == (48, 64, [])
    assert received.image_size == (48, 64)


def test_skeleton_of_somebody_else() -> None:
    skeleton = Skeleton("mine", tuple("abc"), ((0, 1), (1, 2)), (), ())
    _, received = through_the_wire(people_with_masks(np.zeros((1, 2, 2), np.bool_), skeleton))
    assert received.skeleton.names == ("a", "b", "c")
    assert received.skeleton.edges == ((0, 1), (1, 2))


def test_contradictions_are_refused() -> None:
    message, _ = through_the_wire(people_with_masks(np.ones((1, 4, 5), np.bool_)))
    message.people[0].mask.counts[1] += 1
    with pytest.raises(ValueError, match="run lengths"):
        people_from_message(message)
    message, _ = through_the_wire(people_with_masks(np.ones((1, 4, 5), np.bool_)))
    message.people[0].keypoints = message.people[0].keypoints[:-1]
    with pytest.raises(ValueError, match="person 0 has 20 keypoints"):
        people_from_message(message)


def test_label_image_of_many_people_has_16_bits() -> None:
    masks = np.eye(300, dtype=np.bool_).reshape(300, 15, 20)
    message = label_image(Header(), people_with_masks(masks))
    assert message.encoding == "mono16"
    numbers = np.frombuffer(message.data, np.uint16)
    np.testing.assert_array_equal(numbers, np.arange(1, 301))
