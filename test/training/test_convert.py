# SPDX-License-Identifier: Apache-2.0
"""Annotations of other data sets as COCO files, and back through their joint maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bmp_ros.cli.main import main
from bmp_ros.loop.skeletons import COCO_17, MULTI_21, MULTI_23
from bmp_ros.training.coco_images import CocoImages
from bmp_ros.training.convert import convert, image_size
from bmp_ros.training.joint_maps import joint_map

CODES = {"mpii": 16, "aic": 14, "crowdpose": 14}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "one.jpg"), np.zeros((90, 120, 3), np.uint8))
    return folder


def places(count: int) -> np.ndarray:
    return np.column_stack([20 + 2.0 * np.arange(count), 30 + 3.0 * np.arange(count)])


def given(data_set: str) -> Any:
    """One person whose first joint is not labelled and whose second one is hidden."""
    points = places(CODES[data_set])
    if data_set == "mpii":
        seen = [0] + [1] * 15
        joints = (points + 1).tolist()
        joints[0] = [-1.0, -1.0]
        return [{"image": "one.jpg", "joints": joints, "joints_vis": seen, "center": [50, 50],
                 "scale": 0.4}]  # fmt: skip
    seen = [3, 2] + [1] * 12 if data_set == "aic" else [0, 1] + [2] * 12
    flat = np.column_stack([points, seen]).ravel().tolist()
    if data_set == "aic":
        return [{"image_id": "one", "keypoint_annotations": {"human1": flat},
                 "human_annotations": {"human1": [10, 20, 70, 95]}}]  # fmt: skip
    return {
        "images": [{"id": 7, "file_name": "one.jpg", "width": 120, "height": 90}],
        "annotations": [{"id": 3, "image_id": 7, "category_id": 1, "bbox": [10, 20, 60, 75],
                         "keypoints": flat, "iscrowd": 0}],
    }  # fmt: skip


@pytest.mark.parametrize("data_set", sorted(CODES))
def test_a_person_becomes_one_of_the_network(
    data_set: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "given.json", tmp_path / "coco.json"
    source.write_text(json.dumps(given(data_set)))
    command = ["convert", data_set, str(source), "--images", str(images), "--output", str(output)]
    assert main(command) == 0
    assert "1 people in 1 images" in capsys.readouterr().out
    document = json.loads(output.read_text())
    (image,), (person,) = document["images"], document["annotations"]
    assert (image["width"], image["height"]) == (120, 90)
    left, top, width, height = person["bbox"]
    if data_set == "mpii":
        assert person["bbox"] == [9, 15, 80, 75], "a square of 200 scale, lowered, clipped"
    else:
        assert (left, top, width, height) == (10, 20, 60, 70), "clipped"
    for skeleton in (COCO_17, MULTI_21, MULTI_23):
        names = document["categories"][0]["keypoints"]
        mapping = joint_map(None, names, skeleton)
        images = CocoImages(tmp_path, output, tmp_path / "cache", joints=mapping, longer_side=None)
        labelled = images[0]
        kept = labelled.visibility[0] > 0
        mapped = [target for joint, target in mapping.pairs if joint > 0]
        assert sorted(np.flatnonzero(kept)) == sorted(mapped)
        back = mapping.back(np.column_stack([labelled.keypoints[0], labelled.visibility[0]]))
        for joint, _ in mapping.pairs[1:]:
            assert np.allclose(back[joint, :2], places(CODES[data_set])[joint], atol=1e-3)
        second = 2 if data_set == "mpii" else 1
        assert back[1, 2] == second
    if data_set == "mpii":
        assert person["num_keypoints"] == 15


def test_everything_that_cannot_be_used_is_listed(images: Path, tmp_path: Path) -> None:
    people = given("mpii") * 4
    people[1] = {**people[1], "image": "gone.jpg"}
    people[2] = {**people[2], "center": [900, 900]}
    people[3] = {**people[3], "joints": [[float("nan"), 1.0]] * 16}
    file = tmp_path / "mpii.json"
    file.write_text(json.dumps(people))
    with pytest.raises(ValueError, match="3 problems") as caught:
        convert("mpii", file, images)
    for words in ("gone.jpg", "person 2: its box", "person 3: keypoints"):
        assert words in str(caught.value)


@pytest.mark.parametrize("data_set", sorted(CODES))
def test_another_kind_of_file_is_refused(data_set: str, images: Path, tmp_path: Path) -> None:
    file = tmp_path / "given.json"
    file.write_text(json.dumps([{"nothing": 1}] if data_set != "crowdpose" else {"x": 1}))
    with pytest.raises(ValueError, match=f"not as the annotations of {data_set} are"):
        convert(data_set, file, images)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_sizes(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"image{suffix}"
    cv2.imwrite(str(file), np.zeros((31, 47, 3), np.uint8))
    assert image_size(file) == (47, 31)
