# SPDX-License-Identifier: Apache-2.0
"""Zones: polygons in the image or on the ground, and who is inside since when.

A zone is written as one line of text, so that a ROS parameter, a YAML file and a launch argument
can all hold it:

    door: 0.1 0.5; 0.4 0.5; 0.4 1.0; 0.1 1.0       in shares of the image's width and height
    desk in map: 1.0 0.0; 3.0 0.0; 3.0 2.0         in metres, in the plane z = 0 of a tf frame
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from bmp_ros.loop.people import People

_HEAD = re.compile(r"\s*(?P<name>[A-Za-z]\w*)(?:\s+in\s+(?P<frame>[\w/]+))?\s*", re.ASCII)
_SYNTAX = (
    "a zone is written as 'NAME: X Y; X Y; X Y' with X and Y from 0 to 1 in shares of the image's "
    "width and height, or as 'NAME in FRAME: X Y; X Y; X Y' in metres on the ground of a tf frame"
)
_FARTHEST = 1e4
"""Metres; a corner beyond it is a mistake in the unit."""
_LEAST_AREA = 1e-6
MAX_ZONES, MAX_CORNERS = 64, 64
"""Every side of a zone is compared with every other when it is set."""
FOOT_SCORE = 0.3
"""Minimum score of an ankle that tells where a person stands."""


class ZoneError(ValueError):
    """The text of a zone cannot be used; the message says why and how to write one."""


@dataclass(frozen=True, eq=False)
class Zone:
    """A named simple polygon. points: (P, 2) float64, P >= 3, not closed.

    frame: empty for a polygon in the image, whose points are shares of its width and height; else
    the tf frame in whose plane z = 0 it lies, in metres.
    """

    name: str
    frame: str
    points: np.ndarray

    @property
    def on_ground(self) -> bool:
        return bool(self.frame)


def parse_zones(texts: Sequence[str]) -> tuple[Zone, ...]:
    """Read zones, in the order given, at most `MAX_ZONES`.

    Raises ZoneError naming the zone, the value and the remedy: for a text of another form, fewer
    than three corners or more than `MAX_CORNERS`, corners outside of the image, a polygon without
    area or that crosses itself, and for two zones of one name.
    """
    return _parse_all(tuple(texts))


@lru_cache(maxsize=32)  # read anew for every image
def _parse_all(texts: tuple[str, ...]) -> tuple[Zone, ...]:
    if len(texts) > MAX_ZONES:
        raise ZoneError(f"{len(texts)} zones, at most {MAX_ZONES} are watched: give fewer")
    zones: dict[str, Zone] = {}
    for text in texts:
        zone = _parse(text)
        if zone.name in zones:
            raise ZoneError(f"two zones are named {zone.name!r}: give each a name of its own")
        zones[zone.name] = zone
    return tuple(zones.values())


def _parse(text: str) -> Zone:
    head, colon, rest = text.partition(":")
    match = _HEAD.fullmatch(head)
    if not colon or match is None:
        raise ZoneError(f"{text!r} is no zone: {_SYNTAX}")
    name, frame = match["name"], (match["frame"] or "").lstrip("/")
    corners = [corner.split() for corner in rest.split(";") if corner.strip()]
    try:
        rows = [(float(x), float(y)) for x, y in corners]
    except ValueError as error:
        raise ZoneError(f"zone {name!r} has the corners {rest.strip()!r}: {_SYNTAX}") from error
    points = np.array(rows, np.float64).reshape(-1, 2)
    if len(points) > 1 and (points[0] == points[-1]).all():
        points = points[:-1]  # written as a closed ring
    _check(name, frame, points)
    return Zone(name, frame, points)


def _check(name: str, frame: str, points: np.ndarray) -> None:
    if len(points) < 3:
        raise ZoneError(f"zone {name!r} has {len(points)} corners, needs 3 or more: {_SYNTAX}")
    if len(points) > MAX_CORNERS:
        raise ZoneError(
            f"zone {name!r} has {len(points)} corners, at most {MAX_CORNERS} are taken: leave out "
            "some, or make two zones of it"
        )
    low, high = (-_FARTHEST, _FARTHEST) if frame else (0.0, 1.0)
    outside = points[~((points >= low) & (points <= high)).all(axis=1)]
    if len(outside):
        x, y = outside[0]
        remedy = (
            f"corners are metres from {low:g} to {high:g}"
            if frame
            else "corners are shares from 0 to 1: divide pixels by the image's width and height, "
            f"or write '{name} in FRAME: …' for metres on the ground"
        )
        raise ZoneError(f"zone {name!r} has the corner {x:g} {y:g}: {remedy}")
    if _crosses_itself(points):
        raise ZoneError(
            f"zone {name!r} crosses itself: give its corners in order along the border"
        )
    if abs(_area(points)) < _LEAST_AREA:
        raise ZoneError(f"zone {name!r} has no area: its corners lie on one line")


def _area(points: np.ndarray) -> float:
    """Signed area of a polygon (shoelace formula)."""
    x, y = (points - points[0]).T
    return float(0.5 * (x * np.roll(y, -1) - y * np.roll(x, -1)).sum())


def _crosses_itself(points: np.ndarray) -> bool:
    """Whether two sides that are no neighbours meet, or a corner comes twice."""
    count = len(points)
    if len(np.unique(points, axis=0)) < count:
        return True
    ends = np.roll(points, -1, axis=0)
    for first in range(count):
        for second in range(first + 2, count):
            neighbours = first == 0 and second == count - 1
            if not neighbours and _meet(points[first], ends[first], points[second], ends[second]):
                return True
    return False


def _meet(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    """Whether the segments ab and cd have a point in common."""
    sides = [_side(c, d, a), _side(c, d, b), _side(a, b, c), _side(a, b, d)]
    if sides[0] * sides[1] < 0 and sides[2] * sides[3] < 0:
        return True
    segments = ((c, d, a), (c, d, b), (a, b, c), (a, b, d))
    return any(
        side == 0 and (np.minimum(p, q) <= r).all() and (r <= np.maximum(p, q)).all()
        for side, (p, q, r) in zip(sides, segments, strict=True)
    )


def _side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> float:
    """> 0 where the point lies to one side of a line, < 0 to the other, 0 on it."""
    along, to = end - start, point - start
    return float(np.sign(along[0] * to[1] - along[1] * to[0]))


def inside(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,) bool, which of ``points`` (N, 2) lie in a simple ``polygon`` (P, 2); NaN lies nowhere.

    Even-odd rule by ray casting: a point is inside where a ray from it crosses the border an odd
    number of times. Borders are half-open, so that of two polygons with a side in common exactly
    one contains a point on it.
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)
    x, y = points[:, 0, None], points[:, 1, None]
    (x1, y1), (x2, y2) = polygon.T, np.roll(polygon, -1, axis=0).T
    spans = (y1 > y) != (y2 > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        # From the lower end, so that two polygons compute a common side alike.
        up = y2 > y1
        xa, ya = np.where(up, x1, x2), np.where(up, y1, y2)
        xb, yb = np.where(up, x2, x1), np.where(up, y2, y1)
        crossing = xa + (y - ya) / (yb - ya) * (xb - xa)
        left = spans & (x < crossing)
    return np.asarray((left.sum(axis=1) % 2 == 1) & np.isfinite(points).all(axis=1))


def foot_points(people: People) -> np.ndarray:
    """(N, 2) float64 pixels at which people stand: the middle of the ankles that are found, of
    one if only one is, else the middle of the box's lower side."""
    boxes = people.boxes.astype(np.float64)
    feet = np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]], axis=1)
    ankles = people.skeleton.indices("left_ankle", "right_ankle")
    if ankles is None or not len(people):
        return feet
    joints = people.keypoints[:, ankles].astype(np.float64)
    found = (people.keypoint_scores[:, ankles] >= FOOT_SCORE) & np.isfinite(joints).all(axis=2)
    count = found.sum(axis=1, keepdims=True)
    middle = np.where(found[..., None], joints, 0.0).sum(axis=1) / np.maximum(count, 1)
    return np.where(count > 0, middle, feet)


