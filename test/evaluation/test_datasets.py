# SPDX-License-Identifier: Apache-2.0
"""Where pictures with ground truth come from: folders in COCO's format, rendered splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("pycocotools", reason="pycocotools is not installed")

from numbered import HEIGHT, WIDTH, NumberedDataset, numbered_loop, write_folder  # noqa: E402
from odd_json import mutations  # noqa: E402
from scripted import Actor  # noqa: E402

from bmp_ros.evaluation.clip_truth import clip_annotations  # noqa: E402
from bmp_ros.evaluation.coco_folder import CocoFolder  # noqa: E402
from bmp_ros.evaluation.coco_results import CollectedResults  # noqa: E402
from bmp_ros.evaluation.datasets import DEFAULT_COUNT, RenderedSplit, open_dataset  # noqa: E402
from bmp_ros.evaluation.evaluate_loop import evaluate  # noqa: E402
from bmp_ros.evaluation.scores import Score, score_results  # noqa: E402
from bmp_ros.synthetic.clip_file import open_clip  # noqa: E402
from bmp_ros.synthetic.ground_truth import PeopleTruth  # noqa: E402

PERFECT = Score(1.0, 1.0, 1.0, 1.0)
LEFT = Actor((10, 10, 60, 110), score=0.9)
RIGHT = Actor((120, 10, 180, 110), score=0.8)
SCRIPTS = {1: [[LEFT, RIGHT]], 2: [[LEFT]]}
TRUTH = NumberedDataset({1: [LEFT, RIGHT], 2: [LEFT]})


def save(folder: Path, document: dict[str, Any], name: str = "annotations.json") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("below", ["images", "."])
def test_folder_in_coco_format(tmp_path: Path, below: str) -> None:
    folder = tmp_path / "Prüfung 人"
    save(folder, write_folder(folder, TRUTH, below))
    dataset = open_dataset(str(folder))
    assert (len(dataset), dataset.name) == (2, str(folder))
    evaluation = evaluate(numbered_loop(SCRIPTS), dataset)
    assert (evaluation.images, evaluation.people) == (2, 3)
    results = evaluation.settings[0].results
    assert results.boxes == results.masks == results.keypoints == PERFECT
    assert [picture.entry["id"] for picture in dataset] == [1, 2], "may be gone through again"


def test_only_the_first_pictures_on_request(tmp_path: Path) -> None:
    save(tmp_path, write_folder(tmp_path, TRUTH))
    dataset = open_dataset(str(tmp_path), count=1)
    assert len(dataset) == 1
    assert evaluate(numbered_loop(SCRIPTS), dataset).people == 2
    assert len(open_dataset(str(tmp_path), count=50)) == 2


def test_annotations_may_lie_elsewhere(tmp_path: Path) -> None:
    document = write_folder(tmp_path, TRUTH)
    file = save(tmp_path, document, "labels/person_keypoints_val.json")
    with pytest.raises(FileNotFoundError) as error:
        open_dataset(str(tmp_path))
    assert "labels/person_keypoints_val.json" in str(error.value)
    assert "--annotations FILE" in str(error.value)
    assert len(open_dataset(str(tmp_path), annotations=file)) == 2


def test_people_that_lack_something_and_crowds(tmp_path: Path) -> None:
    """Kinds of annotations as COCO and OCHuman have them, all in one file."""
    document = write_folder(tmp_path, TRUTH)
    first, second, third = document["annotations"]
    del first["keypoints"], second["segmentation"]
    x, y, width, height = third["bbox"]
    third["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    crowd = {"image_id": 2, "category_id": 1, "iscrowd": 1, "bbox": [120, 10, 60, 100]}
    document["annotations"].append(crowd)
    document["images"].append({"id": "empty", "file_name": document["images"][0]["file_name"]})
    document["images"].pop()
    save(tmp_path, document)
    loop = numbered_loop({1: [[LEFT, RIGHT]], 2: [[LEFT, RIGHT]]})
    evaluation = evaluate(loop, open_dataset(str(tmp_path)))
    results = evaluation.settings[0].results
    assert results.boxes == results.masks == results.keypoints == PERFECT
    assert evaluation.people == 3 and results.false_positives == 0


def test_sizes_are_read_from_the_images_when_missing(tmp_path: Path) -> None:
    document = write_folder(tmp_path, TRUTH)
    for entry in document["images"]:
        del entry["width"], entry["height"]
    document["annotations"][0]["segmentation"] = [[10, 10, 60, 10, 60, 110, 10, 110]]
    save(tmp_path, document)
    results = evaluate(numbered_loop(SCRIPTS), open_dataset(str(tmp_path))).settings[0].results
    assert results.masks == PERFECT


def test_turned_photographs_are_read_as_they_were_annotated(tmp_path: Path) -> None:
    """The same JPEG with an EXIF tag "turn by 90 degrees", annotated either way."""
    _, encoded = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 127, np.uint8))
    jpeg = encoded.tobytes()
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    tag = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + tag + jpeg[2:])
    for width, height in ((WIDTH, HEIGHT), (HEIGHT, WIDTH)):
        entry = {"id": 1, "file_name": "a.jpg", "width": width, "height": height}
        document = {"images": [entry], "annotations": [], "categories": [{"id": 1}]}
        save(tmp_path, document)
        (picture,) = open_dataset(str(tmp_path))
        assert picture.image.shape[:2] == (height, width)
    document["images"][0]["width"] = 77
    save(tmp_path, document)
    with pytest.raises(ValueError, match=r"200x120 .*120x200 when turned.* 77x200"):
        list(open_dataset(str(tmp_path)))


def test_missing_images_are_named_at_once(tmp_path: Path) -> None:
    document = write_folder(tmp_path, TRUTH)
    document["images"][1]["file_name"] = "gone.png"
    save(tmp_path, document)
    with pytest.raises(FileNotFoundError, match=r"image 2 is neither .*images/gone.png nor"):
        open_dataset(str(tmp_path))
    assert len(open_dataset(str(tmp_path), count=1)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is not a JSON file"),
        ("[]", "no images, annotations, categories"),
        ('{"images": [], "annotations": {}}', "no annotations, categories.*ochuman_coco_format"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no images"),
        (
            '{"images": [{"id": 1}], "annotations": [], "categories": []}',
            "entry 0 of images lacks file_name",
        ),
        ('{"images": [], "annotations": [7], "categories": []}', "annotations lacks image_id"),
    ],
)
def test_other_formats_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "annotations.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        open_dataset(str(tmp_path))


def test_no_value_of_a_file_fails_in_another_way(tmp_path: Path) -> None:
    """Before any image is read, and never by taking all memory, as pycocotools does for a corner
    of a polygon that is not a number."""
    document = write_folder(tmp_path, TRUTH)
    document["annotations"][1]["segmentation"] = [[1, 1, 9, 1, 9, 9, 1, 9]]
    refused = 0
    for changed in mutations(document):
        (tmp_path / "annotations.json").write_text(json.dumps(changed))
        try:
            CocoFolder(tmp_path)
        except (ValueError, FileNotFoundError) as error:
            assert str(error).count("\n") == 0 and len(str(error)) < 1500
            refused += 1
    assert refused > 400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("images", {"id": 2}), "2 images have the id 2, ids must be unique"),
        (("images", {"id": "1"}), "some are texts; make them one kind"),
        (("annotations", {"image_id": "1"}), "are of images that are not listed, such as '1'"),
        (("annotations", {"segmentation": [[1, 1, 9, 1, 9, float("nan")]]}), r"segmentation \[\["),
        (("annotations", {"segmentation": [[1, 1, 9, 1, 9, 9, 4]]}), "polygon of 7 numbers"),
        (("annotations", {"segmentation": [[1, 1, 9, 1, 9, 1e9]]}), "beyond 100000 pixels"),
        (
            ("annotations", {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 9]}}),
            "run lengths are not the 24000 pixels",
        ),
        (("annotations", {"keypoints": [1.0] * 50}), "50 numbers of keypoints, needs 51"),
        (("annotations", {"bbox": [1, 2, 3, -4]}), r"bbox \[1, 2, 3, -4\], needs x, y, width"),
        (("categories", {"name": "dog"}), None),
    ],
)
def test_what_spoils_a_score_is_found_out_before_the_work(
    tmp_path: Path, change: tuple[str, dict[str, Any]], message: str | None
) -> None:
    """Not when the last image has been processed, and not by scores that leave people out."""
    document = write_folder(tmp_path, TRUTH)
    document[change[0]][0] |= change[1]
    save(tmp_path, document)
    if message is None:
        document["categories"].append({"id": 2, "name": "cat"})
        save(tmp_path, document)
        message = "no category 'person' .*has: dog, cat"
    with pytest.raises(ValueError, match=f"annotations.json: .*{message}"):
        open_dataset(str(tmp_path))


def test_annotations_of_images_that_were_taken_out_do_no_harm(tmp_path: Path) -> None:
    document = write_folder(tmp_path, TRUTH)
    del document["images"][0]
    save(tmp_path, document)
    (image,) = open_dataset(str(tmp_path))
    assert len(image.annotations) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-be"])
def test_files_of_other_systems_are_read(tmp_path: Path, encoding: str) -> None:
    """With the mark at the start that editors on Windows write, and as its shell redirects."""
    write_folder(tmp_path, TRUTH)
    document = json.dumps(write_folder(tmp_path, TRUTH), ensure_ascii=False, indent=1)
    (tmp_path / "annotations.json").write_bytes(document.replace("\n", "\r\n").encode(encoding))
    assert len(open_dataset(str(tmp_path))) == 2


def test_names_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither easy, crowded, heavy, train or demo nor"):
        open_dataset("esay")
    with pytest.raises(ValueError, match="count is 0, must be at least 1"):
        open_dataset("easy", count=0)
    for name in ("easy", "demo"):
        with pytest.raises(ValueError, match=f"{name} brings its annotations"):
            open_dataset(name, annotations=tmp_path / "a.json")
    save(tmp_path, write_folder(tmp_path, TRUTH))
    with pytest.raises(ValueError, match="only rendered images are cached"):
        open_dataset(str(tmp_path), cache=tmp_path)


def test_a_split_is_as_long_as_asked() -> None:
    assert open_dataset("heavy") == RenderedSplit("heavy", DEFAULT_COUNT)
    assert len(open_dataset("easy", count=7)) == 7


def truth_and_itself(dataset: Any) -> tuple[dict[str, Any], CollectedResults]:
    """The document of a data set, and results that repeat it."""
    document: dict[str, Any] = {
        "images": [], "annotations": [], "categories": dataset.categories,
    }  # fmt: skip
    results = CollectedResults()
    for picture in dataset:
        document["images"].append(picture.entry)
        for person in picture.annotations:
            document["annotations"].append(person)
            head = {"image_id": person["image_id"], "score": 0.9}
            results.boxes.append({**head, "bbox": person["bbox"]})
            results.keypoints.append({**head, "keypoints": person["keypoints"]})
    return document, results


def test_rendered_split(renderer: object) -> None:
    dataset = open_dataset("easy", count=2)
    first, again = list(dataset), list(dataset)
    assert [picture.image.shape for picture in first] == [(480, 640, 3)] * 2
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert one.annotations == other.annotations
    document, results = truth_and_itself(dataset)
    scores = score_results(document, boxes=results.boxes, keypoints=results.keypoints)
    assert scores.boxes == scores.keypoints == PERFECT


def test_demo_clip() -> None:
    assert len(open_dataset("demo")) == len(open_clip())
    dataset = open_dataset("demo", count=3)
    assert len(dataset) == 3
    numbers = [picture.entry["id"] for picture in dataset]
    assert numbers == [0, pytest.approx(len(open_clip()) / 2, abs=1), len(open_clip()) - 1]
    document, results = truth_and_itself(dataset)
    assert score_results(document, boxes=results.boxes).boxes == PERFECT
    assert len(document["annotations"]) == sum(len(open_clip().people(n)) for n in numbers)


def test_last_slivers_of_people_count_neither_way() -> None:
    people = open_clip().people(0)
    masks = np.zeros((2, 480, 640), np.bool_)
    masks[0, :10, :15] = masks[1, :10, 20:35] = True
    masks[1, 0, 20] = False
    rows = {name: getattr(people, name)[:2] for name in people.__dataclass_fields__}
    pair = PeopleTruth(**{**rows, "masks": masks})
    assert [item["iscrowd"] for item in clip_annotations(pair, 5)] == [0, 1]


@pytest.mark.slow
def test_rendered_pictures_are_kept(renderer: object, tmp_path: Path) -> None:
    dataset = open_dataset("easy", count=1, cache=tmp_path)
    assert dataset.name == "easy"
    (kept,) = dataset
    (fresh,) = open_dataset("easy", count=1)
    difference = np.abs(kept.image.astype(int) - fresh.image)
    assert difference.mean() < 3, "only JPEG lies between them"
    without_id = [{k: v for k, v in item.items() if k != "id"} for item in kept.annotations]
    assert without_id == json.loads(json.dumps(fresh.annotations))
    (file,) = (tmp_path / "easy" / "images").iterdir()
    before = file.stat().st_mtime_ns
    assert len(open_dataset("easy", count=1, cache=tmp_path)) == 1
    assert file.stat().st_mtime_ns == before, "drawn once"
