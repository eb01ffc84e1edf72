# SPDX-License-Identifier: Apache-2.0
"""TensorRT through onnxruntime: for which shapes an engine is built, and where it is kept.

An engine holds for one version of TensorRT, one kind of GPU and one graph, and for the shapes of
its profile. Without a profile it is built again, for minutes, whenever a number of people is new.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bmp_ros.engines.batches import SIZES

Shape = Sequence[int | str]
"""Lengths of the axes; those that vary have a name."""

RANGES = {"people": (1, 8, SIZES[-1]), "points": (1, 6, 34)}
"""Least, usual and most, by name of the axis. Points: 17 on a person and 17 beside, the limits of
`LoopSettings`. They are not padded: SAM's answer depends on every point, also on one that says to
be none."""
LEAST_CANVAS = 32
_LIBRARIES = ("libnvinfer.so", "libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8")


def profile_options(inputs: Mapping[str, Shape], largest_canvas: int) -> dict[str, str]:
    """Return onnxruntime's options for the shapes of a graph's dynamic inputs; all, or none.

    inputs: of the graph, by name. largest_canvas: pixels of the longest side of an image.
    Raises ValueError for an axis of an unknown name.
    """
    dynamic = {name: shape for name, shape in inputs.items() if any_name(shape)}
    if not dynamic:
        return {}
    options = {}
    for place, which in enumerate(("min", "opt", "max")):
        shapes = []
        for name, shape in dynamic.items():
            lengths = [_length(axis, place, largest_canvas, name) for axis in shape]
            shapes.append(f"{name}:{'x'.join(map(str, lengths))}")
        options[f"trt_profile_{which}_shapes"] = ",".join(shapes)
    return options


def any_name(shape: Shape) -> bool:
    return any(isinstance(axis, str) for axis in shape)


def _length(axis: int | str, place: int, largest_canvas: int, name: str) -> int:
    if isinstance(axis, int):
        return axis
    if axis in RANGES:
        return RANGES[axis][place]
    match = re.fullmatch(r"(?:height|width)(?:_(\d+))?", axis)
    if match is None:
        raise ValueError(
            f"input {name} has the axis {axis!r}, and no range is known for it; known axes: "
            f"{', '.join(RANGES)}, height, width, and those divided, as height_8"
        )
    canvas = LEAST_CANVAS if place == 0 else largest_canvas
    return canvas // int(match.group(1) or 1)


def cache_options(graph: Path, folder: Path, index: int) -> tuple[dict[str, Any], Path]:
    """Return onnxruntime's options for what TensorRT keeps, and the folder of this graph's engine.

    graph: the file. folder: for all engines. index: of the GPU.
    """
    machine = folder / f"tensorrt-{tensorrt_version()}-{gpu_name(index)}"
    engines = machine / f"{graph.stem}-{file_hash(graph)}"
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(machine),
        "trt_context_memory_sharing_enable": True,
    }, engines


def file_hash(path: Path) -> str:
    """16 hex digits of a file's SHA-256."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()[:16]


def tensorrt_version() -> str:
    """Version of the TensorRT library that this process would load, ``unknown`` without one."""
    for name in _LIBRARIES:
        try:
            number = int(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
        # 101602 is 10.16.2; before version 10 it was 8601 for 8.6.1.
        unit = 10_000 if number >= 100_000 else 1000
        return f"{number // unit}.{number % unit // 100}.{number % 100}"
    return "unknown"


def gpu_name(index: int) -> str:
    """Name and compute capability of a GPU, as part of a file name; ``unknown`` without one."""
    text, major, minor = ctypes.create_string_buffer(128), ctypes.c_int(), ctypes.c_int()
    device = ctypes.c_int()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        failed = (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), index)
            or driver.cuDeviceGetName(text, len(text), device)
            or driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
            or driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
        )
    except (OSError, AttributeError):
        return "unknown"
    if failed:
        return "unknown"
    name = re.sub(r"[^A-Za-z0-9]+", "-", text.value.decode(errors="replace")).strip("-")
    return f"{name}-sm{major.value}{minor.value}"
