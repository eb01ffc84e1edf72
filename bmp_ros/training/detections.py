# SPDX-License-Identifier: Apache-2.0
"""What the loop's networks say about the training images, for others to learn with.

``python -m bmp_ros.training.detections --data DIR --preset tiny``

The pose network works on boxes and masks of the detector; one trained on the renderer's alone,
even damaged ones, did worse with the detector's than with no masks at all.
``DIR/detections/000000.json`` holds, for each person of ``DIR/labels/000000.json``, the detection
that fits, if any. ``--poses N`` adds keypoints to the detections of N images: the segmenter's
prompts.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from bmp_ros.engines.build import build_loop
from bmp_ros.image_files import read_annotated_image
from bmp_ros.loop.box_nms import box_iou
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.masks import coco_run_lengths, mask_from_run_lengths
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.synthetic.ground_truth import mask_box
from bmp_ros.training.warping import warp_mask

if TYPE_CHECKING:
    from bmp_ros.loop.protocols import Detector, PoseEstimator
    from bmp_ros.training.coco_images import CocoImages, Seen

SCORE_THRESHOLD = 0.15
LEAST_OVERLAP, LEAST_BOX_OVERLAP = 0.4, 0.5
"""Mean of the IoUs of mask and box, or IoU of boxes where the mask is not known, below which a
detection is not this person's. A good box with a bad mask counts: bad masks are what the segmenter
is there for."""


@dataclass(frozen=True)
class Detected:
    """One person as the networks saw it.

    box: (4,) float32 xyxy. mask: (H, W) bool. keypoints: (17, 3) float32, x, y and score, or None.
    """

    box: np.ndarray
    mask: np.ndarray
    keypoints: np.ndarray | None = None

    def moved(self, matrix: np.ndarray, size: tuple[int, int]) -> Detected:
        """The same on a canvas of ``size``, moved by ``matrix`` (2, 3); mirrors swap sides."""
        mask = np.zeros(size[::-1], bool)
        warp_mask(self.mask, matrix, mask)
        corners = self.box[[0, 1, 2, 1, 0, 3, 2, 3]].reshape(4, 2) @ matrix[:, :2].T + matrix[:, 2]
        box = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).astype(np.float32)
        keypoints = self.keypoints
        if keypoints is not None:
            keypoints = keypoints.copy()
            keypoints[:, :2] = keypoints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
            if np.linalg.det(matrix[:, :2]) < 0:
                keypoints = keypoints[COCO_17.flip_indices]
        return Detected(box, mask, keypoints)


def detect_people(
    detector: Detector,
    image: np.ndarray,
    masks: np.ndarray,
    masked: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
) -> list[Detected | None]:
    """Return for each person, of truth ``masks`` (N, H, W) bool, the detection that fits best.

    masked: (N,) bool, whose mask is known (None: all); the others are found by their boxes alone.
    boxes: (N, 4) float32 xyxy, None for those around the masks.
    """
    found = detector.detect(Frame(image), score_threshold=SCORE_THRESHOLD)
    if not len(masks) or not len(found.boxes):
        return [None] * len(masks)
    if found.masks is None:
        raise ValueError("the detector has no masks; choose a preset with an instance segmenter")
    guesses = found.masks(np.arange(len(found.boxes)))
    # Counting shared pixels is a matrix product.
    truth, guess = (m.reshape(len(m), -1).astype(np.float32) for m in (masks, guesses))
    shared = truth @ guess.T
    overlap = shared / np.maximum(truth.sum(1)[:, None] + guess.sum(1) - shared, 1)
    if boxes is None:
        boxes = np.array([mask_box(mask) for mask in masks], np.float32)
    of_boxes = box_iou(boxes, found.boxes)
    overlap = (overlap + of_boxes) / 2
    if masked is not None:
        overlap[~masked] = of_boxes[~masked]
    least = np.full(len(masks), LEAST_OVERLAP)
    if masked is not None:
        least[~masked] = LEAST_BOX_OVERLAP
    best = overlap.argmax(axis=1)
    return [
        Detected(found.boxes[column], guesses[column])
        if overlap[row, column] >= least[row] and overlap[:, column].argmax() == row
        else None
        for row, column in enumerate(best)
    ]


def write_seen(folder: CocoImages, detector: Detector, estimator: PoseEstimator | None) -> int:
    """Let networks look at all images of a folder; return how many people they found.

    Boxes, masks and keypoints are kept beside the folder's decoded images, in one file that
    appears when it is whole.
    """
    from bmp_ros.training.coco_images import Seen

    if not folder.entries:
        raise ValueError(f"{folder.file} is not cached: longer_side must be a number of pixels")
    everybody: list[list[Seen | None]] = []
    progress = tqdm(
        range(len(folder.entries)), f"looking at {folder.file.name}", unit="image",
        disable=not sys.stderr.isatty(),
    )  # fmt: skip
    for number in progress:
        labelled = folder.labelled(number)
        people = detect_people(
            detector, labelled.image, labelled.masks, labelled.masked, labelled.boxes
        )
        rows = [row for row, person in enumerate(people) if person is not None]
        if rows and estimator is not None:
            seen = [person for person in people if person is not None]
            poses = estimator.estimate(
                Frame(labelled.image),
                np.stack([person.box for person in seen]),
                np.stack([person.mask for person in seen]),
            )
            for row, joints, scores in zip(rows, poses.keypoints, poses.scores, strict=True):
                person = people[row]
                assert person is not None
                keypoints = np.column_stack([joints, scores]).astype(np.float32)
                people[row] = replace(person, keypoints=keypoints)
        everybody.append([None if person is None else Seen.of(person) for person in people])
    _keep_seen(folder, everybody)
    return sum(person is not None for people in everybody for person in people)


def add_poses(folder: CocoImages, estimator: PoseEstimator) -> int:
    """Add keypoints to what `write_seen` wrote, of people whose mask is known, for the segmenter;
    return how many there are. Raises ValueError where nothing was written.
    """
    if folder.seen is None:
        raise ValueError(
            f"no detector has looked at {folder.file}; run bmp_ros.training.detections first"
        )
    added = 0
    for number, people in enumerate(folder.seen):
        entries = folder.entries[number].people
        rows = [
            row for row, person in enumerate(people)
            if person is not None and entries[row].mask is not None
        ]  # fmt: skip
        if not rows:
            continue
        labelled = folder.labelled(number)
        detected = [labelled.detected[row] for row in rows]
        poses = estimator.estimate(
            Frame(labelled.image),
            np.stack([person.box for person in detected if person is not None]),
            np.stack([person.mask for person in detected if person is not None]),
        )
        for row, joints, scores in zip(rows, poses.keypoints, poses.scores, strict=True):
            person = people[row]
            assert person is not None
            keypoints = np.column_stack([joints, scores]).astype(np.float32)
            people[row] = replace(person, keypoints=keypoints)
        added += len(rows)
    _keep_seen(folder, folder.seen)
    return added


def _keep_seen(folder: CocoImages, everybody: list[list[Seen | None]]) -> None:
    part = folder.seen_file.with_suffix(".part")
    part.write_bytes(pickle.dumps(everybody))
    part.replace(folder.seen_file)


def write_detections(folder: Path, detector: Detector) -> int:
    """Fill ``folder/detections``; return the number of images. Those that are there stay."""
    (folder / "detections").mkdir(exist_ok=True)
    labels = sorted((folder / "labels").glob("*.json"))
    for file in tqdm(labels, "detecting", unit="image", disable=not sys.stderr.isatty()):
        target = folder / "detections" / file.name
        if target.is_file():
            continue
        label = json.loads(file.read_text(encoding="utf-8"))
        listed = label["image"]
        image = read_annotated_image(
            folder / "images" / listed["file_name"], listed.get("width"), listed.get("height")
        )
        masks = [mask_from_run_lengths(a["segmentation"]) for a in label["annotations"]]
        people = detect_people(
            detector, image, np.array(masks, bool).reshape(-1, *image.shape[:2])
        )
        _write(target, [_entry(person) for person in people])
    return len(labels)


def write_poses(folder: Path, estimator: PoseEstimator, count: int) -> int:
    """Add keypoints to the detections of ``count`` images; return how many had any to add."""
    files = sorted((folder / "detections").glob("*.json"))
    files = files[:: max(1, len(files) // count)][:count]
    added = 0
    for file in tqdm(files, "posing", unit="image", disable=not sys.stderr.isatty()):
        entries = json.loads(file.read_text(encoding="utf-8"))
        people = [entry for entry in entries if entry is not None]
        if not people or "keypoints" in people[0]:
            continue
        image = read_annotated_image(folder / "images" / f"{file.stem}.jpg", None, None)
        boxes = np.array([person["box"] for person in people], np.float32)
        masks = np.array([mask_from_run_lengths(person["segmentation"]) for person in people])
        poses = estimator.estimate(Frame(image), boxes, masks)
        for person, joints, scores in zip(people, poses.keypoints, poses.scores, strict=True):
            person["keypoints"] = np.column_stack([joints, scores]).round(2).tolist()
        _write(file, entries)
        added += 1
    return added


def read_detections(file: Path) -> list[Detected | None]:
    """Read a file of ``write_detections``."""
    entries = json.loads(file.read_text(encoding="utf-8"))
    return [
        entry
        and Detected(
            np.array(entry["box"], np.float32),
            mask_from_run_lengths(entry["segmentation"]),
            np.array(entry["keypoints"], np.float32) if "keypoints" in entry else None,
        )
        for entry in entries
    ]


def _entry(person: Detected | None) -> dict[str, Any] | None:
    if person is None:
        return None
    box = [round(float(side), 1) for side in person.box]
    return {"box": box, "segmentation": coco_run_lengths(person.mask)}


def _write(file: Path, entries: list[dict[str, Any] | None]) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(entries), encoding="utf-8")
    part.replace(file)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bmp_ros.training.detections", description=__doc__.split("\n")[0]
    )
    parser.add_argument("recipe", type=Path, nargs="?", help="whose images are looked at")
    parser.add_argument("--root", type=Path, default=Path(), help="see bmp_ros.training")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/bmp_ros/training"))
    parser.add_argument("--data", type=Path, help="instead: a folder of bmp_ros.synthetic.dataset")
    parser.add_argument("--preset", required=True, help="name or file; its networks are used")
    parser.add_argument(
        "--poses", type=int, default=0, metavar="N", help="add keypoints for N images of --data"
    )
    parser.add_argument(
        "--without-poses", action="store_true", help="boxes and masks only, for the pose network"
    )
    parser.add_argument(
        "--add-poses", action="store_true", help="only add keypoints to what was written before"
    )
    args = parser.parse_args(arguments)
    if (args.recipe is None) == (args.data is None):
        parser.error("give a recipe or --data")
    loop = build_loop(args.preset)
    if args.recipe is not None:
        from bmp_ros.training.recipe import open_folders, read_recipe

        folders, held_out = open_folders(
            read_recipe(args.recipe), args.root, args.cache.expanduser()
        )
        for folder in (*folders, *held_out):
            if args.add_poses:
                if folder.seen is not None:
                    added = add_poses(folder, loop.pose_estimator)
                    print(f"{folder.file}: {added} people posed", flush=True)
                continue
            estimator = None if args.without_poses else loop.pose_estimator
            found = write_seen(folder, loop.detector, estimator)
            print(f"{folder.file}: {len(folder.entries)} images, {found} people seen", flush=True)
        return 0
    count = write_detections(args.data, loop.detector)
    posed = write_poses(args.data, loop.pose_estimator, args.poses) if args.poses else 0
    print(f"{count} images in {args.data / 'detections'}, keypoints added to {posed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
