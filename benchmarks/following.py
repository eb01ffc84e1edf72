# SPDX-License-Identifier: Apache-2.0
"""How often followed_person names the wrong person, and how often nobody, on sequences with truth.

    python benchmarks/tracking_detections.py CLIPS --output DETECTIONS     # once
    python benchmarks/following.py CLIPS --detections DETECTIONS

Every person who gets a track id is chosen once, in the first image with that id, and followed to
the end of the sequence. Compared with a robot that goes after the id alone. Without depth; camera
turns are known where the clip knows them. A person is right if the box overlaps the true one of
the identity chosen more than any other's, with an IoU of 0.3 or more.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bmp_ros.camera_tracking import CameraTracking, Tracked
from bmp_ros.evaluation.people_file import load_people
from bmp_ros.evaluation.sequences import FrameTruth, open_sequences
from bmp_ros.interaction.follow import Follower, Scene, begin, follow
from bmp_ros.loop.box_nms import box_iou
from bmp_ros.tracking import IdCounter, TrackerSettings

LEAST_IOU = 0.3
NOBODY = -1


@dataclass
class Chosen:
    """One person who is followed. identity: the true one when they were chosen."""

    number: int
    identity: int
    follower: Follower
    by_id: Counter[str]
    by_topic: Counter[str]


def identities(boxes: np.ndarray, truth: FrameTruth) -> np.ndarray:
    """(N,) true identity of each box, `NOBODY` where it is nobody's."""
    if not len(truth) or not len(boxes):
        return np.full(len(boxes), NOBODY)
    overlap = box_iou(boxes.astype(np.float64), truth.boxes.astype(np.float64))
    best = overlap.argmax(axis=1)
    return np.where(overlap.max(axis=1) >= LEAST_IOU, truth.identities[best], NOBODY)


def scene_of(tracked: Tracked, swaps: int, stamp_s: float) -> Scene:
    people = tracked.people
    unknown = np.full((len(people), 3), np.nan)
    return Scene(
        ids=people.track_ids, boxes=people.boxes, raised=np.zeros(len(people), np.bool_),
        places=unknown, distances=unknown[:, 0], colours=tracked.colours, hidden=tracked.hidden,
        image_size=people.image_size, known=tracked.known, swaps=swaps, stamp_s=stamp_s,
        arrival_s=stamp_s,
    )  # fmt: skip


def verdict(found: int, chosen: Chosen) -> str:
    if found == chosen.identity:
        return "right"
    return "wrong" if found != NOBODY else "unclear"


def run(sequence: object, detections: Path, rate: float, settle_s: float) -> list[Chosen]:
    """Everybody of one sequence, followed."""
    people, stamps = load_people(detections)
    step = max(1, round(1 / (rate * float(np.median(np.diff(stamps))))))
    tracking, chosen = CameraTracking(IdCounter()), list[Chosen]()
    before: int | None = None
    for frame in sequence:  # type: ignore[attr-defined]
        if frame.number % step:
            continue
        ego = None if before is None else sequence.ego_motion(before, frame.number)  # type: ignore[attr-defined]
        before = frame.number
        tracked = tracking.track(
            people[frame.number], int((1 + frame.stamp) * 1e9), frame.image,
            arrival_s=frame.stamp, settings=TrackerSettings(), ego_motion=ego,
        )  # fmt: skip
        scene = scene_of(tracked, tracking.counts["swaps"], frame.stamp)
        true = identities(scene.boxes, frame.truth)
        for each in chosen:
            each.follower, row, _ = follow(each.follower, scene, settle_s)
            rows = np.flatnonzero(scene.ids == each.number)
            if len(rows):
                each.by_id[verdict(int(true[rows[0]]), each)] += 1
            if row is not None:
                each.by_topic[verdict(int(true[row]), each)] += 1
        known = {each.number for each in chosen}
        for row in np.flatnonzero(scene.ids >= 0).tolist():
            number = int(scene.ids[row])
            if number not in known and true[row] != NOBODY:
                start = begin(scene, row)
                chosen.append(Chosen(number, int(true[row]), start, Counter(), Counter()))
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--detections", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=10.0, help="images per second, about")
    parser.add_argument("--settle", type=float, default=0.5, help="follow_settle, seconds")
    args = parser.parse_args()
    print("| sequence | people | by id: right | wrong | followed_person: right | wrong |")
    print("|---|---|---|---|---|---|")
    total: list[Chosen] = []
    for sequence in open_sequences(args.folder):
        found = run(sequence, args.detections / f"{sequence.name}.npz", args.rate, args.settle)
        print(row_of(sequence.name, found), flush=True)
        total += found
    print(row_of("all", total))
    led = [sum(each.by_id["wrong"] > 0 for each in total)]
    led.append(sum(each.by_topic["wrong"] > 0 for each in total))
    print(f"\nled to another person at least once: {led[0]} by id, {led[1]} by followed_person, "
          f"of {len(total)} who were chosen")  # fmt: skip


def row_of(name: str, found: list[Chosen]) -> str:
    by_id, topic = Counter[str](), Counter[str]()
    for each in found:
        by_id += each.by_id
        topic += each.by_topic
    return (
        f"| {name} | {len(found)} | {by_id['right']} | {by_id['wrong']} | {topic['right']} | "
        f"{topic['wrong']} |"
    )


if __name__ == "__main__":
    main()
