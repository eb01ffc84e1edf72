# SPDX-License-Identifier: Apache-2.0
"""Faulty data: one list of all problems, each with its file and id, and no step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from figures import write_figures
from odd_json import mutations

from bmp_ros.training.check_data import check_data
from bmp_ros.training.command import main
from bmp_ros.training.recipe import read_recipe


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_figures(tmp_path / "figures", 4)


def recipe_of(root: Path, **changes: Any) -> Path:
    source = {"folder": "figures", "annotations": "coco.json"}
    values = {
        "network": "vit_pose", "size": [96, 128],
        "options": {"variant": {"width": 384, "depth": 1, "hidden": 16, "channels": 8}},
        "schedule": {"steps": 1, "batch": 1},
        "data": [source, {**source, "validation": True}], **changes,
    }  # fmt: skip
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def damage(file: Path) -> None:
    document = json.loads(file.read_text())
    images, people = document["images"], document["annotations"]
    images[0]["file_name"] = "gone.png"
    images[1]["id"] = images[2]["id"]
    images.append({"id": 77, "file_name": "coco_0.png"})
    people[0]["bbox"] = [-60.0, 10.0, 40.0, 40.0]
    people[1]["image_id"] = 99
    people[2]["keypoints"] = people[2]["keypoints"][:-1]
    people[3]["id"] = people[2]["id"]
    people[3]["keypoints"][2] = 5
    people.append({"id": 50, "image_id": 3, "category_id": 1})
    people.append({"id": 51, "image_id": 3, "category_id": 1, "bbox": [1, 1, float("nan"), 2]})
    people.append(
        {"id": 52, "image_id": 3, "category_id": 1, "bbox": [1, 1, 5, -2],
         "segmentation": {"size": [3, 3], "counts": [9]}}
    )  # fmt: skip
    people.append(
        {"id": 53, "image_id": 3, "category_id": 1, "bbox": [1, 1, 5, 2],
         "segmentation": [[1, 2, 3]]}
    )  # fmt: skip
    file.write_text(json.dumps(document))


WORDS = (
    "image 1 is neither", "image id 3 is used 2 times", "image 77 has no width, height",
    "annotation id 3 is used 2 times",
    "annotation 1 (image 1): bbox [-60.0, 10.0, 40.0, 40.0] lies outside",
    "annotation 2 (image 99): no such image", "50 values, need 51", "have the visibility 5",
    "annotation 50 (image 3): has neither", "annotation 51 (image 3): bbox is",
    "has a negative side", "annotation 52 (image 3): segmentation has the size [3, 3]",
    "annotation 53 (image 3): segmentation has a polygon",
)  # fmt: skip


def test_no_value_of_a_file_fails_in_another_way(file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(recipe_of(tmp_path))
    refused = 0
    for changed in mutations(json.loads(file.read_text())):
        file.write_text(json.dumps(changed))
        try:
            check_data(recipe, tmp_path)
        except ValueError as error:
            assert "in the data, no step was taken" in str(error)
            refused += 1
    assert refused > 300


def test_all_problems_come_at_once_and_no_step_is_taken(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(file)
    recipe = recipe_of(tmp_path, held_out="kept.json")
    (tmp_path / "kept.json").write_text(json.dumps({"coco.json": [1, 1234]}))
    output = tmp_path / "out"
    assert main([str(recipe), "--root", str(tmp_path), "--output", str(output)]) == 1
    said = capsys.readouterr().err
    for words in (*WORDS, "held_out names images that it does not have: 1234"):
        assert words in said, words
    assert str(file) in said
    assert not output.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": [{"folder": "figures", "annotations": "no.json"}]}, "no such file"),
        ({"data": [{"folder": "figures", "annotations": "images/coco_0.png"}]}, "not a JSON"),
        (
            {"data": [{"folder": "figures", "annotations": "coco.json", "joint_map": "aic"}]},
            "14 joints, but the file's category names 17",
        ),
        (
            {"data": [{"folder": "figures", "annotations": "coco.json",
                       "joint_map": {"tail": 1}}]},
            "'tail'",
        ),
    ],
)  # fmt: skip
def test_files_and_maps(changes: dict[str, Any], words: str, file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        check_data(read_recipe(recipe_of(tmp_path, **changes)), tmp_path)
    assert words in str(caught.value)


def test_people_without_joints_or_masks_teach_nothing(file: Path, tmp_path: Path) -> None:
    document = json.loads(file.read_text())
    for item in document["annotations"]:
        del item["segmentation"], item["keypoints"]
    file.write_text(json.dumps(document))
    masked = {"folder": "figures", "annotations": "coco.json", "masked": True}
    with pytest.raises(ValueError) as caught:
        check_data(read_recipe(recipe_of(tmp_path, data=[masked])), tmp_path)
    assert "labelled joint" in str(caught.value) and "bmp annotate" in str(caught.value)
    plain = [{"folder": "figures", "annotations": "coco.json"}]
    for network, words in (
        ("segmenter", "no person has a segmentation, which segmenter learns from"),
        ("pose2seg", "no person has a segmentation, which pose2seg learns from"),
        ("pose", "no person has a labelled joint"),
    ):
        with pytest.raises(ValueError) as caught:
            check_data(read_recipe(recipe_of(tmp_path, network=network, data=plain)), tmp_path)
        assert words in str(caught.value)


def test_good_data_pass(file: Path, tmp_path: Path) -> None:
    check_data(read_recipe(recipe_of(tmp_path)), tmp_path)


def test_a_long_list_is_cut_and_counted(file: Path, tmp_path: Path) -> None:
    document = json.loads(file.read_text())
    extra = [{"id": 100 + n, "image_id": 999, "category_id": 1} for n in range(150)]
    file.write_text(json.dumps({**document, "annotations": document["annotations"] + extra}))
    with pytest.raises(ValueError, match="300 problems") as caught:
        check_data(read_recipe(recipe_of(tmp_path)), tmp_path)
    assert "… and 200 more" in str(caught.value)
