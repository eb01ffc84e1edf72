# SPDX-License-Identifier: Apache-2.0
"""Samples of the three trainings: what the network sees and what it shall answer fit together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from discs import disc_image
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.engines.crops import RGB_MEAN, RGB_STD, crop_geometry, pose_inputs
from bmp_ros.engines.heatmaps import decode_udp_dark
from bmp_ros.training.detector_samples import detector_sample, fitted_detector_sample
from bmp_ros.training.pose_samples import BACKGROUND_FACTOR, joint_heatmaps, pose_samples
from bmp_ros.training.rough_masks import rough_mask
from bmp_ros.training.segmenter_samples import POSITIVE, segmenter_sample

CROP, MAP = (144, 192), (36, 48)
seeds = st.integers(0, 2**31)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_rough_masks_have_the_right_kind_and_leave_the_truth_alone(seed: int) -> None:
    random = np.random.default_rng(seed)
    masks = disc_image(seed, 3).masks
    before = masks.copy()
    rough = rough_mask(random, masks[0], masks[1:])
    assert rough.shape == masks[0].shape and rough.dtype == bool
    assert np.array_equal(masks, before)


def test_rough_masks_differ_but_mostly_cover_the_person() -> None:
    mask = disc_image(5, 1).masks[0]
    random = np.random.default_rng(0)
    rough = [rough_mask(random, mask) for _ in range(200)]
    iou = np.array([(r & mask).sum() / (r | mask).sum() for r in rough])
    assert 0.6 < np.median(iou) < 0.99 and (iou < 0.6).any()


def test_an_empty_mask_stays_empty() -> None:
    assert not rough_mask(np.random.default_rng(0), np.zeros((9, 9), bool)).any()


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_painted_people_are_not_asked_for(seed: int) -> None:
    sample = detector_sample(np.random.default_rng(seed), disc_image(seed, 3), (128, 96))
    assert len(sample.boxes) == len(sample.masks)
    black = (sample.canvas == 0).all(axis=2)
    for mask in sample.masks:
        inside = np.kron(mask > 0.99, np.ones((4, 4), bool))
        # A rough neighbour may be painted over the edge of a person, and over most of one of
        # whom hardly more than an edge is seen, not over the person.
        assert inside.sum() < 64 or black[inside].mean() < 0.6


def test_detector_masks_and_boxes_agree() -> None:
    sample = fitted_detector_sample(disc_image(2, 2), (128, 96))
    assert sample.masks.shape[1:] == (24, 32)
    for box, mask in zip(sample.boxes, sample.masks, strict=True):
        rows, columns = np.nonzero(mask)
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * 4
        assert np.abs(found - box).max() <= 4


def test_heatmap_targets_decode_to_the_joints() -> None:
    random = np.random.default_rng(0)
    joints = random.uniform([25, 25], [118, 166], (17, 2))
    maps, weights = joint_heatmaps(joints, np.full(17, 2), CROP, MAP)
    points, _ = decode_udp_dark(maps[None])
    scale = (np.array(CROP) - 1) / (np.array(MAP) - 1)
    assert np.abs(points[0] * scale - joints).max() < 0.1
    assert (weights == 1).all()


def test_joints_that_are_not_there_have_empty_maps() -> None:
    joints = np.full((17, 2), 70.0)
    joints[0] = [-40, 50]
    seen = np.full(17, 2)
    seen[1] = 0
    maps, weights = joint_heatmaps(joints, seen, CROP, MAP)
    assert maps[0].max() == 0 and maps[1].max() == 0 and maps[2].max() > 0.5
    assert weights[0] == weights[1] < 1


def test_crops_without_augmentation_are_those_of_the_engine() -> None:
    labelled = disc_image(3, 2)
    sample = pose_samples(np.random.default_rng(0), labelled, CROP, MAP, augment=False)
    geometry = crop_geometry(labelled.boxes, CROP)
    expected = pose_inputs(labelled.image, geometry, labelled.masks, BACKGROUND_FACTOR)
    # OpenCV interpolates the two directions of one matrix with different rounding.
    levels = np.abs(sample.crops - expected) * RGB_STD[:, None, None]
    assert levels.mean() < 1 and np.quantile(levels, 0.99) < 16
    assert sample.crops.min() >= (-RGB_MEAN / RGB_STD).min() - 1e-4


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_augmented_crops_have_finite_values_and_fitting_shapes(seed: int) -> None:
    sample = pose_samples(np.random.default_rng(seed), disc_image(seed, 3), CROP, MAP)
    count = len(sample.crops)
    assert sample.crops.shape == (count, 3, 192, 144) and np.isfinite(sample.crops).all()
    assert sample.heatmaps.shape == (count, 17, 48, 36) and sample.weights.shape == (count, 17)
    assert 0 <= sample.heatmaps.min() and sample.heatmaps.max() <= 1


def test_an_image_without_people_gives_no_crops() -> None:
    sample = pose_samples(np.random.default_rng(0), disc_image(0, 0), CROP, MAP)
    assert sample.crops.shape == (0, 3, 192, 144)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_everybody_gets_one_to_six_positive_prompts(seed: int) -> None:
    sample = segmenter_sample(np.random.default_rng(seed), disc_image(seed, 3), (128, 96))
    positive = (sample.labels == 1).sum(axis=1)
    assert ((positive >= 1) & (positive <= POSITIVE)).all()
    assert sample.canvas.shape == (3, 96, 128)
    assert sample.masks.shape[1:] == (24, 32) and np.isfinite(sample.points).all()
    assert sample.first.shape == sample.masks.shape
    assert 0 <= sample.first.min(initial=0) and sample.first.max(initial=0) <= 1


def test_most_positive_prompts_lie_on_the_person() -> None:
    on = total = 0
    for seed in range(60):
        sample = segmenter_sample(
            np.random.default_rng(seed), disc_image(seed, 3), (128, 96), augment=False
        )
        for points, labels, mask in zip(sample.points, sample.labels, sample.masks, strict=True):
            cells = np.floor((points[labels == 1] + 0.5) / 4).astype(int)
            inside = ((cells >= 0) & (cells < [32, 24])).all(axis=1)
            on += int((mask[cells[inside, 1], cells[inside, 0]] > 0).sum())
            total += len(cells)
    assert 0.8 < on / total < 1.0, "good prompts, and some wrong ones"


def test_painted_people_are_neither_targets_nor_ignored() -> None:
    """Mask-out: who is painted black is background, however the person was labelled."""
    labelled = disc_image(4, 3, 128, 96)
    masked = replace(labelled, has_mask=np.array([True, True, True]), given_boxes=labelled.boxes)
    painted = 0
    for seed in range(12):
        sample = detector_sample(
            np.random.default_rng(seed), masked, (128, 96), painted_share=1.0, mosaic_share=0.0
        )
        plain = detector_sample(
            np.random.default_rng(seed), masked, (128, 96), painted_share=0.0, mosaic_share=0.0
        )
        gone = len(plain.boxes) - len(sample.boxes)
        painted += gone
        assert gone >= 1 and not len(sample.ignore), "at least one is painted, none is ignored"
        assert (sample.canvas == 0).all(axis=2).any()
        kept = {tuple(box) for box in plain.boxes.round(2)}
        assert all(tuple(box) in kept for box in sample.boxes.round(2)), "the others are untouched"
    assert painted > 12
