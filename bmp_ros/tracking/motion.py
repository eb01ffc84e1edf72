# SPDX-License-Identifier: Apache-2.0
"""How fast people move in the image: a Kalman filter for all tracks at once; ego motion.

The filter follows an anchor of every body, a point that moves with it (see `displacement`), at a
constant velocity. x and y are independent of each other: a covariance is (pp, pv, vv) of one axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

POSITION_NOISE = 0.1
"""Standard deviation of a measured centre or size, of the body's height."""
FIRST_SPEED = 0.7
"""Standard deviation of the velocity of somebody new, body heights per second."""
HALF_LIFE = 0.5
"""Seconds after which the velocity of somebody who was lost has halved."""
HIDDEN_HALF_LIFE = 2.0
"""The same for somebody who is hidden by another person: who passes behind goes on."""


def to_centre(boxes: np.ndarray) -> np.ndarray:
    """Boxes xyxy (N, 4) as (cx, cy, w, h), float64."""
    boxes = np.asarray(boxes, np.float64)
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def to_corners(centres: np.ndarray) -> np.ndarray:
    """The opposite of `to_centre`; sizes below one pixel become one pixel."""
    half = np.maximum(centres[:, 2:], 1.0) / 2
    return np.concatenate([centres[:, :2] - half, centres[:, :2] + half], axis=1)


def first_state(anchors: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (N, 2, 2), per axis position and velocity, and covariance (N, 3) of people just seen.

    anchors: (N, 2) pixels. heights: (N,) of the bodies, pixels.
    """
    mean = np.stack([anchors, np.zeros_like(anchors)], axis=2)
    covariance = np.zeros((len(anchors), 3))
    covariance[:, 0] = (POSITION_NOISE * heights) ** 2
    covariance[:, 2] = (FIRST_SPEED * heights) ** 2
    return mean, covariance


def predict(
    mean: np.ndarray, covariance: np.ndarray, dt: float, noise: np.ndarray, half_lives: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance ``dt`` seconds later.

    noise: (T,) variance that velocities gain per second. half_lives: (T,) seconds in which
    velocities halve, infinity for people in sight.
    """
    decay = 0.5 ** (dt / half_lives)[:, None]
    moved = mean.copy()
    moved[:, :, 0] += mean[:, :, 1] * dt * (1 + decay) / 2
    moved[:, :, 1] *= decay
    pp, pv, vv = covariance.T
    grown = np.empty_like(covariance)
    grown[:, 0] = pp + 2 * dt * pv + dt * dt * vv + noise * dt**3 / 3
    grown[:, 1] = pv + dt * vv + noise * dt**2 / 2
    grown[:, 2] = vv + noise * dt
    return moved, grown


def correct(
    mean: np.ndarray, covariance: np.ndarray, measured: np.ndarray, deviations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance after the anchors ``measured`` (T, 2), with standard ``deviations`` (T,)
    in pixels."""
    pp, pv, vv = covariance.T
    gain = covariance[:, :2] / (pp + deviations**2)[:, None]
    surprise = measured - mean[:, :, 0]
    updated = np.empty_like(covariance)
    updated[:, :2] = covariance[:, :2] - gain * pp[:, None]
    updated[:, 2] = vv - gain[:, 1] * pv
    return mean + gain[:, None] * surprise[:, :, None], updated


def displacement(
    joints: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    threshold: float,
    least: int,
) -> np.ndarray:
    """(T, 2) pixels that T bodies moved between two images: (before, after) in every argument.

    joints (T, K, 2), scores (T, K), boxes (T, 4), each twice. It is the median over the joints
    that are confident and finite in both: what hides a part of a body moves the centre of its box,
    but not its joints. With fewer than ``least`` such joints it is that of the boxes' centres.
    """
    steps = joints[1] - joints[0]
    finite = np.isfinite(steps)
    both = (np.minimum(*scores) > threshold) & finite[..., 0] & finite[..., 1]
    count = both.sum(axis=1)
    enough = count >= least
    edges = boxes[1] - boxes[0]
    moved = (edges[:, :2] + edges[:, 2:]) / 2
    if enough.any():  # np.nanmedian takes several times as long
        steps = np.sort(np.where(both[:, :, None], steps, np.inf), axis=1)
        rows, middle = np.flatnonzero(enough), count[enough]
        moved[rows] = (steps[rows, (middle - 1) // 2] + steps[rows, middle // 2]) / 2
    return moved


def check_homography(ego_motion: np.ndarray) -> np.ndarray:
    """``ego_motion`` as float64 (3, 3) with determinant 1: any multiple means the same.

    Raises ValueError when it is none that can be inverted.
    """
    matrix = np.asarray(ego_motion, np.float64)
    if matrix.shape == (3, 3) and np.isfinite(matrix).all():
        largest = np.abs(matrix).max()
        determinant = np.linalg.det(matrix / largest) if largest > 0 else 0.0
        if abs(determinant) > 1e-14:
            # Of the two signs the one that leaves what is seen before the camera: no camera
            # mirrors what it turns to.
            scaled: np.ndarray = matrix / largest / np.cbrt(determinant)
            return scaled
    raise ValueError(
        "ego_motion must be an invertible 3x3 homography from pixels of the previous image to "
        f"pixels of this one, got {ego_motion!r}; leave it out where it is unknown"
    )


def rotation_homography(
    camera_matrix: np.ndarray, before: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """(3, 3) homography K R K^-1 of a camera that turned between two images.

    camera_matrix: (3, 3) intrinsics of rectified images. before, after: (3, 3) rotations from the
    world to the camera. Exact for what is far away; moves of the camera are not in it.
    """
    matrix = np.asarray(camera_matrix, np.float64)
    return matrix @ np.asarray(after) @ np.asarray(before).T @ np.linalg.inv(matrix)


def move_points(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) of the previous image as pixels of this one.

    What comes to lie behind the camera is left where it was.
    """
    moved = points @ homography[:, :2].T + homography[:, 2]
    depth = moved[..., 2:]
    ahead = depth > 1e-6
    return np.where(ahead, moved[..., :2] / np.where(ahead, depth, 1.0), points)


def local_motion(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 2, 2) Jacobians of `move_points` at ``points`` (N, 2): what becomes of short ways there.

    The identity for what comes to lie behind the camera.
    """
    moved = move_points(homography, points)
    depth = points @ homography[2, :2] + homography[2, 2]
    ahead = depth > 1e-6
    slopes = homography[:2, :2] - moved[:, :, None] * homography[2, :2]
    slopes = slopes / np.where(ahead, depth, 1.0)[:, None, None]
    return np.where(ahead[:, None, None], slopes, np.eye(2))


def move_boxes(homography: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes xyxy (N, 4) around the moved middles of their sides."""
    x0, y0, x1, y1 = np.asarray(boxes, np.float64).T
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    sides = np.stack(
        [
            np.stack([x0, cy], 1),
            np.stack([cx, y0], 1),
            np.stack([x1, cy], 1),
            np.stack([cx, y1], 1),
        ],
        axis=1,
    )
    moved = move_points(homography, sides)
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)
