# SPDX-License-Identifier: Apache-2.0
"""A damaged, a foreign and a hostile file of every family: one clear error, and nothing is run."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from golden_yolov5 import state_dict as yolov5_state_dict  # noqa: E402
from random_tiny import random_conv_pose, random_point_segmenter  # noqa: E402
from random_vit import random_state_dict  # noqa: E402

from bmp_ros.engines.registry import Runtime, built_in, find_engine  # noqa: E402
from bmp_ros.networks.hrnet import (  # noqa: E402
    ParallelAttention,
    PoseHRNet,
    RLEHRNet,
    SequentialAttention,
    SimDRHRNet,
    TrunkParts,
    TrunkSize,
)
from bmp_ros.networks.omnipose import OmniPose  # noqa: E402
from bmp_ros.networks.rtmdet_ins import PUBLISHED_SIZES, RTMDetIns, RTMDetInsSize  # noqa: E402
from bmp_ros.networks.rtmpose import RTMPose  # noqa: E402
from bmp_ros.weights.errors import BadCheckpoint, UnsafeCheckpoint  # noqa: E402

TINY = TrunkSize((8, 16, 24, 32), (1, 1, 1), 1)
POSE = "pose_estimator"


def sam2() -> dict[str, Any]:
    pytest.importorskip("sam2", reason="the sam2 package is not installed")
    from random_sam2 import random_sam2_checkpoint

    return random_sam2_checkpoint("t")["model"]


FAMILIES: dict[str, tuple[str, str, dict[str, Any], Any]] = {
    "RTMDet-Ins": (
        "detector", "rtmdet_ins", {},
        lambda: RTMDetIns(RTMDetInsSize.scaled(*PUBLISHED_SIZES["tiny"]), 1).state_dict(),
    ),
    "YOLOv5": ("detector", "yolov5", {}, lambda: yolov5_state_dict(gain=1.0, classes=2)),
    "ViTPose, MaskPose": (POSE, "vit_pose", {}, lambda: random_state_dict(width=384, depth=1)),
    "PMPose": (
        POSE, "vit_pose", {"head": "pmpose"},
        lambda: random_state_dict(width=384, depth=1, head="pmpose"),
    ),
    "ConvPose": (POSE, "conv_pose", {}, random_conv_pose),
    "PoseHRNet": (POSE, "hrnet", {}, lambda: PoseHRNet(TINY).state_dict()),
    "PoseHRNet with UDP": (
        POSE, "hrnet", {"decoding": "udp_combined", "crop": "udp", "shift_flipped": False},
        lambda: PoseHRNet(TINY, 51).state_dict(),
    ),
    "PSA(p)": (
        POSE, "hrnet", {},
        lambda: PoseHRNet(TINY, parts=TrunkParts(attention=ParallelAttention)).state_dict(),
    ),
    "PSA(s)": (
        POSE, "hrnet", {},
        lambda: PoseHRNet(TINY, parts=TrunkParts(attention=SequentialAttention)).state_dict(),
    ),
    "SimDR": (
        POSE, "hrnet", {"decoding": "simdr"},
        lambda: SimDRHRNet(TINY, 17, bins=(384, 512), input_size=(192, 256)).state_dict(),
    ),
    "RLE": (POSE, "hrnet", {"decoding": "rle"}, lambda: RLEHRNet(TINY, 17).state_dict()),
    "OmniPose": (POSE, "omnipose", {}, lambda: OmniPose(17, size=TINY).state_dict()),
    "OmniPose-Lite": (
        POSE, "omnipose", {}, lambda: OmniPose(17, lite=True, size=TINY).state_dict()
    ),
    "RTMPose": (POSE, "rtmpose", {}, lambda: RTMPose.published("t").state_dict()),
    "SAM 2.1": ("segmenter", "sam2", {}, sam2),
    "PointSegmenter": ("segmenter", "point_segmenter", {}, random_point_segmenter),
}  # fmt: skip


LOADED = [
    pytest.param(name, marks=pytest.mark.slow if name in ("SAM 2.1", "PMPose") else ())
    for name in FAMILIES
]
"""The families where networks are built: two are large at their smallest."""


@cache
def tensors_of(family: str) -> dict[str, Any]:
    torch.manual_seed(0)
    return dict(FAMILIES[family][3]())


def build(family: str, path: Path) -> Any:
    role, name, options, _ = FAMILIES[family]
    engine = find_engine(role, name)
    return engine.build(engine.options(weights=str(path), **options), path, Runtime("cpu"))


def refused(family: str, path: Path, kind: type[Exception] | tuple[type[Exception], ...]) -> str:
    """The message, which fits a terminal and names no line of our code."""
    with pytest.raises(kind) as caught:
        build(family, path)
    text = str(caught.value)
    assert 20 < len(text) < 900 and "Traceback" not in text
    return text


def test_every_engine_in_torch_is_among_the_families() -> None:
    declared = {each.engine.name for each in built_in() if each.engine.runtime == "torch"}
    listed = {name for _, name, _, _ in FAMILIES.values()}
    assert listed == declared - {"mmdet", "mmpose"}, "those of OpenMMLab are tested beside it"


@pytest.mark.parametrize("family", LOADED)
def test_a_whole_file_loads(family: str, tmp_path: Path) -> None:
    """So that what the other tests say lies in the fault alone."""
    torch.save({"state_dict": tensors_of(family)}, tmp_path / "w.pth")
    build(family, tmp_path / "w.pth")


@pytest.mark.parametrize("family", LOADED)
def test_a_damaged_file(family: str, tmp_path: Path) -> None:
    tensors, path = tensors_of(family), tmp_path / "w.pth"
    torch.save({"state_dict": tensors}, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    assert "cut short" in refused(family, path, BadCheckpoint)

    # Complete as a file, but a tensor is missing, or has lost a channel.
    name = max(
        (name for name, value in tensors.items() if value.ndim == 4 and min(value.shape[:2]) > 1),
        key=lambda name: tensors[name].numel(),
    )
    rest = {key: value for key, value in tensors.items() if key != name}
    torch.save({"state_dict": rest}, path)
    assert name.rpartition(".")[0].split(".")[-1] in refused(family, path, ValueError)
    torch.save({"state_dict": {**tensors, name: tensors[name][:, 1:]}}, path)
    assert name.rpartition(".")[0].split(".")[-1] in refused(family, path, ValueError)


@pytest.mark.parametrize("family", LOADED)
def test_a_foreign_file(family: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": {"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}}, path)
    refused(family, path, ValueError)
    engine = FAMILIES[family][1]
    others = [other for other in ("PoseHRNet", "YOLOv5", "ConvPose", "RTMPose", "OmniPose")
              if FAMILIES[other][1] != engine]  # fmt: skip
    for other in others:
        torch.save({"state_dict": tensors_of(other)}, path)
        refused(family, path, ValueError)
    path.write_text("<!DOCTYPE html><title>Google Drive - Virus scan warning</title>")
    assert "is not a checkpoint" in refused(family, path, BadCheckpoint)


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_hostile_file(family: str, zip_format: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "w.pth", tmp_path / "mark"
    few = {name: torch.zeros(3) for name in ("backbone.conv1.weight", "model.0.conv.weight")}
    hostile = {"state_dict": few, "meta": Hostile(mark)}
    torch.save(hostile, path, _use_new_zipfile_serialization=zip_format)
    text = refused(family, path, UnsafeCheckpoint)
    assert "system, which could run code; it was refused" in text
    assert not mark.exists()
    torch.save({"model": Hostile(mark)}, path, _use_new_zipfile_serialization=zip_format)
    refused(family, path, UnsafeCheckpoint)
    assert not mark.exists()


@pytest.mark.parametrize("role", ["detector", "pose_estimator", "segmenter"])
@pytest.mark.parametrize("fault", ["a pickle", "cut short", "of another program"])
def test_files_of_onnx_engines(role: str, fault: str, tmp_path: Path) -> None:
    """They hold no program; what is none of ours is refused all the same."""
    from bmp_ros.resources import find_preset

    engine = find_engine(role, "onnx")
    path, mark = tmp_path / "w.onnx", tmp_path / "mark"
    error: type[Exception] = BadCheckpoint
    if fault == "a pickle":
        torch.save({"state_dict": Hostile(mark)}, path)
    elif fault == "cut short":
        own = find_preset("tiny").parents[2] / "models" / "tiny" / f"{role}.onnx"
        path.write_bytes(own.read_bytes()[:-5000])
    else:
        onnx = pytest.importorskip("onnx", reason="writing ONNX files needs onnx")
        value = onnx.helper.make_tensor_value_info
        ends = [value(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
        node = onnx.helper.make_node("Identity", ["x"], ["y"])
        graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
        opset = [onnx.helper.make_opsetid("", 17)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
        error = ValueError
    with pytest.raises(error) as caught:
        engine.build(engine.options(weights=str(path)), path, Runtime("cpu"))
    assert str(path) in str(caught.value) and len(str(caught.value)) < 900
    assert not mark.exists()
