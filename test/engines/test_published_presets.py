# SPDX-License-Identifier: Apache-2.0
"""The published presets, at full size, from files in the published layout, without OpenMMLab.

The weights are random, so the networks find nobody: after each one has run, its answer is replaced
by a script's (two people in the first iteration, one in the second).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sam2", reason="the sam2 package is not installed")

from random_sam2 import random_sam2_checkpoint  # noqa: E402
from random_vit import random_state_dict  # noqa: E402
from random_weights import random_rtmdet_ins  # noqa: E402

from bmp_ros.benchmark.scripted import (  # noqa: E402
    ScriptedDetector,
    ScriptedPoseEstimator,
    ScriptedSegmenter,
    crowd,
    score_thresholds,
)
from bmp_ros.engines import build_loop  # noqa: E402
from bmp_ros.engines.presets import load_preset  # noqa: E402
from bmp_ros.loop import BMPLoop  # noqa: E402
from bmp_ros.resources import preset_names  # noqa: E402
from bmp_ros.weights.errors import WeightsMissing  # noqa: E402
from bmp_ros.weights.zoo import load_zoo  # noqa: E402

VIT_B = {"width": 768, "depth": 12, "hidden": 3072, "channels": 256}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BMP_MODELS", str(tmp_path))
    return tmp_path


def write_weights(models: Path, preset: str) -> None:
    """Write random weights under the names that the zoo gives to the preset's files."""
    zoo = load_zoo()
    chosen = load_preset(preset)
    detector = random_rtmdet_ins("l", 80, seed=1, input_size=160)
    pmpose = chosen.pose_estimator.settings.head == "pmpose"
    pose = random_state_dict(
        **VIT_B, num_keypoints=23 if pmpose else 21, head=chosen.pose_estimator.settings.head
    )
    meta = {"mmengine_version": "0.10.7", "epoch": 210}
    contents = {
        chosen.detector.settings.weights: {"meta": meta, "state_dict": detector},
        chosen.pose_estimator.settings.weights: {"meta": meta, "state_dict": pose},
        chosen.segmenter.settings.weights: random_sam2_checkpoint("b+"),
    }
    for name, content in contents.items():
        path = models / zoo[name].file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)


CANVAS = {"bmp_d3": {}} | {
    name: {"image_size": 256} for name in ("bmp_v2", "bmp_apache", "bmp_j1")
}
"""Of segmenters: one of those that have the same network and size runs at that size."""


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["bmp_d3", "bmp_v2"])
def test_full_size_preset_runs_end_to_end(models: Path, preset: str) -> None:
    write_weights(models, preset)
    already_imported = set(sys.modules)  # by other tests of this run, where it is installed
    built = build_loop(preset, device="cpu", segmenter=CANVAS[preset])
    scene = crowd(3, 320, 240, later=1)
    loop = BMPLoop(
        ScriptedDetector(built.detector, scene, thresholds=(0.3, 0.3)),
        ScriptedPoseEstimator(built.pose_estimator, scene),
        ScriptedSegmenter(built.segmenter, scene),
        built.settings,
    )

    people, report = loop.run(scene.image)

    assert len(people) == 3
    assert people.iterations.tolist() == [1, 1, 2]
    stages = {"paint_out", "detect", "box_nms", "pose", "pose_nms", "prompts", "segment",
              "exclusive_masks", "total"}  # fmt: skip
    assert set(report.stage_ms) == stages
    assert people.masks.sum(axis=0).max() == 1
    assert np.isnan(people.visibility).all() == (preset == "bmp_d3")
    imported = set(sys.modules) - already_imported
    assert not {"mmdet", "mmpose", "mmcv", "mmengine"} & imported


OTHER = {
    "bmp_d3": "above", "bmp_v2": "above", "bmp_d3_openmmlab": "needs OpenMMLab",
    "td_rle": "needs OpenMMLab", "td_simcc": "needs OpenMMLab", "tiny": "its weights are here",
    "tiny_fast": "its weights are here",
}  # fmt: skip
"""Presets that are run elsewhere, and why."""


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(set(preset_names()) - set(OTHER)))
def test_every_preset_runs_end_to_end_from_files(models: Path, preset: str) -> None:
    zoo, chosen = load_zoo(), load_preset(preset)
    already_imported = set(sys.modules)
    torch.manual_seed(0)
    for role, choice in chosen.engines.items():
        tensors = choice.declaration.random_weights(choice.settings)
        content = {"model": tensors} if role == "segmenter" else {"state_dict": tensors}
        path = models / zoo[choice.weights].file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
    settings = {"segmenter": CANVAS[preset]} if preset in CANVAS else {}
    built = build_loop(preset, device="cpu", **settings)
    scene = crowd(2, 640, 480)
    segmenter = built.segmenter and ScriptedSegmenter(built.segmenter, scene)
    loop = BMPLoop(
        ScriptedDetector(built.detector, scene, score_thresholds(built.detector, scene)),
        ScriptedPoseEstimator(built.pose_estimator, scene),
        segmenter,
        built.settings,
    )
    people, report = loop.run(scene.image)
    assert len(people) == 2 and report.not_finite == 0
    # YOLOv5 has no masks; the scripted detector has the scene's for everyone.
    assert people.masks.any()
    assert ("segment" in report.stage_ms) == (chosen.segmenter is not None)
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


def test_adapters_refuse_precisions_they_do_not_have(models: Path) -> None:
    file = models / "any.pth"
    torch.save({}, file)
    own = {"weights": str(file)}
    with pytest.raises(ValueError, match=r"mmdet \(detector\) .* fp32 .*'bf16'"):
        build_loop(
            "td_rle", "cpu", precision="bf16", pose_estimator=own,
            detector={"engine": "mmdet", "config": "any", "weights": str(file)},
        )  # fmt: skip
