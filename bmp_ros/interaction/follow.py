# SPDX-License-Identifier: Apache-2.0
"""Whom a robot follows: the choice, and in which images it is safe to say where that person is.

A robot that drives after the wrong person does harm, one that stops for a moment does not. So the
person is given out only in images that show them, by a track whose id is beyond doubt; in all
others nobody is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from bmp_ros.loop.people import People
from bmp_ros.tracking.appearance import appearance_similarity

LONG_GAP = 0.5
"""Seconds out of sight after which the tracker recognises people by their clothes and no longer by
their motion alone: it may be mistaken."""
TOGETHER = 0.3
"""IoU of two boxes from which on the tracker may mistake one person for the other: that of an
encounter in `tracking.swap_guard`."""
ALIKE = 0.55
"""Similarity of clothes, as of `tracking.appearance`, below which it may be another person. On
rendered clips one person has 0.78 with themselves earlier (median), two people have 0.37. It is
the default of the tracker's ``appearance_threshold``."""
MEMORY_S = 5.0
"""Time constant of what is remembered of clothes, seconds: light changes as people walk."""
JUMP_METRES, FASTEST = 0.5, 4.0
"""Metres, and metres per second, by which one person moves at most: a runner, and noise."""
JUMP_HEIGHTS, FASTEST_HEIGHTS = 1.0, 3.0
"""The same in the image, in heights of the box, for want of depth."""
JOINT_SCORE = 0.3
"""Minimum score of a joint that counts for a raised hand."""


class Mode(IntEnum):
    """How to choose; the numbers of bmp_msgs/srv/FollowPerson."""

    STOP = 0
    BY_ID = 1
    NEAREST = 2
    MOST_CENTRAL = 3
    RAISED_HAND = 4


@dataclass(frozen=True)
class Scene:
    """What of one image decides about following; N people.

    ids: (N,) track ids, -1 without. boxes: (N, 4) xyxy. raised: (N,) bool, a hand is above the
    head. places: (N, 3) metres in the camera's frame, distances: (N,) metres; NaN where unknown.
    colours: (N, BINS) of clothes, see `tracking.appearance`, zero where unknown; None: of nobody.
    hidden: (M, 4) boxes where people with ids should be who were not seen for a short time.
    image_size: (height, width). known: ids that the tracker remembers, seen in this image or not.
    swaps: how often the tracker exchanged ids so far. stamp_s: of the image, arrival_s: when it
    came, on a steady clock.
    """

    ids: np.ndarray
    boxes: np.ndarray
    raised: np.ndarray
    places: np.ndarray
    distances: np.ndarray
    colours: np.ndarray | None
    hidden: np.ndarray
    image_size: tuple[int, int]
    known: frozenset[int]
    swaps: int
    stamp_s: float
    arrival_s: float


def raised_hands(people: People, *, above: tuple[str, ...] = ("nose", "left_eye", "right_eye",
                 "left_ear", "right_ear")) -> np.ndarray:  # fmt: skip
    """(N,) bool: a wrist lies above all joints of the head that are found, of which there is one
    at least. Upright images: up is towards row 0."""
    raised = np.zeros(len(people), np.bool_)
    wrists = people.skeleton.indices("left_wrist", "right_wrist")
    head = [people.skeleton.names.index(name) for name in above if name in people.skeleton.names]
    if wrists is None or not head or not len(people):
        return raised
    y = people.keypoints[..., 1]
    found = (people.keypoint_scores >= JOINT_SCORE) & np.isfinite(y)
    crown = np.where(found[:, head], y[:, head], np.inf).min(axis=1)
    hands = np.where(found[:, wrists], y[:, wrists], np.inf).min(axis=1)
    return np.asarray(np.isfinite(crown) & (hands < crown))


@dataclass(frozen=True)
class Choice:
    """row: of the scene, None when there is no such person; ``problem`` says why then. rank: to
    compare with other cameras' choices in the same mode, lower is better."""

    row: int | None
    problem: str = ""
    rank: tuple[float, ...] = ()


def choose(scene: Scene, mode: Mode, track_id: int = -1) -> Choice:
    """Whom a request means, among the tracked people of one image.

    By depth comes before by size of the box, where both are asked to be nearest.
    """
    tracked = np.flatnonzero(scene.ids >= 0)
    if mode is Mode.BY_ID:
        rows = np.flatnonzero(scene.ids == track_id) if track_id >= 0 else tracked[:0]
        if len(rows):
            return Choice(int(rows[0]), rank=(0.0,))
        seen = ", ".join(map(str, sorted(scene.ids[tracked].tolist()))) or "none"
        return Choice(None, f"no person with track_id {track_id} in the image; there are: {seen}")
    if mode is Mode.RAISED_HAND:
        candidates = tracked[scene.raised[tracked]]
        if not len(candidates):
            return Choice(None, "no tracked person raises a hand above the head")
    else:
        candidates = tracked
        if not len(candidates):
            return Choice(
                None, "no tracked person in the image: wait until someone has a track_id"
            )
    ranks = _centrality(scene) if mode is Mode.MOST_CENTRAL else _nearness(scene)
    best = min(candidates.tolist(), key=lambda row: ranks[row])
    return Choice(best, rank=ranks[best])


def _nearness(scene: Scene) -> list[tuple[float, ...]]:
    """Sort keys: by distance where it is known, then by the box's share of the image."""
    height, width = scene.image_size
    sizes = (scene.boxes[:, 2:] - scene.boxes[:, :2]).astype(float) / [width, height]
    shares = sizes.prod(axis=1)
    known = np.isfinite(scene.distances)
    return [
        (0.0, float(metres)) if has_depth else (1.0, -float(share))
        for has_depth, metres, share in zip(known, scene.distances, shares, strict=True)
    ]


