# SPDX-License-Identifier: Apache-2.0
"""A folder in COCO's format with stick figures: joints that a tiny network can learn by heart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bmp_ros.loop.masks import coco_run_lengths
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.training.joint_maps import DATA_SETS

WIDTH, HEIGHT = 160, 128
PLACES = {
    "nose": (0.5, 0.08), "left_eye": (0.55, 0.05), "right_eye": (0.45, 0.05),
    "left_ear": (0.6, 0.07), "right_ear": (0.4, 0.07), "left_shoulder": (0.7, 0.22),
    "right_shoulder": (0.3, 0.22), "left_elbow": (0.82, 0.38), "right_elbow": (0.18, 0.38),
    "left_wrist": (0.9, 0.52), "right_wrist": (0.1, 0.52), "left_hip": (0.62, 0.55),
    "right_hip": (0.38, 0.55), "left_knee": (0.65, 0.76), "right_knee": (0.35, 0.76),
    "left_ankle": (0.68, 0.96), "right_ankle": (0.32, 0.96), "pelvis": (0.5, 0.55),
    "thorax": (0.5, 0.22), "upper_neck": (0.5, 0.15), "neck": (0.5, 0.17),
    "head_top": (0.5, 0.0),
}  # fmt: skip
"""Parts of the width and height of a figure."""


def write_figures(
    folder: Path, count: int = 8, data_set: str = "coco", seed: int = 0, people: int = 1
) -> Path:
    """Write ``count`` images of ``people`` figures with the joints of a data set; return the
    annotation file, ``DATA_SET.json``."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names = DATA_SETS[data_set]
    for number in range(count):
        image = np.full((HEIGHT, WIDTH, 3), random.integers(20, 70, 3), np.uint8)
        entry = {
            "id": number + 1, "width": WIDTH, "height": HEIGHT,
            "file_name": f"{data_set}_{number}.png",
        }  # fmt: skip
        for person in range(people):
            size = random.uniform([38, 84], [46, 104])
            room = np.array([WIDTH / people, HEIGHT]) - size - 6
            corner = np.array([person * WIDTH / people, 0]) + 3 + random.uniform(0, 1, 2) * room
            joints = {name: corner + size * place for name, place in PLACES.items()}
            mask = _draw(image, joints)
            points = np.array([[*joints[name], 2] for name in names])
            y, x = np.nonzero(mask)
            left, top, right, bottom = x.min(), y.min(), x.max() + 1, y.max() + 1
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number + 1, "category_id": 1,
                    "bbox": [float(v) for v in (left, top, right - left, bottom - top)],
                    "area": float(mask.sum()), "iscrowd": 0,
                    "segmentation": coco_run_lengths(mask),
                    "keypoints": points.round(2).ravel().tolist(), "num_keypoints": len(names),
                }
            )  # fmt: skip
        cv2.imwrite(str(folder / "images" / entry["file_name"]), image)
        images.append(entry)
    category = {"id": 1, "name": "person", "keypoints": list(names)}
    file = folder / f"{data_set}.json"
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [category]})
    )
    return file


def _draw(image: np.ndarray, joints: dict[str, np.ndarray]) -> np.ndarray:
    """Limbs and coloured joints; returns the mask (H, W) bool."""
    mask = np.zeros(image.shape[:2], np.uint8)
    points = [joints[name] for name in COCO_17.names]
    for first, second in COCO_17.edges:
        ends = [tuple(int(v) for v in points[joint].round()) for joint in (first, second)]
        cv2.line(image, *ends, (190, 190, 190), 4)
        cv2.line(mask, *ends, 1, 4)
    torso = np.array([points[joint] for joint in (5, 6, 12, 11)]).round().astype(np.int32)
    cv2.fillConvexPoly(image, torso, (150, 200, 150))
    cv2.fillConvexPoly(mask, torso, 1)
    for number, point in enumerate(points):
        colour = (60 + 10 * number, 250 - 12 * number, 90 if number % 2 else 220)
        place = tuple(int(v) for v in point.round())
        cv2.circle(image, place, 3, colour, -1)
        cv2.circle(mask, place, 3, 1, -1)
    return mask.astype(bool)
