# SPDX-License-Identifier: Apache-2.0
"""Whether an image goes on from the one before: steps of the stamps, gaps, cuts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np

LONG_GAP = 2.0
STEP_BACK = -1.0
FROZEN_AFTER = 3
"""Images in a row with one stamp after which the times of arrival are used."""
THUMBNAIL = (32, 24)
CUT_CORRELATION = 0.5
LEAST_BACKGROUND = 0.25
"""Share of the thumbnail without people in both images that a place can be known by."""
PLAIN = 3.0
"""Standard deviation of grey levels below which a background is a plain wall, and noise."""


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
    times of arrival are used. Stamps that then go on (those of whole seconds do, once a second)
    count only for what the times of arrival have not counted, and those that return from a small
    step back only for what is beyond it.
    """

    short_gap: float
    now: float = 0.0
    frozen: bool = False
    _stamp: float | None = None
    _arrival: float | None = None
    _equal: int = 1
    _ahead: float = 0.0
    _back: float = 0.0
    _coarse: bool = False
    _start: float = 0.0

    @property
    def time_s(self) -> float:
        """`now` as a stamp: the last one, gone on by times of arrival while stamps stand still.

        It goes back only where everything begins anew.
        """
        return self._start + self.now

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
            self._start = stamp_s - self.now
            return Step.START, 0.0
        dt = stamp_s - last
        self._equal = self._equal + 1 if dt == 0 else 1
        self.frozen = False
        arrived = None if arrival_s is None or last_arrival is None else arrival_s - last_arrival
        # Whose stamps stood still before has no better ones for the second image of a stamp.
        enough = 2 if self._coarse else FROZEN_AFTER
        if self._equal >= enough and arrived is not None:
            self.frozen = self._coarse = True
            dt = arrived
            self._ahead += arrived
        elif dt > 0 and self._ahead and arrived is not None:
            dt = max(dt - self._ahead, min(dt, arrived))
        if not self.frozen:
            self._ahead = 0.0
        if STEP_BACK < dt < 0:
            self._back -= dt
        elif dt > 0 and not self.frozen:
            # Back where stamps were before one strayed; else they go on from where it led.
            dt -= self._back if dt >= self._back else 0.0
            self._back = 0.0
        if dt <= STEP_BACK or dt > LONG_GAP:
            self.now += max(dt, 0.0)
            self._back = 0.0
            self._start = stamp_s - self.now
            return Step.RESTART, max(dt, 0.0)
        if dt <= 0:
            return Step.SAME, 0.0
        self.now += dt
        return (Step.NORMAL if dt <= self.short_gap else Step.GAP), dt


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Grey (24, 32) float32 of a BGR image (H, W, 3)."""
    width, height = THUMBNAIL
    small = cv2.resize(image, (4 * width, 4 * height), interpolation=cv2.INTER_NEAREST)
    small = cv2.resize(small, THUMBNAIL, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)


def background(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`thumbnail` with NaN where people are. labels: (h, w) int32 of any size, 0 = nobody."""
    grey = thumbnail(image)
    somebody = (labels > 0).astype(np.float32)
    grey[cv2.resize(somebody, THUMBNAIL, interpolation=cv2.INTER_AREA) > 0] = np.nan
    return grey


def shows_another_place(before: np.ndarray | None, after: np.ndarray | None) -> bool:
    """Whether two images are of other places: their `background` correlates by less than 0.5.

    False where one is missing or plain, or people fill the image.
    """
    if before is None or after is None:
        return False
    both = np.isfinite(before) & np.isfinite(after)
    if both.mean() < LEAST_BACKGROUND:
        return False
    first, second = before[both], after[both]
    deviations = float(first.std()), float(second.std())
    if min(deviations) < PLAIN:
        return False
    covariance = float(((first - first.mean()) * (second - second.mean())).mean())
    return covariance / (deviations[0] * deviations[1]) < CUT_CORRELATION