def on_the_ground(rays: np.ndarray, rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(N, 2) where rays meet the plane z = 0 of a frame, in metres; NaN where they do not.

    rays: (N, 2) on the plane z = 1 of the camera's optical frame, see `CameraModel.rays`.
    rotation (3, 3), shift (3,): a point p of the camera is rotation @ p + shift in that frame.
    """
    rays = np.asarray(rays, np.float64).reshape(-1, 2)
    directions = np.concatenate([rays, np.ones((len(rays), 1))], axis=1) @ rotation.T
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = -shift[2] / directions[:, 2]
        points = shift[:2] + depth[:, None] * directions[:, :2]
        reached = (depth > 0) & np.isfinite(points).all(axis=1)
    return np.where(reached[:, None] & (np.abs(points) <= _FARTHEST), points, np.nan)


@dataclass(frozen=True)
class Occupancy:
    """People in one zone at the time of one image. count: inside, tracked or not. ids: tracks
    inside, ``seconds`` (parallel) for how long. entered, left: ids since the report before."""

    count: int
    ids: tuple[int, ...]
    seconds: tuple[float, ...]
    entered: tuple[int, ...]
    left: tuple[int, ...]


@dataclass
class _Inside:
    since_s: float
    seen_s: float


@dataclass
class ZoneWatch:
    """Who is in each of some zones since when; not for several threads at once.

    Tracked people are remembered by id: a person who is not seen inside for ``leave_s`` seconds
    has left, so that a missed detection or a step along the border is no coming and going.
    """

    _people: dict[str, dict[int, _Inside]] = field(default_factory=dict)
    _last_s: float = -np.inf

    def forget(self) -> None:
        """Let the next image be like the first; nobody is said to have left."""
        self._people.clear()
        self._last_s = -np.inf

    def update(
        self,
        zones: Sequence[Zone],
        contained: np.ndarray,
        ids: np.ndarray,
        stamp_s: float,
        leave_s: float,
    ) -> list[Occupancy]:
        """Take in one image; one report per zone.

        contained: (Z, N) bool, who of N people is in which zone. ids: (N,) track ids, -1 without.
        A stamp before the last one by a second or more begins anew.
        """
        if stamp_s <= self._last_s - 1.0:
            self.forget()
        self._last_s = stamp_s
        names = {zone.name for zone in zones}
        for name in [name for name in self._people if name not in names]:
            del self._people[name]
        return [
            self._update(zone.name, ids[row], stamp_s, leave_s)
            for zone, row in zip(zones, np.asarray(contained, np.bool_), strict=True)
        ]

    def _update(self, name: str, ids: np.ndarray, stamp_s: float, leave_s: float) -> Occupancy:
        known = self._people.setdefault(name, {})
        entered = []
        for number in ids[ids >= 0].tolist():
            if number not in known:
                known[number] = _Inside(stamp_s, stamp_s)
                entered.append(number)
            known[number].seen_s = max(known[number].seen_s, stamp_s)
        seen = set(ids.tolist())
        left = [
            number
            for number, each in known.items()
            if number not in seen and stamp_s - each.seen_s >= leave_s
        ]
        for number in left:
            del known[number]
        seconds = tuple(max(0.0, stamp_s - each.since_s) for each in known.values())
        untracked = int((ids < 0).sum())
        return Occupancy(
            len(known) + untracked, tuple(known), seconds, tuple(entered), tuple(left)
        )


def in_image_zones(zones: Sequence[Zone], pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(Z, N) bool, which of ``pixels`` (N, 2) lie in which zones of an image of ``size`` (height,
    width). Pixel centres lie at integers, so the image reaches from -0.5 to width - 0.5."""
    height, width = size
    # Feet may be estimated below the border of the image: they count as on it.
    shares = (np.asarray(pixels, np.float64).reshape(-1, 2) + 0.5) / [width, height]
    shares = np.clip(shares, 0.0, np.nextafter(1.0, 0.0))
    return np.array([inside(zone.points, shares) for zone in zones]).reshape(len(zones), -1)
