# SPDX-License-Identifier: Apache-2.0
"""How tracks begin, go on and end. All functions change the ``tracks`` that they are given.

now: seconds on the tracker's clock. dt: seconds since the last image.
"""

from __future__ import annotations

import math

import numpy as np

from bmp_ros.tracking import motion
from bmp_ros.tracking.association import JOINT_SCORE, LEAST_JOINTS, pose_similarity
from bmp_ros.tracking.matching import Matches, Sighting, is_cut_off
from bmp_ros.tracking.settings import TrackerSettings
from bmp_ros.tracking.tracks import IdCounter, State, Tracks

LOST_TRACE = 0.5
"""Seconds out of sight after which the motion of who comes back is another one."""
ENTERING = 0.5
"""Seconds at most for which somebody at the border waits for an id."""
SLOW = 0.25
"""Seconds between two images from which a track is confirmed at once."""
HALF_HIDDEN = 0.5
DOUBLE_IOU, DOUBLE_INSIDE = 0.3, 0.6
"""IoU with a tracked person's box, and share of a box inside of it, of who may be a double."""
OTHER_POSE, OTHER_POSE_S = 0.3, 0.3
"""OKS with a person below which somebody in front of or behind them is no double of them, and the
seconds for which that must be seen: one image may show a wrong pose."""
COLOUR_MEMORY = 0.3
"""Time constant of the colours' moving average, seconds."""


def predict(tracks: Tracks, dt: float, settings: TrackerSettings) -> None:
    """Move everybody on by their velocity."""
    if dt <= 0 or not len(tracks):
        return
    half_lives = np.full(len(tracks), np.inf)
    half_lives[tracks.state == State.LOST] = motion.HALF_LIFE
    half_lives[tracks.state == State.OCCLUDED] = motion.HIDDEN_HALF_LIFE
    noise = settings.velocity_noise * tracks.heights**2
    before = tracks.mean[:, :, 0]
    tracks.mean, tracks.covariance = motion.predict(
        tracks.mean, tracks.covariance, dt, noise, half_lives
    )
    tracks.shift = tracks.shift + tracks.mean[:, :, 0] - before


def go_on(
    tracks: Tracks,
    seen: Sighting,
    matches: Matches,
    settings: TrackerSettings,
    now: float,
    dt: float,
) -> None:
    """Take over what this image shows of the people who were matched."""
    rows, columns = matches.rows, matches.columns
    if not len(rows):
        return
    people = seen.people
    boxes = people.boxes[columns].astype(float)
    joints = people.keypoints[columns].astype(float)
    joint_scores = people.keypoint_scores[columns].astype(float)
    back = tracks.state[rows] >= State.OCCLUDED
    lost_long = back & (now - tracks.seen_s[rows] > LOST_TRACE)
    moved = motion.displacement(
        (tracks.joints[rows], joints), (tracks.joint_scores[rows], joint_scores),
        (tracks.boxes[rows], boxes), JOINT_SCORE, LEAST_JOINTS,
    )  # fmt: skip
    anchor = tracks.anchor[rows] + moved
    heights = tracks.heights[rows]
    deviations = motion.POSITION_NOISE * heights * np.where(seen.crowded[columns], 2.0, 1.0)
    mean, covariance = motion.correct(
        tracks.mean[rows], tracks.covariance[rows], anchor, deviations
    )
    if lost_long.any():
        first = motion.first_state(anchor[lost_long], heights[lost_long])
        mean[lost_long], covariance[lost_long] = first
    tracks.mean[rows], tracks.covariance[rows] = mean, covariance
    tracks.anchor[rows] = anchor
    tracks.shift[rows] = 0.0
    tracks.boxes[rows], tracks.joints[rows] = boxes, joints
    tracks.joint_scores[rows] = joint_scores
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        tracks.pixels[row] = seen.pixels.of(column)
    tracks.hits[rows] += dt > 0
    tracks.seen_s[rows] = now
    tracks.state[rows] = np.maximum(
        np.minimum(tracks.state[rows], State.CONFIRMED), tracks.ids[rows] >= 0
    )
    _remember_colours(tracks, seen, matches, settings, dt)


def _remember_colours(
    tracks: Tracks, seen: Sighting, matches: Matches, settings: TrackerSettings, dt: float
) -> None:
    rows, columns = matches.rows, matches.columns
    colours = seen.colours[columns]
    before = tracks.colours[rows]
    clear = ~seen.crowded[columns] & (seen.scores[columns] >= settings.high_score)
    share = np.where(clear, 1 - math.exp(-dt / COLOUR_MEMORY), 0.0)
    share[~before.any(axis=1)] = 1.0
    share[~colours.any(axis=1)] = 0.0
    tracks.colours[rows] = before + share[:, None] * (colours - before)


def newcomers(seen: Sighting, matches: Matches, settings: TrackerSettings) -> np.ndarray:
    """Columns (B,) of people who match nobody and are no part of somebody who was seen."""
    free = np.ones(len(seen.people), np.bool_)
    free[matches.columns] = False
    free &= seen.scores >= settings.birth_score
    if matches.overlap is not None and len(matches.rows):
        free &= matches.overlap.of_new[matches.rows].max(axis=0) < settings.birth_overlap
    return np.flatnonzero(free)


