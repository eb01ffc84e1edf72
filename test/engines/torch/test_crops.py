# SPDX-License-Identifier: Apache-2.0
"""Crops on the device equal those of OpenCV on the host."""

import cv2
import numpy as np
import pytest
import torch

from bmp_ros.engines import crops as host_crops
from bmp_ros.engines.crops import RGB_STD, CropGeometry, crop_geometry
from bmp_ros.engines.torch.crops import frame_tensor, pose_inputs
from bmp_ros.loop.frame import Frame

BOXES = np.array(
    [[60, 80, 260, 400], [350.5, 120.25, 570, 380], [-40, 200, 90, 470], [600, -20, 660, 30]]
)


def smooth_image() -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (480, 640, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 8)
    return cv2.normalize(smooth, None, 20, 235, cv2.NORM_MINMAX).round().astype(np.uint8)


def masks() -> np.ndarray:
    masks = np.zeros((4, 480, 640), dtype=bool)
    for mask, (x1, y1, x2, y2) in zip(masks, BOXES.astype(int).clip(0), strict=True):
        mask[y1 + 5 : y2 - 5, x1 + 5 : x2 - 5] = True
    masks[1] = False
    return masks


def grey_level_difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one - other) * RGB_STD[:, None, None]


@pytest.mark.parametrize("factor", [None, 0.75])
def test_inputs_differ_by_grey_levels_from_those_of_opencv(factor):
    image, geometry = smooth_image(), crop_geometry(BOXES)
    on_host = host_crops.pose_inputs(image, geometry, masks(), factor)
    on_device = pose_inputs(torch.from_numpy(image), geometry, masks(), factor).numpy()
    assert on_device.shape == on_host.shape == (4, 3, 256, 192)
    difference = grey_level_difference(on_device, on_host)
    # Smooth areas: one level of rounding per step; outlines: 1/32 px of a step of 235 levels.
    assert np.percentile(difference, 99) <= 1.01
    assert difference.max() <= 235 / 32 + 1


def test_a_crop_at_scale_one_is_a_cut_out():
    image = np.random.default_rng(0).integers(0, 256, (300, 250, 3), dtype=np.uint8)
    geometry = CropGeometry(np.array([[20.0, 30.0]]), np.array([[191.0, 255.0]]), (192, 256))
    on_host = host_crops.pose_inputs(image, geometry)
    np.testing.assert_allclose(pose_inputs(torch.from_numpy(image), geometry), on_host, atol=1e-5)


def test_dimming_rounds_halves_to_even():
    levels = np.arange(256, dtype=np.uint8)
    image = np.repeat(levels[:, None, None], 192, axis=1).repeat(3, axis=2)
    mask = np.zeros((1, 256, 192), dtype=bool)
    mask[:, :, :96] = True
    geometry = CropGeometry(np.zeros((1, 2)), np.array([[191.0, 255.0]]), (192, 256))
    for factor in (0.8, 0.75):
        expected = np.where(mask[0], levels[:, None], np.rint(factor * levels)[:, None])
        inputs = pose_inputs(torch.from_numpy(image), geometry, mask, factor).numpy()
        restored = inputs * RGB_STD[:, None, None] + host_crops.RGB_MEAN[:, None, None]
        np.testing.assert_allclose(restored[0, 1], expected, atol=1e-3)


def test_degenerate_boxes_stay_finite():
    geometry = crop_geometry(np.array([[10, 20, 10, 20], [700, 500, 700, 900], [9, 9, 5, 5]]))
    inputs = pose_inputs(torch.from_numpy(smooth_image()), geometry, masks()[:3], 0.75)
    assert torch.isfinite(inputs).all()


def test_a_read_only_frame_is_uploaded_once_and_without_a_warning(recwarn):
    image = smooth_image()
    image.flags.writeable = False
    frame = Frame(image)
    first = frame_tensor(frame, torch.device("cpu"))
    assert frame_tensor(frame, torch.device("cpu")) is first
    np.testing.assert_array_equal(first, image)
    assert not recwarn.list
