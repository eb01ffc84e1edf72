# SPDX-License-Identifier: Apache-2.0
"""The published presets, at full size, from files in the published layout, without OpenMMLab.

The weights are random, so the networks find nobody: after each one has run, its answer is replaced
by a script's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sam2", reason="the sam2 package is not installed")

from random_sam2 import random_sam2_checkpoint  # noqa: E402

from bmp_ros.benchmark.scripted import (  # noqa: E402
    ScriptedDetector,
    ScriptedPoseEstimator,
    ScriptedSegmenter,
    crowd,
    score_thresholds,
)
from bmp_ros.engines import build_loop  # noqa: E402
from bmp_ros.engines.presets import EngineChoice, load_preset  # noqa: E402
from bmp_ros.loop import BMPLoop  # noqa: E402
from bmp_ros.resources import preset_names  # noqa: E402
from bmp_ros.weights.errors import BadCheckpoint, WeightsMissing  # noqa: E402
from bmp_ros.weights.zoo import load_zoo  # noqa: E402

OTHER = {
    "bmp_d3_openmmlab": "needs OpenMMLab", "td_rle": "needs OpenMMLab",
    "td_simcc": "needs OpenMMLab", "tiny": "its weights are here",
    "tiny_fast": "its weights are here",
}  # fmt: skip
"""Presets that are run elsewhere, and why."""
OWN_CANVAS = {"bmp_d3": "detector", "bmp_light": "segmenter", "edge": "detector"}
"""Which engines run on the canvas of their preset. The others' are smaller, for the time they
take: networks take any canvas, and test_sam2_parity.py and test_yolov5.py run full ones."""
SAME = {
    "rtmdet-ins-l-mask": "rtmdet-ins-l-coco", "vitpose-b-coco": "maskpose-b-1.0.0",
    "sam-pose2seg-b+": "sam2.1-hiera-base-plus", "posehrnet-w48": "hrnet-w48-coco",
}  # fmt: skip
"""Weights whose tensors have the names and shapes of other ones."""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BMP_MODELS", str(tmp_path))
    return tmp_path


class Files:
    """Files of random weights, each written once for all presets that have such a network.

    All together are of 2 GB. Before one is written those that were asked for longest ago are
    deleted, so that ``most`` bytes are left.
    """

    def __init__(self, folder: Path, most: int = 600_000_000) -> None:
        self.folder, self.most = folder, most
        self.written: dict[str, Path] = {}

    def link(self, choice: EngineChoice, target: Path) -> None:
        """Make ``target``, a published name, a file of this network."""
        name = SAME.get(choice.weights, choice.weights)
        file = self.written.pop(name, None)
        if file is None:
            while sum(path.stat().st_size for path in self.written.values()) > self.most:
                self.written.pop(next(iter(self.written))).unlink()
            file = self.folder / f"{name}.pth"
            torch.save(published(name, choice), file)
        self.written[name] = file  # the last one to be deleted
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(file)

    def delete(self) -> None:
        for file in self.written.values():
            file.unlink()
        self.written.clear()


def published(name: str, choice: EngineChoice) -> dict[str, Any]:
    """What a published file of this network has in it, with random weights."""
    torch.manual_seed(0)
    if name == "sam2.1-hiera-base-plus":  # and what videos need, which is left alone
        return random_sam2_checkpoint("b+")
    tensors = choice.declaration.random_weights(choice.settings)
    if choice.engine == "sam2":
        return {"model": tensors}
    return {"meta": {"mmengine_version": "0.10.7", "epoch": 210}, "state_dict": tensors}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    files = Files(tmp_path_factory.mktemp("networks"))
    yield files
    files.delete()


def same_networks_in_a_row(preset: str) -> tuple[str, str]:
    weights = load_preset(preset).detector.weights
    return SAME.get(weights, weights), preset


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset", sorted(set(preset_names()) - set(OTHER), key=same_networks_in_a_row)
)
def test_every_preset_runs_end_to_end_from_files(models: Path, files: Files, preset: str) -> None:
    zoo, chosen = load_zoo(), load_preset(preset)
    already_imported = set(sys.modules)  # by other tests of this run, where it is installed
    for choice in chosen.engines.values():
        files.link(choice, models / zoo[choice.weights].file_name)
    small = {"detector": {"input_size": 256}, "segmenter": {"image_size": 256}}
    smaller = set(small) & set(chosen.engines) - {OWN_CANVAS.get(preset)}
    built = build_loop(preset, device="cpu", **{role: small[role] for role in smaller})
    later = chosen.loop.iterations - 1
    first = 2 if preset in ("bmp_d3", "bmp_j1") else 1
    scene = crowd(first + later, 320, 240, later=later)
    segmenter = built.segmenter and ScriptedSegmenter(built.segmenter, scene)
    loop = BMPLoop(
        ScriptedDetector(built.detector, scene, score_thresholds(built.detector, scene)),
        ScriptedPoseEstimator(built.pose_estimator, scene),
        segmenter,
        built.settings,
    )

    people, report = loop.run(scene.image)

    assert people.iterations.tolist() == [1] * first + [2] * later
    assert report.not_finite == 0
    stages = {"detect", "box_nms", "pose", "pose_nms", "exclusive_masks", "total"}
    stages |= {"paint_out"} if later else set()
    stages |= {"prompts", "segment"} if segmenter else set()
    assert set(report.stage_ms) == stages
    # YOLOv5 has no masks; the scripted detector has the scene's for everyone.
    assert people.masks.any(axis=(1, 2)).all() and people.masks.sum(axis=0).max() == 1
    assert np.isnan(people.visibility).all() == (preset != "bmp_v2")
    imported = set(sys.modules) - already_imported
    assert not {"mmdet", "mmpose", "mmcv", "mmengine"} & imported


def test_no_preset_is_forgotten() -> None:
    """Those that are run elsewhere exist, and are there for the reason that is given."""
    assert set(OTHER) < set(preset_names())
    for name, reason in OTHER.items():
        engines = {choice.engine for choice in load_preset(name).engines.values()}
        assert ("OpenMMLab" in reason) == bool(engines & {"mmdet", "mmpose"}), name


def test_missing_weights_are_named_all_at_once_with_the_command(models: Path) -> None:
    with pytest.raises(WeightsMissing) as error:
        build_loop("bmp_v2", device="cpu")
    message = str(error.value)
    assert "bmp models download bmp_v2" in message
    for name in ("rtmdet-ins-l-mask", "pmpose-b-1.0.0", "sam-pose2seg-b+"):
        assert name in message


def test_device_that_is_not_there_is_refused(models: Path) -> None:
    write_small = models / "detector.pth"
    torch.save({}, write_small)
    for device, words in (("cuda:99", "not there"), ("abacus", "unknown")):
        with pytest.raises(ValueError, match=words):
            build_loop(
                "bmp_d3",
                device=device,
                detector={"weights": str(write_small)},
                pose_estimator={"weights": str(write_small)},
                segmenter={"weights": str(write_small)},
            )


def test_half_precision_on_the_cpu_is_refused(models: Path) -> None:
    file = models / "any.pth"
    torch.save({}, file)
    own = {"weights": str(file)}
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        build_loop(
            "bmp_d3", "cpu", precision="fp16", detector=own, pose_estimator=own, segmenter=own
        )


@pytest.mark.parametrize("emulated", [True, False])
def test_bf16_without_instructions_for_it_is_said(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, emulated: bool
) -> None:
    asked = []

    def supported() -> bool:
        asked.append(True)
        return not emulated

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", supported)
    file = models / "any.pth"
    torch.save({}, file)
    own = {"weights": str(file)}
    for precision in ("fp32", "bf16"):
        with pytest.raises(BadCheckpoint):  # such weights are none
            build_loop("bmp_d3", "cpu", precision=precision, detector=own, pose_estimator=own,
                       segmenter=own)  # fmt: skip
        assert ("use precision fp32" in caplog.text) == (emulated and precision == "bf16")
    assert asked == [True]


def test_adapters_refuse_precisions_they_do_not_have(models: Path) -> None:
    file = models / "any.pth"
    torch.save({}, file)
    own = {"weights": str(file)}
    with pytest.raises(ValueError, match=r"mmdet \(detector\) .* fp32 .*'bf16'"):
        build_loop(
            "td_rle", "cpu", precision="bf16", pose_estimator=own,
            detector={"engine": "mmdet", "config": "any", "weights": str(file)},
        )  # fmt: skip
