# SPDX-License-Identifier: Apache-2.0
"""Dimming inside an MMPose pipeline (needs nothing of OpenMMLab: steps are plain callables)."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bmp_ros.engines.openmmlab.background_dimming import (
    BackgroundDimming,
    with_background_dimming,
)

FACTOR = 0.75


def crop_of(image, centre, scale, size, use_udp):
    """What MMPose's TopdownAffine leaves in ``results``, from the two mappings' definitions."""
    scale, size = np.array(scale, np.float64), np.array(size)
    step = (size - 1) / scale if use_udp else size / scale
    matrix = np.zeros((2, 3))
    matrix[[0, 1], [0, 1]] = step
    matrix[:, 2] = -(np.array(centre) - scale / 2) * step
    crop = cv2.warpAffine(image, matrix, tuple(size.tolist()), flags=cv2.INTER_LINEAR)
    meta = {"input_center": np.array(centre), "input_scale": scale, "input_size": tuple(size)}
    return {"img": crop, **meta}


@pytest.mark.parametrize("use_udp", [True, False])
def test_equals_dimming_the_image_before_the_crop_except_at_the_outline(use_udp):
    rng = np.random.default_rng(5)
    image = cv2.GaussianBlur(rng.integers(0, 256, (300, 260, 3), np.uint8), (0, 0), 3)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    mask = np.zeros((300, 260), bool)
    mask[60:240, 90:170] = True
    place = {"centre": (131.0, 152.5), "scale": (187.5, 250.0), "size": (192, 256)}
    dimmed_first = np.where(mask[..., None], image, np.rint(image * FACTOR).astype(np.uint8))
    expected = crop_of(dimmed_first, **place, use_udp=use_udp)["img"].astype(int)

    results = crop_of(image, **place, use_udp=use_udp)
    results[BackgroundDimming.PERSON_MASK] = mask
    got = BackgroundDimming(FACTOR, use_udp=use_udp)(results)["img"].astype(int)

    soft = crop_of(mask.astype(np.uint8) * 255, **place, use_udp=use_udp)["img"]
    outline = (soft > 0) & (soft < 255)
    assert 0 < outline.mean() < 0.05
    assert np.abs(got - expected)[~outline].max() <= 1  # grey level: rounded twice
    assert np.abs(got - expected).max() <= 3
    assert (got != results["img"].astype(int)).sum() == 0


def test_a_person_without_a_mask_is_not_dimmed():
    image = np.full((80, 80, 3), 200, np.uint8)
    place = {"centre": (40.0, 40.0), "scale": (60.0, 80.0), "size": (48, 64), "use_udp": True}
    for mask in (None, np.zeros((80, 80), bool)):
        results = {**crop_of(image, **place), BackgroundDimming.PERSON_MASK: mask}
        before = results["img"].copy()
        after = BackgroundDimming(FACTOR, use_udp=True)(results)["img"]
        np.testing.assert_array_equal(after, before)


def test_the_step_follows_the_crop_and_takes_its_convention():
    steps = [{"type": "LoadImage"}, {"type": "TopdownAffine", "use_udp": True}, {"type": "Pack"}]
    with_dimming = with_background_dimming(steps, 0.8)
    assert [with_dimming[i] for i in (0, 1, 3)] == steps
    assert isinstance(with_dimming[2], BackgroundDimming)
    assert (with_dimming[2].factor, with_dimming[2].use_udp) == (0.8, True)


def test_a_pipeline_without_a_crop_is_refused():
    with pytest.raises(ValueError, match="this one has LoadImage, BottomupResize"):
        with_background_dimming([{"type": "LoadImage"}, {"type": "BottomupResize"}], 0.8)


@pytest.mark.parametrize("factor", [-0.1, 1.5])
def test_a_factor_that_is_none_is_refused(factor):
    with pytest.raises(ValueError, match=f"between 0 and 1, got {factor}"):
        BackgroundDimming(factor, use_udp=True)
