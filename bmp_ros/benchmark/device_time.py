# SPDX-License-Identifier: Apache-2.0
"""What of a frame is the device's time, what is asked of it, and where the host's time goes."""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bmp_ros.benchmark.schedule import Schedule
from bmp_ros.engines.torch_graph import TorchGraph
from bmp_ros.loop.bmp_loop import BMPLoop

Results = dict[str, Any]


def graphs_of(loop: BMPLoop) -> dict[str, Any]:
    """The graphs of a loop's networks by names such as ``detector.boxes``."""
    found: dict[str, Any] = {}
    for role in ("detector", "pose_estimator", "segmenter"):
        engine = getattr(loop, role)
        parts = getattr(engine, "graphs", None) or {"network": getattr(engine, "graph", None)}
        found |= {f"{role}.{part}": graph for part, graph in parts.items() if graph is not None}
    return found


@contextmanager
def spans_of(loop: BMPLoop, cuda: bool) -> Iterator[list[tuple[str, Any, Any]]]:
    """Note when each graph ran, on the device's clock where there is one."""
    spans: list[tuple[str, Any, Any]] = []

    def mark() -> Any:
        if not cuda:
            return time.perf_counter() * 1e3
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def timed(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*given: Any) -> Any:
            start = mark()
            answer = run(*given)
            spans.append((name, start, mark()))
            return answer

        return measured

    graphs = graphs_of(loop)
    for name, graph in graphs.items():
        graph.run = timed(name, graph.run)
    try:
        yield spans
    finally:
        for graph in graphs.values():
            del graph.run


def device_ms(spans: list[tuple[str, Any, Any]], frames: int, cuda: bool) -> dict[str, float]:
    """Milliseconds per frame between the events around each graph: uploads, kernels, gaps."""
    total: dict[str, float] = {}
    for name, start, end in spans:
        elapsed = start.elapsed_time(end) if cuda else end - start
        total[name] = total.get(name, 0.0) + elapsed / frames
    return {name: round(value, 3) for name, value in total.items()}


def timed_schedule(
    loop: BMPLoop, schedule: Schedule, image: np.ndarray, frames: int, warm_up: int, *, cuda: bool
) -> Results:
    """Median stage times of a schedule, spans on the device, peak memory of the whole process."""
    for _ in range(warm_up):
        schedule.run(image)
    schedule.stage_ms.clear()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    with spans_of(loop, cuda) as spans:
        for _ in range(frames):
            schedule.run(image)
    if cuda:
        torch.cuda.synchronize()
    totals = [frame["total"] for frame in schedule.stage_ms]
    return {
        "median_ms": {name: round(value, 3) for name, value in schedule.medians().items()},
        "fastest_ms": round(min(totals), 3),
        "slowest_ms": round(max(totals), 3),
        "device_ms": device_ms(spans, frames, cuda),
        "people": schedule.people,
        "peak_memory_mb": round(torch.cuda.max_memory_allocated() / 2**20) if cuda else None,
    }


COUNTED = (
    "cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx",
    "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync", "cudaStreamSynchronize",
    "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMalloc", "cudaHostAlloc",
    "aten::item", "aten::nonzero", "aten::_local_scalar_dense", "aten::to", "aten::copy_",
)  # fmt: skip


def profiled(schedule: Schedule, image: np.ndarray, warm_up: int, *, cuda: bool) -> Results:
    """One frame under torch's profiler: what the device did and what was asked of it."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    for _ in range(warm_up):
        schedule.run(image)
    with profile(activities=activities) as profiler:
        schedule.run(image)
        if cuda:
            torch.cuda.synchronize()
    events = profiler.key_averages()

    def spent(event: Any) -> float:
        name = "self_device_time_total" if cuda else "self_cpu_time_total"
        return float(getattr(event, name)) / 1e3

    on_device = [e for e in events if "CUDA" in str(getattr(e, "device_type", ""))]
    top = sorted(on_device if cuda else events, key=spent, reverse=True)
    host = [e for e in events if e not in on_device]
    hosted = sorted(host, key=lambda e: e.self_cpu_time_total, reverse=True)
    copies = {
        e.key: [e.count, round(spent(e), 3)] for e in on_device
        if e.key.startswith(("Memcpy", "Memset"))
    }  # fmt: skip
    return {
        "device_busy_ms": round(sum(spent(e) for e in on_device), 3),
        "kernels": sum(e.count for e in on_device) - sum(c for c, _ in copies.values()),
        "copies": copies,
        "calls": {e.key: e.count for e in events if e.key in COUNTED},
        "top": [[e.key[:110], e.count, round(spent(e), 3)] for e in top[:15]],
        "top_host": [[e.key[:80], e.count, round(e.self_cpu_time_total / 1e3, 3)]
                     for e in hosted[:15]],
    }  # fmt: skip


def host_profile(schedule: Schedule, image: np.ndarray) -> list[Any]:
    """Where the host's time goes in one frame: function, calls, own and cumulative ms."""
    profiler = cProfile.Profile()
    profiler.enable()
    schedule.run(image)
    profiler.disable()
    stats: Any = pstats.Stats(profiler)
    rows = sorted(stats.stats.items(), key=lambda item: item[1][2], reverse=True)[:25]
    return [
        [f"{Path(file).name}:{line}:{name}", calls, round(own * 1e3, 3), round(total * 1e3, 3)]
        for (file, line, name), (_, calls, own, total, _) in rows
    ]


def matrix_rates(size: int) -> Results:
    """TFLOP/s of square products on random data: what the card does at best here."""
    rates = {}
    formats = {"fp32": (torch.float32, False), "tf32": (torch.float32, True),
               "fp16": (torch.float16, False), "bf16": (torch.bfloat16, False)}  # fmt: skip
    for name, (dtype, tf32) in formats.items():
        set_tf32(tf32)
        a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
        for _ in range(3):
            a @ b
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(8):
            a @ b
        end.record()
        torch.cuda.synchronize()
        rates[name] = round(8 * 2 * size**3 / start.elapsed_time(end) / 1e9, 1)
    set_tf32(False)
    return rates


def set_tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


def set_capture(loop: BMPLoop, capture: bool) -> None:
    """Switch the recording of CUDA graphs for all graphs of a loop."""
    for graph in graphs_of(loop).values():
        if isinstance(graph, TorchGraph):
            graph.capture = capture


def forget_captured(loop: BMPLoop) -> None:
    """CUDA graphs hold the algorithms of the time when they were recorded."""
    for graph in graphs_of(loop).values():
        graph._captured.clear()
