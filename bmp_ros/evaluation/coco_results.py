# SPDX-License-Identifier: Apache-2.0
"""People as COCO results, and masks as COCO's run-length strings, without pycocotools."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bmp_ros.loop.masks import encode_runs
from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import COCO_17

PERSON = 1
"""COCO's category id of people."""


@dataclass
class CollectedResults:
    """Results of many images, as `bmp_ros.evaluation.scores.score_results` takes them.

    The scores by which COCO ranks them:

    * boxes: the detector's.
    * masks: the detector's too. The segmenter's own estimate says how good the outline is, not
      whether it is a person's (a prompted chair gets a good one), and it is 0 for those who keep
      the detector's mask.
    * keypoints: mean keypoint score times the detector's, as MMPose and HRNet rank poses.
    """

    boxes: list[dict[str, Any]] = field(default_factory=list)
    masks: list[dict[str, Any]] = field(default_factory=list)
    keypoints: list[dict[str, Any]] = field(default_factory=list)

    def add(self, people: People, image_id: int | str) -> None:
        """Append everybody found in one image."""
        for row, score in enumerate(people.scores.tolist()):
            head = {"image_id": image_id, "category_id": PERSON}
            self.boxes.append({**head, "bbox": xywh(people.boxes[row]), "score": score})
            self.masks.append(mask_result(people.masks[row], score, image_id))
            pose = coco_keypoints(people, row)
            pose_score = float(people.pose_scores[row]) * score
            self.keypoints.append({**head, "keypoints": pose, "score": pose_score})


def mask_result(mask: np.ndarray, score: float, image_id: int | str) -> dict[str, Any]:
    """One mask (H, W) bool as a COCO result."""
    return {
        "image_id": image_id,
        "category_id": PERSON,
        "segmentation": run_length_string(mask),
        "score": score,
    }


def xywh(box: np.ndarray) -> list[float]:
    """x, y, width and height of a box (4,) xyxy, in continuous pixels."""
    left, top, right, bottom = box.astype(float).tolist()
    return [left, top, right - left, bottom - top]


def coco_keypoints(people: People, row: int, joints: int = len(COCO_17)) -> list[float]:
    """x, y and score of the first ``joints`` keypoints of one person, flat; by default COCO's 17.

    Pixel centres lie at whole numbers, in the loop as in COCO.
    """
    keypoints, scores = people.keypoints[row, :joints], people.keypoint_scores[row, :joints]
    flat: list[float] = np.column_stack([keypoints, scores]).astype(float).ravel().tolist()
    return flat


def run_length_string(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask (H, W) bool: ``{"size": [H, W], "counts": str}``."""
    height, width = mask.shape
    _, counts = encode_runs(mask, (0, 0, width, height))
    runs = counts.tolist() or [height * width]  # an empty mask has no runs there, here it has one
    return {"size": [height, width], "counts": compress_counts(runs)}


def compress_counts(counts: list[int]) -> str:
    """Pack run lengths into text, as pycocotools (``rleToString`` of maskApi.c) does.

    From the fourth on, each is replaced by its difference to the one before last. Then five bits
    make a character, lowest first: bit 5 says that more follow, and 48 is added.
    """
    text = bytearray()
    for index, count in enumerate(counts):
        rest = count - counts[index - 2] if index > 2 else count
        while True:
            bits = rest & 31
            rest >>= 5
            # Done when what is left repeats the sign bit of the last character.
            more = rest != (-1 if bits & 16 else 0)
            text.append(48 + (bits | 32 if more else bits))
            if not more:
                break
    return text.decode("ascii")
