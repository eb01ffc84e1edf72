# SPDX-License-Identifier: Apache-2.0
"""Where onnxruntime runs a network: device, execution providers, threads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bmp_ros.engines.auto_preset import cuda_devices

INSTALL = (
    "networks in ONNX files need onnxruntime: `pip install onnxruntime`, with an NVIDIA GPU "
    "`pip install onnxruntime-gpu`"
)

LARGE_FILE = 32 << 20
"""Bytes of a graph that keeps no memory between two runs on the CPU."""


@dataclass(frozen=True)
class Target:
    """device: cpu or cuda:N, see `onnx_device`. threads: of the CPU; None = every available core.

    tensorrt: build an engine with TensorRT, when a graph is loaded for the first time.
    half_precision: fp16 was asked for. Graphs say themselves in which format they compute; up to
    version 10 TensorRT can compute an fp32 graph in fp16.
    """

    device: str = "cpu"
    threads: int | None = None
    tensorrt: bool = False
    half_precision: bool = False


def onnx_device(device: str = "auto") -> str:
    """Return cpu or cuda:N. ``auto`` is CUDA if onnxruntime and machine have it, else the CPU.

    Raises ValueError when the device is unknown or cannot be had; there is no fallback.
    """
    provided = "CUDAExecutionProvider" in _available_providers()
    count = cuda_devices()
    if device == "auto":
        return "cuda:0" if provided and count else "cpu"
    if device == "cpu":
        return device
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise ValueError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N")
    if not provided:
        raise ValueError(
            f"device {device!r}: this onnxruntime has no CUDA, only "
            f"{', '.join(_available_providers())}; use device cpu, or replace it with "
            "`pip install onnxruntime-gpu`"
        )
    index = int(match.group(1) or 0)
    if index >= count:
        raise ValueError(
            f"device {device!r} is not there: the CUDA driver sees {count} devices; use device cpu"
        )
    return f"cuda:{index}"


def available_threads() -> int:
    """Cores that this process may use, no more than OMP_NUM_THREADS says, as torch has it."""
    there = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        there = len(os.sched_getaffinity(0))
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(there, int(wanted)) if wanted.isdecimal() and int(wanted) else there


def session_options(target: Target, path: Path) -> Any:
    """Return onnxruntime's options for a file: threads that sleep, not spin, between networks."""
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = target.threads or available_threads()
    options.inter_op_num_threads = 1
    # Spinning threads keep every core busy for a few microseconds of latency: other nodes of the
    # robot need them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # An arena never gives memory back, and is cut into pieces that fit no other run: the encoder
    # of SAM b+ held 2.2 GB where it needs 0.8. Small networks gain a little time by it.
    options.enable_cpu_mem_arena = path.stat().st_size < LARGE_FILE
    options.log_severity_level = 3
    return options


def providers(
    target: Target, tensorrt_options: Mapping[str, Any] | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Return the execution providers of a target, with their options, first choice first.

    tensorrt_options: shapes and cache of a graph, see `bmp_ros.engines.onnx.engine_cache`.
    Raises ValueError when TensorRT is asked for on the CPU, or is not in this onnxruntime.
    """
    cpu: tuple[str, dict[str, Any]] = ("CPUExecutionProvider", {})
    if target.device == "cpu":
        if target.tensorrt:
            raise ValueError("tensorrt: true needs a GPU, the device is cpu; use device cuda")
        return [cpu]
    index = int(target.device.partition(":")[2])
    # The default measures all algorithms for every new number of people.
    cuda = (
        "CUDAExecutionProvider",
        {"device_id": index, "cudnn_conv_algo_search": "HEURISTIC"},
    )
    if not target.tensorrt:
        return [cuda, cpu]
    if "TensorrtExecutionProvider" not in _available_providers():
        raise ValueError(
            "tensorrt: true, but this onnxruntime has no TensorRT, only "
            f"{', '.join(_available_providers())}; leave it out, or install TensorRT and "
            "onnxruntime-gpu"
        )
    options = {"device_id": index, **(tensorrt_options or {})}
    return [("TensorrtExecutionProvider", options), cuda, cpu]


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime. Raises ModuleNotFoundError that says what to install."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ModuleNotFoundError(f"{INSTALL} ({error})", name="onnxruntime") from error
    return onnxruntime


def _available_providers() -> list[str]:
    available: list[str] = import_onnxruntime().get_available_providers()
    return available
