# SPDX-License-Identifier: Apache-2.0
"""What the second iteration finds, by the score that it asks for: people and false boxes.

    python benchmarks/second_iteration.py --dataset heavy --count 300
    python benchmarks/second_iteration.py --dataset DIR --annotations FILE

The first iteration asks for what the preset says. Counted are people whom it missed and the second
finds (IoU 0.5, best scores first, the first iteration's before), and boxes of no one: with the
preset as it is (--behind: with that ``behind_threshold``), and by threshold without it. Boxes
mostly in crowd regions do not count. One run for all thresholds: what a lower one lets in also
takes part in pose NMS.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bmp_ros.engines import build_loop
from bmp_ros.evaluation.coco_folder import CocoFolder
from bmp_ros.evaluation.datasets import LabelledImage, open_dataset
from bmp_ros.loop import BMPLoop, People
from bmp_ros.loop.bmp_loop import find_people
from bmp_ros.loop.box_nms import box_iou
from bmp_ros.machine import machine_line

MATCH, IN_CROWD = 0.5, 0.5


def people_in(loop: BMPLoop, image: np.ndarray, later: float) -> People:
    run = loop.begin(image)
    run.settings = replace(run.settings, behind_threshold=None)
    first = run.settings.detection_threshold
    run.threshold = lambda: first if run.report.iterations <= 1 else later  # type: ignore[method-assign]
    return find_people(run)


def true_boxes(labelled: LabelledImage, *, crowd: bool) -> np.ndarray:
    """(N, 4) xyxy of the people, or of the crowd regions."""
    boxes = [
        entry["bbox"] for entry in labelled.annotations if bool(entry.get("iscrowd", 0)) == crowd
    ]
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners


def judge(people: People, labelled: LabelledImage) -> np.ndarray:
    """(N,) of each person 1: finds somebody, 0: no one, -1: in a crowd region, does not count."""
    truth, crowd = true_boxes(labelled, crowd=False), true_boxes(labelled, crowd=True)
    overlap, verdicts = box_iou(people.boxes, truth), np.zeros(len(people), int)
    for row in np.lexsort((-people.scores, people.iterations)):
        if overlap.shape[1] and overlap[row].max() >= MATCH:
            verdicts[row] = 1
            overlap[:, overlap[row].argmax()] = 0
        elif len(crowd):
            box = people.boxes[row]
            low, high = np.maximum(box[:2], crowd[:, :2]), np.minimum(box[2:], crowd[:, 2:])
            inside = (high - low).clip(0).prod(axis=1) / np.prod(box[2:] - box[:2])
            verdicts[row] = -int(inside.max() > IN_CROWD)
    return verdicts


@dataclass
class Count:
    """What the iterations found in images, one after the other."""

    images: int = 0
    steps: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    verdicts: list[int] = field(default_factory=list)

    def add(self, people: People, labelled: LabelledImage) -> None:
        self.images += 1
        self.steps.extend(people.iterations.tolist())
        self.scores.extend(people.scores.tolist())
        self.verdicts.extend(judge(people, labelled).tolist())

    def hits(self, *, first: bool) -> int:
        """People found by the first iteration, or by later ones."""
        return int(((np.array(self.verdicts) == 1) & ((np.array(self.steps) == 1) == first)).sum())

    def line(self, name: str, missed: int, later: float = 0.0) -> str:
        """Of those whom later iterations found with scores above ``later``."""
        rows = (np.array(self.steps) > 1) & (np.array(self.scores) > later)
        verdicts = np.array(self.verdicts)[rows]
        hits, false = int((verdicts == 1).sum()), int((verdicts == 0).sum()) / self.images
        return f"{name:<20}{hits:>7}{hits / max(missed, 1):>11.1%}{false:>25.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--dataset", required=True, help="as for bmp evaluate")
    parser.add_argument("--annotations", type=Path, help="of a folder")
    parser.add_argument("--count", type=int)
    parser.add_argument(
        "--later", type=float, nargs="+", default=[0.2, 0.25, 0.3, 0.35, 0.38, 0.42, 0.5]
    )
    parser.add_argument("--behind", type=float, help="behind_threshold; default: the preset's")
    args = parser.parse_args()
    if args.annotations:
        dataset = CocoFolder(Path(args.dataset), args.annotations, count=args.count)
    else:
        dataset = open_dataset(args.dataset, count=args.count)
    loop = build_loop(args.preset, iterations=2)
    if args.behind is not None:
        loop.settings = replace(loop.settings, behind_threshold=args.behind)
    shipped, lowered = Count(), Count()
    total = 0
    for labelled in dataset:
        shipped.add(loop(labelled.image), labelled)
        lowered.add(people_in(loop, labelled.image, min(args.later)), labelled)
        total += len(true_boxes(labelled, crowd=False))
    print(machine_line())
    missed = total - shipped.hits(first=True)
    print(f"{len(dataset)} pictures, {total} people, {missed} missed by the first iteration")
    print(f"{'second asks for':<20}{'finds':>7}{'of missed':>11}{'false boxes per picture':>25}")
    behind = "" if args.behind is None else f", {args.behind:g} behind"
    print(shipped.line(f"preset{behind}", missed))
    for later in sorted(args.later):
        print(lowered.line(f"{later:g}", total - lowered.hits(first=True), later))


if __name__ == "__main__":
    main()
