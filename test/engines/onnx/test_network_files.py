# SPDX-License-Identifier: Apache-2.0
"""Files that are missing, mixed up or not ours are refused, each with its own reason."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bmp_ros.engines import build_loop
from bmp_ros.engines.onnx.card import (
    KINDS,
    METADATA_KEY,
    Card,
    PointSegmenterFacts,
    PoseFacts,
    RTMDetInsFacts,
    part_path,
)
from bmp_ros.engines.onnx.graph import Graph, load_network
from bmp_ros.engines.onnx.target import Target
from bmp_ros.fields import SettingsError
from bmp_ros.weights.errors import BadCheckpoint, WeightsMissing

CARDS = [
    Card("rtmdet_ins", "masks", "0123", RTMDetInsFacts(input_size=(320, 256))),
    Card("heatmaps", "heatmaps", "ab", PoseFacts((144, 192), "coco_17", "heatmap", 0.8)),
    Card("heatmaps", "heatmaps", "ab", PoseFacts((192, 256), "multi_23", "pmpose", None)),
    Card("point_segmenter", "encoder", "cd", PointSegmenterFacts(384)),
]


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy of the export, to be spoilt."""
    return Path(shutil.copytree(exported.parent, tmp_path / "copy"))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.network)
def test_a_card_survives_the_file(card: Card) -> None:
    assert Card.from_metadata(card.to_metadata(), Path("x.onnx")) == card


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "x.onnx was not written by `bmp export`"),
        ({METADATA_KEY: '{"format": 1, "network": "sam2"}'}, "has format 1.*known here: format 2"),
        ({METADATA_KEY: '{"format": 2, "network": "yolo"}'}, "network 'yolo'.*known.*rtmdet_ins"),
    ],
)
def test_a_file_of_others_is_refused(metadata: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Card.from_metadata(metadata, Path("x.onnx"))


def test_one_networks_change_leaves_the_files_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = [card.to_metadata() for card in CARDS]
    assert all(Card.from_metadata(file, Path("x.onnx")) for file in files)
    changed = replace(KINDS["point_segmenter"], version=7)
    monkeypatch.setitem(KINDS, "point_segmenter", changed)
    *others, segmenter = files
    for file, card in zip(others, CARDS, strict=False):
        assert Card.from_metadata(file, Path("x.onnx")) == card
    with pytest.raises(ValueError, match="x.onnx has version 1 of point_segmenter.*version 7"):
        Card.from_metadata(segmenter, Path("x.onnx"))


def test_files_that_do_not_say_their_version_are_of_the_first() -> None:
    values = json.loads(CARDS[0].to_metadata()[METADATA_KEY])
    assert values.pop("version") == 1
    assert Card.from_metadata({METADATA_KEY: json.dumps(values)}, Path("x.onnx")) == CARDS[0]


def test_a_fact_out_of_range_is_refused() -> None:
    metadata = Card("rtmdet_ins", "boxes", "", RTMDetInsFacts(input_size=250)).to_metadata()
    with pytest.raises(SettingsError, match="x.onnx: input_size is 250, allowed: a multiple of"):
        Card.from_metadata(metadata, Path("x.onnx"))
    unknown = Card("heatmaps", "heatmaps", "", PoseFacts(96, "hands", "heatmap")).to_metadata()
    with pytest.raises(SettingsError, match="skeleton is 'hands', allowed: one of coco_17"):
        Card.from_metadata(unknown, Path("x.onnx"))


def test_parts_lie_beside_each_other() -> None:
    first = Path("a/detector.onnx")
    assert part_path(first, "rtmdet_ins", "boxes") == first
    assert part_path(first, "rtmdet_ins", "masks") == Path("a/detector.masks.onnx")


def test_the_preset_folder_can_be_moved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    loop = build_loop("copy/random.yaml", "cpu")
    assert len(loop(np.zeros((40, 50, 3), np.uint8)).boxes) >= 0


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "detector.masks.onnx").unlink()
    with pytest.raises(WeightsMissing, match="detector.masks.onnx is missing.*boxes and masks"):
        build_loop(folder / "random.yaml", "cpu")


def test_a_tiny_network_that_is_not_there(exported: Path) -> None:
    with pytest.raises(WeightsMissing, match="no tiny network is called 'eye'"):
        build_loop(exported, "cpu", detector={"weights": "tiny/eye"})


def test_a_network_for_another_role(folder: Path) -> None:
    with pytest.raises(ValueError, match="holds heatmaps, which is a pose_estimator.*as the det"):
        load_network(folder / "pose_estimator.onnx", "detector", Target())


def test_a_part_that_is_not_the_first(folder: Path) -> None:
    with pytest.raises(ValueError, match="holds the part 'decoder'.*name the file.*'encoder'"):
        load_network(folder / "segmenter.decoder.onnx", "segmenter", Target())


def test_files_of_two_exports(folder: Path) -> None:
    import onnx

    path = folder / "detector.masks.onnx"
    model = onnx.load(path)
    (entry,) = (item for item in model.metadata_props if item.key == METADATA_KEY)
    card = Card.from_metadata({METADATA_KEY: entry.value}, path)
    other = Card(card.network, card.part, "another", card.facts)
    entry.value = other.to_metadata()[METADATA_KEY]
    onnx.save(model, path)
    with pytest.raises(BadCheckpoint, match="detector.masks.onnx belongs to another export"):
        load_network(folder / "detector.onnx", "detector", Target())


def test_no_onnx_model_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"something else")
    with pytest.raises(BadCheckpoint, match="onnxruntime cannot load .*x.onnx: "):
        Graph(path, Target())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16"}, "onnx .*fp32 or fp16 without.*got precision 'bf16'"),
        ({"compile": True}, "compile=True"),
        ({"precision": "fp16"}, "computes in fp32; export it with .*--precision fp16"),
        ({"detector": {"tensorrt": True}}, "tensorrt: true needs a GPU, the device is cpu"),
        ({"detector": {"threads": 0}}, "threads is 0, allowed: a whole number from 1"),
        ({"device": "abacus"}, "'abacus' is unknown; use auto, cpu, cuda"),
    ],
)
def test_what_onnx_engines_cannot_do(exported: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_loop(exported, **{"device": "cpu", **options})
