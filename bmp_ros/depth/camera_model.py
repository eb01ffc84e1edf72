# SPDX-License-Identifier: Apache-2.0
"""``CameraModel``: from pixels to rays, lens distortion included."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

FISHEYE = ("equidistant", "fisheye")
DISTORTION_MODELS = ("plumb_bob", "rational_polynomial", *FISHEYE)
"""As sensor_msgs/CameraInfo names them; an empty name means no distortion."""
COEFFICIENTS = (4, 5, 8, 12, 14)
"""How many OpenCV's model may have; that of fish eyes has 4, what drivers add to them is 0."""


@dataclass(frozen=True, eq=False)
class CameraModel:
    """A calibrated camera.

    matrix: (3, 3) intrinsics in pixels, pixel centres at integers. width, height: of its images.
    distortion: coefficients in OpenCV's order. model: one of `DISTORTION_MODELS`, or empty.
    Raises ValueError for a focal length <= 0, an unknown model, a number of coefficients that its
    model does not have, and values that are not finite.
    """

    matrix: np.ndarray
    width: int
    height: int
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(0))
    model: str = ""

    def __post_init__(self) -> None:
        if self.matrix.shape != (3, 3) or not np.isfinite(self.matrix).all():
            raise ValueError(f"the camera matrix must be 3x3 and finite, got {self.matrix}")
        if not (self.matrix[0, 0] > 0 and self.matrix[1, 1] > 0):
            raise ValueError(
                f"the focal lengths are {self.matrix[0, 0]:g} and {self.matrix[1, 1]:g} pixels: "
                "the camera is not calibrated"
            )
        if not np.isfinite(self.distortion).all():
            raise ValueError(f"distortion coefficients are not finite: {self.distortion}")
        if self.model not in DISTORTION_MODELS and self.distortion.any():
            raise ValueError(
                f"distortion model {self.model!r} is unknown; known: "
                f"{', '.join(DISTORTION_MODELS)}; rectify the images first"
            )
        count = len(self.distortion)
        fits = count >= 4 if self.model in FISHEYE else count in COEFFICIENTS
        if self.distortion.any() and not fits:
            needed = "4" if self.model in FISHEYE else ", ".join(map(str, COEFFICIENTS))
            raise ValueError(
                f"distortion model {self.model!r} has {count} coefficients, needs {needed}: "
                "calibrate again, or rectify the images first"
            )

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """Where the rays of ``pixels`` (..., 2) cross the plane z = 1: (..., 2) float64.

        A point at depth z along the optical axis is (x z, y z, z) in the camera's optical frame.
        The models are OpenCV's (`undistortPoints`, `fisheye.undistortPoints`).
        """
        flat = np.asarray(pixels, np.float64).reshape(-1, 1, 2)
        if not len(flat):
            return np.zeros(np.shape(pixels))
        if not self.distortion.any():
            skew, (fx, fy) = self.matrix[0, 1], np.diag(self.matrix)[:2]
            y = (flat[:, 0, 1] - self.matrix[1, 2]) / fy
            x = (flat[:, 0, 0] - self.matrix[0, 2] - skew * y) / fx
            rays = np.stack([x, y], axis=1)
        elif self.model in FISHEYE:
            rays = cv2.fisheye.undistortPoints(flat, self.matrix, self.distortion[:4])
        else:
            rays = cv2.undistortPoints(flat, self.matrix, self.distortion)
        return rays.reshape(np.shape(pixels))
