# SPDX-License-Identifier: Apache-2.0
"""Rotations in the body frame (x left, y back, z up): bend forward, lean, turn; bone frames."""

from __future__ import annotations

import numpy as np


def about(axis: np.ndarray, angle: float) -> np.ndarray:
    """(3, 3) rotation by ``angle`` radians about the unit vector ``axis`` (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def bend(pitch: float, roll: float, yaw: float) -> np.ndarray:
    """(3, 3): pitch bends forward, roll leans to the left, yaw turns to the left (radians)."""
    cp, sp, cr, sr, cy, sy = (
        np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll), np.cos(yaw), np.sin(yaw),
    )  # fmt: skip
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def unit(vector: np.ndarray) -> np.ndarray:
    """``vector`` scaled to length 1 (a zero vector stays zero)."""
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def frame(direction: np.ndarray, hinge: np.ndarray) -> np.ndarray:
    """(3, 3) orthonormal columns: the bone's direction, its hinge axis made orthogonal, the third."""
    first = unit(direction)
    second = unit(hinge - (hinge @ first) * first)
    return np.stack([first, second, np.cross(first, second)], axis=1)
