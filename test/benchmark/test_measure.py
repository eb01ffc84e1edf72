# SPDX-License-Identifier: Apache-2.0
"""The benchmark compares what it says it compares: counted on small real networks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sam2", reason="the sam2 package is not installed")

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))

from random_sam2 import SMALL as SMALL_HIERA  # noqa: E402
from random_sam2 import SMALL_IMAGE_SIZE  # noqa: E402
from random_vit import random_state_dict  # noqa: E402

from bmp_ros.benchmark.measure import competitors, measure  # noqa: E402
from bmp_ros.benchmark.scripted import crowd  # noqa: E402
from bmp_ros.benchmark.untrained import untrained_loop  # noqa: E402
from bmp_ros.engines import build_loop, rtmdet_ins  # noqa: E402
from bmp_ros.engines.presets import EngineChoice, load_preset  # noqa: E402
from bmp_ros.engines.registry import Runtime, find_engine  # noqa: E402
from bmp_ros.engines.sam2 import Sam2Segmenter  # noqa: E402
from bmp_ros.engines.top_down_pose import TopDownPoseEstimator  # noqa: E402
from bmp_ros.loop import BMPLoop  # noqa: E402
from bmp_ros.loop.frame import Frame  # noqa: E402
from bmp_ros.loop.masks import paint_out  # noqa: E402
from bmp_ros.loop.protocols import Detections, Poses  # noqa: E402
from bmp_ros.loop.skeletons import COCO_17  # noqa: E402
from bmp_ros.networks.sam2 import Sam2Network  # noqa: E402
from bmp_ros.networks.vit_pose import VitPose  # noqa: E402


@pytest.fixture(scope="module", params=["heatmap", "pmpose"])
def loop(request: pytest.FixtureRequest) -> BMPLoop:
    torch.manual_seed(0)
    declared = find_engine("detector", "rtmdet_ins")
    assert declared.random_weights is not None
    detector = declared.options("rtmdet-ins-tiny-x", input_size=128)
    pose = VitPose.from_state_dict(
        random_state_dict(head=request.param), head=request.param, num_heads=4
    )
    return BMPLoop(
        declared.build(detector, declared.random_weights(detector), Runtime("cpu")),
        TopDownPoseEstimator.from_network(pose),
        Sam2Segmenter.from_network(Sam2Network(SMALL_HIERA, SMALL_IMAGE_SIZE)),
    )


class Calls:
    """How often the graphs of a loop were asked, and with how many rows.

    candidates: what a detector's NMS had to choose from.
    """

    def __init__(self, loop: BMPLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forget()

        def count(graph: Any, note: Callable[[dict[str, Any]], Any]) -> None:
            run = graph.run
            monkeypatch.setattr(
                graph, "run", lambda given, *keep: note(given) or run(given, *keep)
            )

        detector, estimator, segmenter = loop.detector, loop.pose_estimator, loop.segmenter
        count(detector.graphs["masks"], lambda given: self.masks.append(len(given["locations"])))
        network = getattr(estimator.graph, "network", None)
        if network is None:
            count(estimator.graph, lambda given: self.posed.append(len(given["crops"])))
        else:  # mirror images are made on the device
            network.register_forward_pre_hook(lambda _, given: self.posed.append(len(given[0])))
        count(segmenter.graphs["encoder"], lambda given: self.embedded.append(1))
        count(segmenter.graphs["decoder"], lambda given: self.decoded.append(len(given["points"])))
        select = rtmdet_ins.select_people

        def select_people(boxes: np.ndarray, *given: Any, **limits: Any) -> Any:
            self.candidates.append(len(boxes))
            return select(boxes, *given, **limits)

        monkeypatch.setattr(rtmdet_ins, "select_people", select_people)

    def forget(self) -> None:
        self.embedded, self.decoded, self.posed = [], [], []
        self.masks, self.candidates = [], []


def test_both_schedules_process_the_same_people_in_different_portions(
    loop: BMPLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = crowd(5, 320, 240, later=1)
    ours, published = competitors(loop, scene)
    calls = Calls(loop, monkeypatch)
    ours.run(scene.image)
    assert (calls.embedded, calls.decoded, calls.posed) == ([1], [4, 1], [8, 2])
    assert calls.masks == [4, 1], "masks of as many people as are scripted"
    candidates = calls.candidates
    assert 4 <= candidates[0] <= 100 and 1 <= candidates[1] <= 100, "as in a real frame"
    calls.forget()
    published.run(scene.image)
    assert calls.embedded == [1, 1]
    assert calls.decoded == [1] * 5
    assert calls.posed == [4, 4, 1, 1], "mirrored crops in a pass of their own"
    assert calls.masks == [4, 1] and calls.candidates == candidates

    (own, _), (other, _) = ours.process(scene.image), published.process(scene.image)
    assert own.iterations.tolist() == other.iterations.tolist() == [1, 1, 1, 1, 2]
    np.testing.assert_array_equal(own.masks, other.masks)
    np.testing.assert_array_equal(own.boxes, other.boxes)


def test_trained_networks_do_the_work_of_a_real_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny networks, which find nobody in a picture of noise by their preset's threshold."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    tiny = build_loop("tiny", "cpu")
    scene = crowd(6, 320, 240, later=2)
    ours, published = competitors(tiny, scene)
    calls = Calls(tiny, monkeypatch)
    for schedule in (ours, published):
        calls.forget()
        schedule.run(scene.image)
        assert calls.masks == [4, 2] and sum(calls.decoded) == 6
        assert calls.posed == [4, 2], "no mirrored crops: the preset has none"
        assert all(count <= 100 for count in calls.candidates)


def test_a_detector_that_finds_nobody_at_all(loop: BMPLoop) -> None:
    class Blind:
        def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))

    with pytest.raises(ValueError, match="finds no person in the benchmark's image at any score"):
        competitors(BMPLoop(Blind(), loop.pose_estimator, None), crowd(1, 64, 48))


@pytest.mark.parametrize("people", [2, 5, 20])
def test_of_a_crowd_everyone_is_processed(people: int) -> None:
    """No rule of the loop takes two people for one, or the benchmark has fewer than it says."""
    scene = crowd(people, 640, 360, later=people // 5)

    class Ready:
        skeleton = COCO_17

        def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
            return Detections(scene.boxes, np.full(people, 0.9, np.float32))

        def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
            return Poses(np.zeros((len(boxes), 17, 2), "f4"), np.ones((len(boxes), 17), "f4"))

    ready = Ready()
    for schedule in competitors(BMPLoop(ready, ready, None), scene):
        schedule.run(scene.image)
        assert schedule.people == people


def test_result_names_everything_it_depends_on(loop: BMPLoop) -> None:
    result = measure(loop, crowd(3, 160, 120, later=1), frames=2, warm_up=1, count=True)
    assert result["input"]["people"] == [3, 3] and len(result["input"]["sha256"]) == 64
    assert result["ratio"] == pytest.approx(
        result["published"]["median_ms"]["total"] / result["ours"]["median_ms"]["total"]
    )
    assert result["published"]["gflop"] > result["ours"]["gflop"] > 0
    assert result["machine"]["torch"] == torch.__version__
    json.dumps(result)


def test_engines_of_ones_own_and_presets_without_a_segmenter(loop: BMPLoop) -> None:
    class Plain:
        """A pose estimator that is no heatmap network: asked person by person."""

        skeleton = loop.pose_estimator.skeleton
        asked: list[int] = []

        def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
            self.asked.append(len(boxes))
            return loop.pose_estimator.estimate(frame, boxes, masks)

    scene = crowd(3, 160, 120)
    result = measure(BMPLoop(loop.detector, Plain(), None), scene, 1, 1, count=False)
    assert result["input"]["people"] == [3, 3] and "gflop" not in result["ours"]
    assert Plain.asked.count(1) >= 3 and 3 in Plain.asked


def test_untrained_networks_of_unknown_size_are_refused() -> None:
    preset = load_preset("bmp_d3", {"detector": {"weights": "mine.pth"}})
    with pytest.raises(ValueError, match="mine.pth"):
        untrained_loop(preset, "cpu", "fp32", False)


@cache
def millions_of_weights(choice: EngineChoice, device: str) -> float:
    with torch.device(device):
        weights = choice.declaration.random_weights(choice.settings)
    return sum(tensor.numel() for tensor in weights.values()) / 1e6


@pytest.mark.parametrize("preset", ["bmp_d3", "bmp_v2", "bmp_apache"])
def test_untrained_networks_have_the_published_sizes(preset: str) -> None:
    chosen = load_preset(preset)
    # 85.79 M of the backbone and 4.20 M of the heatmap head; PMPose adds three towers of 16 M.
    pose = 138 if preset == "bmp_v2" else 90.0
    millions = millions_of_weights(chosen.pose_estimator, "meta")  # names and shapes only
    assert millions == pytest.approx(pose, abs=1)
    # A Hiera reads a number from a tensor while it is built.
    assert millions_of_weights(chosen.segmenter, "cpu") == pytest.approx(73.3, abs=0.3)


@pytest.mark.parametrize(
    ("engine", "weights"), [("rtmdet_ins", "rtmdet-ins-l-mask"), ("yolov5", "yolov5l-x")]
)
def test_untrained_detectors_can_be_run_in_fp16(engine: str, weights: str) -> None:
    """What they compute stays far below the largest number of fp16, and varies."""
    torch.manual_seed(0)
    declared = find_engine("detector", engine)
    assert declared.random_weights is not None
    options = declared.options(weights, input_size=320)
    detector = declared.build(options, declared.random_weights(options), Runtime("cpu"))
    graph = next(
        iter(getattr(detector, "graphs", {"": getattr(detector, "graph", None)}).values())
    )
    largest = []
    for module in graph.network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda m, i, found: largest.append(found.abs().max()))
    scene = crowd(5, 1280, 720)
    for image in (scene.image, paint_out(scene.image, scene.masks)):
        found = detector.detect(Frame(image), score_threshold=0.0)
        assert len(found.scores) >= 5 and len(np.unique(found.scores)) >= 5
    assert len(largest) > 50 and max(largest) < 6000
