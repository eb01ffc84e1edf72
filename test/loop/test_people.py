# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scripted import assert_same_people

from bmp_ros.loop import People
from bmp_ros.loop.skeletons import COCO_17, MULTI_21, MULTI_23, Skeleton

ARRAYS = [field.name for field in fields(People) if field.name != "skeleton"]
numbers = st.floats(-1e6, 1e6, width=32)
unknown_or_unit = st.floats(0, 1, width=32) | st.just(float("nan"))


@st.composite
def some_people(draw: st.DrawFn, skeleton: Skeleton | None = None, size: int = 6) -> People:
    skeleton = skeleton or draw(st.sampled_from([COCO_17, MULTI_21, MULTI_23]))
    count, joints = draw(st.integers(0, 3)), len(skeleton)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    special = draw(
        arrays(np.float32, (count, joints), elements=unknown_or_unit, fill=st.just(0.5))
    )
    return People(
        boxes=rng.uniform(0, 50, (count, 4)).astype(np.float32),
        scores=draw(arrays(np.float32, count, elements=numbers)),
        pose_scores=rng.random(count, np.float32),
        mask_scores=rng.random(count, np.float32),
        keypoints=draw(arrays(np.float32, (count, joints, 2), elements=numbers, fill=st.just(7))),
        keypoint_scores=rng.random((count, joints), np.float32),
        visibility=special,
        presence=np.full((count, joints), np.nan, np.float32),
        masks=rng.random((count, size, 5)) < 0.3,
        raw_masks=rng.random((count, size, 5)) < rng.random(),
        has_mask=rng.random(count) < 0.5,
        iterations=rng.integers(1, 4, count).astype(np.int32),
        track_ids=rng.integers(-1, 2**31 - 1, count).astype(np.int32),
        skeleton=skeleton,
    )


def three_people() -> People:
    people = People.from_boxes(np.eye(3, 4, dtype=np.float32), np.arange(3.0), 4, 5)
    return replace(people, track_ids=np.array([7, 8, 9], np.int32))


def test_empty() -> None:
    nobody = People.empty(4, 5, MULTI_23)
    assert len(nobody) == 0 and nobody.image_size == (4, 5)
    assert nobody.boxes.shape == (0, 4) and nobody.masks.shape == (0, 4, 5)
    assert nobody.keypoints.shape == (0, 23, 2)
    assert list(nobody) == []


def test_from_boxes_knows_nothing_else() -> None:
    people = three_people()
    assert people.scores.dtype == np.float32 and people.iterations.tolist() == [1, 1, 1]
    assert not people.masks.any() and not people.keypoint_scores.any()
    assert np.isnan(people.visibility).all() and np.isnan(people.presence).all()
    many = People.from_boxes(np.zeros((1000, 4)), np.zeros(1000), 2160, 3840)
    assert many.masks.strides == (0, 0, 0), "eight gigabytes of nothing take no memory"


@pytest.mark.parametrize("name", ARRAYS)
def test_every_array_is_checked(name: str) -> None:
    people = three_people()
    value = getattr(people, name)
    with pytest.raises(ValueError, match=rf"People.{name} must have shape .* got shape"):
        replace(people, **{name: value[..., None]})
    with pytest.raises(ValueError, match="People.* must have shape .* got shape"):
        replace(people, **{name: value[:2]})
    with pytest.raises(ValueError, match=rf"People.{name} must have .*dtype {value.dtype}.*"):
        replace(people, **{name: value.astype(np.float64)})


def test_number_of_joints_is_that_of_the_skeleton() -> None:
    with pytest.raises(ValueError, match=r"keypoints must have shape \(3, 21, 2\).*multi_21"):
        replace(three_people(), skeleton=MULTI_21)


@pytest.mark.parametrize(
    "rows, expected",
    [
        (0, [7]),
        (-1, [9]),
        (np.int64(1), [8]),
        (slice(1, None), [8, 9]),
        (slice(None, None, -1), [9, 8, 7]),
        ([2, 0, 2], [9, 7, 9]),
        ([], []),
        (np.array([2, 1]), [9, 8]),
        (np.array([True, False, True]), [7, 9]),
        ([False, True, False], [8]),
        (np.zeros(3, np.bool_), []),
    ],
)
def test_selection(rows: Any, expected: list[int]) -> None:
    people = three_people()
    chosen = people[rows]
    assert chosen.track_ids.tolist() == expected
    assert chosen.image_size == (4, 5) and chosen.skeleton is COCO_17
    np.testing.assert_array_equal(chosen.boxes, people.boxes[np.array(expected, int) - 7])


def test_selection_that_is_refused() -> None:
    people = three_people()
    for outside in (3, -4):
        with pytest.raises(IndexError, match=f"person {outside} of 3"):
            people[outside]
    with pytest.raises(IndexError):
        people[[0, 3]]
    with pytest.raises(IndexError):
        people[np.array([True, False])]
    with pytest.raises(IndexError):
        people[[0.5]]


def test_iteration_gives_one_person_after_the_other() -> None:
    ones = list(three_people())
    assert [len(one) for one in ones] == [1, 1, 1]
    assert [one.track_ids.item() for one in ones] == [7, 8, 9]


@given(st.data())
def test_concatenation(data: st.DataObject) -> None:
    parts = data.draw(st.lists(some_people(COCO_17), min_size=1, max_size=3))
    together = People.concatenate(parts)
    assert len(together) == sum(map(len, parts))
    start = 0
    for part in parts:
        assert_same_people(together[start : start + len(part)], part)
        start += len(part)


def test_concatenation_that_is_refused() -> None:
    nobody = People.empty(4, 5)
    with pytest.raises(ValueError, match="at least one part"):
        People.concatenate([])
    with pytest.raises(ValueError, match="0 in 6x4.*0 in 5x4.*must agree"):
        People.concatenate([nobody, People.empty(4, 6)])
    with pytest.raises(ValueError, match="multi_21.*coco_17.*must agree"):
        People.concatenate([nobody, People.empty(4, 5, MULTI_21)])


def test_fields_cannot_be_replaced_in_place() -> None:
    with pytest.raises(AttributeError):
        three_people().boxes = np.zeros((3, 4), np.float32)  # type: ignore[misc]


def test_repr() -> None:
    people = three_people()
    assert repr(people[:0]) == "People(0 in 5x4, coco_17)"
    mixed = replace(people, iterations=np.array([1, 2, 2], np.int32))
    assert repr(mixed) == "People(3 in 5x4, coco_17: 1 in iteration 1, 2 in iteration 2)"
