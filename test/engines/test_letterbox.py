# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.engines.letterbox import Letterbox, canvas_size, grid_priors, mask_resampling

Canvas = int | tuple[int, int]

sides = st.integers(1, 5000)
canvases = st.sampled_from([64, 320, 640]) | st.sampled_from([(320, 256), (64, 160)])


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
def test_longer_side_fills_a_square_canvas(
    image: tuple[int, int], resized: tuple[int, int]
) -> None:
    letterbox = Letterbox.fit(*image, 640)
    assert (letterbox.resized_height, letterbox.resized_width) == resized


@pytest.mark.parametrize(
    ("image", "resized"),
    [
        ((480, 640), (240, 320)),  # as wide as the canvas
        ((480, 500), (256, 267)),  # as high as the canvas; 266.67 columns round up
        ((640, 480), (256, 192)),
        ((1, 900), (1, 320)),
        ((900, 1), (256, 1)),
        ((256, 320), (256, 320)),
    ],
)
def test_image_is_as_large_as_a_canvas_permits(
    image: tuple[int, int], resized: tuple[int, int]
) -> None:
    letterbox = Letterbox.fit(*image, (320, 256))
    assert (letterbox.resized_height, letterbox.resized_width) == resized


def test_a_number_is_a_square() -> None:
    assert Letterbox.fit(480, 640, 320) == Letterbox.fit(480, 640, (320, 320))
    np.testing.assert_array_equal(grid_priors(64), grid_priors((64, 64)))


@pytest.mark.parametrize("size", [0, 500, -32, (320,), (320, 250), (0, 320), (32, 32, 32)])
def test_canvas_sizes_are_multiples_of_the_coarsest_stride(size: Canvas) -> None:
    with pytest.raises(ValueError, match=f"multiple of 32.*got {re.escape(str(size))};"):
        canvas_size(size)
    assert canvas_size(640) == (640, 640) and canvas_size((320, 256)) == (320, 256)


@given(sides, sides, canvases)
def test_image_stays_on_the_canvas(height: int, width: int, canvas: Canvas) -> None:
    letterbox = Letterbox.fit(height, width, canvas)
    columns, rows = letterbox.canvas
    assert 1 <= letterbox.resized_height <= rows and 1 <= letterbox.resized_width <= columns
    assert letterbox.resized_height == rows or letterbox.resized_width == columns
    whole = np.array([[0, 0, letterbox.resized_width, letterbox.resized_height]])
    expected = [[0, 0, width, height]]
    np.testing.assert_allclose(letterbox.boxes_to_image(whole), expected, rtol=1e-6)


@given(sides, sides, canvases, st.integers(0, 2**32 - 1))
def test_boxes_come_back(height: int, width: int, canvas: Canvas, seed: int) -> None:
    letterbox = Letterbox.fit(height, width, canvas)
    boxes = np.random.default_rng(seed).uniform(0, max(height, width), (5, 4)).astype(np.float32)
    back = letterbox.boxes_to_image(boxes * np.array(letterbox.scale * 2, np.float32))
    np.testing.assert_allclose(back, boxes, rtol=1e-6)
    assert back.dtype == np.float32


def test_clip_keeps_inside_and_nan() -> None:
    letterbox = Letterbox.fit(100, 200, 640)
    boxes = np.array([[-5, -5, 300, 300], [10, 20, 30, 40], [np.nan, 0, 1, 1]], np.float32)
    expected = [[0, 0, 200, 100], [10, 20, 30, 40], [np.nan, 0, 1, 1]]
    np.testing.assert_array_equal(letterbox.clip_to_image(boxes), expected)


@pytest.mark.parametrize("canvas_sides", [(64, 64), (96, 32), (32, 64)])
@pytest.mark.parametrize("shape", [(1, 1), (37, 90), (90, 37), (64, 64), (1, 900)])
def test_canvas_holds_the_resized_image_and_padding(
    shape: tuple[int, int], canvas_sides: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    letterbox = Letterbox.fit(*shape, canvas_sides)
    canvas = letterbox.apply(image)
    height, width = letterbox.resized_height, letterbox.resized_width
    assert canvas.shape == (canvas_sides[1], canvas_sides[0], 3) and canvas.dtype == np.uint8
    np.testing.assert_array_equal(canvas[:height, :width], cv2.resize(image, (width, height)))
    assert (canvas[height:] == 114).all() and (canvas[:, width:] == 114).all()


def test_priors_are_upper_left_corners_level_by_level() -> None:
    priors = grid_priors(640)
    assert priors.shape == (8400, 3) and priors.dtype == np.float32
    np.testing.assert_array_equal(priors[[0, 1, 80]], [[0, 0, 8], [8, 0, 8], [0, 8, 8]])
    np.testing.assert_array_equal(priors[[6400, 6441]], [[0, 0, 16], [16, 16, 16]])
    np.testing.assert_array_equal(priors[[8000, 8399]], [[0, 0, 32], [608, 608, 32]])


def test_priors_of_a_canvas_that_is_no_square() -> None:
    priors = grid_priors((96, 64))
    assert len(priors) == 12 * 8 + 6 * 4 + 3 * 2
    np.testing.assert_array_equal(priors[[11, 12]], [[88, 0, 8], [0, 8, 8]])
    np.testing.assert_array_equal(priors[[95, 96]], [[88, 56, 8], [0, 0, 16]])
    np.testing.assert_array_equal(priors[-1], [64, 32, 32])


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([64, 160, (160, 64)]))
def test_mask_resampling_interpolates(height: int, width: int, canvas: Canvas) -> None:
    """Weights are convex, so a region without positive logits gets no pixel."""
    letterbox = Letterbox.fit(height, width, canvas)
    for matrix, side, cells in zip(
        mask_resampling(letterbox), (height, width), letterbox.canvas[::-1], strict=True
    ):
        assert matrix.shape[0] == side and matrix.shape[1] <= cells // 8
        assert (matrix >= 0).all()
        np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("canvas", [640, (640, 480), (320, 640)])
@pytest.mark.parametrize("shape", [(720, 1280), (333, 500), (1003, 401)])
def test_masks_lie_where_boxes_lie(shape: tuple[int, int], canvas: Canvas) -> None:
    """A ramp of canvas coordinates, resampled, reads the coordinate to which a box edge maps."""
    letterbox = Letterbox.fit(*shape, canvas)
    for axis, matrix in zip((1, 0), mask_resampling(letterbox), strict=True):
        cell_centres = np.arange(matrix.shape[1]) * 8 + 4.0
        read = matrix @ cell_centres
        pixel_centres = np.arange(matrix.shape[0]) + 0.5
        expected = pixel_centres * letterbox.scale[axis]
        inner = (expected > 4.5) & (expected < letterbox.canvas[axis] - 5)
        np.testing.assert_allclose(read[inner], expected[inner], atol=1e-3)
