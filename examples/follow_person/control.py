# SPDX-License-Identifier: Apache-2.0
"""Where to drive to stay near a person: numbers in, numbers out, no ROS."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """keep: distance to the person, metres. speed m/s, turn rad/s, acceleration m/s², at most."""

    keep: float = 1.2
    speed: float = 0.4
    turn: float = 0.8
    acceleration: float = 0.4


@dataclass(frozen=True)
class Command:
    """forward: m/s. turn: rad/s, to the left. Zero is standing still."""

    forward: float = 0.0
    turn: float = 0.0


def on_the_ground(x: float, y: float, z: float, axes: str) -> tuple[float, float] | None:
    """(ahead, left) metres of a person; None where the place is not known.

    axes: "optical" (x right, y down, z ahead), of a level camera that looks ahead, or "base" (x
    ahead, y left, z up), of the robot's base.
    """
    ahead, left = (z, -x) if axes == "optical" else (x, y)
    return (ahead, left) if math.isfinite(ahead) and math.isfinite(left) else None


def drive(ahead: float, left: float, limits: Limits) -> Command:
    """The velocity at which to go to a person there: never backwards, and ahead only as far as the
    person is ahead, so that the robot turns before it goes."""
    bearing, distance = math.atan2(left, ahead), math.hypot(ahead, left)
    turn = max(-limits.turn, min(limits.turn, 1.2 * bearing))
    speed = max(0.0, min(limits.speed, 0.6 * (distance - limits.keep)))
    return Command(speed * max(0.0, math.cos(bearing)), turn)


def accelerate(now: Command, wanted: Command, dt: float, limits: Limits) -> Command:
    """What of ``wanted`` can be reached in ``dt`` seconds. Slowing down is not limited."""
    return Command(min(wanted.forward, now.forward + limits.acceleration * dt), wanted.turn)


def goal(ahead: float, left: float, limits: Limits) -> tuple[float, float, float]:
    """(ahead, left, yaw) metres and radians of a goal on the way to the person that keeps the
    distance; who is nearer already is only turned to."""
    bearing, distance = math.atan2(left, ahead), math.hypot(ahead, left)
    way = max(0.0, distance - limits.keep)
    return way * math.cos(bearing), way * math.sin(bearing), bearing
