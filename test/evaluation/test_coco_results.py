# SPDX-License-Identifier: Apache-2.0
"""People as COCO results, each kind with its score."""

from __future__ import annotations

import json

import numpy as np

from bmp_ros.evaluation.coco_results import CollectedResults
from bmp_ros.loop import People
from bmp_ros.loop.skeletons import MULTI_21


def people(count: int = 2) -> People:
    boxes = np.array([[1, 2, 11.5, 22], [30, 2, 40, 30]], np.float32)[:count]
    masks = np.zeros((count, 50, 60), np.bool_)
    masks[:, 5:10, 5:10] = True
    found = People.from_boxes(boxes, np.array([0.5, 0.25], np.float32)[:count], 50, 60, MULTI_21)
    fields = {name: getattr(found, name) for name in People.__dataclass_fields__}
    fields |= {
        "masks": masks,
        "mask_scores": np.array([0.9, 0.0], np.float32)[:count],
        "pose_scores": np.array([0.5, 0.75], np.float32)[:count],
        "keypoints": np.arange(count * 42, dtype=np.float32).reshape(count, 21, 2),
        "keypoint_scores": np.full((count, 21), 0.5, np.float32),
    }
    return People(**fields)


def test_every_kind_has_its_score() -> None:
    results = CollectedResults()
    results.add(people(), "a picture")
    results.add(people(1), 7)
    assert [entry["image_id"] for entry in results.boxes] == ["a picture", "a picture", 7]
    assert [entry["score"] for entry in results.boxes] == [0.5, 0.25, 0.5]
    assert [entry["score"] for entry in results.masks] == [0.5, 0.25, 0.5]
    assert [entry["score"] for entry in results.keypoints] == [0.25, 0.1875, 0.25]
    assert results.boxes[0]["bbox"] == [1.0, 2.0, 10.5, 20.0]
    assert results.keypoints[0]["keypoints"][:6] == [0.0, 1.0, 0.5, 2.0, 3.0, 0.5]
    assert all(len(entry["keypoints"]) == 51 for entry in results.keypoints)
    json.dumps([results.boxes, results.masks, results.keypoints])


def test_nobody_adds_nothing() -> None:
    results = CollectedResults()
    results.add(People.empty(50, 60), 1)
    assert results.boxes == results.masks == results.keypoints == []
