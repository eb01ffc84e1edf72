# SPDX-License-Identifier: Apache-2.0
"""The benchmark compares what it says it compares: counted on small real networks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sam2", reason="the sam2 package is not installed")

sys.path.insert(0, str(Path(__file__).parents[1] / "engines" / "torch"))

from random_sam2 import SMALL as SMALL_HIERA  # noqa: E402
from random_sam2 import SMALL_IMAGE_SIZE  # noqa: E402
from random_vit import random_state_dict  # noqa: E402

from bmp_ros.benchmark.measure import competitors, measure  # noqa: E402
from bmp_ros.benchmark.scripted import crowd  # noqa: E402
from bmp_ros.benchmark.untrained import untrained_loop  # noqa: E402
from bmp_ros.engines.presets import load_preset  # noqa: E402
from bmp_ros.engines.torch.heatmap_estimator import HeatmapEstimator  # noqa: E402
from bmp_ros.engines.torch.rtmdet_ins_detector import RTMDetInsDetector  # noqa: E402
from bmp_ros.engines.torch.sam2_segmenter import Sam2Segmenter  # noqa: E402
from bmp_ros.loop import BMPLoop  # noqa: E402
from bmp_ros.networks.rtmdet_ins import RTMDetIns, RTMDetInsSize  # noqa: E402
from bmp_ros.networks.sam2 import Sam2Network  # noqa: E402
from bmp_ros.networks.vit_pose import VitPose  # noqa: E402


@pytest.fixture(scope="module", params=["heatmap", "pmpose"])
def loop(request: pytest.FixtureRequest) -> BMPLoop:
    torch.manual_seed(0)
    detector = RTMDetIns(RTMDetInsSize.scaled(0.25, 0.167), 1).eval()
    pose = VitPose.from_state_dict(
        random_state_dict(head=request.param), head=request.param, num_heads=4
    )
    return BMPLoop(
        RTMDetInsDetector(detector, input_size=128),
        HeatmapEstimator(pose),
        Sam2Segmenter(Sam2Network(SMALL_HIERA, SMALL_IMAGE_SIZE)),
    )


class Calls:
    """How often the networks of a loop were asked, and with how many rows."""

    def __init__(self, loop: BMPLoop) -> None:
        self.forget()
        network = loop.segmenter.network
        network.image_encoder.register_forward_hook(self._on_embedding)
        network.sam_prompt_encoder.register_forward_hook(self._on_prompts)
        loop.pose_estimator.network.register_forward_hook(self._on_crops)

    def forget(self) -> None:
        self.embedded, self.decoded, self.posed = 0, [], []

    def _on_embedding(self, *_: object) -> None:
        self.embedded += 1

    def _on_prompts(self, _module: object, _arguments: object, output: tuple) -> None:
        self.decoded.append(len(output[0]))

    def _on_crops(self, _module: object, arguments: tuple, _output: object) -> None:
        self.posed.append(len(arguments[0]))


def test_both_schedules_process_the_same_people_in_different_portions(loop: BMPLoop) -> None:
    scene = crowd(5, 320, 240, later=1)
    ours, published = competitors(loop, scene)
    calls = Calls(loop)
    ours.run(scene.image)
    assert (calls.embedded, calls.decoded, calls.posed) == (1, [4, 1], [8, 2])
    calls.forget()
    published.run(scene.image)
    assert calls.embedded == 2
    assert calls.decoded == [1] * 5
    assert calls.posed == [4, 4, 1, 1], "mirrored crops in a pass of their own"

    (own, _), (other, _) = ours.process(scene.image), published.process(scene.image)
    assert own.iterations.tolist() == other.iterations.tolist() == [1, 1, 1, 1, 2]
    np.testing.assert_array_equal(own.masks, other.masks)
    np.testing.assert_array_equal(own.boxes, other.boxes)


def test_result_names_everything_it_depends_on(loop: BMPLoop) -> None:
    result = measure(loop, crowd(3, 160, 120, later=1), frames=2, warm_up=1)
    assert result["input"]["people"] == [3, 3] and len(result["input"]["sha256"]) == 64
    assert result["ratio"] == pytest.approx(
        result["published"]["median_ms"]["total"] / result["ours"]["median_ms"]["total"]
    )
    assert result["published"]["gflop"] > result["ours"]["gflop"] > 0
    assert result["machine"]["torch"] == torch.__version__
    json.dumps(result)


def test_presets_without_a_published_schedule_are_refused(loop: BMPLoop) -> None:
    bare = BMPLoop(loop.detector, loop.pose_estimator, None, loop.settings)
    with pytest.raises(ValueError, match="bmp_d3"):
        competitors(bare, crowd(1, 64, 48))


def test_untrained_networks_of_unknown_size_are_refused() -> None:
    preset = load_preset("bmp_d3", {"detector": {"weights": "mine.pth"}})
    with pytest.raises(ValueError, match="mine.pth"):
        untrained_loop(preset, "cpu", "fp32", False)


@pytest.mark.parametrize("preset", ["bmp_d3", "bmp_v2", "bmp_apache"])
def test_untrained_networks_have_the_published_sizes(preset: str) -> None:
    loop = untrained_loop(load_preset(preset), "cpu", "fp32", False)
    millions = sum(p.numel() for p in loop.pose_estimator.network.parameters()) / 1e6
    # 85.79 M of the backbone and 4.20 M of the heatmap head; PMPose adds three towers of 16 M.
    assert millions == pytest.approx(138 if preset == "bmp_v2" else 90.0, abs=1)
    assert sum(p.numel() for p in loop.segmenter.network.parameters()) / 1e6 == pytest.approx(
        73.3, abs=0.3
    )
