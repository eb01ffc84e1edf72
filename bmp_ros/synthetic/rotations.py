# SPDX-License-Identifier: Apache-2.0
"""Rotations in the body frame (x left, y back, z up): bend forward, lean, turn; bone frames."""

from __future__ import annotations

import math

import numpy as np


def about(axis: np.ndarray, angle: float) -> np.ndarray:
    """(3, 3) rotation by ``angle`` radians about the unit vector ``axis`` (Rodrigues)."""
    x, y, z = axis
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew


def bend(pitch: float, roll: float, yaw: float) -> np.ndarray:
    """(3, 3): pitch bends forward, roll leans to the left, yaw turns to the left (radians)."""
    cp, sp, cr, sr, cy, sy = (
        math.cos(pitch), math.sin(pitch), math.cos(roll), math.sin(roll),
        math.cos(yaw), math.sin(yaw),
    )  # fmt: skip
    # Rz(yaw) Ry(roll) Rx(pitch), multiplied out.
    return np.array(
        [
            [cy * cr, cy * sr * sp - sy * cp, cy * sr * cp + sy * sp],
            [sy * cr, sy * sr * sp + cy * cp, sy * sr * cp - cy * sp],
            [-sr, cr * sp, cr * cp],
        ]
    )


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3,) cross product; np.cross spends ten times as long on axes for single vectors."""
    ax, ay, az = a.tolist()
    bx, by, bz = b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def unit(vector: np.ndarray) -> np.ndarray:
    """``vector`` scaled to length 1 (a zero vector stays zero)."""
    return vector / max(float(vector @ vector) ** 0.5, 1e-9)


def frame(direction: np.ndarray, hinge: np.ndarray) -> np.ndarray:
    """(3, 3) orthonormal columns: the bone's direction, its hinge made orthogonal, the third."""
    first = unit(direction)
    second = unit(hinge - (hinge @ first) * first)
    return np.array([first, second, cross(first, second)]).T
