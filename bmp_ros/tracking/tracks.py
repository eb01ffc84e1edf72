# SPDX-License-Identifier: Apache-2.0
"""``Tracks``: what is remembered of everybody, one row each; the counter of ids."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field, fields

import numpy as np

from bmp_ros.tracking.appearance import BINS
from bmp_ros.tracking.motion import local_motion, move_boxes, move_points, to_centre


class State:
    """tentative: not yet sure, without an id. confirmed: seen in this image. occluded: hidden by
    another person. lost: out of sight, nobody knows why.

    Plain numbers: NumPy takes four times as long to compare an array with a member of an enum.
    """

    TENTATIVE = 0
    CONFIRMED = 1
    OCCLUDED = 2
    LOST = 3


class IdCounter:
    """Gives out ids from 1 on, none twice; several trackers and threads may share one."""

    def __init__(self, first: int = 1) -> None:
        self._next = first
        self._lock = threading.Lock()

    def take(self, count: int) -> np.ndarray:
        """(count,) int32 ids that nobody had. Raises OverflowError after the last of 2^31."""
        with self._lock:
            if self._next + count - 1 > np.iinfo(np.int32).max:
                raise OverflowError("all 2^31 track ids are used up; start the program again")
            ids = np.arange(self._next, self._next + count, dtype=np.int32)
            self._next += count
        return ids

    @property
    def next(self) -> int:
        """The id that comes next."""
        return self._next

    def skip_to(self, number: int) -> None:
        """Give out no id below ``number`` any more; never goes back."""
        with self._lock:
            self._next = max(self._next, number)


@dataclass
class Tracks:
    """T tracks of skeletons with K joints, one row each.

    ids: (T,) int32, -1 while tentative. state: (T,) int8, see `State`. first_s, seen_s: (T,)
    float64, when the person was seen first and last, on the tracker's clock. hits: (T,) int32
    images with the person. boxes (T, 4) float64 xyxy, joints (T, K, 2), joint_scores (T, K): as
    last seen, moved with the camera since. anchor (T, 2): see `motion.displacement`, mean
    (T, 2, 2), covariance (T, 3): see `motion`. shift: (T, 2) pixels that the person should have
    moved since last seen. colours: (T, BINS) histogram, zero as long as none is known. hidden:
    (T,) share of the predicted mask that other people cover. pixels: T arrays (P, 2) float32,
    points of the last mask on a coarse grid.
    """

    ids: np.ndarray
    state: np.ndarray
    first_s: np.ndarray
    seen_s: np.ndarray
    hits: np.ndarray
    boxes: np.ndarray
    joints: np.ndarray
    joint_scores: np.ndarray
    anchor: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    shift: np.ndarray
    colours: np.ndarray
    hidden: np.ndarray
    pixels: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def none(cls, joints: int) -> Tracks:
        """No track; of skeletons with so many joints."""
        return cls(
            ids=np.zeros(0, np.int32), state=np.zeros(0, np.int8), first_s=np.zeros(0),
            seen_s=np.zeros(0), hits=np.zeros(0, np.int32), boxes=np.zeros((0, 4)),
            joints=np.zeros((0, joints, 2)), joint_scores=np.zeros((0, joints)),
            anchor=np.zeros((0, 2)), mean=np.zeros((0, 2, 2)), covariance=np.zeros((0, 3)),
            shift=np.zeros((0, 2)), colours=np.zeros((0, BINS)), hidden=np.zeros(0),
        )  # fmt: skip

    @property
    def centres(self) -> np.ndarray:
        """(T, 4) boxes where they should be now, as (cx, cy, w, h)."""
        centres = to_centre(self.boxes)
        centres[:, :2] += self.shift
        return centres

    @property
    def heights(self) -> np.ndarray:
        """(T,) of the boxes, pixels, at least 1."""
        return np.asarray(np.maximum(self.boxes[:, 3] - self.boxes[:, 1], 1.0))

    def __len__(self) -> int:
        return len(self.ids)

    def keep(self, rows: np.ndarray) -> Tracks:
        """The tracks where ``rows`` (T,) is True; these themselves if it is everywhere."""
        if rows.all():
            return self
        arrays = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return Tracks(**arrays, pixels=list(itertools.compress(self.pixels, rows)))

    def with_more(self, others: Tracks) -> Tracks:
        """These tracks, then the others."""
        arrays = {
            name: np.concatenate([getattr(self, name), getattr(others, name)]) for name in _ARRAYS
        }
        return Tracks(**arrays, pixels=self.pixels + others.pixels)

    def move_with_camera(self, homography: np.ndarray) -> None:
        """Put everything that is in pixels where the camera's motion has moved it.

        All arrays are replaced, none is changed: a shallow copy can be moved alone.
        """
        last = to_centre(self.boxes)
        self.boxes = move_boxes(homography, self.boxes)
        moved = to_centre(self.boxes)
        scale = (moved[:, 2:] / np.maximum(last[:, 2:], 1)).clip(0.5, 2)
        self.pixels = [
            ((part - last[row, :2]) * scale[row] + moved[row, :2]).astype(np.float32)
            for row, part in enumerate(self.pixels)
        ]
        self.joints = move_points(homography, self.joints)
        # Where the image turns or grows, motions turn and grow with it: measured ones, those
        # expected since the person was seen, and what is not known of them.
        local = local_motion(homography, self.anchor)
        ahead = self.mean[:, :, 0] - self.anchor
        self.anchor = self.anchor + moved[:, :2] - last[:, :2]
        steps = np.stack([ahead, self.mean[:, :, 1], self.shift], axis=2)
        ahead, speed, self.shift = np.moveaxis(local @ steps, 2, 0)
        self.mean = np.stack([self.anchor + ahead, speed], axis=2)
        self.covariance = self.covariance * np.abs(np.linalg.det(local))[:, None]


_ARRAYS = tuple(item.name for item in fields(Tracks) if item.name != "pixels")
