# SPDX-License-Identifier: Apache-2.0
"""People made unrecognisable: which pixels of an image hide them, and what is shown instead.

A mask alone is not enough: it may end at the collar, lack a hand, or be a little late. So masks
are grown, and heads, limbs, hands and feet are covered by the keypoints as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import Skeleton

KINDS = ("bodies", "faces")
MARGIN = 0.12
"""What a mask is grown by on every side, as a part of the root of the box's area."""
LIMB = 0.10
"""Radius of a limb that the mask lacks, as a part of the root of the box's area: a thigh of a
standing person, and more than an arm."""
WINDOW_S = 0.3
"""People found within that time before and after an image are covered in it."""
LEAST_JOINT_SCORE = 0.2
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
# Behind wrist and ankle there are hand and foot, so much longer than the bone before them.
_ENDS = tuple(
    (f"{side}_{near}", f"{side}_{far}", share)
    for side in ("left", "right")
    for near, far, share in (("elbow", "wrist", 0.6), ("knee", "ankle", 0.35))
)


@dataclass(frozen=True)
class Patch:
    """Pixels that hide one person: mask (h, w) bool, and where in the image it begins."""

    x: int
    y: int
    mask: np.ndarray

    def onto(self, covered: np.ndarray) -> None:
        """Add the pixels to an image's (H, W) bool; what lies outside of it is left out."""
        height, width = covered.shape
        rows, columns = self.mask.shape
        top, left = max(self.y, 0), max(self.x, 0)
        bottom, right = min(self.y + rows, height), min(self.x + columns, width)
        if top < bottom and left < right:
            covered[top:bottom, left:right] |= self.mask[
                top - self.y : bottom - self.y, left - self.x : right - self.x
            ]


def person_patches(people: People, kind: str) -> list[Patch]:
    """What hides each person, in the order of ``people``. kind: one of `KINDS`."""
    make = _face_patch if kind == "faces" else _body_patch
    return [make(people, row) for row in range(len(people))]


def union(patches: Iterable[Patch], size: tuple[int, int]) -> np.ndarray:
    """All pixels that hide anyone, (H, W) bool. size: (H, W) of the image."""
    covered = np.zeros(size, np.bool_)
    for patch in patches:
        patch.onto(covered)
    return covered


def cover(people: People, kind: str) -> np.ndarray:
    """The pixels that hide everyone, (H, W) bool. kind: one of `KINDS`."""
    return union(person_patches(people, kind), people.image_size)


def between(before: Patch, after: Patch, share: float) -> list[Patch]:
    """What hides a person between two sightings: both patches, moved and scaled on the way.

    share: of the time from ``before`` (0) to ``after`` (1); below 0 and above 1 the way goes on.
    """
    corners = [
        np.array([p.x, p.y, p.x + p.mask.shape[1], p.y + p.mask.shape[0]], float)
        for p in (before, after)
    ]
    x1, y1, x2, y2 = np.rint((1 - share) * corners[0] + share * corners[1]).astype(int).tolist()
    most = [2 * max(p.mask.shape[axis] for p in (before, after)) for axis in (1, 0)]
    size = (min(max(x2 - x1, 1), most[0]), min(max(y2 - y1, 1), most[1]))
    if not before.mask.size or not after.mask.size:
        return []
    return [
        Patch(x1, y1, cv2.resize(p.mask.view(np.uint8), size, interpolation=0).astype(np.bool_))
        for p in (before, after)
    ]


