# SPDX-License-Identifier: Apache-2.0
"""What a family of postures is, and a short way to write one down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bmp_ros.synthetic.skeleton import Pose

Arm = tuple[float, float, float, float, float]
"""One row of ``Pose.arms``."""
Build = Callable[[np.random.Generator], Pose]

HANGING: Arm = (0.14, 1.2, 0.25, 0.2, 0.0)


@dataclass(frozen=True)
class Template:
    """A named family of postures. seat: the hips rest on something of their own height."""

    name: str
    split: str
    build: Build
    odds: float = 1.0
    seat: bool = False


def posed(left: Arm = HANGING, right: Arm = HANGING, **fields: object) -> Pose:
    """A `Pose` with these arms; ``fields``: others of its fields, lists as arrays."""
    named = {
        name: np.array(value, float) if isinstance(value, (list, tuple)) else value
        for name, value in fields.items()
    }
    return Pose(arms=np.array([left, right]), **named)  # type: ignore[arg-type]
