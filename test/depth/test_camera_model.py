# SPDX-License-Identifier: Apache-2.0
"""Pixels to rays and back: OpenCV's projection is undone, for every distortion model."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.depth.camera_model import CameraModel

MATRIX = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
LENSES = {
    "none": ("", []),
    "plumb bob, 4": ("plumb_bob", [-0.3, 0.09, 0.001, -0.0005]),
    "plumb bob": ("plumb_bob", [-0.1, 0.02, 0.001, -0.001, 0.01]),
    "plumb bob, strong": ("plumb_bob", [-0.4, 0.2, 0.001, -0.001, -0.02]),
    "plumb bob, zeros": ("plumb_bob", [0.0] * 5),
    "rational": ("rational_polynomial", [0.1, 0.02, 0.001, -0.001, 0.01, 0.15, 0.01, 0.0]),
    "thin prism": (
        "rational_polynomial",
        [-0.1, 0.02, 0.001, -0.001, 0.01, 0, 0, 0, 0.002, 0.001, -0.002, 0.001],
    ),
    "tilted": (
        "rational_polynomial",
        [-0.1, 0.02, 1e-3, -1e-3, 0.01, 0, 0, 0, 2e-3, 1e-3, -2e-3, 1e-3, 0.02, -0.03],
    ),
    "fish eye": ("equidistant", [0.05, -0.01, 0.002, 0.0]),
    "fish eye by its other name": ("fisheye", [0.1, 0.02, 0.0, 0.0]),
    "fish eye without coefficients other than 0": ("equidistant", [0.0] * 4),
    "unknown, without distortion": ("radtan", [0.0] * 4),
}


def camera_of(lens: str) -> CameraModel:
    model, coefficients = LENSES[lens]
    return CameraModel(MATRIX, 640, 480, np.array(coefficients, np.float64), model)


def projected(lens: str, points: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) of points (N, 3), by OpenCV."""
    model, coefficients = LENSES[lens]
    zero, given_points = np.zeros(3), points[:, None]
    if model in ("equidistant", "fisheye"):
        lens_of = np.array(coefficients)
        return cv2.fisheye.projectPoints(given_points, zero, zero, MATRIX, lens_of)[0][:, 0]
    return cv2.projectPoints(given_points, zero, zero, MATRIX, np.array(coefficients))[0][:, 0]


@settings(deadline=None)
@given(
    st.sampled_from(sorted(LENSES)), st.floats(-0.5, 0.5), st.floats(-0.4, 0.4), st.floats(0.3, 20)
)
def test_rays_lead_back_to_the_point(lens: str, x: float, y: float, z: float) -> None:
    point = np.array([[x * z, y * z, z]])
    camera, pixels = camera_of(lens), projected(lens, point)
    rays = camera.rays(pixels.reshape(1, 1, 2))
    assert rays.shape == (1, 1, 2)
    # 0.01 pixels of a focal length of 500, and what a lens that squeezes makes of it
    assert np.allclose(rays[0, 0], [x, y], atol=1e-4)
    assert np.allclose(camera.project(np.array([[x, y]])), pixels, atol=1e-6)


@pytest.mark.parametrize("lens", sorted(LENSES))
def test_every_pixel_of_the_image_is_met_again(lens: str) -> None:
    camera = camera_of(lens)
    pixels = np.stack(np.meshgrid(np.arange(0, 640, 7), np.arange(0, 480, 7)), axis=-1)
    back = camera.project(camera.rays(pixels))
    assert np.nanmax(np.abs(back - pixels)) < 0.03
    assert np.isfinite(back).all()


def test_skew_is_taken_out_with_and_without_a_lens() -> None:
    skewed = MATRIX.copy()
    skewed[0, 1] = 25.0
    for coefficients in ([], [-0.1, 0.02, 0.001, -0.001]):
        camera = CameraModel(skewed, 640, 480, np.array(coefficients, np.float64), "plumb_bob")
        pixels = np.array([[60.0, 60.0], [600.0, 400.0]])
        assert np.allclose(camera.project(camera.rays(pixels)), pixels, atol=0.03)


