# SPDX-License-Identifier: Apache-2.0
"""Posture and gesture of people by rules on joints in the image, smoothed ones at best.

The classes and their numbers are those of hri_msgs/BodyPosture and Gesture. Images are upright:
down is towards greater rows. All lengths are in units of a body (`Joints.unit`), about the length
of the trunk from hips to shoulders, so that no rule depends on how far people are. What the rules
miss, and how often, is in docs/interaction.md.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property

import numpy as np

from bmp_ros.loop.skeletons import Skeleton

JOINT_SCORE = 0.3
"""Minimum score of a joint that counts as seen."""

LYING_TRUNK, LYING_LEGS = 55.0, 50.0
"""Degrees from upright of the trunk, and of the way from hips to ankles, of who lies."""
STANDING_THIGH, STANDING_LEG = 0.5, 1.1
"""How far the knees, and the ankles, lie below the hips of who stands."""
CROUCHING_LEG = 0.9
"""How far at most the ankles lie below the hips of who crouches."""

RAISED_ABOVE_SHOULDER = 0.5
"""How far a raised wrist lies above the shoulders, where no joint of the head is seen."""
FACE = 0.65
"""Distance at most of a wrist from the middle of the face that it touches."""
CROSSED = -0.3
"""How far at least the left wrist lies to the right of the right one, with crossed arms: wrists
that meet count, hands reach farther."""
CROSSED_HEIGHT = (0.0, 0.6)
"""Where crossed wrists lie, from the shoulders (0) down to the hips (1)."""
FOREARMS = 0.7
"""Distance at most of a wrist from the other arm's elbow, with crossed arms."""
WAVE_S, WAVE_SWING, WAVE_TURNS = 1.5, 0.12, 2
"""A hand waves when it changed its direction at least so often within so many seconds, each time
after a way across of so much."""


_HEAD = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")


class Posture(IntEnum):
    """Numbers of hri_msgs/BodyPosture."""

    OTHER = 0
    STANDING = 1
    SITTING = 2
    CROUCHING = 3
    LAYING = 4


class Gesture(IntEnum):
    """Numbers of hri_msgs/Gesture."""

    OTHER = 0
    HANDS_ON_FACE = 1
    ARMS_CROSSED = 2
    LEFT_HAND_RAISED = 3
    RIGHT_HAND_RAISED = 4
    BOTH_HANDS_RAISED = 5
    WAVING = 6


class Joints:
    """Joints of N people by name, (N, 2) float64 pixels each, NaN where one is unsure or missing
    in the skeleton. What several rules need is computed once.

    keypoints: (N, K, 2) pixels, scores: (N, K).
    """

    def __init__(self, keypoints: np.ndarray, scores: np.ndarray, skeleton: Skeleton) -> None:
        self.values = np.where((scores >= JOINT_SCORE)[..., None], keypoints, np.nan).astype(float)
        self.names = skeleton.names

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            return np.full((len(self.values), 2), np.nan)
        return self.values[:, self.names.index(name)]

    @cached_property
    def shoulders(self) -> np.ndarray:
        """(N, 2) middle of those that are known, as for the other pairs."""
        return self._middle("left_shoulder", "right_shoulder")

    @cached_property
    def hips(self) -> np.ndarray:
        return self._middle("left_hip", "right_hip")

    @cached_property
    def knees(self) -> np.ndarray:
        return self._middle("left_knee", "right_knee")

    @cached_property
    def ankles(self) -> np.ndarray:
        return self._middle("left_ankle", "right_ankle")

    @cached_property
    def face(self) -> np.ndarray:
        return self._middle(*_HEAD)

    @cached_property
    def unit(self) -> np.ndarray:
        """(N,) pixels: the largest of what trunk, lower legs and the shoulders' width say.

        The trunk is shortened while bending towards the camera, the shoulders are when seen from
        the side: of lengths in proportion to the trunk's the largest is the least shortened.
        """
        lengths = [
            _length(self.shoulders - self.hips),
            1.15 * _length(self.knees - self.ankles),
            1.4 * _length(self["left_shoulder"] - self["right_shoulder"]),
        ]
        known = np.nan_to_num(np.stack(lengths), nan=0.0).max(axis=0)
        return np.where(known > 0, known, np.nan)

    def _middle(self, *names: str) -> np.ndarray:
        """(N, 2) mean of those joints that are known, NaN where none is."""
        points = np.stack([self[name] for name in names])
        known = np.isfinite(points)
        count = known.sum(axis=0)
        total = np.where(known, points, 0.0).sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.hypot(vectors[:, 0], vectors[:, 1])


def postures(joints: Joints) -> np.ndarray:
    """(N,) uint8 numbers of `Posture`.

    * LAYING: trunk and legs lie flat in the image.
    * STANDING: knees and ankles are well below the hips; walking and bending count as standing.
    * CROUCHING: the ankles are close below the hips, or above.
    * SITTING: what is between the two: the thighs are level, the lower legs hang.
    * OTHER: shoulders, hips or knees are not seen. Without ankles the knees decide between
      standing and sitting.
    """
    hips, ankles, unit = joints.hips, joints.ankles, joints.unit
    with np.errstate(invalid="ignore"):
        trunk = _degrees_from_upright(hips - joints.shoulders)
        legs = _degrees_from_upright(ankles - hips)
        thigh = (joints.knees - hips)[:, 1] / unit
        leg = (ankles - hips)[:, 1] / unit
        known = np.isfinite(trunk) & np.isfinite(thigh)
        footed = np.isfinite(leg)
        lying = (trunk > LYING_TRUNK) & (legs > LYING_LEGS)
        standing = (thigh > STANDING_THIGH) & (~footed | (leg > STANDING_LEG))
        crouching = footed & (leg < CROUCHING_LEG)
    result = np.full(len(joints), Posture.SITTING, np.uint8)
    result[crouching] = Posture.CROUCHING
    result[standing] = Posture.STANDING
    result[lying] = Posture.LAYING
    result[~known] = Posture.OTHER
    return result


