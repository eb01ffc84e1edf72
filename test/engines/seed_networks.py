# SPDX-License-Identifier: Apache-2.0
"""Golden vectors of networks published elsewhere: layouts, weights by a rule, inputs and outputs.

The vectors come from running the published code; neither it nor a trained weight is in them. Every
weight follows from its name and shape (`filled`), so that a network costs only its input and
output.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

DATA = Path(__file__).parents[1] / "data" / "seed_networks"
Layout = list[tuple[str, tuple[int, ...]]]

_GAUSSIAN = re.compile(r"\.fuse_layers\.\d+\.\d+\.\d+\.weight$")


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def layout(name: str) -> Layout:
    """Names and shapes of a published state dict, in its order."""
    entries = json.loads((DATA / f"layout_{name}.json").read_text())
    return [(key, tuple(shape)) for key, shape, _ in entries]


def filled(key: str, shape: tuple[int, ...], gain: float = 1.0) -> torch.Tensor:
    """The weight that the rule of the vectors gives to a name and a shape."""
    import torch

    last = key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.tensor(0)
    random = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
    z = random.standard_normal(shape)
    if last == "running_var":
        value = 1 + 0.1 * np.abs(z)
    elif last == "weight" and len(shape) in (0, 1, 3):
        value = 1 + 0.1 * z
    elif last in ("running_mean", "bias") or len(shape) in (0, 1, 3):
        value = 0.1 * z
    else:
        value = gain * z / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, np.float32))


def state_dict(
    entries: Iterable[tuple[str, tuple[int, ...]]],
    kept: dict[tuple[str, tuple[int, ...]], torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Filled weights; OmniPose's Gaussian filters keep the values that they are built with.

    kept: weights that were filled before, which takes longer than running the network; new ones
    are added.
    """
    from bmp_ros.networks.omnipose import gaussian_kernel

    kept = {} if kept is None else kept
    tensors = {}
    for key, shape in entries:
        if (key, shape) not in kept:
            built_in = _GAUSSIAN.search(key) and shape[1:] == (1, 3, 3)
            kept[key, shape] = (
                gaussian_kernel().expand(shape).clone() if built_in else filled(key, shape)
            )
        tensors[key] = kept[key, shape]
    return tensors


def run(network: torch.nn.Module, values: np.ndarray) -> object:
    """What a network says to an input that is stored in half precision."""
    import torch

    with torch.inference_mode():
        return network(torch.from_numpy(values.astype(np.float32)))


def assert_close(found: torch.Tensor, wanted: np.ndarray, tolerance: float = 1e-4) -> None:
    """Within ``tolerance`` of the largest wanted value."""
    assert found.shape == wanted.shape
    error = np.abs(found.numpy() - wanted).max()
    assert error <= tolerance * np.abs(wanted).max(), error