def test_a_pixel_that_the_lens_shows_from_nowhere_has_no_ray() -> None:
    # r (1 - 0.35 r^2) has its maximum 0.65 at r = 0.98: what lies beyond is not shown.
    camera = CameraModel(MATRIX, 640, 480, np.array([-0.35, 0, 0, 0]), "plumb_bob")
    rays = camera.rays(np.array([[320.0, 240.0], [320 + 500 * 0.8, 240.0], [np.nan, 3.0]]))
    assert np.allclose(rays[0], 0) and np.isnan(rays[1:]).all()
    wide = CameraModel(np.diag([200.0, 200.0, 1.0]) + [[0, 0, 320], [0, 0, 240], [0, 0, 0]],
                       640, 480, np.zeros(4), "equidistant")  # fmt: skip
    rays = wide.rays(np.array([[320 + 200 * np.radians(60), 240.0], [320 + 200 * 1.6, 240.0]]))
    assert rays[0, 0] == pytest.approx(np.tan(np.radians(60)), rel=1e-4)
    assert np.isnan(rays[1]).all()


def test_no_pixels_give_no_rays() -> None:
    for lens in LENSES:
        assert camera_of(lens).rays(np.zeros((0, 17, 2))).shape == (0, 17, 2)


def test_same_lens() -> None:
    four, bob = camera_of("plumb bob, 4"), camera_of("plumb bob")
    padded = CameraModel(
        MATRIX * 0.5, 320, 240, np.array([-0.3, 0.09, 0.001, -0.0005, 0]), "plumb_bob"
    )
    assert four.has_lens_of(padded) and padded.has_lens_of(four) and not four.has_lens_of(bob)
    assert camera_of("none").has_lens_of(camera_of("plumb bob, zeros"))
    fish = camera_of("fish eye without coefficients other than 0")
    assert not fish.has_lens_of(camera_of("none")) and not camera_of("none").has_lens_of(fish)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"matrix": np.zeros((3, 3))}, "not calibrated"),
        ({"matrix": MATRIX * np.array([[-1], [1], [1]])}, "not calibrated"),
        ({"matrix": MATRIX / 1000}, "not calibrated"),
        ({"matrix": MATRIX * np.nan}, "finite"),
        ({"matrix": np.full((3, 3), np.inf)}, "finite"),
        ({"distortion": np.array([np.inf]), "model": "plumb_bob"}, "not finite"),
        ({"distortion": np.array([0.1, np.nan, 0, 0]), "model": "radtan"}, "not finite"),
        (
            {"distortion": np.array([0.1, 0, 0, 0]), "model": "radtan"},
            "radtan.*ROS calls plumb_bob",
        ),
        ({"distortion": np.array([0.1, 0, 0, 0]), "model": "Plumb Bob"}, "ROS calls plumb_bob"),
        ({"distortion": np.array([0.1, 0, 0, 0]), "model": "x"}, "rectify the images first"),
        ({"distortion": np.array([0.1, 0, 0, 0]), "model": ""}, "distortion_model is empty"),
        ({"distortion": np.full(2, 0.1), "model": "fisheye"}, "has 2 coefficients"),
        ({"distortion": np.full(5, 0.1), "model": "equidistant"}, "has 5 coefficients"),
        ({"distortion": np.array([1e30, 0, 0, 0]), "model": "plumb_bob"}, "cannot be undone"),
        ({"distortion": np.array([-30.0, 0, 0, 0]), "model": "plumb_bob"}, "cannot be undone"),
        ({"distortion": np.array([-9.0, 0, 0, 0]), "model": "equidistant"}, "cannot be undone"),
    ],
)
def test_what_is_no_calibration_is_refused(changed: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CameraModel(**{"matrix": MATRIX, "width": 640, "height": 480, **changed})


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 20),
    st.sampled_from(["", "plumb_bob", "rational_polynomial", "equidistant", "fisheye", "radtan"]),
    st.sampled_from([1e-3, 0.1, 10.0, 1e8, 1e300]),
    st.integers(0, 2**31),
)
def test_any_coefficients_are_refused_or_give_rays(
    count: int, model: str, size: float, seed: int
) -> None:
    coefficients = np.random.default_rng(seed).uniform(-size, size, count)
    try:
        camera = CameraModel(MATRIX, 640, 480, coefficients, model)
    except ValueError:
        return
    pixels = np.array([[[320.0, 240.0], [0, 0], [639, 479], [np.inf, 0], [1e12, -1e12]]])
    rays = camera.rays(pixels)
    assert np.isfinite(rays[0, 0]).all() and np.abs(rays[np.isfinite(rays)]).max() < 1e13
    if camera.is_distorted:
        assert count in ((0, 4) if model in ("equidistant", "fisheye") else (4, 5, 8, 12, 14)) or (
            not coefficients[4:].any()
        )
