# SPDX-License-Identifier: Apache-2.0
"""Every committed network can be trained further: its files are read back into torch exactly."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnx", reason="reading files back needs onnx")

import onnxruntime

import bmp_ros
from bmp_ros.training.read_back import (
    FILES,
    calibrate,
    graph_layers,
    in_their_order,
    read_back,
    read_back_tiny,
)
from bmp_ros.training.recipe import start_from
from bmp_ros.training.tasks import DETECTOR_CANVAS, make_task

MODELS = Path(bmp_ros.__file__).parents[1] / "models" / "tiny"
CANVAS = DETECTOR_CANVAS[::-1]
"""Height and width: the boxes' graph has a fixed size."""
SIZES = {"detector": (96, 64), "pose": None, "segmenter": (96, 64)}


def session(file: str) -> Any:
    return onnxruntime.InferenceSession(str(MODELS / file), providers=["CPUExecutionProvider"])


@pytest.fixture
def tasks(disc_folder: Path) -> dict[str, Any]:
    return {name: make_task(name, disc_folder, SIZES[name]) for name in FILES}


def outputs(name: str, network: Any) -> list[np.ndarray]:
    """What the torch network says to fixed random inputs, in the order of the files' outputs."""
    random = np.random.default_rng(0)
    with torch.no_grad():
        if name == "detector":
            x = torch.from_numpy(random.normal(size=(1, 3, *CANVAS)).astype(np.float32))
            features = network.features(x)
            logits, _ = network.bbox_head.boxes(features)
            kernels = network.bbox_head.kernels(features)[0, 3:9]
            values = [logits[0, :, 0].sigmoid(), *features, kernels]
            return [v.numpy() for v in (*values, network.bbox_head.mask_head(features)[0])]
        if name == "pose":
            x = torch.from_numpy(random.normal(size=(2, 3, 192, 144)).astype(np.float32))
            return [network(x).numpy()]
        x = torch.from_numpy(random.normal(size=(1, 3, 288, 384)).astype(np.float32))
        maps = network.encode(x)
        points = torch.from_numpy(random.uniform(0, 280, (2, 4, 2)).astype(np.float32))
        labels = torch.tensor([[1, 1, 1, 0], [1, 1, -1, -1]])
        masks = torch.zeros(2, 72, 96)
        masks[1, 20:40, 30:50] = 1
        return [part.numpy() for part in (*maps, *network.decode(maps, points, labels, masks))]


def expected(name: str) -> list[np.ndarray]:
    """The same from the files."""
    random = np.random.default_rng(0)
    if name == "detector":
        x = random.normal(size=(1, 3, *CANVAS)).astype(np.float32)
        _, scores, *features = session("detector.onnx").run(None, {"canvas": x})
        masks = session("detector.masks.onnx")
        names = [item.name for item in masks.get_inputs()]
        inputs = dict(zip(names, [*features, np.arange(3, 9)], strict=True))
        prototypes, kernels = masks.run(None, inputs)
        return [scores, *features, kernels, prototypes]
    if name == "pose":
        x = random.normal(size=(2, 3, 192, 144)).astype(np.float32)
        return session("pose_estimator.onnx").run(None, {"crops": x})
    x = random.normal(size=(1, 3, 288, 384)).astype(np.float32)
    maps = session("segmenter.onnx").run(None, {"canvas": x})
    decoder = session("segmenter.decoder.onnx")
    names = [item.name for item in decoder.get_inputs()]
    points = random.uniform(0, 280, (2, 4, 2)).astype(np.float32)
    labels = np.array([[1, 1, 1, 0], [1, 1, -1, -1]])
    masks = np.zeros((2, 72, 96), np.float32)
    masks[1, 20:40, 30:50] = 1
    types = {item.name: item.type for item in decoder.get_inputs()}
    labels = labels.astype(np.int32 if "int32" in types["labels"] else np.int64)
    inputs = dict(zip(names, [*maps, points, labels, masks], strict=True))
    return [*maps, *decoder.run(None, inputs)]


def assert_equal(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 5e-4 * max(1.0, np.abs(other).max())


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_committed_networks_come_back(name: str, tasks: dict[str, Any]) -> None:
    task = tasks[name]
    read_back_tiny(name, task.network, MODELS)
    wanted = expected(name)
    assert_equal(outputs(name, task.network), wanted)
    start_from(task, MODELS)  # with statistics
    task.network.eval()
    assert_equal(outputs(name, task.network), wanted)


@pytest.mark.parametrize("name", sorted(FILES))
def test_norms_get_the_statistics_of_their_inputs(name: str, tasks: dict[str, Any]) -> None:
    task = tasks[name]
    read_back_tiny(name, task.network, MODELS)
    batch = task.collate([task.sample(number, 0) for number in range(6)])
    calibrate(task.network, lambda: task.losses(task.network, batch))
    seen: dict[nn.Module, torch.Tensor] = {}

    def note(norm: nn.Module, inputs: Any) -> None:
        seen.setdefault(norm, inputs[0])

    norms = [m for m in task.network.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    with torch.no_grad():
        task.losses(task.network.eval(), batch)
    for hook in hooks:
        hook.remove()
    assert seen
    for norm, inputs in seen.items():
        mean = inputs.mean(dim=(0, 2, 3))
        scale = norm.running_var.sqrt() + 1e-3
        assert ((mean - norm.running_mean).abs() / scale).max() < 0.01


def test_norms_that_saw_no_one_keep_what_they_have() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        calibrate(network, lambda: network(torch.zeros(0, 2, 4, 4)))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_another_network_is_refused(tasks: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="another size or kind"):
        read_back(tasks["pose"].network, [MODELS / "segmenter.onnx"])
    with pytest.raises(ValueError, match="cannot be read back"):
        read_back(nn.Conv2d(1, 1, 1), [MODELS / "pose_estimator.onnx"])


def test_a_missing_file_is_named(tmp_path: Path, tasks: dict[str, Any]) -> None:
    shutil.copy(MODELS / "detector.onnx", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"detector\.masks\.onnx"):
        read_back_tiny("detector", tasks["detector"].network, tmp_path)
    assert len(list(graph_layers(tmp_path / "detector.onnx"))) == 83


def test_parts_of_a_graph_come_in_any_order() -> None:
    """The mask graph of the detector was exported with its kernels first, later with them last."""
    kernels = [(torch.nn.Conv2d(2, 3, 3), None), (torch.nn.Conv2d(3, 3, 1), None)]
    masks = [(torch.nn.Conv2d(4, 2, 1), None)]
    for order in ([*kernels, *masks], [*masks, *kernels]):
        weights = [layer.weight for layer, _ in order]
        assert in_their_order([kernels, masks], weights) == order
    assert len(in_their_order([kernels, masks], weights[:1])) == 3, "the reader says what differs"
