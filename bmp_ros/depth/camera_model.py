# SPDX-License-Identifier: Apache-2.0
"""``CameraModel``: from pixels to rays and back, lens distortion included.

The formulas are OpenCV's: radial, tangential, rational, thin-prism and tilted-sensor distortion
(``projectPoints``) and the fish-eye lens (``fisheye::projectPoints``: theta polynomial of degree
9). Pixels are undistorted by OpenCV's iteration, and the answer is projected back: where that does
not lead to the pixel again there is no ray, and the answer is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

FISHEYE = ("equidistant", "fisheye")
DISTORTION_MODELS = ("plumb_bob", "rational_polynomial", *FISHEYE)
"""As sensor_msgs/CameraInfo names them; an empty name means no distortion."""
_SAME_MODELS = {
    "radtan": "plumb_bob",
    "brown_conrady": "plumb_bob",
    "equi": "equidistant",
    "kannala_brandt": "equidistant",
    "kannala_brandt4": "equidistant",
}
"""Names of other programs (kalibr, drivers)."""
COEFFICIENTS = (0, 4, 5, 8, 12, 14)
"""How many coefficients OpenCV's model of a lens may have; that of a fish eye has 4."""
PRECISION = 0.01
"""Pixels by which a ray may miss its pixel when it is undistorted."""
LARGEST = 1e7
"""Pixels above which no focal length and no principal point is believed."""
WIDEST = float(np.tan(np.radians(88)))
"""Beyond this angle from the optical axis a ray does not meet the plane z = 1 in practice."""


