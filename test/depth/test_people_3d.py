# SPDX-License-Identifier: Apache-2.0
"""People in metres: on made-up scenes where every distance is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.depth.depth_grid import Alignment, says_nothing
from bmp_ros.depth.lens_change import seen_by
from bmp_ros.depth.people_3d import JOINT_INSET, lift_people
from bmp_ros.depth.people_free import depth_without_people
from bmp_ros.loop.people import People

HEIGHT, WIDTH = 120, 160
CAMERA = CameraModel(np.array([[140.0, 0, 79.5], [0, 140, 59.5], [0, 0, 1]]), WIDTH, HEIGHT)
LEFT, RIGHT = (20, 20, 60, 110), (90, 10, 140, 100)
"""Rectangles of two people, x0 y0 x1 y1."""


def people_in(*rectangles: tuple[int, int, int, int], seed: int = 0) -> People:
    """Upright rectangles with random joints well inside."""
    random = np.random.default_rng(seed)
    masks = np.zeros((len(rectangles), HEIGHT, WIDTH), bool)
    people = People.from_boxes(
        np.array(rectangles, np.float32).reshape(-1, 4),
        np.ones(len(rectangles), np.float32), HEIGHT, WIDTH,
    )  # fmt: skip
    joints = people.keypoints.copy()
    for row, (x0, y0, x1, y1) in enumerate(rectangles):
        masks[row, y0:y1, x0:x1] = True
        joints[row] = random.uniform([x0 + 5, y0 + 5], [x1 - 6, y1 - 6], (17, 2))
    return replace(people, masks=masks, raw_masks=masks, keypoints=joints)


def flat_depth(*pairs: tuple[tuple[int, int, int, int], float], wall: float = 6.0) -> np.ndarray:
    depth = np.full((HEIGHT, WIDTH), wall, np.float32)
    for (x0, y0, x1, y1), metres in pairs:
        depth[y0:y1, x0:x1] = metres
    return depth


@settings(max_examples=30, deadline=None)
@given(st.floats(0.5, 8), st.floats(0.5, 8), st.sampled_from(["f4", "f8", "u2"]))
def test_flat_people_are_where_they_are(first: float, second: float, kind: str) -> None:
    people = people_in(LEFT, RIGHT)
    depth = flat_depth((LEFT, first), (RIGHT, second), wall=20)
    depth = (depth * 1000).round().astype("u2") if kind == "u2" else depth.astype(kind)
    found = lift_people(people, depth, CAMERA)
    for row, metres in enumerate((first, second)):
        assert np.allclose(found.keypoints[row, :, 2], metres, atol=6e-4)
        back = found.keypoints[row] @ CAMERA.matrix.T.astype(np.float32)
        assert np.allclose(back[:, :2] / back[:, 2:], people.keypoints[row], atol=1e-3)
        assert found.centroids[row, 2] == pytest.approx(metres, abs=6e-4)
        x0, y0, x1, y1 = (LEFT, RIGHT)[row]
        middle = np.array([(x0 + x1 - 1) / 2 - 79.5, (y0 + y1 - 1) / 2 - 59.5]) / 140 * metres
        assert np.allclose(found.centroids[row, :2], middle, atol=0.02 * metres)
        assert found.distances[row] == pytest.approx(np.linalg.norm(found.centroids[row]))
        assert (found.spread[row] < 1e-3).all()


@pytest.mark.parametrize("wall", [6.0, 2.6])
def test_the_wall_behind_is_never_taken_for_the_person(wall: float) -> None:
    people = people_in(LEFT)
    x0, y0, x1, y1 = LEFT
    # The mask is 4 pixels too wide.
    depth = flat_depth(((x0 + 4, y0, x1 - 4, y1), 2.0), wall=wall)
    edge = people.keypoints.copy()
    edge[0, :, 0] = np.linspace(x0, x1 - 1, 17)
    found = lift_people(replace(people, keypoints=edge), depth, CAMERA)
    seen = found.keypoints[0, :, 2]
    assert np.isfinite(seen).sum() >= 10
    assert (np.abs(seen[np.isfinite(seen)] - 2.0) < 0.01).all()
    assert found.centroids[0, 2] == pytest.approx(2.0, abs=0.01)


def test_what_hides_a_part_of_the_person_is_not_the_person() -> None:
    people = people_in(LEFT)
    depth = flat_depth((LEFT, 3.0), ((20, 60, 60, 75), 1.0))  # a rail before the hips
    found = lift_people(people, depth, CAMERA)
    known = np.isfinite(found.keypoints[0, :, 2])
    assert np.allclose(found.keypoints[0, known, 2], 3.0, atol=0.01)
    behind = (people.keypoints[0, :, 1] > 63) & (people.keypoints[0, :, 1] < 71)
    assert behind.any() and not known[behind].any()


def test_a_stretched_arm_belongs_to_the_person() -> None:
    people = people_in(LEFT)
    depth = flat_depth((LEFT, 3.0))
    depth[40:50, 20:60] = np.linspace(3.0, 2.2, 40)  # towards the camera
    joints = people.keypoints.copy()
    joints[0, 9] = [57, 45]
    found = lift_people(replace(people, keypoints=joints), depth, CAMERA)
    assert found.keypoints[0, 9, 2] == pytest.approx(2.24, abs=0.06)


def test_joints_on_somebody_else_are_unknown() -> None:
    people = people_in(LEFT, RIGHT)
    joints = people.keypoints.copy()
    joints[0, 3] = [100, 50]  # on the other one
    found = lift_people(
        replace(people, keypoints=joints), flat_depth((LEFT, 2), (RIGHT, 2)), CAMERA
    )
    assert np.isnan(found.keypoints[0, 3]).all() and np.isnan(found.spread[0, 3])
    assert np.isfinite(found.keypoints[1]).all()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0, 0.01, 1000.0])
def test_depth_that_says_nothing_gives_nan(value: float) -> None:
    people = people_in(LEFT)
    with np.errstate(all="raise"):
        found = lift_people(people, np.full((HEIGHT, WIDTH), value, np.float32), CAMERA)
    assert np.isnan(found.keypoints).all() and np.isnan(found.spread).all()
    assert np.isnan(found.centroids).all() and np.isnan(found.distances).all()
    assert len(found) == 1


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        (np.full((1, 1), 2000, np.uint16), "1x1 pixels are too few"),
        (np.zeros((8, 8), np.uint16), "not one of 64 pixels"),
        (np.full((8, 8), np.nan, np.float32), "all are NaN"),
        (np.full((8, 8), 2000, np.float32), "their median is 2000 m"),
        (np.full((8, 8), 2000, np.uint16), ""),
    ],
)
def test_reasons_of_a_depth_image_that_says_nothing(depth: np.ndarray, words: str) -> None:
    assert (words in says_nothing(depth)) if words else not says_nothing(depth)


def test_holes_are_filled_from_the_window_only() -> None:
    people = people_in(LEFT)
    depth = flat_depth((LEFT, 2.0))
    depth[np.random.default_rng(0).random(depth.shape) < 0.5] = 0
    found = lift_people(people, depth, CAMERA)
    known = np.isfinite(found.keypoints[0, :, 2])
    assert known.mean() > 0.8 and np.allclose(found.keypoints[0, known, 2], 2.0)


@pytest.mark.parametrize(("valid", "known"), [(2, False), (3, True)])
def test_a_joint_needs_three_pixels_of_its_person(valid: int, known: bool) -> None:
    people = people_in(LEFT)
    x0, y0, _, y1 = LEFT
    joints = people.keypoints.copy()
    joints[0, 0] = [x0 + 8, y1 - 1]
    depth = flat_depth((LEFT, 3.0))
    depth[y1 - 20 :, : x0 + 30] = np.nan
    depth[y1 - 1, x0 + 7 : x0 + 7 + valid] = 3.0  # the window is three pixels wide
    found = lift_people(replace(people, keypoints=joints), depth, CAMERA)
    assert np.isfinite(found.keypoints[0, 0, 2]) == known


@pytest.mark.parametrize("corner", [(0, 0), (WIDTH - 1, HEIGHT - 1)])
def test_pixels_at_the_edge_count_once(corner: tuple[int, int]) -> None:
    whole = (0, 0, WIDTH, HEIGHT)
    people = people_in(whole)
    joints = people.keypoints.copy()
    joints[0, 0] = corner
    depth = flat_depth((whole, 3.0))
    x, y = corner
    depth[max(y - 20, 0) : y + 20, max(x - 20, 0) : x + 20] = np.nan
    depth[y, x] = 3.0
    found = lift_people(replace(people, keypoints=joints), depth, CAMERA)
    assert np.isnan(found.keypoints[0, 0]).all(), "one pixel, and nothing beyond the image"


def test_noise_shows_as_spread() -> None:
    people = people_in(LEFT)
    depth = flat_depth((LEFT, 1.0))
    depth += np.random.default_rng(0).normal(0, 0.02, depth.shape).astype(np.float32)
    spread = lift_people(people, depth, CAMERA).spread
    assert np.median(spread) == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("factor", [0.5, 0.75, 2.0])
def test_depth_of_another_size(factor: float) -> None:
    people = people_in(LEFT, RIGHT)
    size = (round(HEIGHT * factor), round(WIDTH * factor))
    ys = np.clip(((np.arange(size[0]) + 0.5) / factor).astype(int), 0, HEIGHT - 1)
    xs = np.clip(((np.arange(size[1]) + 0.5) / factor).astype(int), 0, WIDTH - 1)
    depth = flat_depth((LEFT, 2.0), (RIGHT, 3.0))[np.ix_(ys, xs)]
    found = lift_people(people, depth, CAMERA)
    assert np.allclose(found.keypoints[0, :, 2], 2.0) and np.allclose(
        found.keypoints[1, :, 2], 3.0
    )


def test_the_depth_cameras_own_calibration_is_used() -> None:
    # The depth image shows only the left half of the image, at the same resolution.
    narrow = CameraModel(CAMERA.matrix, WIDTH // 2, HEIGHT)
    depth = flat_depth((LEFT, 2.0), (RIGHT, 3.0))[:, : WIDTH // 2]
    found = lift_people(people_in(LEFT, RIGHT), depth, CAMERA, depth_camera=narrow)
    assert np.allclose(found.keypoints[0, :, 2], 2.0)
    assert np.isnan(found.keypoints[1]).all() and np.isnan(found.distances[1])


RAW = CameraModel(
    CAMERA.matrix, WIDTH, HEIGHT, np.array([-0.3, 0.09, 0.001, -0.0005, 0.0]), "plumb_bob"
)
"""The same camera before rectification."""


def test_depth_of_the_rectified_view_meets_people_of_the_raw_one() -> None:
    people = people_in((0, 0, WIDTH, HEIGHT))
    joints = people.keypoints.copy()
    grid = np.meshgrid(np.linspace(8, WIDTH - 9, 6), np.linspace(8, HEIGHT - 9, 3))
    joints[0] = np.stack(grid, axis=-1).reshape(-1, 2)[:17]
    people = replace(people, keypoints=joints)
    # The depth of a column says which column was read.
    ramp = np.tile(np.linspace(2, 3, WIDTH, dtype=np.float32), (HEIGHT, 1))
    found = lift_people(people, ramp, RAW, depth_camera=CAMERA)
    straight = CAMERA.project(RAW.rays(joints[0]))
    expected = np.interp(straight[:, 0], np.arange(WIDTH), ramp[0])
    known = np.isfinite(found.keypoints[0, :, 2])
    assert known.sum() >= 12
    assert np.allclose(found.keypoints[0, known, 2], expected[known], atol=0.018)
    assert np.abs(straight[:, 0] - joints[0, :, 0]).max() > 5, "the lens matters here"
    # and what was mapped is the same as what would have been seen
    same = lift_people(people, seen_by(RAW, ramp, CAMERA, np.nan), RAW)
    assert np.allclose(found.keypoints, same.keypoints, equal_nan=True)
    for kind in (np.float16, np.float64, np.longdouble):
        other = lift_people(people, ramp.astype(kind), RAW, depth_camera=CAMERA)
        assert np.allclose(other.keypoints, same.keypoints, atol=5e-3, equal_nan=True)


def test_depth_without_people_of_another_lens() -> None:
    depth = np.ones((HEIGHT, WIDTH), np.float32)
    people = people_in((5, 5, 40, 60))
    gone = np.isnan(depth_without_people(depth, people.masks, 0, camera=RAW, depth_camera=CAMERA))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    seen = np.rint(RAW.project(CAMERA.rays(np.stack([columns, rows], axis=-1).astype(float))))
    x, y = seen[..., 0], seen[..., 1]
    expected = (x >= 5) & (x < 40) & (y >= 5) & (y < 60)
    assert (gone != expected).mean() < 1e-3 and gone.any()


def test_depth_without_people_of_a_cropped_depth_image() -> None:
    # The depth image is the lower right half of the view, at half the resolution.
    matrix = np.array([[70.0, 0, (79.5 - 80 + 0.5) / 2 - 0.5], [0, 70, 14.5], [0, 0, 1]])
    crop = CameraModel(matrix, 40, 45)
    depth = np.full((45, 40), 1000, np.uint16)
    people = people_in((70, 20, 121, 100))  # columns 80 to 120 of it are in the crop
    left = depth_without_people(depth, people.masks, 0, camera=CAMERA, depth_camera=crop)
    covered = np.zeros((45, 40), bool)
    covered[:35, :21] = True  # from row (20 - 30) / 2 on, to row 35, to column 20.5
    assert np.array_equal(left == 0, covered)
    far = people_in((0, 0, 20, 20))
    kept = depth_without_people(depth, far.masks, 3, camera=CAMERA, depth_camera=crop)
    assert np.array_equal(kept, depth)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_a_depth_pixel_that_somebody_touches_is_unknown(h: int, w: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = np.zeros((1, 24, 30), bool)
    x, y = random.integers(0, 25), random.integers(0, 20)
    mask[0, y : y + random.integers(1, 20), x : x + random.integers(1, 25)] = True
    gone = depth_without_people(np.ones((h, w), np.uint16), mask, 0) == 0
    # All in units in which every edge of both is a whole number.
    fine = np.kron(mask[0], np.ones((h, w), bool)).reshape(h, 24, w, 30).any(axis=(1, 3))
    assert np.array_equal(gone, fine)


def test_images_that_cannot_be_mapped_are_refused() -> None:
    with pytest.raises(ValueError, match="160x120"):
        seen_by(RAW, np.zeros((10, 10), np.uint16), CAMERA, 0)
    wide = CameraModel(CAMERA.matrix, 40000, 1)
    with pytest.raises(ValueError, match="32766"):
        seen_by(RAW, np.zeros((1, 40000), np.uint16), wide, 0)
    with pytest.raises(ValueError, match="the depth image has 10x10"):
        lift_people(people_in(LEFT), np.zeros((10, 10), np.uint16), CAMERA, depth_camera=CAMERA)


def test_the_inset_moves_joints_into_the_body() -> None:
    people, depth = people_in(LEFT), flat_depth((LEFT, 2.0))
    surface, inside = (
        lift_people(people, depth, CAMERA, joint_inset=chosen).keypoints[0, :, 2]
        for chosen in (False, True)
    )
    assert np.allclose(inside - surface, JOINT_INSET, atol=1e-6)


def test_nobody_and_people_without_masks() -> None:
    depth = flat_depth()
    assert len(lift_people(people_in(), depth, CAMERA)) == 0
    boxes = np.array([[10, 10, 50, 50]], np.float32)
    unmasked = People.from_boxes(boxes, np.ones(1, np.float32), HEIGHT, WIDTH)
    assert np.isnan(lift_people(unmasked, depth, CAMERA).distances).all()


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), "uint8"),
        (np.zeros((HEIGHT, WIDTH, 1), np.uint16), "shape"),
        (np.zeros((0, 4), np.float32), "shape"),
    ],
)
def test_what_is_no_depth_is_refused(depth: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lift_people(people_in(LEFT), depth, CAMERA)


def test_a_calibration_of_another_size_is_refused() -> None:
    other = CameraModel(CAMERA.matrix, 640, 480)
    with pytest.raises(ValueError, match="640x480"):
        lift_people(people_in(LEFT), flat_depth(), other)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.3, 3), st.floats(0.3, 3))
def test_alignment_without_calibration_keeps_edges(seed: int, sx: float, sy: float) -> None:
    size = (max(1, round(HEIGHT * sy)), max(1, round(WIDTH * sx)))
    alignment = Alignment.of((HEIGHT, WIDTH), size)
    first, last = np.array([-0.5, -0.5]), np.array([WIDTH - 0.5, HEIGHT - 0.5])
    assert np.allclose(first * alignment.scale + alignment.shift, [-0.5, -0.5])
    assert np.allclose(last * alignment.scale + alignment.shift, [size[1] - 0.5, size[0] - 0.5])


@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_depth_without_people_forgets_people_and_nothing_else(kind: str) -> None:
    depth = (flat_depth((LEFT, 2.0)) * 1000).astype(kind)
    people = people_in(LEFT, RIGHT)
    left = depth_without_people(depth, people.masks, 0)
    gone = np.isnan(left) if kind == "f4" else left == 0
    assert np.array_equal(gone, people.masks.any(axis=0))
    assert np.array_equal(left[~gone], depth[~gone])
    grown = depth_without_people(depth, people.masks, 3)
    gone_too = np.isnan(grown) if kind == "f4" else grown == 0
    x0, y0, x1, y1 = LEFT
    assert gone_too[y0 + 20, x0 - 3] and not gone_too[y0 + 20, x0 - 4] and (gone <= gone_too).all()
    assert depth.min() > 0, "the input is left alone"


def test_depth_without_people_of_another_size() -> None:
    people = people_in(LEFT)
    left = depth_without_people(np.ones((60, 80), np.float32), people.masks, 0)
    x0, y0, x1, y1 = (side // 2 for side in LEFT)
    expected = np.zeros((60, 80), bool)
    expected[y0:y1, x0:x1] = True
    assert np.array_equal(np.isnan(left), expected)


def test_a_negative_margin_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        depth_without_people(np.ones((2, 2), np.float32), np.zeros((0, 2, 2), bool), -1)
