# SPDX-License-Identifier: Apache-2.0
"""Pixels to rays: the inverse of projecting, for every distortion model."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.depth.camera_model import CameraModel

MATRIX = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])


@settings(deadline=None)
@given(
    st.sampled_from(["", "plumb_bob", "rational_polynomial", "equidistant"]),
    st.floats(-0.5, 0.5),
    st.floats(-0.4, 0.4),
    st.floats(0.3, 20),
)
def test_rays_lead_back_to_the_point(model: str, x: float, y: float, z: float) -> None:
    coefficients = {
        "": [],
        "plumb_bob": [-0.1, 0.02, 0.001, -0.001, 0.0],
        "rational_polynomial": [0.1, 0.02, 0.001, -0.001, 0.01, 0.15, 0.01, 0.0],
        "equidistant": [0.05, -0.01, 0.002, 0.0],
    }[model]
    distortion = np.array(coefficients)
    point = np.array([[[x * z, y * z, z]]])
    if model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(point, np.zeros(3), np.zeros(3), MATRIX, distortion)
    else:
        pixels, _ = cv2.projectPoints(point, np.zeros(3), np.zeros(3), MATRIX, distortion)
    camera = CameraModel(MATRIX, 640, 480, distortion, model)
    rays = camera.rays(pixels.reshape(1, 1, 2))
    assert rays.shape == (1, 1, 2)
    assert np.allclose(rays[0, 0] * z, point[0, 0, :2], atol=2e-3 * z)


def test_no_pixels_give_no_rays() -> None:
    assert CameraModel(MATRIX, 640, 480).rays(np.zeros((0, 17, 2))).shape == (0, 17, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"matrix": np.zeros((3, 3))}, "not calibrated"),
        ({"matrix": MATRIX * np.nan}, "finite"),
        ({"distortion": np.array([np.inf]), "model": "plumb_bob"}, "not finite"),
        ({"distortion": np.array([0.1]), "model": "thin_prism"}, "rectify"),
        (
            {"distortion": np.full(3, 0.1), "model": "plumb_bob"},
            "has 3 coefficients, needs 4, 5, 8, 12",
        ),
        ({"distortion": np.full(2, 0.1), "model": "fisheye"}, "has 2 coefficients, needs 4:"),
    ],
)
def test_what_is_no_calibration_is_refused(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CameraModel(**{"matrix": MATRIX, "width": 640, "height": 480, **changed})
