# SPDX-License-Identifier: Apache-2.0
"""Boxes of another program: which image they belong to, and what an entry may say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

for folder in ("evaluation", "loop"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

from numbered import numbered_image, numbered_loop  # noqa: E402
from scripted import Actor  # noqa: E402

from bmp_ros.image_files import write_image  # noqa: E402
from bmp_ros.loop import BMPLoop, LoopSettings  # noqa: E402
from bmp_ros.loop.masks import coco_run_lengths  # noqa: E402
from bmp_ros.loop.protocols import Poses  # noqa: E402
from bmp_ros.loop.skeletons import COCO_17  # noqa: E402
from bmp_ros.offline.box_file import BoxFile, BoxFileError  # noqa: E402
from bmp_ros.offline.coco_format import (  # noqa: E402
    compress_counts,
    expand_counts,
    run_length_string,
    segmentation_mask,
)
from bmp_ros.offline.infer_files import Wanted, infer  # noqa: E402
from bmp_ros.offline.results_file import ResultsFile  # noqa: E402
from bmp_ros.offline.sources import open_source  # noqa: E402


def box_file(folder: Path, content: Any) -> BoxFile:
    path = folder / "boxes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return BoxFile(path)


def entry(image: Any, x: float = 10, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "bbox": [x, 20, 30, 40], "score": 0.5} | more


def lefts(boxes: BoxFile, path: str, frame: int | None = None) -> list[float] | None:
    found = boxes.of(Path(path), 100, 100, frame)
    return None if found is None else found.boxes[:, 0].tolist()


def test_results_with_numbers_as_in_coco(tmp_path: Path) -> None:
    boxes = box_file(tmp_path, [entry(139, 1), entry(285, 2), entry(139, 3)])
    assert lefts(boxes, "val/000000000139.jpg") == [1, 3]
    assert lefts(boxes, "COCO_val2014_000000000285.jpg") == [2]
    assert lefts(boxes, "000000000140.jpg") is None
    found = boxes.of(Path("139.png"), 100, 100)
    assert found is not None
    np.testing.assert_array_equal(found.boxes, [[1, 20, 31, 60], [3, 20, 33, 60]])
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.scores.tolist() == [0.5, 0.5] and found.masks is None


def test_results_with_names(tmp_path: Path) -> None:
    content = [entry("a.jpg", 1), entry("b", 2), entry(None, 3, file_name="left/c.jpg")]
    content += [entry(None, 4, file_name="right/c.jpg")]
    boxes = box_file(tmp_path, content)
    assert lefts(boxes, "in/a.jpg") == [1] and lefts(boxes, "b.png") == [2]
    assert lefts(boxes, "x/left/c.jpg") == [3] and lefts(boxes, "x/right/c.jpg") == [4]
    assert lefts(boxes, "c.jpg") is None, "it could be either"
    assert boxes.knows(Path("a.jpg")) and not boxes.knows(Path("d.jpg"))
    assert boxes.not_asked_for() == []


def test_a_document_names_its_images_also_those_without_anybody(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "7.jpg"}, {"id": 8, "file_name": "eight.jpg"}]
    categories = [{"id": 3, "name": "Person"}, {"id": 1, "name": "car"}]
    content = {"images": images, "categories": categories, "annotations": [
        entry(8, 5, category_id=3), entry(8, 6, category_id=1), entry(8, 7, category_id=3,
                                                                     iscrowd=1)]}  # fmt: skip
    boxes = box_file(tmp_path, content)
    assert boxes.not_asked_for() == ["eight.jpg"], "of the other one nothing is lost"
    assert lefts(boxes, "7.jpg") == [] and lefts(boxes, "eight.jpg") == [5]
    assert boxes.other_classes == 1


def test_frames_of_videos(tmp_path: Path) -> None:
    content = [entry(None, 1, file_name="walk.mp4", frame=0),
               entry(None, 2, file_name="walk.mp4", frame=2)]  # fmt: skip
    boxes = box_file(tmp_path, content)
    assert [lefts(boxes, "walk.mp4", frame) for frame in range(3)] == [[1], None, [2]]
    assert lefts(boxes, "walk.mp4") is None
    again = box_file(tmp_path, content)
    lefts(again, "walk.mp4", 0)
    assert again.not_asked_for() == ["walk.mp4, frame 2"]


def test_our_own_results_can_be_read_back(tmp_path: Path) -> None:
    loop = numbered_loop({120: [[Actor((10, 10, 60, 110)), Actor((70, 10, 90, 60))]]})
    people = loop(numbered_image(120))
    with ResultsFile(tmp_path / "results.json", people.skeleton, {}) as results:
        results.add(people, "p.png")
        results.add(people[:1], "v.mp4", frame=0)
        results.add(people[:0], "v.mp4", frame=1)
    boxes = BoxFile(tmp_path / "results.json")
    found = boxes.of(Path("p.png"), *people.image_size)
    assert found is not None and found.masks is not None
    np.testing.assert_allclose(found.boxes, people.boxes, atol=1e-3)
    np.testing.assert_array_equal(found.masks(np.array([1, 0])), people.masks[[1, 0]])
    assert lefts(boxes, "v.mp4", 1) == [] and lefts(boxes, "v.mp4", 2) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("7", "has no boxes"),
        ({"annotations": {}}, "has no boxes"),
        ([[1, 2]], "has no boxes"),
        ({"annotations": [], "images": [{"file_name": "a"}]}, "has no id"),
        ({"annotations": [], "images": 3}, "`images` is no list"),
        (
            {"annotations": [], "images": [{"id": 1, "file_name": "a"}, {"id": 1}]},
            "two are the same",
        ),
        (
            {"annotations": [], "images": [{"id": n, "file_name": "v.mp4"} for n in (1, 2)]},
            r"two are the same \('v.mp4', id 2; id 1\).* with their `frame`",
        ),
        ([entry(1, bbox=[1, 2, 3])], r"entry 0 has the bbox \[1, 2, 3\]"),
        ([entry(1), entry(1, bbox=[1, 2, -3, 4])], "entry 1 has the bbox"),
        ([entry(1, bbox=[1, 2, "3", 4])], "entry 0 has the bbox"),
        ([entry(1, bbox=[1, 2, 3, 10**400])], "entry 0 has the bbox"),
        ([entry(1, bbox=[1, -1e300, 3, 4])], "entry 0 has the bbox"),
        ("[" + "1" * 5000 + "]", "is not JSON"),
        ("[" * 100000, "is not JSON"),
        ([entry(1, score=1.5)], "has the score 1.5"),
        ([entry(1, score=None)], "has the score None"),
        ([entry([1])], "neither an image_id nor a file_name"),
        ([entry(None)], "neither an image_id nor a file_name"),
        ([entry(None, file_name="a", frame=-1)], "frame -1"),
        ([entry(1, category_id=[1])], None),
    ],
)
def test_what_is_no_box_is_named(tmp_path: Path, content: Any, message: str | None) -> None:
    if message is None:
        assert box_file(tmp_path, content).other_classes == 1
        return
    with pytest.raises(BoxFileError, match=message):
        box_file(tmp_path, content)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_other_systems_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_bytes(json.dumps([entry("a.png")]).encode(encoding))
    assert BoxFile(path).knows(tmp_path / "a.png")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(BoxFileError, match="gone.json cannot be read: No such file"):
        BoxFile(tmp_path / "gone.json")


@given(st.lists(st.integers(0, 10**7), max_size=20))
def test_run_lengths_are_expanded(counts: list[int]) -> None:
    assert expand_counts(compress_counts(counts)) == counts


@pytest.mark.parametrize("text", ["0~", "P", "PPPPPPPPPPPPPPPPPP0", " "])
def test_run_lengths_that_are_damaged(text: str) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        expand_counts(text)


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_masks_of_run_lengths(mask: np.ndarray) -> None:
    for segmentation in (run_length_string(mask), coco_run_lengths(mask)):
        found = segmentation_mask(segmentation, *mask.shape)
        np.testing.assert_array_equal(found, mask)


def test_masks_of_polygons() -> None:
    found = segmentation_mask([[2, 1, 8, 1, 8, 5, 2, 5], [0, 8, 2, 8, 2, 10, 0, 10]], 12, 10)
    wanted = np.zeros((12, 10), np.uint8)
    wanted[1:5, 2:8] = 1
    wanted[8:10, :2] = 1
    assert found is not None
    # OpenCV counts pixels whose centre lies on the border.
    assert (found >= wanted.astype(bool)).all()
    grown = cv2.dilate(wanted, np.ones((3, 3), np.uint8)).astype(bool)
    assert (found <= grown).all()
    hole = segmentation_mask([[], [0, 0, 3, 0, 3, 3]], 5, 5)
    assert hole is not None and hole.any(), "an empty polygon is none"
    assert segmentation_mask([], 5, 5) is None and segmentation_mask(None, 5, 5) is None


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [5, 5], "counts": "0"}, r"size \[5, 5\], the image \[4, 6\]"),
        ({"size": [4, 6], "counts": [3, 4]}, "sum to 7"),
        ({"size": [4, 6], "counts": [3, "4"]}, "no text or list"),
        ({"size": [4, 6]}, "no text or list"),
        ({"size": [4, 6], "counts": [10**25]}, "not all from 0 to 24"),
        ({"size": [4, 6], "counts": [-1, 25]}, "not all from 0 to 24"),
        ([[1, 2, 3, 10**400]], "polygons are no lists of x y"),
        ([[1, 2, 3]], "polygons are no lists of x y"),
        ([["a", "b"]], "polygons are no lists of x y"),
        ([[1e9, 2, 3, 4]], "lie nowhere"),
    ],
)
def test_masks_that_do_not_fit(segmentation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segmentation_mask(segmentation, 4, 6)


# ---------------------------------------------------------------- through the loop


class Centres:
    """Puts every joint into the middle of its box."""

    skeleton = COCO_17

    def estimate(self, frame: Any, boxes: np.ndarray, masks: Any) -> Poses:
        middles = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
        joints = len(self.skeleton)
        return Poses(np.repeat(middles, joints, axis=1), np.ones((len(boxes), joints)))


def run(tmp_path: Path, content: Any, missing: str = "detector", **images: int) -> Any:
    """Process numbered images; the detector finds one person in picture 120."""
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    for name, number in images.items():
        write_image(folder / f"{name}.png", numbered_image(number))
    detector = numbered_loop({120: [[Actor((10, 10, 60, 110))]]}).detector
    loop = BMPLoop(detector, Centres(), None, LoopSettings(iterations=1))
    outcome = infer(
        loop, open_source(str(folder)), tmp_path / "out", Wanted(draw=False, json=True),
        boxes=box_file(tmp_path, content), boxes_missing=missing,
    )  # fmt: skip
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    names = {image["id"]: image["file_name"] for image in document["images"]}
    found: dict[str, list] = {name: [] for name in names.values()}
    for person in document["annotations"]:
        found[names[person["image_id"]]].append((person["bbox"], person["score"]))
    return found, outcome


def test_boxes_take_the_detectors_place(tmp_path: Path) -> None:
    content = [entry("a.png", 10), entry("a.png", 50, score=0.9), entry("a.png", 0, score=0.01)]
    content += [entry("a.png", 500), entry("a.png", 70, bbox=[70, 20, 30, 0])]
    found, outcome = run(tmp_path, content, a=120)
    # Best first; below the threshold, outside of the image and without area are left out.
    assert found == {"a.png": [([50, 20, 30, 40], 0.9), ([10, 20, 30, 40], 0.5)]}
    assert outcome.notes == [] and outcome.failures == []


@pytest.mark.parametrize("missing", ["detector", "skip"])
def test_images_without_boxes(tmp_path: Path, missing: str) -> None:
    content = [entry("a.png"), entry("gone.png"), entry("a.png", category_id=2)]
    found, outcome = run(tmp_path, content, missing, a=121, b=120, c=120)
    assert len(found["a.png"]) == 1
    assert [len(found[name]) for name in ("b.png", "c.png")] == [int(missing == "detector")] * 2
    what = "the detector ran" if missing == "detector" else "nobody was looked for"
    assert outcome.notes == [
        f"{tmp_path}/boxes.json has no boxes of 2 images (first b.png): {what} there",
        f"{tmp_path}/boxes.json has boxes of 1 images that are not among the sources (first "
        "gone.png): left out",
        f"{tmp_path}/boxes.json has 1 entries of other classes than person: left out",
    ]


def test_a_mask_that_does_not_fit_costs_its_image_only(tmp_path: Path) -> None:
    wrong = {"size": [3, 3], "counts": [9]}
    content = [entry("a.png", segmentation=wrong), entry("b.png")]
    found, outcome = run(tmp_path, content, a=120, b=120)
    assert list(found) == ["b.png"] and len(outcome.failures) == 1
    assert "boxes.json: entry 0: its mask has the size [3, 3]" in outcome.failures[0]


def test_boxes_are_never_overwritten(tmp_path: Path) -> None:
    """As results of an earlier run are, given as boxes of the next one."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").symlink_to(tmp_path / "boxes.json")
    with pytest.raises(ValueError, match="results.json is the input .*boxes.json itself"):
        run(tmp_path, [entry("a.png")], a=120)
    assert json.loads((tmp_path / "boxes.json").read_text()) == [entry("a.png")]


def test_boxes_of_no_source_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no boxes of .*a\.png or any other source"):
        run(tmp_path, [entry("other.png")], a=120)
    assert not (tmp_path / "out").exists()
