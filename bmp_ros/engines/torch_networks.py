# SPDX-License-Identifier: Apache-2.0
"""Networks in PyTorch before graphs are made of them: device, number format, weights.

Also those with random weights, which stand in for published ones.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

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


def is_emulated(precision: str, device: str | torch.device) -> bool:
    """Whether that is bf16 on a processor without instructions for it (x86: AVX-512).

    PyTorch then computes convolutions in loops of its own, some ten times slower than in fp32.
    """
    if precision != "bf16" or torch.device(device).type != "cpu":
        return False
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and not supported()


def holding_weights(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy with matrices and kernels in ``dtype``; for float32 the network itself.

    Norms, embeddings and everything else stay in float32. For networks that run under autocast: it
    would otherwise convert each weight at each call, hundreds of launches per image, with the same
    result.
    """
    if dtype == torch.float32:
        return network
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.to(dtype)
    return network


def state_dict_of(weights: Path | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors of a checkpoint file (see `load_state_dict`), or of a state dict."""
    return weights if isinstance(weights, Mapping) else load_state_dict(weights)


def spread_convolutions(network: nn.Module) -> None:
    """Draw the kernels of an untrained network so that values keep their spread through SiLU.

    Normal, standard deviation g / sqrt(fan in), as in He et al., "Delving deep into rectifiers"
    (2015), where g is sqrt(2) for ReLU; for SiLU it is E[SiLU(x)²]^(-1/2) = 1.68, x normal.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=1.68 / module.weight[0].numel() ** 0.5)


def calibrate_norms(network: nn.Module, low: float, high: float, side: int = 224) -> None:
    """Let the batch norms of an untrained network scale what they see to a mean square of 20².

    It sees four images of values in [low, high]: noise, blurred noise, noise beside an even area,
    and a pale one. Values so large keep their proportions in SiLU, while fp16 holds 3000 times as
    much: scaled to 1, another image's values would vanish, or grow, from layer to layer. Means
    stay 0 for the same reason.
    """
    noise = torch.rand(1, 3, side, side)
    coarse = torch.rand(1, 3, side // 16, side // 16)
    blurred = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    half = torch.where(torch.arange(side) < side // 2, noise, 0.45)
    inputs = low + (high - low) * torch.cat([noise, blurred, half, 0.4 + 0.2 * noise])

    def scale(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        norm.running_mean.zero_()
        norm.running_var.fill_(given[0].square().mean() / 20**2)

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(scale) for norm in norms]
    with torch.no_grad():
        network.eval()(inputs)
    for hook in hooks:
        hook.remove()


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
