# SPDX-License-Identifier: Apache-2.0
"""Pipelines by the names of their networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmp_ros.engines import load_preset
from bmp_ros.engines.pipeline import by_names, detector_size
from bmp_ros.engines.registry import find_engine
from bmp_ros.fields import SettingsError, settings_from_mapping
from bmp_ros.loop import LoopSettings
from bmp_ros.weights.errors import UnknownWeights
from bmp_ros.weights.zoo import WeightsFile, load_zoo


@pytest.mark.parametrize("weights", list(load_zoo()), ids=lambda weights: weights.name)
def test_every_entry_of_the_zoo_says_how_it_is_run(weights: WeightsFile) -> None:
    section = dict(weights.engine or {})
    engine = find_engine(weights.role, section.pop("engine"))
    where = weights.name
    checked = settings_from_mapping(engine.options, {**section, "weights": where}, where)
    assert checked.weights == weights.name
    settings_from_mapping(LoopSettings, weights.loop, where)


@pytest.mark.parametrize("preset", sorted(load_zoo().presets))
def test_zoo_and_presets_agree(preset: str) -> None:
    """What a preset says of a network is what the zoo says of it, but for the flip test."""
    zoo = load_zoo()
    for role, choice in load_preset(preset).engines.items():
        weights = zoo[choice.weights]
        assert weights.role == role
        if choice.engine != weights.engine["engine"]:
            assert choice.engine in ("mmdet", "mmpose"), "the same network by OpenMMLab"
            continue
        options = {**weights.engine, "weights": weights.name}
        del options["engine"]
        wanted = settings_from_mapping(choice.declaration.options, options, preset)
        skipped = {"flip_test", "extra_keypoints", "input_size", "image_size"}
        differing = {
            name for name, value in vars(wanted).items()
            if value != getattr(choice.settings, name) and name not in skipped
        }  # fmt: skip
        assert not differing, f"{preset}: {weights.name}"


def test_two_names_are_a_pipeline_of_one_pass() -> None:
    preset, changes = by_names("yolov5m-crowdhuman", "vitpose-b-coco")
    assert changes == {} and not isinstance(preset, str)
    loaded = load_preset(preset)
    assert loaded.segmenter is None and loaded.loop.iterations == 1
    assert loaded.detector.engine == "yolov5" and loaded.loop.detection_threshold == 0.4
    assert loaded.loop.box_nms_iou == 1.0, "its own NMS is enough"
    assert loaded.pose_estimator.weights == "vitpose-b-coco"
    assert loaded.name == "preset" and loaded.reference == ""
    assert "yolov5m-crowdhuman" in loaded.description


def test_one_name_replaces_that_network_of_a_preset() -> None:
    preset, changes = by_names("yolov5s-coco", None, "bmp_d3")
    loop = {name: value for name, value in changes.items() if name != "detector"}
    overrides = {"detector": changes["detector"], "loop": loop}
    loaded = load_preset(preset, overrides)
    assert loaded.detector.weights == "yolov5s-coco" and loaded.segmenter is not None
    assert loaded.pose_estimator.weights == "maskpose-b-1.0.0"
    assert by_names(None, "vitpose-b-coco")[0] == "tiny"


def test_another_detector_brings_its_own_thresholds() -> None:
    for name in ("tiny", None):
        preset, changes = by_names("yolov5s-coco", None, name)
        assert preset == "tiny" and load_preset("tiny").loop.later_threshold is not None
        overrides = {key: changes.pop(key) for key in ("detector",)}
        loop = load_preset(preset, {**overrides, "loop": changes}).loop
        assert loop.later_threshold is None
        preset, changes = by_names("tiny/detector", None, name)
        assert set(changes) == {"detector"}, "the preset's thresholds are of this network"


def test_networks_of_the_package_and_exported_ones(tmp_path: Path) -> None:
    preset, _ = by_names("tiny/detector", "tiny/pose_estimator")
    loaded = load_preset(preset)
    fast = load_preset("tiny_fast")
    assert loaded.detector.settings == fast.detector.settings
    assert loaded.pose_estimator.settings == fast.pose_estimator.settings
    assert loaded.loop == fast.loop
    preset, _ = by_names(str(tmp_path / "detector.onnx"), "tiny/pose_estimator")
    assert load_preset(preset).detector.weights == str(tmp_path / "detector.onnx")


def test_names_that_mean_nothing_here() -> None:
    with pytest.raises(UnknownWeights, match="yolov5m-crowdhuman"):
        by_names("yolov5m-crowdhumans", None)
    with pytest.raises(
        SettingsError, match="vitpose-b-coco is a pose_estimator .* not a detector"
    ):
        by_names("vitpose-b-coco", None)


@pytest.mark.parametrize(("text", "size"), [("640", 640), ("640x384", (640, 384))])
def test_sizes(text: str, size: object) -> None:
    assert detector_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "640x", "-5", "6.5", "a"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="--size is"):
        detector_size(text)
