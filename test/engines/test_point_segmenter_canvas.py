# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.engines.crops import RGB_MEAN, RGB_STD
from bmp_ros.engines.point_segmenter import (
    masks_on_image,
    masks_to_canvas,
    point_letterbox,
    points_to_canvas,
    segmenter_input,
)

sides = st.integers(1, 3000)


@pytest.mark.parametrize(
    ("image", "resized", "canvas"),
    [
        ((480, 640), (288, 384), (384, 288)),
        ((720, 1280), (216, 384), (384, 224)),
        ((1280, 720), (384, 216), (224, 384)),
        ((100, 100), (384, 384), (384, 384)),
        ((1, 4000), (1, 384), (384, 32)),
    ],
)
def test_canvas_fits_the_image(
    image: tuple[int, int], resized: tuple[int, int], canvas: tuple[int, int]
) -> None:
    letterbox = point_letterbox(*image, 384)
    assert (letterbox.resized_height, letterbox.resized_width) == resized
    assert letterbox.canvas == canvas


@given(sides, sides, st.sampled_from([64, 100, 384]))
def test_canvas_is_the_smallest_multiple_of_32(height: int, width: int, side: int) -> None:
    letterbox = point_letterbox(height, width, side)
    assert max(letterbox.resized_height, letterbox.resized_width) == side
    resized = (letterbox.resized_width, letterbox.resized_height)
    for length, lies_on in zip(resized, letterbox.canvas, strict=True):
        assert lies_on % 32 == 0 and length <= lies_on < length + 32


def test_input_is_normalised_rgb_on_grey_padding() -> None:
    image = np.zeros((20, 60, 3), np.uint8)
    image[..., 2] = 255  # red
    letterbox = point_letterbox(20, 60, 60)
    inputs = segmenter_input(image, letterbox)
    assert inputs.shape == (1, 3, 32, 64) and inputs.dtype == np.float32
    assert inputs.flags.c_contiguous
    grey_levels = inputs[0].transpose(1, 2, 0) * RGB_STD + RGB_MEAN
    np.testing.assert_allclose(grey_levels[:20, :60], np.broadcast_to([255, 0, 0], (20, 60, 3)),
                               atol=1e-3)  # fmt: skip
    np.testing.assert_allclose(grey_levels[20:], 114, atol=1e-3)
    np.testing.assert_allclose(grey_levels[:, 60:], 114, atol=1e-3)


def test_points_follow_the_pixels_they_name() -> None:
    """A bright pixel block of the image, and the point in its middle, meet on the canvas."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[40:48, 100:108] = 255
    letterbox = point_letterbox(120, 160, 384)
    bright = segmenter_input(image, letterbox)[0, 0]
    weights = bright - bright.min(axis=None)
    weights[letterbox.resized_height :] = 0
    rows, columns = np.mgrid[: bright.shape[0], : bright.shape[1]]
    centre = [(weights * columns).sum(), (weights * rows).sum()] / weights.sum()
    (found,) = points_to_canvas(np.array([[103.5, 43.5]], np.float32), letterbox)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, centre, atol=0.02)


@pytest.mark.parametrize("shape", [(480, 640), (720, 1280), (333, 500), (1003, 401), (50, 60)])
def test_masks_lie_where_their_logits_lie(shape: tuple[int, int]) -> None:
    """Half planes whose edge is at canvas coordinate c end at the image pixel that maps to c."""
    height, width = shape
    letterbox = point_letterbox(height, width, 384)
    columns = np.arange(letterbox.canvas[0] // 4) * 4 + 1.5  # centres of the cells
    rows = np.arange(letterbox.canvas[1] // 4) * 4 + 1.5
    edge_x, edge_y = letterbox.resized_width * 0.37, letterbox.resized_height * 0.61
    logits = np.empty((2, len(rows), len(columns)), np.float32)
    logits[0] = edge_x - columns
    logits[1] = rows[:, None] - edge_y
    masks = masks_on_image(logits, letterbox)
    assert masks.shape == (2, height, width) and masks.dtype == np.bool_

    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    on_canvas = points_to_canvas(pixels, letterbox)
    clear_x = np.abs(on_canvas[..., 0] - edge_x) > 1e-2
    clear_y = np.abs(on_canvas[..., 1] - edge_y) > 1e-2
    assert clear_x.mean() > 0.9 and clear_y.mean() > 0.9
    np.testing.assert_array_equal(masks[0][clear_x], (on_canvas[..., 0] < edge_x)[clear_x])
    np.testing.assert_array_equal(masks[1][clear_y], (on_canvas[..., 1] > edge_y)[clear_y])


def test_no_mask_at_all() -> None:
    letterbox = point_letterbox(48, 64, 384)
    assert masks_on_image(np.empty((0, 72, 96), np.float32), letterbox).shape == (0, 48, 64)


@given(sides, sides, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_masks_keep_their_share_of_the_image(height: int, width: int, seed: int) -> None:
    letterbox = point_letterbox(height, width, 128)
    y, x = np.sort(np.random.default_rng(seed).uniform(0, 1, (2, 2)), axis=1)
    masks = np.zeros((2, height, width), np.bool_)
    masks[0, int(y[0] * height) : int(y[1] * height) + 1, int(x[0] * width) :] = True
    shares = masks_to_canvas(masks, 2, letterbox)
    assert shares.shape == (2, letterbox.canvas[1] // 4, letterbox.canvas[0] // 4)
    assert shares.dtype == np.float32 and shares.min() >= 0 and shares.max() <= 1
    assert not shares[1].any() and not masks_to_canvas(None, 2, letterbox).any()
    covered = letterbox.resized_height * letterbox.resized_width / 16
    # Rows and columns are sampled: on a canvas of few rows, both edges may be half a row off.
    thinnest = min(letterbox.resized_height, letterbox.resized_width)
    assert shares[0].sum() / covered == pytest.approx(masks[0].mean(), abs=0.03 + 1 / thinnest)


@pytest.mark.parametrize("shape", [(480, 640), (720, 1280), (333, 500), (50, 60)])
def test_masks_on_the_canvas_come_back(shape: tuple[int, int]) -> None:
    letterbox = point_letterbox(*shape, 384)
    rows, columns = np.mgrid[: shape[0], : shape[1]] / np.array(shape)[:, None, None]
    disc = (rows - 0.4) ** 2 + (columns - 0.6) ** 2 < 0.06
    back = masks_on_image(masks_to_canvas(disc[None], 1, letterbox) - 0.5, letterbox)[0]
    assert (back & disc).sum() / (back | disc).sum() > 0.97
