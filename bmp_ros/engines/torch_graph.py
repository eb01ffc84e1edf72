# SPDX-License-Identifier: Apache-2.0
"""Graphs of a network in PyTorch: device and number format, named arrays in, named arrays out.

`TorchGraph` has the interface of `bmp_ros.engines.onnx.graph.Graph`, so that one engine in NumPy
runs either. The functions that it calls are the ones that `bmp export` traces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bmp_ros.weights.checkpoint import load_state_dict

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchGraph:
    """One part of a network. network: the module, for whoever counts or hooks."""

    def __init__(
        self,
        network: nn.Module,
        function: Callable[..., Any],
        outputs: Sequence[str],
        device: str = "cpu",
        *,
        autocast: torch.dtype = torch.float32,
        compile: bool = False,
    ) -> None:
        """Take over ``network``, which is on ``device`` already.

        function: its arguments are the graph's inputs by name, it returns a tensor or a tuple.
        outputs: names of what it returns. autocast: number format of products and convolutions.
        compile: fuse with ``torch.compile`` at the first run (minutes).
        """
        self.network = network
        self._function = torch.compile(function) if compile else function
        self._outputs = tuple(outputs)
        self._device = torch.device(device)
        self._autocast = autocast

    def run(
        self, inputs: Mapping[str, np.ndarray | Tensor], keep: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Run the graph once and return its outputs by name, float32.

        inputs: NumPy arrays, and what an earlier run kept. Outputs are NumPy arrays but those in
        ``keep``: these stay on the device as they are. Waits for the device once, at the end.
        """
        reduced = self._autocast != torch.float32
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(value)).to(self._device)
            if isinstance(value, np.ndarray)
            else value
            for name, value in inputs.items()
        }
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=self._autocast, enabled=reduced),
        ):
            values = self._function(**tensors)
            values = (values,) if isinstance(values, Tensor) else values
        # Networks with fewer outputs than names have the first ones.
        return {
            name: value if name in keep else value.float().cpu().numpy()
            for name, value in zip(self._outputs, values, strict=False)
        }


def torch_device(device: str | torch.device = "auto") -> torch.device:
    """Return the torch device called ``device``; ``auto`` is CUDA if there is one, else the CPU.

    Raises ValueError when the device is unknown or not on this machine; there is no fallback.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if wanted.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (wanted.index or 0) >= count:
            build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
            raise ValueError(
                f"device {device!r} is not there: torch {torch.__version__} ({build}) sees "
                f"{count} CUDA devices; use device cpu, or install a driver and a torch build "
                "that match"
            )
    return wanted


def torch_dtype(precision: str, device: str | torch.device) -> torch.dtype:
    """Return the dtype of ``precision`` (fp32, fp16, bf16).

    Raises ValueError when it is unknown, or fp16 on a CPU, where convolutions in half precision
    are emulated and some twenty times slower than in fp32.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, allowed: {', '.join(PRECISIONS)}")
    if precision == "fp16" and torch.device(device).type == "cpu":
        raise ValueError(
            "precision fp16 needs a GPU; on a CPU use fp32 (or bf16, where it has AMX or "
            "AVX512-BF16)"
        )
    return PRECISIONS[precision]


def state_dict_of(weights: Path | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors of a checkpoint file (see `load_state_dict`), or of a state dict."""
    return weights if isinstance(weights, Mapping) else load_state_dict(weights)


def size_by_name(weights: str, pattern: str) -> str:
    """Return the size in the name of published weights: the pattern's group.

    Raises ValueError when the name tells none.
    """
    match = re.match(pattern, weights)
    if match is None:
        raise ValueError(
            f"cannot tell the size of {weights!r}: random weights stand in for the published "
            "networks only, by the names of models/zoo.yaml"
        )
    return match.group(1)
