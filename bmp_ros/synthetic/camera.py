# SPDX-License-Identifier: Apache-2.0
"""Pinhole camera of a robot: intrinsics, pose, projection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAR, FAR = 0.08, 60.0


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. Image coordinates are continuous: pixel i covers [i, i + 1).

    matrix: (3, 3) intrinsics in pixels. rotation (3, 3), translation (3,): world to camera
    (x right, y down, z ahead), metres.
    """

    width: int
    height: int
    matrix: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray

    @property
    def position(self) -> np.ndarray:
        """(3,) the camera in the world."""
        return -self.rotation.T @ self.translation

    @property
    def forward(self) -> np.ndarray:
        """(3,) unit viewing direction in the world."""
        return self.rotation[2]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points (N, 3) to pixels (N, 2) and depths (N,); behind the camera depth is < 0."""
        seen = points @ self.rotation.T + self.translation
        depth = seen[:, 2]
        ahead = np.maximum(depth, 1e-3)[:, None]
        pixels = seen[:, :2] / ahead * np.diag(self.matrix)[:2] + self.matrix[:2, 2]
        return pixels, depth

    def clip_matrix(self) -> np.ndarray:
        """(4, 4) world to OpenGL clip space, row 0 of the buffer at the top of the image."""
        fx, fy = self.matrix[0, 0], self.matrix[1, 1]
        cx, cy = self.matrix[0, 2], self.matrix[1, 2]
        projection = np.array(
            [
                [2 * fx / self.width, 0, 2 * cx / self.width - 1, 0],
                [0, 2 * fy / self.height, 2 * cy / self.height - 1, 0],
                [0, 0, (FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)],
                [0, 0, 1, 0],
            ]
        )
        world_to_camera = np.eye(4)
        world_to_camera[:3, :3], world_to_camera[:3, 3] = self.rotation, self.translation
        return projection @ world_to_camera


def look_camera(
    width: int,
    height: int,
    *,
    field_of_view: float,
    position: np.ndarray,
    heading: float = 0.0,
    tilt: float = 0.0,
    roll: float = 0.0,
) -> Camera:
    """A camera at ``position`` that looks along +y when heading, tilt and roll are 0.

    field_of_view: horizontal, radians. heading: to the left, tilt: up, roll: clockwise, radians.
    """
    focal = width / 2 / np.tan(field_of_view / 2)
    matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    ch, sh, ct, st = np.cos(heading), np.sin(heading), np.cos(tilt), np.sin(tilt)
    ahead = np.array([-sh * ct, ch * ct, st])
    right = np.array([ch, sh, 0.0])
    down = np.cross(ahead, right)
    cr, sr = np.cos(roll), np.sin(roll)
    rotation = np.stack([cr * right + sr * down, cr * down - sr * right, ahead])
    return Camera(width, height, matrix, rotation, -rotation @ position)
