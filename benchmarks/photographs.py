# SPDX-License-Identifier: Apache-2.0
"""How good a preset is on labelled photographs, in the figures of models/tiny/README.md.

``python benchmarks/photographs.py --dataset DIR --annotations FILE --preset tiny``

Boxes, masks and keypoints with one and two iterations; boxes of medium and large people; keypoints
in true boxes; precision, recall and false boxes at the preset's own threshold; and whether the
second iteration, and the segmenter, are worth it: paired bootstrap over images, so that the
interval is of the difference.

Masks are those that the loop gives, where every pixel is one person's; before it shares the pixels
out ("raw"); and the detector's. The segmenter is compared with the detector by masks of the same
kind, raw ones: above a low threshold most people are found several times, and who shares
pixels with doubles loses some.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bmp_ros.cli.evaluate import seen_by_preset
from bmp_ros.engines import build_loop
from bmp_ros.evaluation.coco_folder import CocoFolder
from bmp_ros.evaluation.coco_results import CollectedResults, mask_result
from bmp_ros.evaluation.datasets import Dataset, open_dataset
from bmp_ros.evaluation.ground_truth import truth_for
from bmp_ros.loop import BMPLoop
from bmp_ros.loop.box_nms import box_iou
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.trace import detector_masks
from bmp_ros.machine import machine_line

KINDS = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}
RECALLS = np.linspace(0, 1, 101)
OVERLAP = 0.2
MATCH = 0.5


@dataclass
class Run:
    """What one setting found in all images."""

    results: CollectedResults = field(default_factory=CollectedResults)
    raw: list[dict[str, Any]] = field(default_factory=list)
    coarse: list[dict[str, Any]] = field(default_factory=list)


def matches(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], kind: str, area: str = "all"
) -> list[dict[str, Any]]:
    """COCOeval's matches, one entry per image; those of empty images have no rows."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO()
        expected.dataset = truth_for(kind, truth)
        expected.createIndex()
        given = COCO()
        given.dataset = {**expected.dataset, "annotations": []}
        given.createIndex()
        if results:
            given = expected.loadRes([{**result, "category_id": 1} for result in results])
        evaluation = COCOeval(expected, given, KINDS[kind])
        chosen = evaluation.params.areaRngLbl.index(area)
        evaluation.params.areaRng = [evaluation.params.areaRng[chosen]]
        evaluation.params.areaRngLbl = [area]
        evaluation.evaluate()
    nothing = {
        "dtMatches": np.zeros((10, 0)), "dtIgnore": np.zeros((10, 0), bool), "dtScores": [],
        "gtIgnore": np.zeros(0, bool), "gtMatches": np.zeros((10, 0)),
    }  # fmt: skip
    return [nothing if image is None else image for image in evaluation.evalImgs]


def average_precision(images: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """COCO's AP and AP50 of such matches."""
    people = sum(int((~np.asarray(image["gtIgnore"], bool)).sum()) for image in images)
    if not people:
        return float("nan"), float("nan")
    scores = np.concatenate([np.asarray(image["dtScores"], float) for image in images])
    order = np.argsort(-scores, kind="mergesort")
    hit = np.concatenate([image["dtMatches"] for image in images], axis=1)[:, order] > 0
    skip = np.concatenate([image["dtIgnore"] for image in images], axis=1)[:, order].astype(bool)
    each = []
    for found, ignored in zip(hit, skip, strict=True):
        right = np.cumsum(found & ~ignored)
        wrong = np.cumsum(~found & ~ignored)
        precision = right / np.maximum(right + wrong, 1e-9)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(right / people, RECALLS, side="left")
        within = places < len(precision)
        each.append(
            np.where(within, np.append(precision, 0)[np.minimum(places, len(precision))], 0)
        )
    values = np.mean(each, axis=1)
    return float(values.mean()), float(values[0])


def at_threshold(images: Sequence[Mapping[str, Any]], threshold: float) -> tuple[float, ...]:
    """Precision, recall and false boxes per image at IoU 0.5, of boxes above ``threshold``."""
    right = wrong = people = 0
    for image in images:
        above = np.asarray(image["dtScores"], float) > threshold
        hit = (np.asarray(image["dtMatches"][0]) > 0) & above
        ignored = np.asarray(image["dtIgnore"][0], bool)
        right += int((hit & ~ignored).sum())
        wrong += int((above & ~hit & ~ignored).sum())
        people += int((~np.asarray(image["gtIgnore"], bool)).sum())
    return right / max(1, right + wrong), right / max(1, people), wrong / max(1, len(images))


def bootstrap(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], rounds: int = 300
) -> tuple[float, float, float]:
    """AP of ``second`` minus AP of ``first``, and its 95 % interval over resampled images."""
    random = np.random.default_rng(0)
    differences = []
    for _ in range(rounds):
        rows = random.integers(len(first), size=len(first))
        one, two = ([images[row] for row in rows] for images in (first, second))
        differences.append(average_precision(two)[0] - average_precision(one)[0])
    low, high = np.percentile(differences, [2.5, 97.5])
    return average_precision(second)[0] - average_precision(first)[0], float(low), float(high)


