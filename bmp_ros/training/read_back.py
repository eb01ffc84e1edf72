# SPDX-License-Identifier: Apache-2.0
"""Reads exported ONNX files back into the torch networks, to train them further.

An export folds every batch norm into the convolution before it, and drops some names; the order of
the convolutions stays that of the calls. So a network is run once, its convolutions are noted as
they are called, and the n-th one gets the weights of the graph's n-th. A norm then has nothing to
do but scale (where several norms share one convolution) and shift; `calibrate` gives it the
statistics of real activations without changing what it computes, which training needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bmp_ros.networks.conv_pose import ConvPose
from bmp_ros.networks.point_segmenter import PointSegmenter
from bmp_ros.networks.rtmdet_ins import RTMDetIns

FILES = {
    "detector": ("detector.onnx", "detector.masks.onnx"),
    "pose": ("pose_estimator.onnx",),
    "segmenter": ("segmenter.onnx", "segmenter.decoder.onnx"),
}
"""Graphs of a network of ``models/tiny``, in the order of `_calls`."""

Call = tuple[nn.Module, "nn.BatchNorm2d | None"]


def read_back(network: nn.Module, files: Sequence[Path]) -> None:
    """Load the weights of the graphs ``files`` into ``network`` and set it to eval mode.

    Weights were stored in half precision, so outputs equal the files' up to that rounding.
    Raises ValueError when a graph is not that of this network, FileNotFoundError without a file.
    """
    network.eval()
    folded: dict[nn.Module, list[tuple[nn.BatchNorm2d | None, Tensor, Tensor]]] = {}
    for file, parts in zip(files, _calls(network), strict=True):
        layers = list(graph_layers(file))
        calls = in_their_order(parts, [weight for weight, _ in layers])
        if len(layers) != len(calls):
            raise ValueError(
                f"{file} has {len(layers)} convolutions and products with weights, the network "
                f"{len(calls)}; it was exported from a network of another size or kind"
            )
        for number, ((layer, norm), (weight, bias)) in enumerate(zip(calls, layers, strict=True)):
            if weight.shape != layer.weight.shape:
                raise ValueError(
                    f"{file}: weights {number} have the shape {list(weight.shape)}, the network "
                    f"wants {list(layer.weight.shape)}; it was exported from a network of another "
                    "size"
                )
            if bias is None:
                bias = torch.zeros(len(weight))
            folded.setdefault(layer, []).append((norm, weight, bias))
    with torch.no_grad():
        for layer, uses in folded.items():
            _unfold(layer, uses)


def read_back_tiny(name: str, network: nn.Module, folder: Path) -> None:
    """`read_back` of the files that the network called ``name`` has in ``folder``."""
    read_back(network, [folder / file for file in FILES[name]])


@torch.no_grad()
def calibrate(network: nn.Module, run: Callable[[], Any]) -> None:
    """Give every batch norm the statistics of its inputs while ``run`` uses the network.

    In eval mode the network computes what it did before; in train mode, with batches like those of
    ``run``, nearly the same.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    sums: dict[nn.Module, tuple[int, Tensor, Tensor]] = {}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach().double()
        count, total, squares = sums.get(norm, (0, torch.zeros(()), torch.zeros(())))
        sums[norm] = (
            count + x.numel() // x.shape[1],
            total + x.sum(dim=(0, 2, 3)),
            squares + x.square().sum(dim=(0, 2, 3)),
        )

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    before = network.training
    network.eval()
    try:
        run()
    finally:
        network.train(before)
        for hook in hooks:
            hook.remove()
    for norm in norms:
        count, total, squares = sums.get(norm, (0, torch.zeros(()), torch.zeros(())))
        if not count:  # unused, or used for no one: it computes what it did
            continue
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        assert norm.running_mean is not None and norm.running_var is not None
        factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        shift = norm.bias.double() - factor * norm.running_mean.double()
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(factor * (variance + norm.eps).sqrt())
        norm.bias.copy_(shift + factor * mean)


