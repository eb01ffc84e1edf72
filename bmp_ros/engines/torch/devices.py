# SPDX-License-Identifier: Apache-2.0
"""What runs on torch: which device and number format, and from which tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from bmp_ros.weights.checkpoint import load_state_dict

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


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


def torch_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of ``precision`` (fp32, fp16, bf16).

    Raises ValueError when it is unknown, or fp16 on a CPU, where convolutions in half precision
    are emulated and some twenty times slower than in fp32.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, allowed: {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError(
            "precision fp16 needs a GPU; on a CPU use fp32 (or bf16, where it has AMX or "
            "AVX512-BF16)"
        )
    return PRECISIONS[precision]


def state_dict_of(weights: Path | Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
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