def _centrality(scene: Scene) -> list[tuple[float, ...]]:
    """Sort keys: distance of the box's middle to the image's, in halves of width and height."""
    height, width = scene.image_size
    centres = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
    return [(float(d),) for d in np.hypot(*(centres / [width, height] * 2 - 1).T)]


class Doubt(IntEnum):
    """Why an image does not say where the person is. ENDED: the track is over for good."""

    NONE = 0
    UNSEEN = 1
    CROWDED = 2
    JUMPED = 3
    SWAPPED = 4
    UNLIKE = 5
    SETTLING = 6
    ENDED = 7


@dataclass(frozen=True)
class Follower:
    """Following one track of one camera; values, `follow` makes the next ones.

    track_id: -1 = nobody. seen_s: stamp of the last image with the person. clear_s: stamp since
    which they are seen without doubt. swaps: of the tracker, as of the last image. box (4,),
    place (3,): where they were last. colours: (BINS,) of their clothes, None where unknown.
    """

    track_id: int = -1
    seen_s: float = 0.0
    clear_s: float = 0.0
    swaps: int = 0
    box: np.ndarray | None = None
    place: np.ndarray | None = None
    colours: np.ndarray | None = None


def begin(scene: Scene, row: int) -> Follower:
    """Follow the person in ``row`` from this scene on, at once: the choice is the user's."""
    return Follower(
        int(scene.ids[row]), scene.stamp_s, -np.inf, scene.swaps,
        scene.boxes[row], scene.places[row], _colours(scene, row),
    )  # fmt: skip


def follow(
    follower: Follower, scene: Scene, settle_s: float
) -> tuple[Follower, int | None, Doubt]:
    """Take in one image: the next state, the row of the person or None, and why.

    After a doubt, or half a second out of sight, the person is given out when they were seen for
    ``settle_s`` seconds without one.
    """
    if follower.track_id not in scene.known:
        return Follower(), None, Doubt.ENDED
    rows = np.flatnonzero(scene.ids == follower.track_id)
    swapped = scene.swaps != follower.swaps
    if not len(rows):
        # An exchange while the person is away may have given the id to somebody.
        clear = np.inf if swapped else follower.clear_s
        return _with(follower, scene, clear_s=clear), None, Doubt.UNSEEN
    row = int(rows[0])
    gap = max(0.0, scene.stamp_s - follower.seen_s)
    doubt = Doubt.NONE
    if swapped:
        doubt = Doubt.SWAPPED
    elif gap <= LONG_GAP and _jumped(follower, scene, row, gap):
        doubt = Doubt.JUMPED
    elif _is_crowded(scene, row):
        doubt = Doubt.CROWDED
    elif _is_unlike(follower.colours, _colours(scene, row)):
        doubt = Doubt.UNLIKE
    anew = doubt is not Doubt.NONE or gap > LONG_GAP or follower.clear_s == np.inf
    clear = scene.stamp_s if anew else follower.clear_s
    if doubt is Doubt.NONE and scene.stamp_s - clear < settle_s:
        doubt = Doubt.SETTLING
    colours = follower.colours
    if doubt is Doubt.NONE:
        colours = _remembered(colours, _colours(scene, row), gap)
    state = Follower(
        follower.track_id, scene.stamp_s, clear, scene.swaps, scene.boxes[row], scene.places[row],
        colours,
    )  # fmt: skip
    return state, row if doubt is Doubt.NONE else None, doubt


def _with(follower: Follower, scene: Scene, *, clear_s: float) -> Follower:
    return replace(follower, clear_s=clear_s, swaps=scene.swaps)


def _colours(scene: Scene, row: int) -> np.ndarray | None:
    """(BINS,) of one person, None where they are unknown."""
    found = None if scene.colours is None else scene.colours[row]
    return found if found is not None and found.any() else None


def _is_unlike(before: np.ndarray | None, now: np.ndarray | None) -> bool:
    """Whether clothes tell that it is another person; unknown ones tell nothing."""
    if before is None or now is None:
        return False
    return bool(appearance_similarity(before[None], now[None])[0, 0] < ALIKE)


def _remembered(before: np.ndarray | None, now: np.ndarray | None, dt: float) -> np.ndarray | None:
    if before is None or now is None:
        return now if before is None else before
    share = 1 - np.exp(-dt / MEMORY_S)
    return np.asarray((1 - share) * before + share * now)


def _jumped(follower: Follower, scene: Scene, row: int, gap: float) -> bool:
    """Whether the person is farther from where they were than anyone comes in that time."""
    if follower.place is not None:
        step = float(np.linalg.norm(scene.places[row] - follower.place))
        if np.isfinite(step):
            return step > JUMP_METRES + FASTEST * gap
    if follower.box is None:
        return False
    box, before = scene.boxes[row].astype(float), follower.box.astype(float)
    moved = np.abs((box[:2] + box[2:] - before[:2] - before[2:]) / 2).max()
    height = max(box[3] - box[1], before[3] - before[1], 1.0)
    return bool(moved > (JUMP_HEIGHTS + FASTEST_HEIGHTS * gap) * height)


def _is_crowded(scene: Scene, row: int) -> bool:
    """Whether the box of another person, seen or expected, lies so much on this one's that ids may
    go wrong."""
    own = scene.boxes[row]
    others = np.concatenate([np.delete(scene.boxes, row, axis=0), scene.hidden])
    low = np.maximum(own[:2], others[:, :2])
    high = np.minimum(own[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (own[2:] - own[:2]).prod() - shared
    return bool((shared >= TOGETHER * np.maximum(areas, 1e-9)).any() and len(others))
