# SPDX-License-Identifier: Apache-2.0
"""Geometry of SAM 2.1 without torch: equal to torch's resampling, which sam2 uses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.engines.crops import RGB_MEAN, RGB_STD
from bmp_ros.engines.sam2 import masks_of_size, points_to_input, sam2_input

SIZES = [(64, 64), (48, 80), (200, 90), (65, 129), (300, 301), (1, 1), (3, 500)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_input_is_that_of_torch(height: int, width: int) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch")
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    inputs = sam2_input(image, 64)
    tensor = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(
        tensor, size=(64, 64), mode="bilinear", align_corners=False, antialias=True
    )
    wanted = (resized[0].permute(1, 2, 0).numpy() - RGB_MEAN) / RGB_STD
    assert inputs.shape == (1, 3, 64, 64) and inputs.dtype == np.float32
    np.testing.assert_allclose(inputs[0].transpose(1, 2, 0), wanted, atol=2e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 400), st.integers(1, 400))
def test_a_plain_image_stays_plain(height: int, width: int) -> None:
    image = np.full((height, width, 3), (10, 100, 200), np.uint8)
    inputs = sam2_input(image, 32)
    levels = inputs[0].transpose(1, 2, 0) * RGB_STD + RGB_MEAN
    np.testing.assert_allclose(levels, np.broadcast_to([200, 100, 10], levels.shape), atol=1e-3)


def test_points_scale_with_the_sides() -> None:
    points = np.array([[[0, 0], [320, 120], [640, 240]]], np.float32)
    found = points_to_input(points, 640, 240, 1024)
    np.testing.assert_allclose(found, [[[0, 0], [512, 512], [1024, 1024]]])
    assert found.dtype == np.float32


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_masks_are_those_of_torch(height: int, width: int) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch")
    logits = np.random.default_rng(1).normal(size=(3, 16, 16)).astype(np.float32)
    full = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[:, None], size=(height, width), mode="bilinear"
    )[:, 0].numpy()
    masks = masks_of_size(logits, height, width)
    clear = np.abs(full) > 1e-4
    assert masks.shape == (3, height, width) and masks.dtype == np.bool_
    np.testing.assert_array_equal(masks[clear], (full > 0)[clear])
