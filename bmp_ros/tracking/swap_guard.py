# SPDX-License-Identifier: Apache-2.0
"""After two people came together and parted: did their tracks go with the right ones?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bmp_ros.tracking.appearance import BINS, appearance_similarity
from bmp_ros.tracking.association import box_similarity
from bmp_ros.tracking.matching import Matches, Sighting
from bmp_ros.tracking.tracks import State, Tracks

TOGETHER, APART = 0.3, 0.05
"""IoU of boxes from which two people are together, and below which they have parted."""
MARGIN = 0.15
"""By how much the exchanged assignment must fit better."""
FORGET = 10.0
"""Seconds after which an encounter is no longer judged."""


@dataclass(frozen=True)
class Encounter:
    """Two tracks, by id, and their colours (2, BINS) when they came together at ``since_s``."""

    ids: tuple[int, int]
    colours: np.ndarray
    since_s: float


def judge(
    encounters: list[Encounter], tracks: Tracks, seen: np.ndarray, colours: np.ndarray, now: float
) -> tuple[list[Encounter], list[tuple[int, int]]]:
    """Encounters that go on or begin, and pairs of rows whose ids are to be exchanged.

    seen: (T,) bool, in this image. colours: (T, BINS) histograms of this image, zero where the
    person was not seen. Nothing is exchanged where colours are unknown or alike.
    """
    rows = {number: row for row, number in enumerate(tracks.ids.tolist()) if number >= 0}
    centres = tracks.centres
    overlap = box_similarity(centres, centres, np.zeros(len(tracks)))
    going: list[Encounter] = []
    swaps: list[tuple[int, int]] = []
    for encounter in encounters:
        first, second = (rows.get(number) for number in encounter.ids)
        if first is None or second is None or now - encounter.since_s > FORGET:
            continue
        exchanged = {row for pair in swaps for row in pair}
        apart = overlap[first, second] < APART and seen[first] and seen[second]
        if not apart or exchanged & {first, second}:  # whose ids are others' in a moment
            going.append(encounter)
            continue
        fits = appearance_similarity(encounter.colours, colours[[first, second]])
        if np.isfinite(fits).all() and fits[0, 1] + fits[1, 0] > fits.trace() + 2 * MARGIN:
            swaps.append((first, second))
    known = {encounter.ids for encounter in going}
    live = seen & (tracks.state == State.CONFIRMED) & (tracks.colours.max(axis=1) > 0)
    close = (overlap >= TOGETHER) & live[:, None] & live
    np.fill_diagonal(close, False)
    for first, second in zip(*(each.tolist() for each in close.nonzero()), strict=True):
        ids = int(tracks.ids[first]), int(tracks.ids[second])
        if first < second and ids not in known and ids[::-1] not in known:
            going.append(Encounter(ids, tracks.colours[[first, second]].copy(), now))
    return going, swaps


def exchange(
    encounters: list[Encounter], tracks: Tracks, seen: Sighting, matches: Matches, now: float
) -> tuple[list[Encounter], int]:
    """Exchange the ids of people who came together and left with each other's, in ``tracks``.

    Returns the encounters that go on or begin, and how many pairs were exchanged.
    """
    if len(tracks) < 2:
        return encounters, 0
    in_sight = np.zeros(len(tracks), np.bool_)
    in_sight[matches.rows] = True
    colours = np.zeros((len(tracks), BINS))
    colours[matches.rows] = seen.colours[matches.columns]
    encounters, swaps = judge(encounters, tracks, in_sight, colours, now)
    for pair in swaps:
        for values in (tracks.ids, tracks.first_s, tracks.colours):
            values[list(pair)] = values[list(pair[::-1])]
    return encounters, len(swaps)
