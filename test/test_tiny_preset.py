# SPDX-License-Identifier: Apache-2.0
"""The networks that come with the package: small, complete, and they find people."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bmp_ros.cli.main import main
from bmp_ros.engines import build_loop
from bmp_ros.evaluation.clip_truth import clip_annotations
from bmp_ros.evaluation.coco_results import CollectedResults
from bmp_ros.evaluation.ground_truth import CATEGORY
from bmp_ros.loop import BMPLoop
from bmp_ros.resources import resource_root
from bmp_ros.synthetic.clip_file import open_clip

LIMIT_BYTES = 16e6
EVERY = 12
"""One frame a second of the demo clip."""


@pytest.fixture(scope="module")
def loop() -> BMPLoop:
    return build_loop("tiny", device="cpu")


@pytest.fixture(scope="module", params=["tiny", "tiny_fast"])
def any_loop(request: pytest.FixtureRequest) -> BMPLoop:
    return build_loop(request.param, device="cpu")


def test_the_files_are_small_and_their_card_lies_beside_them() -> None:
    folder = resource_root() / "models" / "tiny"
    files = list(folder.glob("*.onnx"))
    assert len(files) == 5
    assert sum(file.stat().st_size for file in files) <= LIMIT_BYTES
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(file.name in card for file in files) and "Apache-2.0" in card


def test_people_of_the_demo_clip_are_found(loop: BMPLoop) -> None:
    """About what models/tiny/README.md says, on one frame a second of the clip."""
    scores = pytest.importorskip("bmp_ros.evaluation.scores", reason="needs pycocotools")
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    found = CollectedResults()
    images, annotations = [], []
    for number, frame in enumerate(open_clip()):
        if number % EVERY:
            continue
        height, width = frame.image.shape[:2]
        images.append({"id": number, "width": width, "height": height})
        annotations += clip_annotations(frame.people, number)
        found.add(loop(frame.image), number)
    truth = {"images": images, "annotations": annotations, "categories": [CATEGORY]}
    result = scores.score_results(
        truth, boxes=found.boxes, masks=found.masks, keypoints=found.keypoints
    )
    assert len(images) >= 20
    assert result.boxes.ap50 >= 0.7
    assert result.masks.ap50 >= 0.7
    assert result.keypoints.ap >= 0.45


def test_an_empty_picture_is_empty(any_loop: BMPLoop) -> None:
    grey = np.full((480, 640, 3), 127, np.uint8)
    assert len(any_loop(grey)) == 0


@pytest.mark.parametrize("size", [(480, 640), (720, 1280), (640, 480), (33, 57), (1080, 300)])
def test_any_size_will_do(any_loop: BMPLoop, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    people = any_loop(noise)
    assert people.image_size == size and np.isfinite(people.keypoints).all()


@pytest.mark.parametrize(
    ("arguments", "preset"), [([], "tiny"), (["--preset", "tiny_fast"], "tiny_fast")]
)
def test_the_benchmark_times_it(
    arguments: list[str], preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "bench.json"
    arguments = [*arguments, "--people", "2", "--later", "0", "--size", "160x120"]
    arguments += ["--frames", "1", "--json", str(report), "--threads", "1"]
    assert main(["bench", *arguments]) == 0
    assert "1 CPU threads, onnxruntime" in capsys.readouterr().out
    figures = json.loads(report.read_text())
    assert figures["input"]["people"] == [2, 2] and figures["ratio"] > 0
    assert figures["preset"] == preset


def test_two_threads_in_one_loop_find_what_one_finds(any_loop: BMPLoop) -> None:
    images = [frame.image for _, frame in zip(range(60), open_clip(), strict=False)][::20]
    expected = [any_loop(image) for image in images]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(any_loop, images * 2))
    assert sum(map(len, expected)) > len(images)
    for ours, theirs in zip(expected * 2, found, strict=True):
        np.testing.assert_array_equal(theirs.boxes, ours.boxes)
        np.testing.assert_array_equal(theirs.keypoints, ours.keypoints)
        np.testing.assert_array_equal(theirs.masks, ours.masks)
