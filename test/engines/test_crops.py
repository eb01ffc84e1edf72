# SPDX-License-Identifier: Apache-2.0
"""Crop geometry, warping and dimming in NumPy and OpenCV."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.engines.crops import (
    RGB_MEAN,
    RGB_STD,
    CropGeometry,
    background_weights,
    crop_geometry,
    pose_inputs,
    warp_crops,
)

coordinates = st.floats(-3000, 3000, width=32)
boxes = st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates), min_size=1).map(
    lambda rows: np.array(rows, dtype=np.float32)
)


def grey_levels(inputs: np.ndarray) -> np.ndarray:
    """Undo the normalisation: (N, 3, h, w) RGB network inputs -> (N, h, w, 3) BGR."""
    return (inputs * RGB_STD[:, None, None] + RGB_MEAN[:, None, None])[:, ::-1].transpose(
        0, 2, 3, 1
    )


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def identity_box(width: int = 192, height: int = 256) -> np.ndarray:
    """The box whose crop has the width of the image and its middle."""
    centre = np.array([width - 1, height - 1]) / 2
    half = np.array([width - 1, (width - 1) / 0.75]) / 2.5
    return np.concatenate([centre - half, centre + half])[None]


def test_the_published_box_gives_the_published_crop():
    geometry = crop_geometry(np.array([[100, 50, 200, 350]]))
    np.testing.assert_allclose(geometry.extent, [[281.25, 375]])
    np.testing.assert_allclose(geometry.origin, [[9.375, 12.5]])
    np.testing.assert_allclose(apply(geometry.image_to_crop[0], np.array([9.375, 12.5])), 0)
    middle = geometry.points_to_image(np.array([[[23.5, 31.5]]]), (48, 64))
    np.testing.assert_allclose(middle, [[[150, 200]]])


@given(boxes)
def test_there_and_back_again(boxes):
    geometry = crop_geometry(boxes)
    corners = np.array([[0, 0], [191, 0], [0, 255], [191, 255.0]])
    for forward, back in zip(geometry.crop_to_image, geometry.image_to_crop, strict=True):
        np.testing.assert_allclose(apply(back, apply(forward, corners)), corners, atol=1e-6)


@given(boxes)
def test_crops_are_finite_have_the_aspect_of_the_network_and_keep_the_centre(boxes):
    geometry = crop_geometry(boxes)
    assert np.isfinite(geometry.origin).all()
    assert (geometry.extent >= 1).all()
    np.testing.assert_allclose(geometry.extent[:, 0], 0.75 * geometry.extent[:, 1])
    middle = geometry.points_to_image(np.tile([[[95.5, 127.5]]], (len(boxes), 1, 1)), (192, 256))
    expected = (boxes[:, :2].astype(np.float64) + boxes[:, 2:]) / 2
    np.testing.assert_allclose(middle[:, 0], expected, rtol=1e-6, atol=1e-3)


@given(boxes)
def test_a_mirrored_image_gives_the_mirrored_crop(boxes):
    width = 640
    mirrored_boxes = boxes[:, [2, 1, 0, 3]].copy()
    mirrored_boxes[:, [0, 2]] = width - 1 - mirrored_boxes[:, [0, 2]]
    points = np.tile([[[3.25, 10], [40, 60.5]]], (len(boxes), 1, 1))
    plain = crop_geometry(boxes).points_to_image(points, (48, 64))
    points[..., 0] = 47 - points[..., 0]
    mirrored = crop_geometry(mirrored_boxes).points_to_image(points, (48, 64))
    np.testing.assert_allclose(width - 1 - mirrored[..., 0], plain[..., 0], atol=1e-2)
    np.testing.assert_allclose(mirrored[..., 1], plain[..., 1], atol=1e-2)


@pytest.mark.parametrize("box", [[10, 20, 10, 20], [10, 20, 10, 90], [50, 60, 40, 30]])
def test_boxes_without_area_give_a_crop(box):
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    mask = np.ones((1, 100, 120), dtype=bool)
    inputs = pose_inputs(image, crop_geometry(np.array([box])), mask, 0.75)
    assert np.isfinite(inputs).all()


def test_boxes_that_are_no_boxes_are_refused():
    with pytest.raises(ValueError, match=r"box 1 is not finite: \[0.0, nan, 5.0, 5.0\]"):
        crop_geometry(np.array([[0, 0, 5, 5], [0, np.nan, 5, 5]]))
    with pytest.raises(ValueError, match=r"\(N, 4\).*\(4,\)"):
        crop_geometry(np.array([0, 0, 5, 5]))


def test_a_crop_at_scale_one_is_a_cut_out():
    image = np.random.default_rng(0).integers(0, 256, (300, 250, 3), dtype=np.uint8)
    geometry = CropGeometry(np.array([[20.0, 30.0]]), np.array([[191.0, 255.0]]), (192, 256))
    np.testing.assert_array_equal(warp_crops(image, geometry)[0], image[30:286, 20:212])


def test_a_crop_is_black_beyond_the_image():
    image = np.full((300, 250, 3), 90, dtype=np.uint8)
    geometry = CropGeometry(np.array([[-50.0, 100.0]]), np.array([[191.0, 255.0]]), (192, 256))
    crop = warp_crops(image, geometry)[0]
    assert (crop[:200, 50:] == 90).all()
    assert not crop[:, :50].any() and not crop[200:].any()


def test_the_background_is_dimmed_with_halves_to_even_and_the_person_is_not():
    levels = np.arange(256, dtype=np.uint8)
    image = np.repeat(levels[:, None, None], 192, axis=1).repeat(3, axis=2)
    mask = np.zeros((1, 256, 192), dtype=bool)
    mask[:, :, :96] = True
    geometry = crop_geometry(identity_box())
    plain = warp_crops(image, geometry)[0].astype(np.float64)
    for factor in (0.8, 0.75):
        dimmed = grey_levels(pose_inputs(image, geometry, mask, factor))[0]
        np.testing.assert_allclose(dimmed[:, :94], plain[:, :94], atol=1e-3)
        np.testing.assert_allclose(dimmed[:, 98:], np.rint(factor * plain[:, 98:]), atol=1e-3)


def test_weights_run_smoothly_over_the_outline():
    mask = np.zeros((1, 300, 300), dtype=bool)
    mask[:, :, :150] = True
    weights = background_weights(mask, crop_geometry(np.array([[120, 120, 180, 180]])), 0.75)[0]
    line = weights[128]
    assert line[0] == 1 and line[-1] == np.float32(0.75)
    assert (np.diff(line) <= 0).all()
    assert ((line > 0.76) & (line < 0.99)).any()


@given(st.integers(-400, 700), st.integers(-400, 700), st.integers(1, 400), st.integers(1, 400))
def test_a_mask_is_warped_as_if_it_were_an_image(x, y, width, height):
    mask = np.zeros((300, 400), dtype=bool)
    cv2.ellipse(picture := mask.astype(np.uint8), (200, 150), (120, 60), 30, 0, 360, 255, -1)
    mask = picture > 0
    geometry = crop_geometry(np.array([[x, y, x + width, y + height]]))
    weights = background_weights(mask[None], geometry, 0.0)[0]
    whole = warp_crops(np.repeat(picture[..., None], 3, axis=2), geometry)[0, ..., 0]
    np.testing.assert_allclose(weights * 255, whole, atol=1.01)


def test_a_person_with_an_empty_mask_is_not_dimmed():
    image = np.full((300, 300, 3), 200, dtype=np.uint8)
    masks = np.zeros((2, 300, 300), dtype=bool)
    masks[1, :10, :10] = True  # a mask beside the box: all of the crop is background
    geometry = crop_geometry(np.array([[100, 100, 180, 220]] * 2))
    levels = grey_levels(pose_inputs(image, geometry, masks, 0.75))
    np.testing.assert_allclose(levels[0], 200, atol=1e-3)
    np.testing.assert_allclose(levels[1], 150, atol=1e-3)


def test_networks_without_conditioning_ignore_masks():
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    masks = np.zeros((1, 300, 300), dtype=bool)
    masks[0, :50] = True
    geometry = crop_geometry(np.array([[100, 100, 180, 220]]))
    with_masks = pose_inputs(image, geometry, masks, None)
    np.testing.assert_array_equal(with_masks, pose_inputs(image, geometry))
