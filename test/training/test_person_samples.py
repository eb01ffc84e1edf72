# SPDX-License-Identifier: Apache-2.0
"""Crops of the published pose networks: joints lie where the engine will read them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from discs import disc_image
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.engines.crops import crop_geometry
from bmp_ros.training.mask_background import MaskBackground
from bmp_ros.training.person_samples import (
    ABSENT,
    UNKNOWN,
    Augmentation,
    Grid,
    gaussian_maps,
    half_body,
    person_sample,
    varied,
)

STILL = Augmentation(0.0, 0.0, (1.0, 1.0), 0.0, 0.0, 0.0, 0.0)
IMAGE = disc_image(1, 2)


def grid(convention: str) -> Grid:
    return Grid((96, 128), (24, 32), convention)


@pytest.mark.parametrize("convention", ["udp", "corners", "width"])
def test_cells_are_the_places_that_the_engine_maps_back(convention: str) -> None:
    sample = person_sample(np.random.default_rng(0), IMAGE, 0, grid(convention))
    geometry = crop_geometry(IMAGE.boxes[:1], (96, 128), convention)
    back = geometry.points_to_image(sample.cells[None], (24, 32))[0]
    assert np.abs(back - IMAGE.keypoints[0]).max() < 1e-3


@given(st.integers(0, 2**31))
def test_augmented_joints_stay_on_their_pixels(seed: int) -> None:
    """A joint's own colour is found where the sample says that the joint is."""
    labelled = replace(IMAGE, image=np.zeros_like(IMAGE.image))
    x, y = (int(v) for v in IMAGE.keypoints[0, 5].round())
    labelled.image[y - 1 : y + 2, x - 1 : x + 2] = 255
    keypoints = labelled.keypoints.copy()
    keypoints[0, 5] = x, y
    labelled = replace(labelled, keypoints=keypoints)
    fine = Grid((96, 128), (96, 128))
    sample = person_sample(np.random.default_rng(seed), labelled, 0, fine, None, Augmentation())
    crop = sample.crop[0] - sample.crop[0].min()
    cells = [sample.cells[joint] for joint in (5, 6)]  # mirrored, it is the right shoulder
    places = [np.round(cell).astype(int) for cell in cells]
    inside = [(p >= 0).all() and (p < (96, 128)).all() for p in places]
    if all(inside):
        assert max(crop[p[1], p[0]] for p in places) > 0.3 * crop.max()


def test_what_is_known_of_joints() -> None:
    visibility = IMAGE.visibility.copy()
    visibility[0, :3] = 0, 1, 2
    keypoints = IMAGE.keypoints.copy()
    keypoints[0, 2] = -500, 0
    photograph = replace(
        IMAGE, visibility=visibility, keypoints=keypoints, all_joints=np.zeros(2, bool)
    )
    sample = person_sample(np.random.default_rng(0), photograph, 0, grid("udp"))
    assert list(sample.known[:4]) == [UNKNOWN, 1, ABSENT, 2]
    rendered = replace(photograph, all_joints=np.ones(2, bool))
    assert person_sample(np.random.default_rng(0), rendered, 0, grid("udp")).known[0] == ABSENT


def test_mirror_images_swap_sides() -> None:
    flipped = replace(STILL, flip_prob=1.0)
    plain = person_sample(np.random.default_rng(0), IMAGE, 0, grid("udp"), None, STILL)
    mirrored = person_sample(np.random.default_rng(0), IMAGE, 0, grid("udp"), None, flipped)
    assert np.abs(mirrored.crop[:, :, ::-1] - plain.crop).max() < 0.2
    order = IMAGE.skeleton.flip_indices
    assert np.allclose(mirrored.cells[:, 0], 23 - plain.cells[order, 0], atol=1e-4)


def test_the_background_is_dimmed_and_the_person_is_not() -> None:
    still = MaskBackground(dim=1.0, dilate_prob=0, erode_prob=0)
    plain = person_sample(np.random.default_rng(0), IMAGE, 0, grid("udp"))
    dark = person_sample(np.random.default_rng(0), IMAGE, 0, grid("udp"), still)
    assert (dark.crop[:, 64, 48] == plain.crop[:, 64, 48]).all()
    assert (dark.crop[:, 0, 0] < plain.crop[:, 0, 0]).all()


def test_half_bodies_need_joints_enough() -> None:
    random, box = np.random.default_rng(0), np.array([0.0, 0, 40, 100])
    joints = np.stack([np.full(17, 20.0), np.arange(17) * 6.0], axis=1)
    names = IMAGE.skeleton.names
    few = np.array([2] * 8 + [0] * 9)
    assert (half_body(random, box, joints, few, names) == box).all()
    halves = {tuple(half_body(random, box, joints, np.full(17, 2), names)) for _ in range(50)}
    assert len(halves) == 2, "the upper and the lower one"


@given(st.integers(0, 2**31))
def test_boxes_vary_within_the_limits(seed: int) -> None:
    limits = Augmentation()
    box = np.array([10.0, 20, 50, 120])
    moved, turn = varied(np.random.default_rng(seed), box, limits, (192, 256))
    extent = (moved[2:] - moved[:2]) / [75.0, 100]
    assert abs(turn) <= 80 and (extent >= 0.499).all() and (extent <= 1.501).all()
    shift = np.abs((moved[:2] + moved[2:]) / 2 - [30, 70]) / [75 * 1.25, 100 * 1.25]
    assert (shift <= 0.1601).all()


def test_peaks_by_convention() -> None:
    cells = torch.tensor([[[10.3, 5.6], [-9.0, 3.0], [23.4, 31.4]]])
    maps, touches = gaussian_maps(cells, Grid((96, 128), (24, 32), sigma=2.0))
    assert touches.tolist() == [[True, False, True]]
    assert maps[0, 0].argmax() == 6 * 24 + 10
    distance = (torch.arange(24) - 10.3).square()[None] + (torch.arange(32) - 5.6).square()[
        :, None
    ]
    near = distance < 9
    assert torch.allclose(maps[0, 0][near], torch.exp(-distance[near] / 8), atol=1e-6)
    assert (maps[0, 0, 20:] == 0).all(), "cut after three sigma"
    rounded, _ = gaussian_maps(cells, Grid((96, 128), (24, 32), "corners", rounded=True))
    assert rounded[0, 0, 6, 10] == 1
    wide, _ = gaussian_maps(cells, Grid((96, 128), (24, 32), "width", 3.0, cut=False))
    assert (wide[0, 0] > 0).all()
