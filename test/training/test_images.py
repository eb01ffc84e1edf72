# SPDX-License-Identifier: Apache-2.0
"""Views of labelled images: image, masks, boxes and joints stay together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from discs import disc_image
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.training.images import (
    HELD_OUT,
    TrainingFolder,
    TrainingImage,
    ViewRange,
    fitted_view,
    random_view,
    recolour,
    warp,
)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_joints_stay_on_their_person(seed: int) -> None:
    random = np.random.default_rng(seed)
    labelled = disc_image(seed, 1)
    view = random_view(random, labelled, (96, 64), ViewRange())
    for row in range(len(view)):
        inside = view.visibility[row] > 0
        cells = np.rint(view.keypoints[row][inside]).astype(int)
        near = [
            view.masks[row][max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].any() for x, y in cells
        ]
        assert all(near)
        left, top, right, bottom = view.boxes[row]
        assert (view.keypoints[row][inside] >= [left - 1, top - 1]).all()
        assert (view.keypoints[row][inside] <= [right, bottom]).all()


def test_the_fitted_view_maps_edges_onto_edges() -> None:
    labelled = disc_image(1, 1, width=128, height=96)
    view = fitted_view(labelled, (64, 64))
    assert np.allclose(view.boxes, labelled.boxes / 2, atol=1)
    assert np.allclose(view.keypoints + 0.5, (labelled.keypoints + 0.5) / 2, atol=1e-4)
    assert (view.image[48:] == 114).all(), "padding below"


def test_a_mirrored_view_swaps_left_and_right() -> None:
    labelled = disc_image(1, 1)
    width = labelled.image.shape[1]
    mirrored = warp(labelled, np.array([[-1.0, 0, width - 1], [0, 1.0, 0]]), (width, 96))
    assert np.array_equal(mirrored.masks, labelled.masks[:, :, ::-1])
    expected = labelled.keypoints[:, COCO_17.flip_indices] * [-1, 1] + [width - 1, 0]
    assert np.allclose(mirrored.keypoints, expected, atol=1e-4)


def test_people_who_leave_the_canvas_go() -> None:
    labelled = disc_image(1, 2)
    assert len(warp(labelled, np.array([[1.0, 0, 1000], [0, 1.0, 0]]), (64, 64))) == 0


def test_recolouring_keeps_the_shape_and_does_something() -> None:
    image = disc_image(1, 2).image
    random = np.random.default_rng(0)
    changed = [recolour(random, image) for _ in range(5)]
    assert all(c.shape == image.shape and c.dtype == np.uint8 for c in changed)
    assert any((c != image).any() for c in changed)


def test_validation_images_are_not_trained_on(disc_folder: Path) -> None:
    training, validation = (
        TrainingFolder(disc_folder, validation=chosen) for chosen in (False, True)
    )
    assert len(validation) == -(-50 // HELD_OUT) and len(training) == 50 - len(validation)
    assert len(validation[0]) == 0 and len(training[0]) == 1  # images 0 and 1


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"bmp_ros\.synthetic\.dataset"):
        TrainingFolder(tmp_path)


def test_people_of_whom_less_than_twelve_pixels_are_left_go() -> None:
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 4:7, 5:9], masks[1, 10, 5:16] = True, True
    people = TrainingImage(
        np.zeros((20, 30, 3), np.uint8), masks, np.zeros((2, 17, 2), np.float32),
        np.zeros((2, 17), np.int64),
    )  # fmt: skip
    assert masks.sum(axis=(1, 2)).tolist() == [12, 11]
    same = warp(people, np.eye(2, 3), (30, 20))
    assert np.array_equal(same.masks, masks[:1])