def hidden(image: np.ndarray, covered: np.ndarray, *, blur: bool = False) -> np.ndarray:
    """A copy of a BGR image (H, W, 3) uint8 that shows nobody where it is covered, (H, W) bool.

    Covered pixels come from the means of large cells, of a 24th of the longer side (a face of less
    than a quarter of the image has some cells only): as they are, or (blur) with smooth changes
    from one to the next. Either way nothing finer than a cell is left.
    """
    height, width = image.shape[:2]
    cell = max(8, max(height, width) // 24)
    cells = (max(1, width // cell), max(1, height // cell))
    small = cv2.resize(image, cells, interpolation=cv2.INTER_AREA)
    smooth = cv2.INTER_LINEAR if blur else cv2.INTER_NEAREST
    coarse = cv2.resize(small, (width, height), interpolation=smooth)
    result = image.copy()
    np.copyto(result, coarse, where=covered[..., None])
    return result


def _scale(people: People, row: int) -> float:
    x1, y1, x2, y2 = people.boxes[row].astype(float)
    return float(np.sqrt(max((x2 - x1) * (y2 - y1), 1.0)))


def _body_patch(people: People, row: int) -> Patch:
    """The mask, or the box where there is none, grown; head, limbs, hands and feet."""
    scale = _scale(people, row)
    grow = max(3, round(MARGIN * scale))
    mask = people.raw_masks[row]
    has_mask = bool(mask.any())
    canvas = _Canvas(people, row, reach=grow + round(0.5 * scale))
    if has_mask:
        own = mask[canvas.rows, canvas.columns].view(np.uint8)
        near = cv2.distanceTransform(1 - own, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= grow
        canvas.pixels |= near.view(np.uint8)
    else:
        x1, y1, x2, y2 = people.boxes[row].tolist()
        canvas.rectangle(x1 - grow, y1 - grow, x2 + grow, y2 + grow)
    _draw_face(canvas, people, row)
    _draw_limbs(canvas, people, row, max(2, round(LIMB * scale)))
    return canvas.patch()


def _face_patch(people: People, row: int) -> Patch:
    canvas = _Canvas(people, row, reach=round(0.5 * _scale(people, row)) + 8)
    _draw_face(canvas, people, row)
    return canvas.patch()


class _Canvas:
    """The part of an image in which a person can be: drawn on in the image's coordinates."""

    def __init__(self, people: People, row: int, reach: int) -> None:
        height, width = people.image_size
        corners = [people.boxes[row].astype(float).reshape(2, 2), people.keypoints[row]]
        x, y, w, h = _rectangle(people.raw_masks[row])
        if w:
            corners.append(np.array([[x, y], [x + w, y + h]], float))
        points = np.concatenate(corners)
        limits = [width, height]
        low = np.clip(np.floor(points.min(axis=0)) - reach, 0, limits).astype(int).tolist()
        high = np.clip(np.ceil(points.max(axis=0)) + reach, 0, limits).astype(int).tolist()
        self.x, self.y = low
        self.rows, self.columns = slice(low[1], high[1]), slice(low[0], high[0])
        self.pixels = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        self._most = 4 * max(height, width)

    def patch(self) -> Patch:
        x, y, width, height = cv2.boundingRect(self.pixels) if self.pixels.size else (0, 0, 0, 0)
        pixels = self.pixels[y : y + height, x : x + width]
        return Patch(self.x + x, self.y + y, np.ascontiguousarray(pixels).view(np.bool_))

    def circle(self, point: np.ndarray, radius: float) -> None:
        cv2.circle(self.pixels, self._at(*point.tolist()), max(1, round(radius)), 1, -1)

    def capsule(self, start: np.ndarray, end: np.ndarray, radius: int) -> None:
        self.circle(start, radius)
        self.circle(end, radius)
        a, b = self._at(*start.tolist()), self._at(*end.tolist())
        cv2.line(self.pixels, a, b, 1, min(2 * radius + 1, 32000))

    def rectangle(self, x1: float, y1: float, x2: float, y2: float) -> None:
        cv2.rectangle(self.pixels, self._at(x1, y1), self._at(x2, y2), 1, -1)

    def _at(self, x: float, y: float) -> tuple[int, int]:
        """A point of the image on the canvas; OpenCV's drawing takes no numbers without limit."""
        most = self._most
        return (
            round(min(max(x, -most), most)) - self.x,
            round(min(max(y, -most), most)) - self.y,
        )


def _rectangle(mask: np.ndarray) -> tuple[int, int, int, int]:
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return x, y, width, height


def _draw_limbs(canvas: _Canvas, people: People, row: int, radius: int) -> None:
    points = people.keypoints[row].astype(float)
    seen = people.keypoint_scores[row] > LEAST_JOINT_SCORE
    for start, end in people.skeleton.edges:
        if seen[start] and seen[end]:
            canvas.capsule(points[start], points[end], radius)
    for near, far, share in _ends(people.skeleton):
        if seen[near] and seen[far]:
            tip = points[far] + share * (points[far] - points[near])
            canvas.capsule(points[far], tip, radius)


def _ends(skeleton: Skeleton) -> list[tuple[int, int, float]]:
    names = skeleton.names
    return [
        (names.index(near), names.index(far), share)
        for near, far, share in _ENDS
        if near in names and far in names
    ]


def _draw_face(canvas: _Canvas, people: People, row: int) -> None:
    """A disc around the head; without any joint of it, the upper third of the box or more."""
    x1, y1, x2, y2 = people.boxes[row].astype(float)
    names = people.skeleton.names
    joints = [names.index(name) for name in _FACE if name in names]
    seen = [joint for joint in joints if people.keypoint_scores[row, joint] > LEAST_JOINT_SCORE]
    # Whatever the joints say, a head is about an eighth of a standing person, and half as wide as
    # the shoulders, all that the box of a person whom the image's edge cuts off may hold.
    radius = max(0.11 * max(y2 - y1, x2 - x1), 0.3 * (x2 - x1))
    if seen:
        points = people.keypoints[row, seen].astype(float)
        centre = points.mean(axis=0)
        radius = max(radius, 1.6 * float(np.linalg.norm(points - centre, axis=1).max()))
        canvas.circle(centre, max(4.0, min(radius, 20000.0)))
    else:
        canvas.rectangle(x1, y1 - radius / 2, x2, y1 + max((y2 - y1) / 3, 2 * radius))


class RecentCovers:
    """What the last images were covered with: a person missed in one of them stays covered."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._recent: list[tuple[float, float, np.ndarray]] = []

    def add(self, stamp_s: float, arrival_s: float, covered: np.ndarray) -> np.ndarray:
        """(H, W) bool: ``covered`` and what was covered up to the window before its stamp.

        arrival_s: of the image, on a steady clock: it counts between images of one stamp, such as
        those without stamps. Stamps of drivers step back a little; what is within the window
        counts on either side. Images of other sizes do not count.
        """
        self._recent = [
            (stamp, arrival, each)
            for stamp, arrival, each in self._recent
            if abs(stamp_s - stamp or arrival_s - arrival) <= self._window_s
            and each.shape == covered.shape
        ]
        self._recent.append((stamp_s, arrival_s, covered))
        return np.logical_or.reduce([each for _, _, each in self._recent])

    def clear(self) -> None:
        self._recent.clear()
