# SPDX-License-Identifier: Apache-2.0
"""Numbered pictures and engines that read the number: what a picture shows is known exactly.

The blue value of the upper left corner is the number of the picture (nearly so, if it went through
a lossy format; then numbers must be far apart). Its acts are lists of `Actor`: the detector finds
the first act in the picture as it is and the second once somebody is painted out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scripted import Actor, rectangle_mask

from bmp_ros.evaluation.datasets import LabelledImage
from bmp_ros.evaluation.ground_truth import CATEGORY
from bmp_ros.loop import BMPLoop, Frame, LoopSettings
from bmp_ros.loop.protocols import Detections, Poses, Segments
from bmp_ros.loop.skeletons import COCO_17, Skeleton
from bmp_ros.offline.coco_format import run_length_string

HEIGHT, WIDTH = 120, 200
Acts = Sequence[Sequence[Actor]]


def numbered_image(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    image = np.full((height, width, 3), 127, np.uint8)
    image[:8, :8, 0] = number
    return image


@dataclass
class NumberedEngines:
    """All three engines in one; ``masks``: whether the detector has some."""

    scripts: Mapping[int, Acts]
    masks: bool = True
    skeleton: Skeleton = COCO_17

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        acts = self._acts(frame)
        painted_out = (frame.image == 0).all(axis=2).any()
        act = acts[1] if painted_out and len(acts) > 1 else () if painted_out else acts[0]

        def masks(indices: np.ndarray) -> np.ndarray:
            return np.stack([act[index].found_mask(frame) for index in indices])

        return Detections(
            np.array([actor.box for actor in act], np.float32).reshape(-1, 4),
            np.array([actor.score for actor in act], np.float32),
            masks if self.masks else None,
        )

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        people = {tuple(np.float32(a.box).tolist()): a for act in self._acts(frame) for a in act}
        found = [people[tuple(box.tolist())] for box in boxes]
        return Poses(
            np.stack([actor.pose(17) for actor in found]).astype(np.float32),
            np.stack([np.full(17, actor.keypoint_scores, np.float32) for actor in found]),
        )

    def segment(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        found = [self._whose(frame, own[0]) for own in points]
        return Segments(
            np.stack([actor.segmented(frame) for actor in found]),
            np.array([actor.mask_score for actor in found], np.float32),
        )

    def _acts(self, frame: Frame) -> Acts:
        shown = int(frame.image[2, 2, 0])
        number = min(self.scripts, key=lambda known: abs(known - shown))
        assert abs(number - shown) < 10, f"there is no script for picture {shown}"
        return self.scripts[number]

    def _whose(self, frame: Frame, point: np.ndarray) -> Actor:
        everyone = [actor for act in self._acts(frame) for actor in act]
        distances = [np.abs(actor.pose(17) - point).sum(axis=1).min() for actor in everyone]
        return everyone[int(np.argmin(distances))]


def numbered_loop(
    scripts: Mapping[int, Acts], *, masks: bool = True, segmenter: bool = True, **settings: Any
) -> BMPLoop:
    engines = NumberedEngines(scripts, masks)
    return BMPLoop(engines, engines, engines if segmenter else None, LoopSettings(**settings))


def annotations_of(actors: Sequence[Actor], image_id: int) -> list[dict[str, Any]]:
    """COCO annotations of people who are just as their actors say."""
    annotations = []
    for actor in actors:
        x1, y1, x2, y2 = actor.box
        keypoints = np.column_stack([actor.pose(17), np.full(17, 2)])
        annotations.append(
            {
                "image_id": image_id,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "segmentation": run_length_string(rectangle_mask(HEIGHT, WIDTH, actor.box)),
                "keypoints": keypoints.ravel().tolist(),
            }
        )
    return annotations


@dataclass
class NumberedDataset:
    """Pictures whose truth are these actors."""

    truth: Mapping[int, Sequence[Actor]]
    name: str = "numbered"
    categories: Sequence[Mapping[str, Any]] = (CATEGORY,)

    def __len__(self) -> int:
        return len(self.truth)

    def __iter__(self) -> Iterator[LabelledImage]:
        for number, actors in self.truth.items():
            entry = {"id": number, "width": WIDTH, "height": HEIGHT}
            yield LabelledImage(numbered_image(number), entry, annotations_of(actors, number))


def write_folder(folder: Path, dataset: NumberedDataset, below: str = "images") -> dict[str, Any]:
    """Write a data set as a COCO folder, PNG since every pixel counts; return its document."""
    (folder / below).mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "images": [], "annotations": [], "categories": list(dataset.categories),
    }  # fmt: skip
    for picture in dataset:
        name = f"Bild {picture.entry['id']} – ö人.png"
        _, encoded = cv2.imencode(".png", picture.image)
        (folder / below / name).write_bytes(encoded.tobytes())
        document["images"].append({**picture.entry, "file_name": name})
        document["annotations"] += picture.annotations
    return document
