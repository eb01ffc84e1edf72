# SPDX-License-Identifier: Apache-2.0
"""Zones: what may be written, who is inside, who came and left."""

from __future__ import annotations

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.interaction.zones import (
    ZoneError,
    ZoneWatch,
    foot_points,
    in_image_zones,
    inside,
    on_the_ground,
    parse_zones,
)
from bmp_ros.loop.people import People

SQUARE = "a: 0 0; 0.5 0; 0.5 0.5; 0 0.5"
shares = st.floats(0, 1, width=32)
points = st.tuples(shares, shares)


def test_both_forms_are_read() -> None:
    door, desk, ring = parse_zones(
        [
            "door: 0.1 0.5; 0.4 0.5; 0.4 1",
            "desk_2 in robot/map: -1e1 0; 3 0; 3 2.5;",
            SQUARE + "; 0 0",
        ]
    )
    assert (door.name, door.frame, door.on_ground) == ("door", "", False)
    assert door.points.tolist() == [[0.1, 0.5], [0.4, 0.5], [0.4, 1.0]]
    assert (desk.name, desk.frame, desk.on_ground) == ("desk_2", "robot/map", True)
    assert desk.points.tolist() == [[-10, 0], [3, 0], [3, 2.5]]
    assert len(ring.points) == 4  # closed as rings are written elsewhere
    assert parse_zones([]) == ()


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["door"], "'door' is no zone: a zone is written as"),
        ([""], "'' is no zone"),
        (["2door: 0 0; 1 0; 1 1"], "is no zone"),
        (["door map: 0 0; 1 0; 1 1"], "is no zone"),
        (["door: 0 0; 1 0"], "'door' has 2 corners, needs 3"),
        (["door: 0 0 0; 1 0; 1 1"], "'door' has the corners '0 0 0; 1 0; 1 1'"),
        (["door: 0,0; 1,0; 1,1"], "'door' has the corners"),
        (["door: 0 a; 1 0; 1 1"], "'door' has the corners"),
        (["door: 0 0; 320 0; 320 240"], "corner 320 0: corners are shares from 0 to 1: divide"),
        (["door: 0 0; nan 0; 1 1"], "corner nan 0"),
        (["door in map: 0 0; inf 0; 1 1"], "corner inf 0: corners are metres"),
        (["door: 0 0; 0.5 0.5; 1 1"], "'door' has no area"),
        (["door: 0 0; 1 1; 1 0; 0 1"], "'door' crosses itself"),
        (["door: 0 0; 1 0; 0.5 0; 0.5 1"], "'door' crosses itself"),
        (["door: 0 0; 1 0; 1 1; 1 0"], "'door' crosses itself"),
        ([SQUARE, SQUARE], "two zones are named 'a'"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(texts: list[str], words: str) -> None:
    with pytest.raises(ZoneError, match=re.escape(words)):
        parse_zones(texts)


@given(st.lists(points, min_size=3, max_size=12), st.lists(points, max_size=20))
def test_inside_agrees_with_opencv_on_convex_polygons(
    corners: list[tuple[float, float]], spots: list[tuple[float, float]]
) -> None:
    hull = cv2.convexHull(np.array(corners, np.float32))[:, 0]
    found = inside(hull.astype(np.float64), np.array(spots).reshape(-1, 2))
    for spot, is_inside in zip(spots, found, strict=True):
        distance = cv2.pointPolygonTest(hull[:, None], spot, True)
        if abs(distance) > 1e-4:  # on the border either is right
            assert is_inside == (distance > 0)


@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.lists(points, min_size=1, max_size=30))
def test_of_zones_that_share_borders_exactly_one_contains_a_point(
    x: float, y: float, spots: list[tuple[float, float]]
) -> None:
    """Four quadrangles around one corner fill the image, whatever is on the border."""
    zones = parse_zones(
        [
            f"a: 0 0; {x!r} 0; {x!r} {y!r}; 0 {y!r}",
            f"b: {x!r} 0; 1 0; 1 {y!r}; {x!r} {y!r}",
            f"c: 0 {y!r}; {x!r} {y!r}; {x!r} 1; 0 1",
            f"d: {x!r} {y!r}; 1 {y!r}; 1 1; {x!r} 1",
        ]
    )
    spots = [*spots, (x, y), (x, 0.0), (1.0, y), (0.0, 0.0), (1.0, 1.0)]
    pixels = np.array(spots) * [64, 48] - 0.5
    assert (in_image_zones(zones, pixels, (48, 64)).sum(axis=0) == 1).all()


@given(st.integers(0, 11), st.booleans(), points)
def test_where_a_polygon_begins_and_which_way_it_goes_does_not_matter(
    start: int, backwards: bool, spot: tuple[float, float]
) -> None:
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    radii = np.where(np.arange(12) % 2, 0.45, 0.15)  # a star: not convex
    star = 0.5 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    other = np.roll(star, start, axis=0)[:: -1 if backwards else 1]
    assert inside(star, np.array([spot])) == inside(other, np.array([spot]))


def test_nan_is_nowhere() -> None:
    (zone,) = parse_zones([SQUARE])
    spots = np.array([[0.2, 0.2], [np.nan, 0.2], [0.2, np.nan], [np.inf, 0.2]])
    assert inside(zone.points, spots).tolist() == [True, False, False, False]


def test_feet_below_the_image_stand_on_its_border() -> None:
    (zone,) = parse_zones(["a: 0 0.5; 1 0.5; 1 1; 0 1"])
    pixels = np.array([[10, 60], [10, 47], [10, 10], [-5, 30]])
    assert in_image_zones([zone], pixels, (48, 64)).tolist() == [[True, True, False, True]]


