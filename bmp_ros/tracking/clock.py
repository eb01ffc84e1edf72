# SPDX-License-Identifier: Apache-2.0
"""Seconds between images by their stamps: gaps, steps back, stamps that stand still."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

LONG_GAP = 2.0
STEP_BACK = -1.0
FROZEN_AFTER = 3
"""Images in a row with one stamp after which the times of arrival are used."""


class Step(Enum):
    """start: nothing came before. normal, gap (long, but not too long to go on), same (no time
    has passed, or a little less than none), restart: what was known is worth nothing."""

    START = "start"
    NORMAL = "normal"
    GAP = "gap"
    SAME = "same"
    RESTART = "restart"


@dataclass
class StampClock:
    """Turns stamps into a clock that never goes back.

    now: seconds on that clock, the sum of all steps ahead. frozen: whether stamps stand still and
    times of arrival are used.
    """

    short_gap: float
    now: float = 0.0
    frozen: bool = False
    _stamp: float | None = None
    _arrival: float | None = None
    _equal: int = 1

    def step(self, stamp_s: float, arrival_s: float | None) -> tuple[Step, float]:
        """Kind of the step to this image, and its length in seconds (>= 0), which `now` gained.

        arrival_s: when the image came, on any steady clock; used where stamps stand still.
        Raises ValueError for a stamp that is no finite number.
        """
        for name, value in (("stamp_s", stamp_s), ("arrival_s", arrival_s)):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} is {value!r}, must be a finite number of seconds")
        last, last_arrival = self._stamp, self._arrival
        self._stamp, self._arrival = stamp_s, arrival_s
        if last is None:
            return Step.START, 0.0
        dt = stamp_s - last
        self._equal = self._equal + 1 if dt == 0 else 1
        self.frozen = False
        if self._equal >= FROZEN_AFTER and arrival_s is not None and last_arrival is not None:
            self.frozen, dt = True, arrival_s - last_arrival
        if dt <= STEP_BACK or dt > LONG_GAP:
            self.now += max(dt, 0.0)
            return Step.RESTART, max(dt, 0.0)
        if dt <= 0:
            return Step.SAME, 0.0
        self.now += dt
        return (Step.NORMAL if dt <= self.short_gap else Step.GAP), dt