def _degrees_from_upright(down: np.ndarray) -> np.ndarray:
    """(N,) angle of vectors (N, 2) from straight down, 0 to 180."""
    return np.degrees(np.abs(np.arctan2(down[:, 0], down[:, 1])))


def gestures(joints: Joints, waving: np.ndarray) -> np.ndarray:
    """(N,) uint8 numbers of `Gesture`.

    waving: (N,) bool, see `WaveWatch`. The first that holds counts:

    * WAVING.
    * BOTH_, LEFT_, RIGHT_HAND_RAISED: the wrist is above all joints of the head that are seen; of
      the person's own left or right.
    * HANDS_ON_FACE: a wrist is near the middle of the face.
    * ARMS_CROSSED: the wrists lie before the trunk, each on the other's side and near the other
      arm's elbow. Which side is which the shoulders tell, so that a back counts as well.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = _raised_wrists(joints)
        result = np.where(_arms_crossed(joints), Gesture.ARMS_CROSSED, Gesture.OTHER)
        reach = FACE * joints.unit
        near = [
            _length(joints[f"{side}_wrist"] - joints.face) < reach for side in ("left", "right")
        ]
    result = np.where(near[0] | near[1], Gesture.HANDS_ON_FACE, result)
    result = np.where(right, Gesture.RIGHT_HAND_RAISED, result)
    result = np.where(left, Gesture.LEFT_HAND_RAISED, result)
    result = np.where(left & right, Gesture.BOTH_HANDS_RAISED, result)
    return np.where(waving, Gesture.WAVING, result).astype(np.uint8)


def _raised_wrists(joints: Joints) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool each: the left and the right wrist are above the head."""
    head = np.stack([joints[name][:, 1] for name in _HEAD])
    crown = np.where(np.isfinite(head), head, np.inf).min(axis=0)
    shoulder = joints.shoulders[:, 1] - RAISED_ABOVE_SHOULDER * joints.unit
    line = np.where(np.isfinite(crown), crown, shoulder)
    left, right = (joints[f"{side}_wrist"][:, 1] < line for side in ("left", "right"))
    return left, right


def _arms_crossed(joints: Joints) -> np.ndarray:
    across = joints["left_shoulder"] - joints["right_shoulder"]
    left, right, unit = joints["left_wrist"], joints["right_wrist"], joints.unit
    # Along the line from shoulder to shoulder, which is level enough to be taken as it is.
    crossed = np.sign(across[:, 0]) * (right - left)[:, 0] > CROSSED * unit
    shoulders, hips = joints.shoulders[:, 1], joints.hips[:, 1]
    hips = np.where(np.isfinite(hips), hips, shoulders + unit)
    for wrist, elbow in ((left, "right_elbow"), (right, "left_elbow")):
        height = (wrist[:, 1] - shoulders) / (hips - shoulders)
        crossed &= (height > CROSSED_HEIGHT[0]) & (height < CROSSED_HEIGHT[1])
        crossed &= _length(wrist - joints[elbow]) < FOREARMS * unit
    return crossed


@dataclass
class WaveWatch:
    """Which people wave: ways of wrists over the last `WAVE_S` seconds, by track id."""

    _ways: dict[tuple[int, str], deque[tuple[float, float]]] = field(default_factory=dict)

    def forget(self) -> None:
        self._ways.clear()

    def update(self, ids: np.ndarray, joints: Joints, stamp_s: float) -> np.ndarray:
        """(N,) bool for people with track ids (N,), -1 for none.

        A hand waves while it is above its elbow and near or above the shoulder, and swings across,
        to and fro, about the elbow.
        """
        unit = joints.unit
        waving = np.zeros(len(ids), np.bool_)
        for side in ("left", "right"):
            wrist, elbow = joints[f"{side}_wrist"], joints[f"{side}_elbow"]
            shoulder = joints[f"{side}_shoulder"]
            with np.errstate(invalid="ignore"):
                up = (wrist[:, 1] < elbow[:, 1]) & (wrist[:, 1] < shoulder[:, 1] + 0.15 * unit)
                swing = (wrist - elbow)[:, 0] / unit
            for row in np.flatnonzero(up & np.isfinite(swing) & (ids >= 0)).tolist():
                key = int(ids[row]), side
                way = self._ways.setdefault(key, deque())
                if way and way[-1][0] > stamp_s:
                    way.clear()
                way.append((stamp_s, float(swing[row])))
                waving[row] |= self._is_to_and_fro(way, stamp_s)
        old = [key for key, way in self._ways.items() if not way or stamp_s - way[-1][0] > WAVE_S]
        for key in old:
            del self._ways[key]
        return waving

    @staticmethod
    def _is_to_and_fro(way: deque[tuple[float, float]], now: float) -> bool:
        while way[0][0] < now - WAVE_S:
            way.popleft()
        return turning_points([swing for _, swing in way], WAVE_SWING) >= WAVE_TURNS


def turning_points(values: list[float], swing: float) -> int:
    """How often ``values`` turn, each time after a way of ``swing`` or more in one direction."""
    count, direction = 0, 0
    low = high = values[0] if values else 0.0
    for value in values:
        low, high = min(low, value), max(high, value)
        if direction <= 0 and value - low >= swing:
            count, direction, high = count + (direction < 0), 1, value
        elif direction >= 0 and high - value >= swing:
            count, direction, low = count + (direction > 0), -1, value
    return count
