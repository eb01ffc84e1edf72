# SPDX-License-Identifier: Apache-2.0
"""A walk cycle."""

from __future__ import annotations

import numpy as np

from bmp_ros.synthetic.skeleton import Pose


def walk(phase: float, stride: float = 0.32, swing: float = 0.45) -> Pose:
    """A walking person at ``phase`` (radians, 2 pi per two steps). stride: of the leg's length."""
    feet, lift, pitch = np.zeros((2, 2)), np.zeros(2), np.zeros(2)
    arms = np.zeros((2, 5))
    for side, shift in enumerate((0.0, np.pi)):
        at = (phase + shift) % (2 * np.pi)
        swinging = at < np.pi  # the foot is in the air while it moves forward
        forward = -np.cos(at) * stride
        feet[side] = 0.075, forward
        lift[side] = 0.12 * np.sin(at) ** 2 if swinging else 0.0
        pitch[side] = 0.5 * np.cos(at) if swinging else 0.35 * max(0.0, -forward / stride)
        lift[side] += 0.09 * max(0.0, pitch[side])
        reach = swing * np.cos(at)  # the arm goes against the leg
        arms[side] = abs(reach) + 0.08, 0.35 if reach > 0 else np.pi - 0.35, 0.3, 0.1, 0.0
        arms[side, 2] += 0.5 * swing * max(0.0, np.cos(at))
    twist = 0.14 * np.cos(phase)
    # As high as the standing leg allows: nearly straight when the feet pass each other.
    height = np.sqrt(0.996**2 - (stride * np.cos(phase)) ** 2)
    return Pose(
        pelvis_height=float(height),
        pelvis=np.array([0.03, 0.0, twist]),
        spine=np.array([0.05, 0.0, -1.6 * twist]),
        feet=feet,
        foot_lift=lift,
        foot_pitch=pitch,
        toe_out=np.array([0.1, 0.1]),
        arms=arms,
    )