def graph_layers(file: Path) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Weight and bias of the graph's convolutions and Gemms, in their order."""
    import onnx
    from onnx import numpy_helper

    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there; export the preset's networks first")
    graph = onnx.load(str(file)).graph
    values = {item.name: item for item in graph.initializer}
    # Weights in half precision are cast to the name that the convolution reads.
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}

    def tensor(name: str) -> Tensor:
        stored = numpy_helper.to_array(values[casts.get(name, name)])
        return torch.from_numpy(stored.astype(np.float32))

    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            yield tensor(node.input[1]), tensor(node.input[2]) if len(node.input) > 2 else None


def in_their_order(parts: Sequence[list[Call]], weights: Sequence[Tensor]) -> list[Call]:
    """The calls of all parts of a graph; parts that do not depend on each other come in the order
    in which the version that exported the graph called them, which the shapes tell."""
    shapes = [weight.shape for weight in weights]
    for order in permutations(parts):
        calls = [call for part in order for call in part]
        if [layer.weight.shape for layer, _ in calls] == shapes:
            return calls
    return [call for part in parts for call in part]


def _calls(network: nn.Module) -> list[list[list[Call]]]:
    """Layers with weights in the order of their calls, and the norms behind them, by graph and
    by independent part of a graph."""
    if isinstance(network, RTMDetIns):
        head = network.bbox_head
        with _noted(network) as first:
            features = network.features(torch.zeros(1, 3, 64, 64))
            head.boxes(features)
        with _noted(network) as kernels:
            head.kernels(features)
        with _noted(network) as masks:
            head.mask_head(features)
        return [[first], [kernels, masks]]
    if isinstance(network, ConvPose):
        width, height = network.input_size
        with _noted(network) as first:
            network(torch.zeros(1, 3, height, width))
        return [[first]]
    if isinstance(network, PointSegmenter):
        with _noted(network) as first:
            maps = network.encode(torch.zeros(1, 3, 64, 64))
        with _noted(network) as second:
            network.decode(
                maps, torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.long),
                torch.zeros(1, 16, 16),
            )  # fmt: skip
        return [[first], [second]]
    raise ValueError(
        f"{type(network).__name__} cannot be read back; known are RTMDetIns, ConvPose and "
        "PointSegmenter"
    )


@contextmanager
def _noted(network: nn.Module) -> Iterator[list[Call]]:
    calls: list[Call] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, nn.BatchNorm2d):
            layer, norm = calls[-1]
            assert norm is None
            calls[-1] = (layer, module)
        else:
            calls.append((module, None))

    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    chosen = [module for module in network.modules() if isinstance(module, kinds)]
    hooks = [module.register_forward_hook(note) for module in chosen]
    try:
        with torch.no_grad():
            yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _unfold(layer: Any, uses: Sequence[tuple[nn.BatchNorm2d | None, Tensor, Tensor]]) -> None:
    """Set one layer and its norms to compute what ``uses`` say, folded weights and biases."""
    norm, weight, bias = uses[0]
    if norm is None:
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        return
    # Levels share the convolution and differ by a factor per channel. The largest copy of a
    # channel has lost least to rounding.
    copies = torch.stack([use[1] for use in uses]).flatten(2)  # (uses, out, in * k * k)
    largest = copies.norm(dim=2).argmax(dim=0)
    shared = copies[largest, torch.arange(len(largest))]
    layer.weight.copy_(shared.view_as(layer.weight))
    power = shared.square().sum(dim=1)
    for (norm, _, bias), copy in zip(uses, copies, strict=True):
        assert norm is not None and norm.running_mean is not None and norm.running_var is not None
        factor = torch.where(power > 0, (copy * shared).sum(dim=1) / power.clamp(min=1e-30), 1.0)
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        norm.weight.copy_(factor)
        norm.bias.copy_(bias)
