# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.engines.letterbox import Letterbox, grid_priors, mask_resampling

sides = st.integers(1, 5000)
canvases = st.sampled_from([64, 320, 640])


@pytest.mark.parametrize(
    ("image", "resized"),
    [
        ((720, 1280), (360, 640)),
        ((3000, 4000), (480, 640)),
        ((480, 640), (480, 640)),
        ((1, 1), (640, 640)),
        ((333, 500), (426, 640)),
        ((1, 4000), (1, 640)),  # 0.16 rows: one is kept
        ((3, 1280), (2, 640)),  # 1.5 rows round up
    ],
)
def test_longer_side_fills_the_canvas(image: tuple[int, int], resized: tuple[int, int]) -> None:
    letterbox = Letterbox.fit(*image, 640)
    assert (letterbox.resized_height, letterbox.resized_width) == resized


@given(sides, sides, canvases)
def test_image_stays_on_the_canvas(height: int, width: int, canvas: int) -> None:
    letterbox = Letterbox.fit(height, width, canvas)
    assert max(letterbox.resized_height, letterbox.resized_width) == canvas
    assert min(letterbox.resized_height, letterbox.resized_width) >= 1
    whole = letterbox.boxes_to_canvas(np.array([[0, 0, width, height]]))
    expected = [[0, 0, letterbox.resized_width, letterbox.resized_height]]
    np.testing.assert_allclose(whole, expected, rtol=1e-6)


@given(sides, sides, canvases, st.integers(0, 2**32 - 1))
def test_boxes_come_back(height: int, width: int, canvas: int, seed: int) -> None:
    letterbox = Letterbox.fit(height, width, canvas)
    boxes = np.random.default_rng(seed).uniform(0, max(height, width), (5, 4)).astype(np.float32)
    back = letterbox.boxes_to_image(letterbox.boxes_to_canvas(boxes))
    np.testing.assert_allclose(back, boxes, rtol=1e-6)
    assert back.dtype == np.float32


def test_clip_keeps_inside_and_nan() -> None:
    letterbox = Letterbox.fit(100, 200, 640)
    boxes = np.array([[-5, -5, 300, 300], [10, 20, 30, 40], [np.nan, 0, 1, 1]], np.float32)
    expected = [[0, 0, 200, 100], [10, 20, 30, 40], [np.nan, 0, 1, 1]]
    np.testing.assert_array_equal(letterbox.clip_to_image(boxes), expected)


@pytest.mark.parametrize("shape", [(1, 1), (37, 90), (90, 37), (64, 64), (1, 900)])
def test_canvas_holds_the_resized_image_and_padding(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    letterbox = Letterbox.fit(*shape, 64)
    canvas = letterbox.apply(image)
    height, width = letterbox.resized_height, letterbox.resized_width
    assert canvas.shape == (64, 64, 3) and canvas.dtype == np.uint8
    np.testing.assert_array_equal(canvas[:height, :width], cv2.resize(image, (width, height)))
    assert (canvas[height:] == 114).all() and (canvas[:, width:] == 114).all()


def test_priors_are_upper_left_corners_level_by_level() -> None:
    priors = grid_priors(640)
    assert priors.shape == (8400, 3) and priors.dtype == np.float32
    np.testing.assert_array_equal(priors[[0, 1, 80]], [[0, 0, 8], [8, 0, 8], [0, 8, 8]])
    np.testing.assert_array_equal(priors[[6400, 6441]], [[0, 0, 16], [16, 16, 16]])
    np.testing.assert_array_equal(priors[[8000, 8399]], [[0, 0, 32], [608, 608, 32]])


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([64, 160]))
def test_mask_resampling_interpolates(height: int, width: int, canvas: int) -> None:
    """Weights are convex, so a region without positive logits gets no pixel."""
    letterbox = Letterbox.fit(height, width, canvas)
    for matrix, side in zip(mask_resampling(letterbox), (height, width), strict=True):
        assert matrix.shape[0] == side and matrix.shape[1] <= canvas // 8
        assert (matrix >= 0).all()
        np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("shape", [(720, 1280), (333, 500), (1003, 401)])
def test_masks_lie_where_boxes_lie(shape: tuple[int, int]) -> None:
    """A ramp of canvas coordinates, resampled, reads the coordinate to which a box edge maps."""
    letterbox = Letterbox.fit(*shape, 640)
    for axis, matrix in zip((1, 0), mask_resampling(letterbox), strict=True):
        cell_centres = np.arange(matrix.shape[1]) * 8 + 4.0
        read = matrix @ cell_centres
        pixel_centres = np.arange(matrix.shape[0]) + 0.5
        expected = pixel_centres * letterbox.scale[axis]
        inner = (expected > 4.5) & (expected < 635)
        np.testing.assert_allclose(read[inner], expected[inner], atol=1e-3)
