# SPDX-License-Identifier: Apache-2.0
"""A small folder in COCO's format in which much is missing, as in photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from discs import disc_image

WIDTH, HEIGHT = 128, 96


def write_photographs(folder: Path, count: int = 12, first_id: int = 100) -> Path:
    """Write ``count`` images of 2 or 3 discs; return their annotation file.

    Of every image the first disc has a mask, the second none and unlabelled joints; image 0
    has a crowd, image 1 an ignored region.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        labelled = disc_image(number + first_id - 99, 2 + number % 2, WIDTH, HEIGHT)
        image_id = first_id + number
        name = f"images/{image_id:012d}.jpg"
        cv2.imwrite(str(folder / name), labelled.image)
        images.append(
            {"id": image_id, "file_name": name, "width": WIDTH, "height": HEIGHT,
             "coco_id": image_id}
        )  # fmt: skip
        for row, (mask, joints) in enumerate(zip(labelled.masks, labelled.keypoints, strict=True)):
            left, top, right, bottom = labelled.boxes[row].tolist()
            seen = np.full(17, 2)
            seen[5 if row == 1 else 17 :] = 0
            outline, _ = cv2.findContours(
                mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image_id, "category_id": 1,
                    "iscrowd": 0, "bbox": [left, top, right - left, bottom - top],
                    "segmentation": [] if row == 1 else [outline[0].ravel().tolist()],
                    "keypoints": np.column_stack([joints, seen]).ravel().tolist(),
                }
            )  # fmt: skip
    annotations.append(
        {"id": 9999, "image_id": first_id, "category_id": 1, "iscrowd": 1,
         "bbox": [0, 0, 30, 20], "segmentation": []}
    )  # fmt: skip
    file = folder / "people.json"
    file.write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": 1, "name": "person"}],
                "ignore_regions": {str(first_id + 1): [[10, 10, 20, 30]]},
            }
        )
    )
    return file