@dataclass(frozen=True, eq=False)
class CameraModel:
    """A calibrated camera.

    matrix: (3, 3) intrinsics in pixels, pixel centres at integers; of the last row nothing is
    read. width, height: of its images in pixels. distortion: coefficients in OpenCV's order, 0, 4,
    5, 8, 12 or 14 of them; 0 or 4 for a fish eye. model: one of `DISTORTION_MODELS`; another name
    is accepted while all coefficients are 0.
    A fish eye with four coefficients of 0 is one still (r = f theta), without any it is none.
    Raises ValueError for focal lengths under 1 pixel or above `LARGEST`, an unknown model, another
    number of coefficients, values that are not finite, and distortion that cannot be undone around
    the middle of the image.
    """

    matrix: np.ndarray
    width: int
    height: int
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(0))
    model: str = ""

    def __post_init__(self) -> None:
        if self.matrix.shape != (3, 3) or not np.isfinite(self.matrix[:2]).all():
            raise ValueError(f"the camera matrix must be 3x3 and finite, got {self.matrix}")
        if not (self.matrix[0, 0] >= 1 and self.matrix[1, 1] >= 1):
            raise ValueError(
                f"the focal lengths are {self.matrix[0, 0]:g} and {self.matrix[1, 1]:g} pixels: "
                "the camera is not calibrated"
            )
        if np.abs(self.matrix[:2]).max() > LARGEST:
            raise ValueError(f"the camera matrix has values above {LARGEST:g}: {self.matrix}")
        if self.distortion.ndim != 1 or not np.isfinite(self.distortion).all():
            raise ValueError(f"distortion coefficients are not finite: {self.distortion}")
        if self.model not in DISTORTION_MODELS and self.distortion.any():
            raise ValueError(_unknown_model(self.model))
        allowed = (0, 4) if self.model in FISHEYE else COEFFICIENTS
        count = len(self.distortion)
        # Some drivers add zeros to the four of a fish eye, or send zeros for want of a lens.
        unused = self.distortion[4:] if self.model in FISHEYE and count > 4 else self.distortion
        if count not in allowed and unused.any():
            raise ValueError(
                f"distortion model {self.model!r} has {count} coefficients, needs "
                f"{', '.join(map(str, allowed))}: calibrate again, or rectify the images first"
            )
        if self.is_distorted:
            shares = np.array([[0.5, 0.5], [0.3, 0.3], [0.7, 0.3], [0.3, 0.7], [0.7, 0.7]])
            if not np.isfinite(self.rays(shares * [self.width, self.height])).all():
                raise ValueError(
                    f"distortion coefficients {self.distortion.tolist()} of model {self.model!r} "
                    "cannot be undone around the middle of the image: calibrate again"
                )

    @property
    def is_fisheye(self) -> bool:
        return self.model in FISHEYE and len(self.distortion) >= 4

    @property
    def is_distorted(self) -> bool:
        """Whether pixels lie elsewhere than a pinhole camera would show them."""
        return self.is_fisheye or bool(self.distortion.any())

    def has_lens_of(self, other: CameraModel) -> bool:
        """Whether both distort alike, so that their images differ in scale and shift only."""
        if self.is_fisheye != other.is_fisheye:
            return not self.is_distorted and not other.is_distorted
        return bool(np.allclose(self._coefficients, other._coefficients, rtol=1e-6, atol=1e-9))

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """Where the rays of ``pixels`` (..., 2) cross the plane z = 1: (..., 2) float64.

        A point at depth z along the optical axis is (x z, y z, z) in the camera's optical frame.
        NaN for pixels that are not finite, or that the lens shows from nowhere in front of it.
        """
        flat = np.asarray(pixels, np.float64).reshape(-1, 2)
        y = (flat[:, 1] - self.matrix[1, 2]) / self.matrix[1, 1]
        x = (flat[:, 0] - self.matrix[0, 2] - self.matrix[0, 1] * y) / self.matrix[0, 0]
        rays = np.stack([x, y], axis=1)
        if self.is_distorted and len(rays):
            rays = self._undistorted(rays)
        return rays.reshape(np.shape(pixels))

    def project(self, rays: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of points (..., 2) on the plane z = 1, the inverse of `rays`."""
        flat = np.asarray(rays, np.float64).reshape(-1, 2)
        x, y = self._distorted(flat) if self.is_distorted else flat.T
        u = self.matrix[0, 0] * x + self.matrix[0, 1] * y + self.matrix[0, 2]
        return np.stack([u, self.matrix[1, 1] * y + self.matrix[1, 2]], axis=1).reshape(
            np.shape(rays)
        )

    @property
    def _coefficients(self) -> np.ndarray:
        """(14,), or (4,) of a fish eye, zeros where the model has none."""
        padded = np.zeros(4 if self.is_fisheye else 14)
        count = min(len(padded), len(self.distortion))
        padded[:count] = self.distortion[:count]
        return padded

    def _undistorted(self, points: np.ndarray) -> np.ndarray:
        """Distorted points (N, 2) of the plane z = 1 without their distortion."""
        # Column by column: NumPy reduces rows of two several times slower.
        finite = np.isfinite(points[:, 0]) & np.isfinite(points[:, 1])
        points = points if finite.all() else np.where(finite[:, None], points, 0.0)
        precision = PRECISION / max(self.matrix[0, 0], self.matrix[1, 1])
        camera, lens = np.eye(3), self._coefficients
        with np.errstate(all="ignore"):
            if self.is_fisheye:
                rays = cv2.fisheye.undistortPoints(points[:, None], camera, lens)[:, 0]
            else:
                stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, precision)
                rays = cv2.undistortPointsIter(points[:, None], camera, lens, None, None, stop)
                rays = rays[:, 0]
            missed_x, missed_y = np.abs(self._distorted(rays) - points.T)
            near = np.maximum(np.abs(rays[:, 0]), np.abs(rays[:, 1])) <= WIDEST
            known = finite & near & (missed_x <= 2 * precision) & (missed_y <= 2 * precision)
            if not known.all():
                rays[~known] = np.nan
        return rays

    def _distorted(self, points: np.ndarray) -> np.ndarray:
        """(2, N) x and y on the plane z = 1 after the lens of points (N, 2) before it."""
        x, y = points.T
        if self.is_fisheye:
            radius = np.hypot(x, y)
            theta = np.arctan(radius)
            power, polynomial = theta**2, np.ones_like(theta)
            for order, k in enumerate(self._coefficients, start=1):
                polynomial = polynomial + k * power**order
            scale = np.where(radius > 1e-12, theta * polynomial / np.maximum(radius, 1e-12), 1.0)
            return np.stack([x * scale, y * scale])
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, tilt_x, tilt_y = self._coefficients
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2)
        v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (s3 + r2 * s4)
        if tilt_x or tilt_y:
            u, v, w = _tilt(tilt_x, tilt_y) @ np.stack([u, v, np.ones_like(u)])
            u, v = u / w, v / w
        return np.stack([u, v])


def _unknown_model(name: str) -> str:
    """What to do about coefficients of a model that is not one of `DISTORTION_MODELS`."""
    if not name:
        return (
            "there are distortion coefficients, but distortion_model is empty: who publishes them "
            f"has to name it, one of {', '.join(DISTORTION_MODELS)}"
        )
    text = f"distortion model {name!r} is unknown; known: {', '.join(DISTORTION_MODELS)}; "
    plain = name.lower().replace(" ", "_")
    same = plain if plain in DISTORTION_MODELS else _SAME_MODELS.get(plain)
    if same is not None:
        return f"{text}if it is what ROS calls {same}, let its publisher say so"
    return f"{text}rectify the images first"


def _tilt(angle_x: float, angle_y: float) -> np.ndarray:
    """(3, 3) homography of a sensor that is tilted against the lens (Scheimpflug), radians."""
    about_x, _ = cv2.Rodrigues(np.array([-angle_x, 0.0, 0.0]))
    about_y, _ = cv2.Rodrigues(np.array([0.0, -angle_y, 0.0]))
    turn = about_y @ about_x
    onto = np.array([[turn[2, 2], 0, -turn[0, 2]], [0, turn[2, 2], -turn[1, 2]], [0, 0, 1.0]])
    tilted: np.ndarray = onto @ turn
    return tilted