def begin(seen: Sighting, born: np.ndarray, now: float) -> Tracks:
    """Tentative tracks of the people in the columns ``born`` (B,)."""
    people, count = seen.people, len(born)
    anchor = seen.centres[born, :2]
    mean, covariance = motion.first_state(anchor, np.maximum(seen.centres[born, 3], 1.0))
    return Tracks(
        ids=np.full(count, -1, np.int32), state=np.zeros(count, np.int8),
        first_s=np.full(count, now), seen_s=np.full(count, now),
        hits=np.ones(count, np.int32), anchor=anchor, mean=mean, covariance=covariance,
        shift=np.zeros((count, 2)),
        boxes=people.boxes[born].astype(float), joints=people.keypoints[born].astype(float),
        joint_scores=people.keypoint_scores[born].astype(float), colours=seen.colours[born],
        hidden=np.zeros(count), pixels=[seen.pixels.of(column) for column in born.tolist()],
    )  # fmt: skip


def miss(tracks: Tracks, matches: Matches, now: float) -> None:
    """Say of everybody who was not seen whether another person hides them."""
    tracks.hidden[:] = 0.0
    if matches.overlap is not None:
        covered = matches.overlap.covered
        tracks.hidden[: len(covered)] = covered.sum(axis=1)
    missed = (tracks.seen_s < now) & (tracks.state != State.TENTATIVE)
    missed[matches.rows] = False
    hidden = tracks.hidden >= HALF_HIDDEN
    tracks.state[missed & hidden] = State.OCCLUDED
    tracks.state[missed & ~hidden] = State.LOST


def confirm(
    tracks: Tracks,
    seen: Sighting,
    matches: Matches,
    counter: IdCounter,
    settings: TrackerSettings,
    now: float,
    *,
    at_once: bool,
    patient: bool,
) -> None:
    """Give ids to those who were seen often enough, or to all ``at_once``.

    patient: who may be another's double waits. Not so across gaps: tentative tracks are not
    followed there, so that who had to wait would wait for ever.
    """
    ready = (tracks.state == State.TENTATIVE) & (tracks.seen_s == now)
    ready &= (tracks.hits >= settings.confirm_hits) | at_once
    if settings.double_s > 0 and patient and ready.any():
        waits = _waits_of_doubles(tracks, seen, matches, ready, settings.double_s)
        ready &= now - tracks.first_s >= waits
    # Of somebody who comes in, the first part that is seen tells little: as long as it may be
    # somebody whose colours are remembered, they get a little time to be recognised.
    remembered = (tracks.state == State.LOST) & (tracks.colours.max(axis=1, initial=0) > 0)
    if remembered.any():
        entering = is_cut_off(tracks.boxes, seen.people.image_size[1])
        ready &= ~entering | (now - tracks.first_s >= ENTERING)
    tracks.ids[ready] = counter.take(int(ready.sum()))
    tracks.state[ready] = State.CONFIRMED


def _waits_of_doubles(
    tracks: Tracks, seen: Sighting, matches: Matches, ready: np.ndarray, double_s: float
) -> np.ndarray:
    """(T,) seconds from its beginning for which a track that is ``ready`` (T,) waits for its id.

    None apart from others; ``double_s`` where the box overlaps that of a person with an id who was
    seen in this image, ``OTHER_POSE_S`` at most if the poses of all such are another one.
    """
    known = matches.columns[tracks.state[matches.rows] == State.CONFIRMED]
    boxes, others = tracks.boxes, seen.people.boxes[known].astype(float)
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    inside = shared / np.maximum(areas, 1)
    iou = shared / np.maximum(areas + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared, 1)
    near = np.zeros((len(tracks), len(seen.people)), np.bool_)
    near[:, known] = ready[:, None] & ((iou > DOUBLE_IOU) | (inside > DOUBLE_INSIDE))
    oks, _ = pose_similarity(
        tracks.joints, tracks.joint_scores, seen.people, seen.areas, np.ones(len(tracks)), near
    )
    alike = near & ~(oks < OTHER_POSE)  # unknown poses may be alike
    waits = np.where(near.any(axis=1), min(OTHER_POSE_S, double_s), 0.0)
    return np.where(alike.any(axis=1), double_s, waits)


def alive(tracks: Tracks, settings: TrackerSettings, now: float) -> np.ndarray:
    """(T,) bool, who is not forgotten yet."""
    unseen = now - tracks.seen_s
    known = tracks.colours.max(axis=1, initial=0) > 0
    patience = np.where(known, max(settings.memory_s, settings.lost_s), settings.lost_s)
    patience = np.where(
        tracks.state == State.OCCLUDED, np.maximum(patience, settings.occluded_s), patience
    )
    # Who waits only because of another person may be missed in an image, as those with ids are.
    waiting = (tracks.hits >= settings.confirm_hits) & (unseen <= settings.confirm_s)
    young = (unseen == 0) | (now - tracks.first_s <= settings.confirm_s) | waiting
    # Who was seen in this image is known in the next one, however short the patience.
    return np.where(tracks.state == State.TENTATIVE, young, (unseen <= patience) | (unseen == 0))
