# SPDX-License-Identifier: Apache-2.0
"""Which people of an image are which of those known: similarities, stages of matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bmp_ros.loop.people import People
from bmp_ros.tracking import motion
from bmp_ros.tracking.appearance import BINS, appearance_similarity, colour_histograms
from bmp_ros.tracking.association import (
    JOINT_SCORE,
    MaskOverlap,
    Pixels,
    assign,
    box_similarity,
    coarse_pixels,
    mask_overlap,
    pose_similarity,
)
from bmp_ros.tracking.settings import TrackerSettings
from bmp_ros.tracking.tracks import State, Tracks

DISTINCT = 0.05
"""How much more alike than anybody in sight somebody must be who is recognised by colours."""
LIKE, LIKE_AFTER = 0.5, 0.25
"""How much alike somebody must be, by colours, to be matched by motion after so many seconds out
of sight."""
SHORT = 0.15
UNSEEN_FACTOR = 0.67
DOUBTFUL, CERTAIN = 0.5, 0.9
"""Detector scores up to which ``low_match_threshold`` is asked for, and from which only
``match_threshold``. What looks like little of somebody, and is no sure person, mostly is another
one, on whom the id would stay."""
REACH = 1.5
"""Body heights per second that somebody out of sight may have moved."""
BUFFER_RATE, SLACK_RATE = 2.0, 3.5
"""Per second out of sight: growth of the boxes' buffer and of the poses' tolerance."""


@dataclass(frozen=True)
class Sighting:
    """The N people of an image as the matching sees them.

    centres: (N, 4) boxes as (cx, cy, w, h). scores: (N,) the detector's. pixels: their masks on a
    coarse grid. areas: (N,) square pixels of the bodies. colours: (N, BINS) histograms, zero where
    unknown. crowded: (N,) bool, whose box overlaps another one's.
    """

    people: People
    centres: np.ndarray
    scores: np.ndarray
    pixels: Pixels
    areas: np.ndarray
    colours: np.ndarray
    crowded: np.ndarray


@dataclass(frozen=True)
class Matches:
    """rows, columns: (M,) tracks and people that are the same. looks: (M,) likeness of their
    colours, NaN where unknown. overlap: of the masks of all tracks and people, None where there
    was nobody to compare."""

    rows: np.ndarray
    columns: np.ndarray
    looks: np.ndarray
    overlap: MaskOverlap | None = None

    @classmethod
    def none(cls) -> Matches:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def _waists(people: People, middles: np.ndarray) -> np.ndarray:
    """(N,) y of the middle of the hips; of ``middles`` where they are not seen, or not known."""
    hips = people.skeleton.indices("left_hip", "right_hip")
    if hips is None:
        return middles
    left, right = hips
    scores, y = people.keypoint_scores, people.keypoints[:, :, 1]
    sure = np.minimum(scores[:, left], scores[:, right]) > JOINT_SCORE
    waists: np.ndarray = np.where(sure, (y[:, left] + y[:, right]) / 2, middles)
    return waists


def look_at(people: People, image: np.ndarray | None) -> Sighting:
    """What the matching needs of ``people``; image: BGR, for their colours."""
    centres = motion.to_centre(people.boxes)
    pixels = coarse_pixels(people)
    count = len(people)
    box_areas = np.maximum(centres[:, 2:], 1).prod(axis=1)
    colours = np.zeros((count, BINS))
    if image is not None and count:
        colours = colour_histograms(image, pixels, _waists(people, centres[:, 1]))
    overlap = box_similarity(centres, centres, np.zeros(count))
    np.fill_diagonal(overlap, 0.0)
    return Sighting(
        people=people,
        centres=centres,
        scores=people.scores.astype(float),
        pixels=pixels,
        areas=np.maximum(pixels.areas * pixels.stride**2, 0.5 * box_areas),
        colours=colours,
        crowded=overlap.max(axis=1, initial=0.0) > 0.1,
    )


def match(
    tracks: Tracks, seen: Sighting, settings: TrackerSettings, now: float, gap: float
) -> Matches:
    """Who of ``seen`` is who of ``tracks``: those in sight or lost lately by all cues, first the
    sure detections; then who was out of sight, by place and colours; then tentative tracks.

    gap: seconds of a gap in which nobody knows how they moved, else 0; then only the second.
    """
    if not len(tracks) or not len(seen.people):
        return Matches.none()
    unseen = now - tracks.seen_s
    similarity, overlap, looks = similarities(tracks, seen, settings, unseen)
    # In the place where somebody went out of sight, another person may come by.
    missed = (tracks.state != State.CONFIRMED) & (unseen > LIKE_AFTER)
    if missed.any():
        similarity[(looks < LIKE) & missed[:, None]] = -1.0  # not where they are unknown
    free = np.ones(len(tracks), np.bool_)
    left = np.ones(len(seen.people), np.bool_)
    none = np.zeros(0, np.int64)
    matched: list[tuple[np.ndarray, np.ndarray]] = []

    def take(wanted: np.ndarray, columns: np.ndarray, values: np.ndarray, least: Any) -> None:
        if not (wanted.any() and columns.any()):
            return
        table = np.where(wanted[:, None] & columns[None], values, -1.0)
        pair = assign(table, least)
        free[pair[0]] = left[pair[1]] = False
        matched.append(pair)

    sure = tracks.state != State.TENTATIVE
    hidden = tracks.state == State.OCCLUDED
    recent = unseen <= np.where(hidden, settings.occluded_s, settings.lost_s)
    recent |= tracks.state == State.CONFIRMED  # in the last image, however long ago that was
    high = seen.scores >= settings.high_score
    least = least_similarity(seen.scores, settings, unseen)
    if not gap:
        take(sure & recent, high, similarity, least)
        take(sure & recent & free, left & ~high, similarity, least)
    if (sure & free).any() and left.any():
        again = recognition(tracks, seen, settings, unseen, looks, gap, in_sight=sure & ~free)
        take(sure & free, left, again, 1e-6)
    if not gap:
        take(~sure, left, similarity, least)
    rows = np.concatenate([none, *(pair[0] for pair in matched)])
    columns = np.concatenate([none, *(pair[1] for pair in matched)])
    return Matches(rows, columns, looks[rows, columns], overlap)


def least_similarity(
    scores: np.ndarray, settings: TrackerSettings, unseen: np.ndarray
) -> np.ndarray:
    """(T, N) minimum similarity of a match, for detector scores (N,) and seconds out of sight."""
    doubt = np.clip((CERTAIN - scores) / (CERTAIN - DOUBTFUL), 0, 1)[None]
    certain = np.where(unseen > SHORT, UNSEEN_FACTOR, 1.0)[:, None] * settings.match_threshold
    least: np.ndarray = certain + doubt * (settings.low_match_threshold - certain)
    return least


def similarities(
    tracks: Tracks, seen: Sighting, settings: TrackerSettings, unseen: np.ndarray
) -> tuple[np.ndarray, MaskOverlap, np.ndarray]:
    """(T, N) in [0, 1]: the weighted mean of the cues that are known; -1 out of reach. Then the
    overlap of the masks, and the likeness of colours (T, N).

    unseen: (T,) seconds since each was seen.
    """
    people = seen.people
    overlap = mask_overlap(tracks.pixels, tracks.shift, seen.pixels)
    boxes = box_similarity(
        tracks.centres, seen.centres, settings.box_buffer * (1 + BUFFER_RATE * unseen)
    )
    joints = tracks.joints + tracks.shift[:, None]
    reachable = (boxes > 0) | (overlap.iou > 0)
    oks, sure = pose_similarity(
        joints, tracks.joint_scores, people, seen.areas, 1 + SLACK_RATE * unseen, reachable
    )
    looks = appearance_similarity(tracks.colours, seen.colours)
    # The shape of who was hidden says little when they come out again.
    mask_sure = (0.5 + 0.5 * people.mask_scores.astype(float))[None]
    mask_sure = mask_sure * np.exp(-np.maximum(unseen - SHORT, 0) / SHORT)[:, None]
    total = np.zeros(boxes.shape)
    weights = np.zeros(boxes.shape)
    for cue, weight in (
        (overlap.iou, settings.mask_weight * mask_sure),
        (oks, settings.pose_weight * sure),
        (boxes, np.asarray(settings.box_weight)),
        (looks, np.asarray(settings.appearance_weight)),
    ):
        known = np.isfinite(cue)
        total += np.where(known, cue, 0.0) * weight
        weights += known * weight
    similarity = total / np.maximum(weights, 1e-9)
    return np.where(reachable, similarity, -1.0), overlap, looks


def recognition(
    tracks: Tracks,
    seen: Sighting,
    settings: TrackerSettings,
    unseen: np.ndarray,
    looks: np.ndarray,
    gap: float,
    in_sight: np.ndarray,
) -> np.ndarray:
    """(T, N) > 0 where somebody out of sight may have come back: near enough, alike enough.

    unseen: (T,) seconds. looks: (T, N) likeness of colours. Without colours only for ``lost_s``,
    not counting a ``gap``. Places are those last seen: nobody knows the motion. in_sight: (T,)
    bool, who is somebody else in this image for sure. Where one of them is as much alike, clothes
    do not tell people apart, and nobody is recognised by them.
    """
    last = motion.to_centre(tracks.boxes)
    reach = np.maximum(last[:, 3], 1.0)[:, None] * (0.3 + REACH * unseen[:, None])
    distance = np.linalg.norm(last[:, None, :2] - seen.centres[None, :, :2], axis=2)
    heights = np.maximum(seen.centres[None, :, 3], 1) / np.maximum(last[:, None, 3], 1)
    ratio = np.abs(np.log2(heights))
    # At the border of the image any part of somebody may be seen.
    width = seen.people.image_size[1]
    cut = is_cut_off(tracks.boxes, width)[:, None] | is_cut_off(seen.people.boxes, width)
    ratio[cut] = 0.0
    near = (distance < reach) & (ratio < 0.5 + unseen[:, None])
    known = np.isfinite(looks)
    likeness = np.where(known, looks, 0.0)
    alike = likeness >= settings.appearance_threshold + 0.1 * (gap > 0)
    others = np.where(in_sight[:, None], likeness, 0.0).max(axis=0, initial=0.0)
    alike &= likeness > others + DISTINCT
    blind = ~known & (unseen <= settings.lost_s + gap)[:, None]
    value = np.where(known, looks, 0.3) - 0.3 * distance / np.maximum(reach, 1)
    allowed = near & (alike | blind) & (unseen <= settings.memory_s)[:, None]
    return np.where(allowed, np.maximum(value, 1e-3), -1.0)


def is_cut_off(boxes: np.ndarray, width: int) -> np.ndarray:
    """(N,) bool, whose box (N, 4) ends at the left or right border of the image."""
    return np.asarray((boxes[:, 0] < 0.01 * width) | (boxes[:, 2] > 0.99 * width))
