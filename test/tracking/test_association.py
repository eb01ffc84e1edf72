# SPDX-License-Identifier: Apache-2.0
"""Masks on the coarse grid: those that move, silhouettes of people who have none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bmp_ros.loop.people import People
from bmp_ros.tracking.appearance import colour_histograms
from bmp_ros.tracking.association import Pixels, coarse_pixels, mask_overlap

WIDTH, HEIGHT = 60, 40


def pixels_of(x0: int, y0: int, x1: int, y1: int) -> Pixels:
    """One person, a rectangle."""
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    labels[y0:y1, x0:x1] = 1
    points = np.argwhere(labels)[:, ::-1].astype(np.float32)
    count = len(points)
    places = np.flatnonzero(labels)
    return Pixels(
        1,
        np.zeros(count, np.int64),
        points,
        places,
        np.array([count]),
        np.array([0, count]),
        labels,
    )


@pytest.mark.parametrize("shift", [(5, 0), (-45, 0), (0, 10), (0, -5), (5, 10)])
def test_a_mask_that_is_moved_over_the_border_is_cut_off_there(shift: tuple[int, int]) -> None:
    first, everywhere = pixels_of(40, 0, 60, 30), pixels_of(0, 0, WIDTH, HEIGHT)
    x, y = (first.points + shift).T
    within = ((x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)).sum()
    found = mask_overlap([first.points], np.array([shift], np.float32), everywhere)
    assert found.iou[0, 0] == pytest.approx(within / (WIDTH * HEIGHT))
    assert found.of_new[0, 0] == found.iou[0, 0] and found.covered[0, 0] == 1


def test_a_mask_outside_of_the_image_has_no_overlap() -> None:
    first = pixels_of(40, 0, 60, 30)
    found = mask_overlap([first.points], np.array([(WIDTH, 0)], np.float32), first)
    assert np.isnan(found.iou).all() and not found.covered.any() and not found.of_new.any()


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (HEIGHT, WIDTH + 1)])
@pytest.mark.parametrize("shift", [(np.nan, np.nan), (np.inf, 0), (-np.inf, np.nan)])
def test_a_mask_that_is_nowhere_has_no_overlap(
    size: tuple[int, int], shift: tuple[float, float]
) -> None:
    first = pixels_of(40, 0, 60, 30)
    wide = replace(first, labels=np.ones(size, np.int32))
    found = mask_overlap([first.points], np.array([shift]), wide)
    assert not found.covered.any() and not found.of_new.any()


@pytest.mark.parametrize("size", [(101, 333), (480, 640), (720, 1280)])
def test_places_are_those_of_the_points(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    height, width = size
    masks = random.random((2, height, width)) < 0.3
    boxes = np.array([[0, 0, width / 2, height], [width / 3, 10, width, height]], np.float32)
    pixels = coarse_pixels(People.from_boxes(boxes, np.ones(2), height, width, masks=masks))
    image = random.integers(0, 255, (height, width, 3), np.uint8)
    x, y = pixels.points.astype(int).T
    assert pixels.stride > 1 and len(x) > 100
    assert (image.reshape(-1, 3)[pixels.places] == image[y, x]).all()
    assert masks[pixels.owners, y, x].all()
    waists = np.array([height / 2, height / 3])
    padded = np.zeros((height, width + 5, 3), np.uint8)
    padded[:, :width] = image
    found = [colour_histograms(each, pixels, waists) for each in (image, padded[:, :width])]
    assert np.array_equal(*found)


def standing(x: float, *, masked: bool = False, joints: int = 17, low: float = 110) -> People:
    """One person of 30 x 100 pixels, in an image of 240 x 160: joints in its inner half."""
    boxes = np.array([[x - 15, low - 100, x + 15, low]], np.float32)
    mask = np.zeros((1, 160, 240), np.bool_)
    mask[0, int(low) - 100 : int(low), int(x) - 15 : int(x) + 15] = True
    people = People.from_boxes(boxes, np.array([0.9]), 160, 240, masks=mask if masked else None)
    places = np.random.default_rng(1).uniform([x - 7, low - 90], [x + 7, low - 10], (1, 17, 2))
    scores = np.zeros((1, 17), np.float32)
    scores[:, :joints] = 0.9
    return replace(people, keypoints=places.astype(np.float32), keypoint_scores=scores)


def test_who_has_no_mask_is_the_hull_of_the_joints() -> None:
    people = standing(50)
    pixels = coarse_pixels(people)
    joints = people.keypoints[0]
    assert (pixels.of(0) >= joints.min(axis=0) - 3).all()
    assert (pixels.of(0) <= joints.max(axis=0) + 3).all()
    assert pixels.areas[0] * pixels.stride**2 > 0.7 * np.ptp(joints, axis=0).prod() * 0.7


def test_an_ellipse_in_the_box_where_joints_are_unsure_or_no_numbers() -> None:
    people = standing(50, joints=3)
    area = coarse_pixels(people).areas[0] * coarse_pixels(people).stride ** 2
    assert area == pytest.approx(np.pi / 4 * 24 * 100, rel=0.2)
    known = standing(50)
    no_numbers = replace(known, keypoints=np.full_like(known.keypoints, np.nan))
    assert (coarse_pixels(no_numbers).points == coarse_pixels(people).points).all()
    far = replace(known, keypoints=known.keypoints * np.float32(1e30))
    with np.errstate(invalid="raise"):
        coarse_pixels(far)
    turned = replace(people, boxes=people.boxes[:, [2, 3, 0, 1]])
    assert coarse_pixels(turned).areas.tolist() == [0], "as masks outside of a box"


def test_silhouettes_take_nothing_of_masks_and_of_those_who_stand_nearer() -> None:
    alone = coarse_pixels(standing(50))
    masked = coarse_pixels(People.concatenate([standing(52, masked=True), standing(50)]))
    assert masked.areas[0] == coarse_pixels(standing(52, masked=True)).areas[0]
    assert masked.areas[1] < alone.areas[0]
    astray = standing(150, low=120)
    astray.keypoints[0, 0] = 40, 60  # on somebody else
    both = coarse_pixels(People.concatenate([standing(50), astray]))
    assert both.areas[0] == alone.areas[0], "nothing outside of the own box"
    near = coarse_pixels(People.concatenate([standing(50), standing(50, low=150)]))
    assert near.areas[1] == coarse_pixels(standing(50, low=150)).areas[0]
    assert near.areas[0] < alone.areas[0]
    assert (np.bincount(near.labels.ravel(), minlength=3)[1:] == near.areas).all()


@pytest.mark.parametrize(
    "size", [(480, 640), (640, 480), (1080, 1920), (2160, 3840), (1024, 8192), (48, 64)]
)
def test_the_grid_has_as_many_points_whatever_the_image_is_like(size: tuple[int, int]) -> None:
    """In a panorama somebody small is more than a point, too."""
    pixels = coarse_pixels(People.empty(*size))
    points = pixels.labels.size
    assert points <= 1.05 * 160 * 120
    assert points > 0.7 * 160 * 120 or pixels.stride == 1
