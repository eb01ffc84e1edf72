# SPDX-License-Identifier: Apache-2.0
"""Folders in COCO's format: what is written can be read back, by us and by pycocotools."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from bmp_ros.loop.masks import mask_from_run_lengths
from bmp_ros.synthetic.dataset import (
    annotations_of,
    coco_document,
    main,
)
from bmp_ros.synthetic.generator import render_scene

pytestmark = pytest.mark.usefixtures("renderer")


@pytest.fixture(scope="module")
def folder(renderer: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("easy")
    arguments = ["--split", "easy", "--count", "2", "--workers", "1", "--output", str(folder)]
    assert main(arguments) == 0
    return folder


def test_a_folder_holds_what_the_generator_gives(folder: Path) -> None:
    document = json.loads((folder / "annotations.json").read_text())
    assert [image["id"] for image in document["images"]] == [0, 1]
    sample = render_scene(1, "easy")
    image = cv2.imread(str(folder / "images" / document["images"][1]["file_name"]))
    difference = np.abs(image.astype(int) - sample.image)
    assert difference.mean() < 4, "more than JPEG's loss"
    people = [a for a in document["annotations"] if a["image_id"] == 1]
    assert len(people) == len(sample.people)
    for person, mask, box in zip(people, sample.people.masks, sample.people.boxes, strict=True):
        assert np.array_equal(mask_from_run_lengths(person["segmentation"]), mask)
        left, top, width, height = person["bbox"]
        assert [left, top, left + width, top + height] == box.tolist()
    ids = [annotation["id"] for annotation in document["annotations"]]
    assert len(set(ids)) == len(ids) and min(ids) > 0


def test_joints_have_pixel_centres_at_whole_numbers() -> None:
    people = render_scene(1, "easy").people
    person = np.array(annotations_of(people, 1)[0]["keypoints"]).reshape(17, 3)
    seen = people.visibility[0] > 0
    assert np.allclose(person[seen, :2], people.keypoints[0][seen] - 0.5, atol=0.006)
    assert np.array_equal(person[:, 2], people.visibility[0])
    assert (person[~seen] == 0).all()


def test_a_second_call_goes_on_and_keeps_what_is_there(folder: Path) -> None:
    before = (folder / "images" / "000000.jpg").stat().st_mtime_ns
    (folder / "labels" / "000001.json").unlink()
    assert (
        main(["--split", "easy", "--count", "2", "--workers", "1", "--output", str(folder)]) == 0
    )
    assert (folder / "labels" / "000001.json").is_file()
    assert (folder / "images" / "000000.jpg").stat().st_mtime_ns == before


def test_folders_of_others_and_of_other_splits_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "annotations.json").write_text("of somebody")
    (tmp_path / "photos" / "images").mkdir(parents=True)
    (tmp_path / "photos" / "images" / "000000.jpg").write_text("of somebody")
    for output, split, width, words in (
        (tmp_path / "coco", "easy", "640", "not rendered: they would be overwritten"),
        (tmp_path / "photos", "easy", "640", "not rendered: they would be overwritten"),
        (folder, "crowded", "640", "holds images of easy, 640x480 pixels, asked for is crowded"),
        (folder, "easy", "320", "asked for is easy, 320x480"),
    ):
        order = ["--split", split, "--count", "1", "--workers", "1", "--width", width]
        assert main([*order, "--output", str(output)]) == 1
        assert words in capsys.readouterr().err
    assert (tmp_path / "coco" / "annotations.json").read_text() == "of somebody"
    assert (tmp_path / "photos" / "images" / "000000.jpg").read_text() == "of somebody"


def test_pycocotools_reads_the_file(folder: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    data = coco.COCO(str(folder / "annotations.json"))
    for annotation in data.loadAnns(data.getAnnIds()):
        assert data.annToMask(annotation).sum() == annotation["area"]


def test_an_empty_picture_has_no_annotations() -> None:
    document = coco_document([{"id": 3}], [])
    assert document["annotations"] == [] and len(document["categories"][0]["keypoints"]) == 17


@pytest.mark.parametrize("wrong", [["--count", "0"], ["--start", "-1"], ["--workers", "0"]])
def test_bad_numbers_are_refused(wrong: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--split", "easy", "--count", "1", "--output", str(tmp_path), *wrong])
