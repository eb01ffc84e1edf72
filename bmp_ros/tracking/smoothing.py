# SPDX-License-Identifier: Apache-2.0
"""One-euro filter of everybody's joints (Casiez et al., CHI 2012), all people at once.

Still joints are smoothed much, fast ones little: the cut-off frequency rises with the speed. What
is smoothed is where a joint is beside the place to which its speed leads, as in Holt's double
exponential smoothing: joints that move lag less, and so all can be smoothed more. Speeds are in
body scales per second (of the square root of the box's area, or metres), so that one setting suits
people near and far.
"""

from __future__ import annotations

import numpy as np

from bmp_ros.tracking.continuity import LONG_GAP
from bmp_ros.tracking.settings import SmoothingSettings

SURE = 0.6
LEAST_CONFIDENCE = 0.3
SLOW_S = 0.05
"""Seconds between two images up to which ``jump`` and ``beta`` hold as they are. In longer times,
in proportion, people get further without a jump (with 0.5, by up to ten body scales or metres per
second), and their speed of before says less."""
STANDS, GOES = 0.1, 0.5
"""Speeds below which a joint is expected to stay, and from which it goes on with all of ``trend``:
below, they are noise."""
AHEAD_S = 0.25
"""Seconds for which a joint is expected to go on in a straight line."""


class JointSmoother:
    """Smoothed joints of tracked people, by their ids; of 2D joints or of 3D joints.

    People with the id -1 are passed through. Not for several threads at once.
    """

    def __init__(self, settings: SmoothingSettings | None = None) -> None:
        self.settings = settings or SmoothingSettings()
        self.reset()

    def reset(self) -> None:
        """Forget everybody."""
        self._ids = np.zeros(0, np.int64)
        self._seen_s = np.zeros(0)
        self._last_s = -np.inf
        self._raw = self._joints = self._speeds = np.zeros((0, 0, 0))

    def update(
        self,
        ids: np.ndarray,
        joints: np.ndarray,
        scores: np.ndarray,
        scales: np.ndarray,
        stamp_s: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Smoothed joints (N, K, D), and their velocities (N, K, D) per second.

        ids: (N,) track ids, each once; -1 for people who are not tracked. joints: (N, K, D), NaN
        where unknown. scores: (N, K); unsure joints are smoothed more. scales: (N,) length of a
        body scale, such as the square root of the box's area in pixels, or 1 for metres.
        stamp_s: seconds; at an earlier stamp than the last smoothing begins anew, at the same one
        joints and velocities stay as they were.

        Who was in the image before, too, goes on however slowly the images come, up to the two
        seconds after which the tracker begins anew; so tell of images without people as well.

        Velocities are NaN where they are not known yet.
        """
        ids = np.asarray(ids)
        joints = np.asarray(joints, np.float64)
        result, speeds = joints.copy(), np.full(joints.shape, np.nan)
        tracked = np.flatnonzero(ids >= 0)
        if self._joints.shape[1:] != joints.shape[1:]:
            self.reset()
            self._raw = self._joints = self._speeds = np.zeros((0, *joints.shape[1:]))
        rows = _rows_of(self._ids, ids[tracked])
        dt = np.where(rows >= 0, stamp_s - np.append(self._seen_s, np.nan)[rows], np.nan)
        in_last = dt == stamp_s - self._last_s
        longest = np.where(in_last, max(LONG_GAP, self.settings.forget_s), self.settings.forget_s)
        known = (dt > 0) & (dt <= longest)
        old, columns = rows[known], tracked[known]
        if len(columns):
            result[columns], speeds[columns] = self._filtered(
                old, joints[columns], np.asarray(scores)[columns],
                np.asarray(scales, np.float64)[columns], dt[known],
            )  # fmt: skip
        raw = joints[tracked]
        still = np.flatnonzero(dt == 0)
        if len(still):  # one image twice, or one that a small step back in time makes as late
            old, columns = rows[still], tracked[still]
            known_joints = np.isfinite(self._joints[old])
            result[columns] = np.where(known_joints, self._joints[old], joints[columns])
            speeds[columns] = self._speeds[old]
            raw[still] = np.where(known_joints, self._raw[old], joints[columns])
        self._remember(ids[tracked], raw, result[tracked], speeds[tracked], stamp_s)
        return result, speeds

    def _filtered(
        self,
        old: np.ndarray,
        joints: np.ndarray,
        scores: np.ndarray,
        scales: np.ndarray,
        dt: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        settings = self.settings
        before = self._joints[old]
        dt, scale = dt[:, None, None], np.maximum(scales, 1e-6)[:, None, None]
        raw_speed = (joints - self._raw[old]) / dt
        last_speed = self._speeds[old]
        last_speed = np.where(np.isfinite(last_speed), last_speed, 0.0)
        speed = last_speed + _share(settings.speed_cutoff, dt) * (raw_speed - last_speed)
        pace = np.linalg.norm(speed, axis=2, keepdims=True) / scale
        confidence = np.clip(scores / 0.5, LEAST_CONFIDENCE, 1.0)[:, :, None]
        slow = np.maximum(dt / SLOW_S, 1.0)
        cutoff = (settings.min_cutoff + settings.beta * slow * pace) * confidence
        # It goes on as before, if it surely moves and still does so in this image.
        slower = np.minimum(pace, np.linalg.norm(last_speed, axis=2, keepdims=True) / scale)
        goes = settings.trend * np.clip((slower - STANDS) / (GOES - STANDS), 0, 1)
        goes = goes * ((last_speed * raw_speed).sum(axis=2, keepdims=True) > 0)
        expected = before + goes * last_speed * np.minimum(dt, AHEAD_S)
        smooth = expected + _share(cutoff, dt) * (joints - expected)
        # A joint seen for the first time, or one that surely is elsewhere, is taken as it is.
        allowed = settings.jump * scale * slow
        far = np.linalg.norm(joints - before, axis=2, keepdims=True) > allowed
        fresh = ~np.isfinite(smooth) | (far & (scores[:, :, None] > SURE))
        return np.where(fresh, joints, smooth), np.where(fresh, np.nan, speed)

    def _remember(
        self,
        ids: np.ndarray,
        raw: np.ndarray,
        joints: np.ndarray,
        speeds: np.ndarray,
        stamp_s: float,
    ) -> None:
        age = stamp_s - self._seen_s
        stay = ~np.isin(self._ids, ids) & (age >= 0) & (age <= self.settings.forget_s)
        self._ids = np.concatenate([self._ids[stay], ids])
        self._seen_s = np.concatenate([self._seen_s[stay], np.full(len(ids), stamp_s)])
        self._last_s = stamp_s
        self._raw = np.concatenate([self._raw[stay], raw])
        self._joints = np.concatenate([self._joints[stay], joints])
        self._speeds = np.concatenate([self._speeds[stay], speeds])


def _share(cutoff: np.ndarray | float, dt: np.ndarray) -> np.ndarray:
    """How much of a new value a first-order low-pass of ``cutoff`` hertz takes after ``dt``."""
    return np.asarray(1 / (1 + 1 / (2 * np.pi * cutoff * dt)))


def _rows_of(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(N,) index of each wanted id among the known ones, -1 for none."""
    if not len(known):
        return np.full(len(wanted), -1)
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)
    rows = order[place]
    return np.where(known[rows] == wanted, rows, -1)
