# SPDX-License-Identifier: Apache-2.0
"""What smoothing does to joints that a network found: jitter of still ones, lag of moving ones.

    python benchmarks/smoothing.py CLIPS --detections DET [--rate 30] [--settings 0.3,4,0 ...]

CLIPS are rendered clips (`bmp_ros.synthetic.tracking_clips`), DET what a preset finds in them
(`tracking_detections.py`). Ids come from the tracker; who somebody is, from the ground truth. Sure
joints (score from 0.5) of two images in a row count: those whose true position moves by less than
0.1 body scales per second are still, those that move by more than 0.5 are moving; a body scale is
the square root of the box's area. Jitter is the step of a joint less that of the true one, in
pixels; lag is the way by which the smoothed joint is behind the found one, along the true motion
and by its speed, in images; error the mean distance to the true joint, by that of the found one.
One row per setting (min_cutoff,beta,trend), the default first.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bmp_ros.evaluation.evaluate_tracks import Timing, person_tracker
from bmp_ros.evaluation.people_file import load_people
from bmp_ros.evaluation.sequences import ClipSequence, open_sequences
from bmp_ros.loop.people import People
from bmp_ros.machine import machine_line
from bmp_ros.synthetic.ground_truth import PeopleTruth
from bmp_ros.tracking import JointSmoother, SmoothingSettings

SURE = 0.5
STILL, MOVING = 0.1, 0.5
LEAST_IOU = 0.5


@dataclass(frozen=True)
class Moment:
    """The tracked people of an image. identities: (N,) int64 of the ground truth, -1 where nobody
    fits. truth: (N, 17, 2) float64 true joints, NaN there."""

    people: People
    stamp: float
    identities: np.ndarray
    truth: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--detections", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=30.0, help="images per second")
    parser.add_argument("--settings", nargs="*", default=[], metavar="CUTOFF,BETA,TREND")
    args = parser.parse_args()
    films = []
    for sequence in open_sequences(args.clips):
        saved = args.detections / f"{sequence.name}.npz"
        if isinstance(sequence, ClipSequence) and saved.is_file():
            films.append(tracked(sequence, saved, Timing(args.rate)))
    default = SmoothingSettings()
    choices = [default]
    for text in args.settings:
        cutoff, beta, trend = map(float, text.split(","))
        choices.append(replace(default, min_cutoff=cutoff, beta=beta, trend=trend))
    print(f"{machine_line()}; {len(films)} clips at {args.rate:g} Hz")
    print("| cut-off, Hz; beta; trend | jitter, RMS | median | lag, images "
          "| error, still | moving |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    for settings in choices:
        print(row(films, settings, args.rate), flush=True)


def tracked(sequence: ClipSequence, detections: Path, timing: Timing) -> list[Moment]:
    """A clip's saved detections with ids, and who they are."""
    found, _ = load_people(detections)
    update = person_tracker()
    moments = []
    chosen = timing.choose(sequence.stamps)
    for frame in sequence:
        if not chosen[frame.number]:
            continue
        people = update(found[frame.number], frame.stamp, frame.image, None)
        assert frame.people is not None
        moments.append(Moment(people, frame.stamp, *who(people, frame.people)))
    return moments


def who(people: People, truth: PeopleTruth) -> tuple[np.ndarray, np.ndarray]:
    """Identities (N,) and true joints (N, 17, 2) of ``people``, by the boxes of what is seen."""
    identities = np.full(len(people), -1, np.int64)
    joints = np.full((len(people), 17, 2), np.nan)
    if len(people) and len(truth):
        first, second = people.boxes[:, None], truth.boxes[None]
        low = np.maximum(first[..., :2], second[..., :2])
        high = np.minimum(first[..., 2:], second[..., 2:])
        shared = np.clip(high - low, 0, None).prod(axis=2)
        areas = [(each[..., 2:] - each[..., :2]).prod(axis=2) for each in (first, second)]
        iou = shared / (areas[0] + areas[1] - shared)
        best = iou.argmax(axis=1)
        fits = iou.max(axis=1) >= LEAST_IOU
        identities[fits] = truth.identities[best[fits]]
        joints[fits] = truth.keypoints[best[fits]]
    return identities, joints


@dataclass
class Sums:
    """Steps of still joints, found and smoothed; errors of both, of still and of moving joints."""

    found: list[np.ndarray]
    smooth: list[np.ndarray]
    errors: np.ndarray
    behind: float = 0.0
    way: float = 0.0


def row(films: list[list[Moment]], settings: SmoothingSettings, rate: float) -> str:
    """A row of the table."""
    sums = Sums([], [], np.zeros((2, 2)))
    for film in films:
        smoother, last = JointSmoother(settings), None
        for moment in film:
            people = moment.people
            smooth, _ = smoother.update(
                people.track_ids, people.keypoints, people.keypoint_scores, scales(people),
                moment.stamp,
            )  # fmt: skip
            if last is not None:
                add(sums, *last, moment, smooth)
            last = moment, smooth
    found, kept = np.concatenate(sums.found), np.concatenate(sums.smooth)
    rms = np.sqrt((kept**2).mean() / (found**2).mean()) - 1
    median = np.median(kept) / np.median(found) - 1
    still, moving = sums.errors[:, 1] / sums.errors[:, 0]
    return (
        f"| {settings.min_cutoff:g}; {settings.beta:g}; {settings.trend:g} | {100 * rms:.0f} % | "
        f"{100 * median:.0f} % | {rate * sums.behind / sums.way:.2f} | {still:.2f} | "
        f"{moving:.2f} |"
    )


def scales(people: People) -> np.ndarray:
    """(N,) body scales, pixels."""
    sizes = people.boxes[:, 2:] - people.boxes[:, :2]
    return np.asarray(np.sqrt(sizes.prod(axis=1)).clip(1))


def add(sums: Sums, before: Moment, then: np.ndarray, moment: Moment, smooth: np.ndarray) -> None:
    """Count the joints of those who are in both images with one id; then: smoothed before."""
    people, last = moment.people, before.people
    same = people.track_ids[:, None] == last.track_ids
    same &= moment.identities[:, None] == before.identities
    same &= (people.track_ids >= 0)[:, None] & (moment.identities >= 0)[:, None]
    i, j = np.nonzero(same)
    true = moment.truth[i]
    step = true - before.truth[j]
    velocity = step / (moment.stamp - before.stamp)
    pace = np.linalg.norm(velocity, axis=2) / scales(people)[i, None]
    sure = np.minimum(people.keypoint_scores[i], last.keypoint_scores[j]) >= SURE
    still, moving = sure & (pace < STILL), sure & (pace > MOVING)
    steps = people.keypoints[i] - last.keypoints[j] - step
    sums.found.append(np.linalg.norm(steps, axis=2)[still])
    sums.smooth.append(np.linalg.norm(smooth[i] - then[j] - step, axis=2)[still])
    sums.behind += float(((people.keypoints[i] - smooth[i]) * velocity)[moving].sum())
    sums.way += float((velocity**2)[moving].sum())
    for row_, chosen in enumerate((still, moving)):
        for column, joints in enumerate((people.keypoints, smooth)):
            distances = np.linalg.norm(joints[i] - true, axis=2)
            sums.errors[row_, column] += float(distances[chosen].sum())


if __name__ == "__main__":
    main()
