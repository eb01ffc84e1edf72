# SPDX-License-Identifier: Apache-2.0
"""Pictures that a network was trained on are left out of its scores, and that is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import bmp_ros
from bmp_ros.evaluation.coco_folder import CocoFolder
from bmp_ros.evaluation.datasets import open_dataset
from bmp_ros.evaluation.seen_images import coco_id_of, seen_coco_ids

MODELS = Path(bmp_ros.__file__).parents[1] / "models" / "tiny"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = []
    for number in (7, 8, 9):
        name = f"{number:012d}.jpg"
        cv2.imwrite(str(tmp_path / name), np.zeros((20, 30, 3), np.uint8))
        images.append({"id": number, "file_name": name, "width": 30, "height": 20})
    document = {
        "images": images, "annotations": [], "categories": [{"id": 1, "name": "person"}]
    }  # fmt: skip
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    return tmp_path


@pytest.mark.parametrize(
    ("entry", "coco_id"),
    [
        ({"id": 3, "file_name": "000000000139.jpg"}, 139),
        ({"id": 3, "file_name": "val2017/000000000139.jpg"}, 139),
        ({"id": 3, "file_name": "COCO_val2014_000000000139.jpg"}, 139),
        ({"id": 3, "file_name": "a.jpg", "coco_id": 5}, 5),
        ({"id": 3, "file_name": "000003.jpg"}, None),
        ({"id": 3}, None),
    ],
)
def test_coco_ids(entry: dict[str, object], coco_id: int | None) -> None:
    assert coco_id_of(entry) == coco_id


def test_seen_images_are_left_out_before_the_count(folder: Path) -> None:
    assert [p.entry["id"] for p in CocoFolder(folder)] == [7, 8, 9]
    rest = CocoFolder(folder, leave_out={7, 100}, count=1)
    assert [p.entry["id"] for p in rest] == [8] and rest.left_out == 1
    with pytest.raises(ValueError, match="all 3 images"):
        open_dataset(str(folder), leave_out={7, 8, 9})


def test_ids_travel_in_the_files(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="writing metadata needs onnx")
    from bmp_ros.training.provenance import main

    files = [tmp_path / name for name in ("segmenter.onnx", "segmenter.decoder.onnx")]
    for file in files:
        shutil.copy(MODELS / file.name, file)
    for name, ids in (("a.json", [3, 1]), ("b.json", [1, 2])):
        (tmp_path / name).write_text(json.dumps(ids))
    arguments = [str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--files"]
    for _ in range(2):  # the second time replaces the first
        assert main([*arguments, *map(str, files)]) == 0
    assert seen_coco_ids([*files, tmp_path / "a.json"]) == {1, 2, 3}
    assert main([str(tmp_path / "none.json"), "--files", str(files[0])]) == 1