def overlapping(truth: Mapping[str, Any]) -> np.ndarray:
    """(images,) bool, in the order of `matches`: two people's boxes have an IoU above 0.2."""
    boxes: dict[Any, list[list[float]]] = {image["id"]: [] for image in truth["images"]}
    for item in truth["annotations"]:
        if not item.get("iscrowd"):
            x, y, width, height = item["bbox"]
            boxes[item["image_id"]].append([x, y, x + width, y + height])
    close = []
    for image_id in sorted(boxes):
        corners = np.array(boxes[image_id], np.float32).reshape(-1, 4)
        pairs = np.triu(box_iou(corners, corners), k=1)
        close.append(bool((pairs > OVERLAP).any()))
    return np.array(close)


def newly_found(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> tuple[int, int]:
    """People whom the first run missed at IoU 0.5, and of them those whom the second found."""
    missed = found = 0
    for one, two in zip(first, second, strict=True):
        if "gtIds" not in one or "gtIds" not in two:  # nobody was there, nobody found
            continue
        before = dict(zip(one["gtIds"], one["gtMatches"][0] > 0, strict=True))
        after = dict(zip(two["gtIds"], two["gtMatches"][0] > 0, strict=True))
        ignored = dict(zip(one["gtIds"], np.asarray(one["gtIgnore"], bool), strict=True))
        lost = [key for key in before if not before[key] and not ignored[key]]
        missed += len(lost)
        found += sum(bool(after[key]) for key in lost)
    return missed, found


def run_everything(
    loop: BMPLoop, dataset: Dataset, settings: Sequence[tuple[int, float]]
) -> tuple[dict[str, Any], dict[tuple[int, float], Run], list[dict[str, Any]]]:
    """Truth, results by (iterations, detection threshold), and poses in true boxes."""
    own = loop.settings
    runs = {setting: Run() for setting in settings}
    truth: dict[str, Any] = {
        "images": [], "annotations": [], "categories": list(dataset.categories)
    }  # fmt: skip
    posed: list[dict[str, Any]] = []
    for picture in tqdm(dataset, total=len(dataset), disable=not sys.stderr.isatty()):
        truth["images"].append(picture.entry)
        truth["annotations"] += picture.annotations
        image_id = picture.entry["id"]
        for (iterations, value), run in runs.items():
            loop.settings = replace(own, iterations=iterations, detection_threshold=value)
            trace = loop.trace(picture.image)
            assert trace.people is not None
            run.results.add(trace.people, image_id)
            scores = trace.people.scores.tolist()
            for mask, score in zip(trace.people.raw_masks, scores, strict=True):
                run.raw.append(mask_result(mask, score, image_id))
            for mask, score in zip(detector_masks(trace), scores, strict=True):
                if mask is not None:
                    run.coarse.append(mask_result(mask, score, image_id))
        posed += true_box_poses(loop, picture.image, picture.annotations, image_id)
    loop.settings = own
    return truth, runs, posed


def true_box_poses(
    loop: BMPLoop, image: np.ndarray, annotations: Sequence[Mapping[str, Any]], image_id: Any
) -> list[dict[str, Any]]:
    """Keypoint results in the annotated boxes, without masks."""
    boxes = [
        item["bbox"] for item in annotations
        if not item.get("iscrowd") and any(item.get("keypoints", ())[2::3])
    ]  # fmt: skip
    if not boxes:
        return []
    corners = np.array(boxes, np.float32)
    corners[:, 2:] += corners[:, :2]
    poses = loop.pose_estimator.estimate(Frame(image), corners, None)
    results = []
    for joints, scores in zip(poses.keypoints[:, :17], poses.scores[:, :17], strict=True):
        triples = np.column_stack([joints, scores]).ravel().tolist()
        results.append({"image_id": image_id, "keypoints": triples, "score": float(scores.mean())})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--dataset", required=True, help="folder in COCO's format, or a split")
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--count", type=int)
    parser.add_argument("--cache", type=Path, help="of a rendered split")
    parser.add_argument("--threshold", type=float, default=0.05, help="of the AP figures")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--without-own", action="store_true", help="leave out the runs at the preset's threshold"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one iteration above --threshold only"
    )
    args = parser.parse_args()
    loop = build_loop(args.preset)
    if args.annotations is not None:
        seen = seen_by_preset(args.preset)
        folder = CocoFolder(Path(args.dataset), args.annotations, count=args.count, leave_out=seen)
        print(f"{folder.left_out} images left out: the networks were trained on them")
        dataset: Dataset = folder
    else:
        dataset = open_dataset(args.dataset, count=args.count, cache=args.cache)
    own = loop.settings.detection_threshold
    settings = [(count, value) for value in (args.threshold, own) for count in (1, 2)]
    settings = settings[:1] if args.quick else settings[:2] if args.without_own else settings
    truth, runs, posed = run_everything(loop, dataset, settings)
    print(f"{args.preset} on {dataset.name}, {len(truth['images'])} images; {machine_line()}")
    figures: dict[str, Any] = {}
    boxes = {setting: matches(truth, run.results.boxes, "boxes") for setting, run in runs.items()}
    for (iterations, value), run in runs.items():
        name = f"{iterations} iterations, detections above {value}"
        later = loop.settings.later_threshold
        if iterations > 1 and later is not None and later > value:
            name += f", later ones above {later}"
        found = run.results
        row = {
            "box": average_precision(boxes[iterations, value]),
            "medium": average_precision(matches(truth, found.boxes, "boxes", "medium")),
            "large": average_precision(matches(truth, found.boxes, "boxes", "large")),
            "mask": average_precision(matches(truth, found.masks, "masks")),
            "raw mask": average_precision(matches(truth, run.raw, "masks")),
            "detector's mask": average_precision(matches(truth, run.coarse, "masks")),
            "keypoints": average_precision(matches(truth, found.keypoints, "keypoints")),
        }
        figures[name] = row
        print(name + ": " + ", ".join(f"{k} {a:.3f} ({b:.3f})" for k, (a, b) in row.items()))
    for (iterations, value), found_boxes in boxes.items():
        precision, recall, false = at_threshold(found_boxes, own)
        figures[f"{iterations} iterations above {value}, own threshold"] = [
            precision, recall, false
        ]  # fmt: skip
        print(
            f"{iterations} iterations above {value}, at the threshold {own}: precision "
            f"{precision:.3f}, recall {recall:.3f}, false boxes per image {false:.2f}"
        )
    in_true = average_precision(matches(truth, posed, "keypoints"))
    figures["true boxes"] = in_true
    print(f"keypoints in true boxes: {in_true[0]:.3f} ({in_true[1]:.3f})")
    if not args.quick:
        pair = [boxes[count, args.threshold if args.without_own else own] for count in (1, 2)]
        second = bootstrap(*pair)
        missed, found_later = newly_found(*pair)
        figures["second iteration"] = [*second, found_later, missed]
        print(
            f"second iteration: box AP {second[0]:+.4f}, 95 % interval {second[1]:+.4f} to "
            f"{second[2]:+.4f}; finds {found_later} of {missed} people whom the first missed"
        )
        rows = np.flatnonzero(overlapping(truth))
        if len(rows):
            crowded = bootstrap(*([images[row] for row in rows] for images in pair))
            figures["second iteration, overlapping people"] = [*crowded, len(rows)]
            print(
                f"in the {len(rows)} images where two boxes overlap by an IoU of {OVERLAP}: "
                f"{crowded[0]:+.4f}, {crowded[1]:+.4f} to {crowded[2]:+.4f}"
            )
    run = runs[settings[0] if args.quick else settings[1]]
    refined = bootstrap(matches(truth, run.coarse, "masks"), matches(truth, run.raw, "masks"))
    figures["segmenter"] = refined
    print(
        f"segmenter against detector, raw masks: AP {refined[0]:+.4f}, 95 % interval "
        f"{refined[1]:+.4f} to {refined[2]:+.4f}"
    )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
