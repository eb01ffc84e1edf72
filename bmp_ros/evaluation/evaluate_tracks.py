# SPDX-License-Identifier: Apache-2.0
"""Run detector and tracker over sequences, at several rates of images, and score the ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from bmp_ros.evaluation.sequences import Sequence as TrackSequence
from bmp_ros.evaluation.sequences import SequenceFrame
from bmp_ros.evaluation.tracking_scores import (
    Comparison,
    FrameTracks,
    TrackScorer,
    TrackScores,
    compare,
    import_trackeval,
    recognised,
)
from bmp_ros.fields import SettingsError
from bmp_ros.loop.people import People
from bmp_ros.tracking import PersonTracker, TrackerSettings

LONG_ABSENCE = 1.0
MOST_HZ = 1000.0
MOST_DROPPED = 0.9
RATE_TOLERANCE = 0.05
"""Share by which a rate may be above a sequence's own: 30 Hz of 29.97."""
LEAST_IMAGES = 2
"""Images of a sequence below which no id could be kept or lost."""
VISIBILITY_SCORES = np.array([0.0, 0.4, 0.9], np.float32)
"""Scores of joints in the ground truth that are outside the image, hidden, visible."""

Find = Callable[[str, SequenceFrame], People]
"""(name of the sequence, frame) -> the people in it."""
Tracker = Callable[[People, float, np.ndarray, np.ndarray | None], People]
"""(people, stamp in seconds, image, homography of the camera's motion since the last image or None
where it is unknown) -> the people with their ids."""


@dataclass(frozen=True)
class Timing:
    """Which images of a sequence are used. rate: hertz, None for all; drop: share of those that is
    dropped at random, the same ones in every run."""

    rate: float | None = None
    drop: float = 0.0

    def __str__(self) -> str:
        rate = "all" if self.rate is None else f"{self.rate:g} Hz"
        return rate + (f", {100 * self.drop:g}% dropped" if self.drop else "")

    def choose(self, stamps: np.ndarray) -> np.ndarray:
        """(F,) bool, which of the images at ``stamps`` (F,) are used.

        Raises SettingsError for a rate or share that makes no sense.
        """
        if self.rate is not None and not 0 < self.rate <= MOST_HZ:
            raise SettingsError(
                f"the rate is {self.rate:g}, must be above 0 and at most {MOST_HZ:g} images per "
                "second"
            )
        if not 0 <= self.drop <= MOST_DROPPED:
            raise SettingsError(
                f"the share of dropped images is {self.drop:g}, must be at least 0 and at most "
                f"{MOST_DROPPED:g}"
            )
        chosen = np.ones(len(stamps), np.bool_)
        if self.rate is not None and len(stamps):
            wanted = np.arange(stamps[0], stamps[-1] + 1e-6, 1 / self.rate)
            nearest = np.abs(stamps[None] - wanted[:, None]).argmin(axis=1)
            chosen[:] = False
            chosen[nearest] = True
        return chosen & (np.random.default_rng(0).random(len(stamps)) >= self.drop)

    def choose_of(self, sequence: TrackSequence) -> np.ndarray:
        """(F,) bool, which images of ``sequence`` are used.

        Raises SettingsError naming it, where fewer than two are left.
        """
        stamps = sequence.stamps
        chosen = self.choose(stamps)
        if self != Timing() and np.count_nonzero(chosen) < LEAST_IMAGES:
            raise SettingsError(
                f"{self}: of the {len(stamps)} images of {sequence.name} "
                f"{np.count_nonzero(chosen)} would be used, and ids are scored over at least "
                f"{LEAST_IMAGES}: give a higher rate, drop fewer, or take the sequence out of the "
                "folder"
            )
        return chosen

    def too_fast_for(self, sequence: TrackSequence) -> str:
        """In words, if ``sequence`` has fewer images per second than this; else empty."""
        if self.rate is None or len(sequence) < 2:
            return ""
        own = 1 / float(np.median(np.diff(sequence.stamps)))
        if self.rate <= own * (1 + RATE_TOLERANCE):
            return ""
        return f"{self}: {sequence.name} has {own:g} images per second only"


