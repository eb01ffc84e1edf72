# SPDX-License-Identifier: Apache-2.0
"""What the second iteration finds, by the score that it asks for: people and false boxes.

    python benchmarks/second_iteration.py --dataset heavy --count 300
    python benchmarks/second_iteration.py --dataset DIR --annotations FILE

The first iteration asks for what the preset says. In the second everything above the lowest
threshold is kept, and counted by threshold: people whom the first missed (IoU 0.5, best scores
first, the first iteration's before), and boxes of no one. Boxes mostly in crowd regions do not
count. One run for all thresholds: what a lower one lets in also takes part in pose NMS.
"""

from __future__ import annotations

import argparse
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--dataset", required=True, help="as for bmp evaluate")
    parser.add_argument("--annotations", type=Path, help="of a folder")
    parser.add_argument("--count", type=int)
    parser.add_argument(
        "--later", type=float, nargs="+", default=[0.2, 0.25, 0.3, 0.35, 0.38, 0.42, 0.5]
    )
    args = parser.parse_args()
    if args.annotations:
        dataset = CocoFolder(Path(args.dataset), args.annotations, count=args.count)
    else:
        dataset = open_dataset(args.dataset, count=args.count)
    loop = build_loop(args.preset, iterations=2)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    total = 0
    for labelled in dataset:
        people = people_in(loop, labelled.image, min(args.later))
        found.append((people.iterations, people.scores, judge(people, labelled)))
        total += len(true_boxes(labelled, crowd=False))
    first = sum(int((verdicts[steps == 1] == 1).sum()) for steps, _, verdicts in found)
    print(machine_line())
    print(f"{len(found)} pictures, {total} people, {total - first} missed by the first iteration")
    print(f"{'second asks for':<16}{'finds':>7}{'of missed':>11}{'false boxes per picture':>25}")
    for later in sorted(args.later):
        kept = [v[(steps > 1) & (scores > later)] for steps, scores, v in found]
        hits = sum(int((v == 1).sum()) for v in kept)
        false = sum(int((v == 0).sum()) for v in kept) / len(found)
        print(f"{later:<16g}{hits:>7}{hits / max(total - first, 1):>11.1%}{false:>25.2f}")


if __name__ == "__main__":
    main()
