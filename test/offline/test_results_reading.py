# SPDX-License-Identifier: Apache-2.0
"""Results that were written are read back, number by number and pixel by pixel."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from odd_json import mutations

from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import COCO_17, MULTI_21, Skeleton
from bmp_ros.offline.results_file import ResultsFile
from bmp_ros.offline.results_reading import ResultsError, open_results


def people(count: int, seed: int = 0, skeleton: Skeleton = COCO_17) -> People:
    """Of a 64x48 image, all numbers as coarse as the file keeps them."""
    random = np.random.default_rng(seed)
    joints = len(skeleton)
    boxes = random.integers(0, 20, (count, 4)).astype(np.float32)
    boxes[:, 2:] += 24
    masks = np.zeros((count, 48, 64), np.bool_)
    for row, mask in enumerate(masks):
        mask[5 * row : 5 * row + 4, 3:30] = random.random((4, 27)) > 0.4
    made = People.from_boxes(boxes, np.full(count, 0.5, np.float32), 48, 64, skeleton, masks=masks)
    return replace(
        made,
        keypoints=random.integers(0, 60, (count, joints, 2)).astype(np.float32),
        keypoint_scores=random.integers(0, 4, (count, joints)).astype(np.float32) / 4,
        visibility=np.full((count, joints), 0.25, np.float32),
        pose_scores=np.full(count, 0.75, np.float32),
        track_ids=np.arange(count, dtype=np.int32) - 1,
        iterations=np.arange(count, dtype=np.int32) + 1,
    )


@pytest.mark.parametrize(
    "skeleton", [COCO_17, MULTI_21, Skeleton("own", ("a", "b"), ((0, 1),), (), ())]
)
def test_what_was_written_is_read(tmp_path: Path, skeleton: Skeleton) -> None:
    written = [people(3, 1, skeleton), People.empty(48, 64, skeleton), people(1, 2, skeleton)]
    with ResultsFile(tmp_path / "results.json", skeleton, {"source": "clip"}) as file:
        for number, each in enumerate(written):
            file.add(each, "a.mp4", frame=number, seconds=number / 4)
    results = open_results(tmp_path)
    assert results.info == {"source": "clip"}
    assert (results.skeleton.names, results.skeleton.edges) == (skeleton.names, skeleton.edges)
    read = list(results)
    assert [entry["frame"] for entry, _ in read] == [0, 1, 2]
    for (_, found), expected in zip(read, written, strict=True):
        for field in fields(People):
            if field.name != "skeleton":
                np.testing.assert_array_equal(
                    getattr(found, field.name), getattr(expected, field.name), field.name
                )


@pytest.mark.parametrize(
    "text, reason",
    [
        (None, "there is no"),
        ("{", "is no JSON"),
        ("[]", "is no document of `bmp infer --json`"),
        (json.dumps({"annotations": []}), "is no document of `bmp infer --json`"),
    ],
)
def test_what_is_no_results_is_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(ResultsError, match=reason):
        open_results(tmp_path)


def test_no_value_of_a_file_fails_in_another_way(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    people = People.from_boxes(np.float32([[1, 2, 9, 9]]), np.float32([0.5]), 48, 64)
    with ResultsFile(path, COCO_17, {}) as file:
        file.add(people, "a.png")
    refused = 0
    for changed in mutations(json.loads(path.read_text())):
        path.write_text(json.dumps(changed))
        try:
            list(open_results(path))
        except ResultsError:
            refused += 1
    assert refused > 200


def test_a_damaged_person_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with ResultsFile(path, COCO_17, {}) as file:
        file.add(people(2), "b.jpg")
    document = json.loads(path.read_text(encoding="utf-8"))
    document["annotations"][1]["keypoints"].pop()
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ResultsError, match="image 'b.jpg'"):
        list(open_results(path))
