# SPDX-License-Identifier: Apache-2.0
"""What is exported: the torch modules of a network, one per ONNX file, with inputs to try."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

Inputs = dict[str, Tensor]


class Call(nn.Module):
    """A function of a network's tensors as the module that is traced."""

    def __init__(self, network: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.network = network
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        output = self.function(*inputs)
        return output if isinstance(output, Tensor) else tuple(output)


@dataclass(frozen=True)
class GraphSource:
    """One graph.

    part: its name in `bmp_ros.engines.onnx.card.KINDS`. module: takes the inputs in their order,
    returns a tensor or a tuple. outputs: names of what it returns. samples: inputs by name; the
    first one is traced, all are compared. dynamic: axes whose length is not fixed, by name of
    input or output, e.g. ``{"crops": {0: "people"}}``. exact: parts of the names of weights whose
    layers compute in fp32 also in a graph in fp16.
    """

    part: str
    module: nn.Module
    outputs: tuple[str, ...]
    samples: list[Inputs]
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    exact: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetworkSource:
    """One network.

    kind: a key of `KINDS`. facts: of that kind, for its card. graphs: in the order of its parts.
    options: of the engine ``onnx`` in a preset, without ``weights``. weights: hash, see
    `weights_hash`.
    """

    kind: str
    facts: Any
    graphs: list[GraphSource]
    options: dict[str, Any]
    weights: str


def weights_hash(state_dict: Mapping[str, Tensor], facts: Any) -> str:
    """Return 16 hex digits that differ when any tensor or fact does."""
    total = hashlib.sha256(json.dumps(asdict(facts), sort_keys=True).encode())
    for name in sorted(state_dict):
        total.update(name.encode())
        total.update(state_dict[name].detach().float().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def sample_image(height: int = 480, width: int = 640) -> np.ndarray:
    """Return a BGR image (H, W, 3) uint8 of edges, gradients and noise, always the same."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    gradient = np.stack([90 + 80 * x / width, 60 + 120 * y / height, 200 - 90 * x / width], -1)
    image = gradient.astype(np.uint8)
    for _ in range(40):
        centre = int(rng.integers(width)), int(rng.integers(height))
        axes = int(rng.integers(4, width // 8)), int(rng.integers(4, height // 4))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.ellipse(image, centre, axes, float(rng.uniform(-30, 30)), 0, 360, colour, -1)
    noise = rng.integers(-12, 13, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def sample_prompts(people: int, points: int, width: int, height: int) -> tuple[np.ndarray, Tensor]:
    """Return points (G, P, 2) float32 in image pixels and labels (G, P) int64, 1 and 0."""
    rng = np.random.default_rng(people)
    xy = rng.uniform(0, 1, (people, points, 2)) * (width, height)
    labels = torch.from_numpy(rng.integers(0, 2, (people, points)))
    labels[:, 0] = 1
    return xy.astype(np.float32), labels
