# SPDX-License-Identifier: Apache-2.0
"""What smoothing does to joints that a network found: jitter of still ones, lag of moving ones.

    python benchmarks/smoothing.py CLIPS --detections DET [--rate 30] [--settings 0.3,2 0.3,8]

CLIPS are rendered clips (`bmp_ros.synthetic.tracking_clips`), DET what a preset finds in them
(`tracking_detections.py`). Ids come from the tracker; who somebody is, from the ground truth. Sure
joints (score from 0.5) of two images in a row count: those whose true position moves by less than
0.1 body scales per second are still, those that move by more than 0.5 are moving; a body scale is
the square root of the box's area. Jitter is the step of a joint less that of the true one, in
pixels; lag is the way by which the smoothed joint is behind the found one, along the true motion
and by its speed, in images. One row per setting (min_cutoff,beta), the default first.
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
    parser.add_argument("--settings", nargs="*", default=[], metavar="CUTOFF,BETA")
    args = parser.parse_args()
    films = [
        tracked(sequence, args.detections / f"{sequence.name}.npz", Timing(args.rate))
        for sequence in open_sequences(args.clips)
        if isinstance(sequence, ClipSequence)
    ]
    default = SmoothingSettings()
    choices = [default]
    for text in args.settings:
        cutoff, beta = map(float, text.split(","))
        choices.append(replace(default, min_cutoff=cutoff, beta=beta))
    print(f"{machine_line()}; {len(films)} clips at {args.rate:g} Hz")
    print("| minimum cut-off, Hz | beta | jitter, RMS | jitter, median | lag, images |")
    print("|---|---|---|---|---|")
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


def row(films: list[list[Moment]], settings: SmoothingSettings, rate: float) -> str:
    """A row of the table."""
    raw_jitter, jitter, behind, way = [], [], 0.0, 0.0
    still = moving = 0
    for film in films:
        smoother, last = JointSmoother(settings), None
        for moment in film:
            people = moment.people
            scales = np.sqrt((people.boxes[:, 2:] - people.boxes[:, :2]).prod(axis=1))
            smooth, _ = smoother.update(
                people.track_ids, people.keypoints, people.keypoint_scores, scales, moment.stamp
            )
            if last is not None:
                before, then = last
                pairs = [
                    (i, j)
                    for i, (number, identity) in enumerate(
                        zip(people.track_ids, moment.identities, strict=True)
                    )
                    for j in np.flatnonzero(
                        (before.people.track_ids == number) & (before.identities == identity)
                    )
                    if number >= 0 and identity >= 0
                ]
                for i, j in pairs:
                    sure = np.minimum(
                        people.keypoint_scores[i], before.people.keypoint_scores[j]
                    ) >= SURE  # fmt: skip
                    step = (moment.truth[i] - before.truth[j])[sure]
                    velocity = step / (moment.stamp - before.stamp)
                    pace = np.linalg.norm(velocity, axis=1) / max(scales[i], 1.0)
                    rests, goes = pace < STILL, pace > MOVING
                    found = (people.keypoints[i] - before.people.keypoints[j])[sure] - step
                    kept = (smooth[i] - then[j])[sure] - step
                    raw_jitter.append(np.linalg.norm(found[rests], axis=1))
                    jitter.append(np.linalg.norm(kept[rests], axis=1))
                    lag = (people.keypoints[i] - smooth[i])[sure][goes]
                    behind += float((lag * velocity[goes]).sum())
                    way += float((velocity[goes] ** 2).sum())
                    still, moving = still + int(rests.sum()), moving + int(goes.sum())
            last = moment, smooth
    first, second = np.concatenate(raw_jitter), np.concatenate(jitter)
    rms = np.sqrt((second**2).mean() / (first**2).mean()) - 1
    median = np.median(second) / np.median(first) - 1
    return (
        f"| {settings.min_cutoff:g} | {settings.beta:g} | {100 * rms:.0f} % | "
        f"{100 * median:.0f} % | {rate * behind / way:.2f} | ({still} steps of still joints, "
        f"{moving} of moving ones)"
    )


if __name__ == "__main__":
    main()