@dataclass
class TimingScores:
    """Scores at one timing: boxes and, where every sequence has them, masks, of all sequences
    together; sequences: boxes, by name; short_absences: boxes of those in which nobody is away for
    more than a second, None without one. returned, recognised: people who came back after more
    than a second, and those of them with the id that they had."""

    timing: Timing
    boxes: TrackScores
    masks: TrackScores | None
    sequences: dict[str, TrackScores]
    short_absences: TrackScores | None
    returned: int
    recognised: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return asdict(self)


@dataclass
class _Run:
    timing: Timing
    boxes: TrackScorer = field(default_factory=TrackScorer)
    masks: TrackScorer = field(default_factory=TrackScorer)
    sequences: dict[str, TrackScores] = field(default_factory=dict)
    returned: int = 0
    recognised: int = 0


def evaluate_tracks(
    find: Find,
    sequences: Iterable[TrackSequence],
    timings: Sequence[Timing],
    make_tracker: Callable[[], Tracker] | None = None,
    *,
    ego_motion: bool = True,
) -> list[TimingScores]:
    """Score the ids of ``sequences``, one entry per timing.

    find: called once per image that a timing uses. make_tracker: a new one per sequence and
    timing; `PersonTracker` with its default settings if None. ego_motion: tell it how the camera
    turned, where the sequence knows.

    Raises ModuleNotFoundError without TrackEval, ValueError without a sequence, for two of one
    name and for one that a timing does not fit (see `Timing.choose_of`).
    """
    import_trackeval()
    make_tracker = make_tracker or person_tracker
    runs = [_Run(timing) for timing in timings]
    all_masks, short = True, []
    for sequence in sequences:
        all_masks &= sequence.has_masks
        if _run_sequence(find, sequence, runs, make_tracker, ego_motion) <= LONG_ABSENCE:
            short.append(sequence.name)
    return [
        TimingScores(
            run.timing,
            run.boxes.total(),
            run.masks.total() if all_masks else None,
            run.sequences,
            run.boxes.total(short) if short else None,
            run.returned,
            run.recognised,
        )
        for run in runs
    ]


def person_tracker(settings: TrackerSettings | None = None) -> Tracker:
    """A `PersonTracker` that is given the images."""
    tracker = PersonTracker(settings)
    return lambda people, stamp, image, ego_motion: tracker.update(
        people, stamp, ego_motion, image=image
    )


def _run_sequence(
    find: Find,
    sequence: TrackSequence,
    runs: Sequence[_Run],
    make_tracker: Callable[[], Tracker],
    ego_motion: bool,
) -> float:
    """Run one sequence at every timing; returns the longest absence of somebody, in seconds."""
    chosen = [run.timing.choose_of(sequence) for run in runs]
    trackers = [make_tracker() for _ in runs]
    last: list[int | None] = [None] * len(runs)
    boxes: list[list[Comparison]] = [[] for _ in runs]
    masks: list[list[Comparison]] = [[] for _ in runs]
    seen: list[list[int]] = []
    for frame in sequence:
        seen.append(frame.truth.identities[~frame.truth.ignored].tolist())
        using = [i for i, frames in enumerate(chosen) if frames[frame.number]]
        if not using:
            continue
        people = find(sequence.name, frame)
        for i in using:
            before, last[i] = last[i], frame.number
            turn = None
            if ego_motion and before is not None:
                turn = sequence.ego_motion(before, frame.number)
            found = tracks_of(trackers[i](people, frame.stamp, frame.image, turn))
            boxes[i].append(compare(frame.truth, found))
            if sequence.has_masks:
                masks[i].append(compare(frame.truth, found, masks=True))
    for run, frames, by_box, by_mask in zip(runs, chosen, boxes, masks, strict=True):
        run.sequences[sequence.name] = run.boxes.add(sequence.name, by_box)
        if sequence.has_masks:
            run.masks.add(sequence.name, by_mask)
        returned, again = recognised(by_box, sequence.stamps[frames].tolist(), LONG_ABSENCE)
        run.returned += returned
        run.recognised += again
    return longest_absence(seen, sequence.stamps.tolist())


