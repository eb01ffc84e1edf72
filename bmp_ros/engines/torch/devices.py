# SPDX-License-Identifier: Apache-2.0
"""Which torch device and number format the networks run on: said clearly or refused clearly."""

from __future__ import annotations

import torch

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
