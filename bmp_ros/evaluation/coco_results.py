# SPDX-License-Identifier: Apache-2.0
"""Results of many images, collected for COCO's scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bmp_ros.loop.people import People
from bmp_ros.offline.coco_format import PERSON, coco_keypoints, run_length_string, xywh


@dataclass
class CollectedResults:
    """Results of many images, as `bmp_ros.evaluation.scores.score_results` takes them.

    The scores by which COCO ranks them:

    * boxes: the detector's.
    * masks: the detector's too. The segmenter's own estimate says how good the outline is, not
      whether it is a person's (a prompted chair gets a good one), and it is 0 for those who keep
      the detector's mask.
    * keypoints: mean keypoint score times the detector's, as MMPose and HRNet rank poses; none
      of a skeleton that does not begin with COCO's joints.
    """

    boxes: list[dict[str, Any]] = field(default_factory=list)
    masks: list[dict[str, Any]] = field(default_factory=list)
    keypoints: list[dict[str, Any]] = field(default_factory=list)

    def add(self, people: People, image_id: int | str) -> None:
        """Append all people found in one image."""
        for row, score in enumerate(people.scores.tolist()):
            head = {"image_id": image_id, "category_id": PERSON}
            self.boxes.append({**head, "bbox": xywh(people.boxes[row]), "score": score})
            self.masks.append(mask_result(people.masks[row], score, image_id))
            if not people.skeleton.begins_with_coco:
                continue
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
