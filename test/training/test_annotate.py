# SPDX-License-Identifier: Apache-2.0
"""COCO files of what a preset sees: of unlabelled images, and the masks that labels lack."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figures import HEIGHT, WIDTH, write_figures
from pycocotools import mask as coco_mask

from bmp_ros.loop.bmp_loop import BMPLoop
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.protocols import Detections, Poses, Segments
from bmp_ros.loop.settings import LoopSettings
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.training.annotate import annotate
from bmp_ros.training.coco_images import CocoImages
from bmp_ros.writing import BeingWrittenError, open_part


class BrightParts:
    """Detector, pose estimator and segmenter of figures: whatever is brighter than the ground."""

    skeleton = COCO_17

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        self.calls += 1
        mask = frame.image.max(axis=2) > 75
        if not mask.any():
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        y, x = np.nonzero(mask)
        box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], np.float32)
        return Detections(box, np.ones(1, np.float32), lambda rows: mask[None][rows])

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: Any) -> Poses:
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        points = np.repeat(middle[:, None], 17, axis=1).astype(np.float32)
        return Poses(points, np.full((len(boxes), 17), 0.9, np.float32))

    def segment(self, frame: Frame, points: Any, labels: Any, masks: Any = None) -> Segments:
        mask = frame.image.max(axis=2) > 75
        return Segments(
            np.repeat(mask[None], len(points), axis=0), np.ones(len(points), np.float32)
        )


@pytest.fixture
def loop() -> BMPLoop:
    parts = BrightParts()
    return BMPLoop(parts, parts, parts, LoopSettings(iterations=1))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_figures(tmp_path, 3)


def test_a_folder_becomes_one_that_recipes_train_from(
    loop: BMPLoop, file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "found.json"
    for name in ("._coco_1.png", ".trash/coco_1.png"):  # hidden ones are none of the images
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"no image")
    done = annotate(loop, tmp_path / "images", output, "bright")
    assert (done.images, done.people, done.failed) == (3, 3, [])
    images = CocoImages(tmp_path, output, tmp_path / "cache")
    truth = CocoImages(tmp_path, file, tmp_path / "cache")
    for found, expected in zip(images, truth, strict=True):  # type: ignore[call-overload]
        shared = (found.masks & expected.masks).sum() / (found.masks | expected.masks).sum()
        assert shared > 0.9
        assert (found.visibility == 2).all()
    assert not (tmp_path / "found.json.part").exists()


def test_masks_are_added_where_there_are_none(loop: BMPLoop, file: Path, tmp_path: Path) -> None:
    document = json.loads(file.read_text())
    kept = document["annotations"][0]["segmentation"]
    for item in document["annotations"][1:]:
        item["segmentation"] = []
    document["annotations"][2]["bbox"] = [0.0, 0.0, 3.0, 3.0]  # nobody is there
    file.write_text(json.dumps(document))
    output = tmp_path / "masked.json"
    annotate(loop, tmp_path, output, "bright", file)
    people = json.loads(output.read_text())["annotations"]
    assert people[0]["segmentation"] == kept, "what is labelled stays"
    mask = coco_mask.decode(people[1]["segmentation"])
    assert mask.shape == (HEIGHT, WIDTH) and mask.sum() > 200
    assert people[2]["segmentation"] == [], "a mask outside of the box is another person's"
    assert [p["keypoints"] for p in people] == [p["keypoints"] for p in document["annotations"]]


def test_an_interrupted_run_goes_on(
    loop: BMPLoop, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole.json"
    annotate(loop, tmp_path / "images", whole, "bright")
    parts: Any = loop.detector
    ask: Callable[..., Detections] = parts.detect

    def stop(frame: Frame, *, score_threshold: float) -> Detections:
        if parts.calls >= 5:
            raise KeyboardInterrupt
        return ask(frame, score_threshold=score_threshold)

    monkeypatch.setattr(parts, "detect", stop)
    output = tmp_path / "parts.json"
    with pytest.raises(KeyboardInterrupt):
        annotate(loop, tmp_path / "images", output, "bright")
    assert not output.exists()
    part = tmp_path / "parts.json.part"
    part.write_bytes(part.read_bytes() + b'{"image": {"id"')  # killed while it wrote
    monkeypatch.setattr(parts, "detect", ask)
    with pytest.raises(ValueError, match="preset"):
        annotate(loop, tmp_path / "images", output, "another")
    parts.calls = 0
    done = annotate(loop, tmp_path / "images", output, "bright")
    assert (done.before, parts.calls) == (2, 1)
    assert json.loads(output.read_text()) == json.loads(whole.read_text())


def test_labels_and_files_of_others_stay(loop: BMPLoop, file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(ValueError, match="is the file of the annotations.*another --output"):
        annotate(loop, tmp_path, file, "bright", file)
    with pytest.raises(ValueError, match="is there, and what was labelled .* move it"):
        annotate(loop, tmp_path / "images", file, "bright")
    assert file.read_bytes() == before
    output = tmp_path / "found.json"
    part = tmp_path / "found.json.part"
    for foreign in (b"a download\nthat goes on", b"[]\n", b'{"preset": "bright"}\n{}\n', b"x"):
        part.write_bytes(foreign)
        with pytest.raises(ValueError, match="found.json.part is in the way|of another run"):
            annotate(loop, tmp_path / "images", output, "bright")
        assert part.read_bytes() == foreign
    part.unlink()
    with open_part(output), pytest.raises(BeingWrittenError, match="another run writes"):
        annotate(loop, tmp_path / "images", output, "bright")


def test_a_run_on_other_images_does_not_go_on(loop: BMPLoop, file: Path, tmp_path: Path) -> None:
    """As many images as before, and other ones: what is there is not of them."""
    images, output = tmp_path / "images", tmp_path / "found.json"
    (images / "coco_2.png").write_bytes(b"no image")
    annotate(loop, images, output, "bright")
    (images / "coco_0.png").rename(images / "zoo.png")
    with pytest.raises(ValueError, match=r"of another run \(images differ\)"):
        annotate(loop, images, output, "bright")


def test_an_image_that_cannot_be_read_is_named(loop: BMPLoop, file: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "coco_1.png").write_bytes(b"no image")
    output = tmp_path / "found.json"
    done = annotate(loop, tmp_path / "images", output, "bright")
    assert done.people == 2 and len(done.failed) == 1 and "coco_1.png" in done.failed[0]
    assert len(json.loads(output.read_text())["images"]) == 2
    with pytest.raises(ValueError, match="no images"):
        (tmp_path / "empty").mkdir()
        annotate(loop, tmp_path / "empty", output, "bright")
