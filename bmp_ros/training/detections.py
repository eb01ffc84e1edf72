# SPDX-License-Identifier: Apache-2.0
"""What a detector says about the training pictures, for the pose network to learn with.

``python -m bmp_ros.training.detections --data DIR --preset tiny``

The pose network works on boxes and masks of the detector; trained on the renderer's alone, even
damaged ones, it does worse than with no masks at all. ``DIR/detections/000000.json`` holds, for
each person of ``DIR/labels/000000.json``, the detection that fits, if any.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from bmp_ros.engines.build import build_loop
from bmp_ros.loop.frame import Frame
from bmp_ros.synthetic.dataset import column_run_lengths, mask_from_run_lengths

if TYPE_CHECKING:
    from bmp_ros.engines.protocols import Detector

SCORE_THRESHOLD = 0.15
LEAST_OVERLAP = 0.4
"""IoU of masks below which a detection is not this person's."""


@dataclass(frozen=True)
class Detected:
    """One person as a detector saw it. box: (4,) float32 xyxy. mask: (H, W) bool."""

    box: np.ndarray
    mask: np.ndarray


def detect_people(
    detector: Detector, image: np.ndarray, masks: np.ndarray
) -> list[Detected | None]:
    """Return for each person, of truth ``masks`` (N, H, W) bool, the detection that fits best."""
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
    best = overlap.argmax(axis=1)
    return [
        Detected(found.boxes[column], guesses[column])
        if overlap[row, column] >= LEAST_OVERLAP and overlap[:, column].argmax() == row
        else None
        for row, column in enumerate(best)
    ]


def write_detections(folder: Path, detector: Detector) -> int:
    """Fill ``folder/detections``; return the number of pictures. Those that are there stay."""
    (folder / "detections").mkdir(exist_ok=True)
    labels = sorted((folder / "labels").glob("*.json"))
    for file in tqdm(labels, "detecting", unit="picture", disable=not sys.stderr.isatty()):
        target = folder / "detections" / file.name
        if target.is_file():
            continue
        label = json.loads(file.read_text(encoding="utf-8"))
        image = cv2.imread(str(folder / "images" / label["image"]["file_name"]))
        masks = [mask_from_run_lengths(a["segmentation"]) for a in label["annotations"]]
        people = detect_people(
            detector, image, np.array(masks, bool).reshape(-1, *image.shape[:2])
        )
        part = target.with_suffix(".part")
        part.write_text(json.dumps([_entry(person) for person in people]), encoding="utf-8")
        part.replace(target)
    return len(labels)


def read_detections(file: Path) -> list[Detected | None]:
    """Read a file of ``write_detections``."""
    entries = json.loads(file.read_text(encoding="utf-8"))
    return [
        entry
        and Detected(
            np.array(entry["box"], np.float32), mask_from_run_lengths(entry["segmentation"])
        )
        for entry in entries
    ]


def _entry(person: Detected | None) -> dict[str, Any] | None:
    if person is None:
        return None
    box = [round(float(side), 1) for side in person.box]
    return {"box": box, "segmentation": column_run_lengths(person.mask)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bmp_ros.training.detections", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of bmp_ros.synthetic.dataset"
    )
    parser.add_argument("--preset", required=True, help="name or file; its detector is used")
    args = parser.parse_args(arguments)
    count = write_detections(args.data, build_loop(args.preset).detector)
    print(f"{count} pictures in {args.data / 'detections'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