def longest_absence(frames: Sequence[Sequence[int]], stamps: Sequence[float]) -> float:
    """Seconds from one image with somebody to the next one with them, at most, over all people.

    frames: the identities in every image; stamps: of the images, seconds.
    """
    last: dict[int, float] = {}
    longest = 0.0
    for identities, stamp in zip(frames, stamps, strict=True):
        for identity in identities:
            longest = max(longest, stamp - last.get(identity, stamp))
            last[identity] = stamp
    return longest


def tracks_of(people: People) -> FrameTracks:
    """Those of ``people`` who have an id."""
    known = people.track_ids >= 0
    return FrameTracks(
        people.track_ids[known].astype(np.int64), people.boxes[known], people.masks[known]
    )


def true_people(frame: SequenceFrame) -> People:
    """The ground truth of a rendered frame as if a perfect network had found it.

    Boxes and masks are of what is seen; joints have a score of 0.9 where they are visible, 0.4
    where something hides them, 0 outside of the image. Slivers are left out. Raises ValueError for
    a sequence that is no rendered clip.
    """
    truth, answer = frame.people, frame.truth
    if truth is None:
        raise ValueError("only rendered clips know masks and joints; leave --from-truth out")
    height, width = frame.image.shape[:2]
    rows = np.flatnonzero(~answer.ignored)
    people = People.from_boxes(
        truth.boxes[rows], np.full(len(rows), 0.95), height, width, masks=truth.masks[rows]
    )
    return replace(
        people,
        keypoints=truth.keypoints[rows],
        keypoint_scores=VISIBILITY_SCORES[truth.visibility[rows]],
        pose_scores=np.full(len(rows), 0.8, np.float32),
        mask_scores=np.full(len(rows), 0.9, np.float32),
    )


def report_lines(results: Sequence[TimingScores]) -> list[str]:
    """A table for the terminal: one row per timing, for boxes and for masks."""
    names = ("HOTA", "DetA", "AssA", "IDF1", "MOTA")
    columns = "".join(f" {name:>7}" for name in names) + f" {'switches':>9}"
    width = max([20, *(len(str(result.timing)) for result in results)]) + 2
    lines = [f"{'images':<{width}}{'':<6}{columns}"]
    for result in results:
        for label, scores in (("boxes", result.boxes), ("masks", result.masks)):
            if scores is not None:
                lines.append(f"{result.timing!s:<{width}}{label:<6}{_numbers(scores)}")
    lines += [
        "",
        "HOTA, DetA, AssA: means over IoU 0.05 to 0.95; IDF1, MOTA, switches: at IoU 0.5.",
    ]
    short = [
        f"{result.timing}: {result.short_absences.assa:.3f}"
        for result in results
        if result.short_absences is not None
    ]
    if short:
        lines.append(f"AssA of boxes where nobody is away for more than {LONG_ABSENCE:g} s: "
                     + "; ".join(short) + ".")  # fmt: skip
    if any(result.returned for result in results):
        lines.append(f"Recognised after more than {LONG_ABSENCE:g} s out of sight: " + "; ".join(
            f"{result.timing}: {result.recognised} of {result.returned}" for result in results
        ) + ".")  # fmt: skip
    return lines


def _numbers(scores: TrackScores) -> str:
    values = (scores.hota, scores.deta, scores.assa, scores.idf1, scores.mota)
    return "".join(f" {value:>7.3f}" for value in values) + f" {scores.switches:>9}"