def test_where_people_stand() -> None:
    boxes = np.array([[10, 10, 30, 40], [40, 10, 60, 44], [10, 10, 30, 40]], np.float32)
    people = People.from_boxes(boxes, np.full(3, 0.9, np.float32), 48, 64)
    keypoints, scores = people.keypoints.copy(), people.keypoint_scores.copy()
    keypoints[0, 15:17] = [[14, 38], [24, 36]]
    scores[0, 15:17] = 0.9
    keypoints[1, 16] = [55, 41]
    scores[1, 16] = 0.5
    people = replace(people, keypoints=keypoints, keypoint_scores=scores)
    assert foot_points(people).tolist() == [[19, 37], [55, 41], [20, 40]]


@given(
    st.floats(-3, 3), st.floats(1, 12), st.floats(-3, 3), st.floats(0.2, 2.5), st.floats(-0.3, 1.2)
)
def test_the_ground_below_a_tilted_camera(
    x: float, ahead: float, yaw: float, height: float, tilt: float
) -> None:
    """A point on the ground, projected and sent back, is where it was."""
    # Optical axes (x right, y down, z ahead) of a camera that looks along x of the world.
    level = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
    down = np.array([[np.cos(tilt), 0, np.sin(tilt)], [0, 1, 0], [-np.sin(tilt), 0, np.cos(tilt)]])
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1.0]])
    rotation, shift = turn @ down @ level, np.array([4.0, -2.0, height])
    world = np.append((turn @ [ahead, x, 0])[:2] + shift[:2], 0.0)
    seen = rotation.T @ (world - shift)
    if seen[2] > 0.05:
        ray = (seen[:2] / seen[2])[None]
        np.testing.assert_allclose(on_the_ground(ray, rotation, shift), world[None, :2], atol=1e-6)
    horizon = rotation.T @ turn @ [1.0, 0.0, 0.1]  # above the horizon there is no ground
    if horizon[2] > 0.05:
        assert np.isnan(on_the_ground((horizon[:2] / horizon[2])[None], rotation, shift)).all()


def reports(watch: ZoneWatch, seen: list[tuple[float, list[int]]], leave_s: float) -> list:
    zones = parse_zones([SQUARE])
    found = []
    for stamp, ids in seen:
        contained = np.ones((1, len(ids)), np.bool_)
        found += watch.update(zones, contained, np.array(ids, np.int32), stamp, leave_s)
    return found


def test_coming_staying_and_leaving() -> None:
    seen = [(0.0, [3]), (0.5, [3, 7, -1]), (1.0, [7]), (1.4, [3]), (2.5, [3]), (3.5, [])]
    found = reports(ZoneWatch(), seen, 1.0)
    assert [each.entered for each in found] == [(3,), (7,), (), (), (), ()]
    assert [each.left for each in found] == [(), (), (), (), (7,), (3,)]
    assert [each.ids for each in found] == [(3,), (3, 7), (3, 7), (3, 7), (3,), ()]
    assert [each.count for each in found] == [1, 3, 2, 2, 1, 0]
    assert found[3].seconds == pytest.approx((1.4, 0.9))


def test_without_patience_a_missed_image_is_an_exit() -> None:
    found = reports(ZoneWatch(), [(0.0, [3]), (0.1, []), (0.2, [3])], 0.0)
    assert [(each.entered, each.left) for each in found] == [((3,), ()), ((), (3,)), ((3,), ())]
    assert found[2].seconds == (0.0,)


def test_time_that_jumps_back_begins_anew_and_small_steps_do_not() -> None:
    watch = ZoneWatch()
    found = reports(watch, [(5.0, [3]), (5.5, [3]), (5.4, [3]), (1.0, [3])], 1.0)
    assert [each.entered for each in found] == [(3,), (), (), (3,)]
    assert [each.seconds for each in found] == [(0.0,), (0.5,), pytest.approx((0.4,)), (0.0,)]


def test_zones_are_watched_apart_and_forgotten_when_they_go() -> None:
    watch = ZoneWatch()
    both = parse_zones([SQUARE, "b: 0.5 0.5; 1 0.5; 1 1"])
    ids = np.array([3, 4], np.int32)
    first = watch.update(both, np.eye(2, dtype=bool), ids, 0.0, 1.0)
    assert [each.ids for each in first] == [(3,), (4,)]
    watch.update(both[:1], np.array([[True, False]]), ids, 0.1, 1.0)
    again = watch.update(both, np.eye(2, dtype=bool), ids, 0.2, 1.0)
    assert [each.entered for each in again] == [(), (4,)]


@given(st.lists(st.sets(st.integers(1, 5)), min_size=1, max_size=12), st.floats(0, 0.5), st.data())
def test_everyone_who_left_had_entered(
    images: list[set[int]], leave_s: float, data: st.DataObject
) -> None:
    steps = data.draw(st.lists(st.floats(0.01, 0.3), min_size=len(images), max_size=len(images)))
    seen = [(float(t), sorted(ids)) for t, ids in zip(np.cumsum(steps), images, strict=True)]
    present: set[int] = set()
    for (_, ids), each in zip(seen, reports(ZoneWatch(), seen, leave_s), strict=True):
        assert not present & set(each.entered) and set(each.left) <= present
        present = (present | set(each.entered)) - set(each.left)
        assert present == set(each.ids) >= set(ids)
        assert each.count == len(each.ids) == len(each.seconds)
