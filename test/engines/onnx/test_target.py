# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from bmp_ros.engines.onnx import target
from bmp_ros.engines.onnx.target import (
    LARGE_FILE,
    Target,
    available_threads,
    onnx_device,
    providers,
    session_options,
)

CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Says what onnxruntime was built with and how many GPUs the driver sees."""

    def describe(available: list[str], gpus: int) -> None:
        monkeypatch.setattr(target, "_available_providers", lambda: available)
        monkeypatch.setattr(target, "cuda_devices", lambda: gpus)

    return describe


@pytest.mark.parametrize(
    ("available", "gpus", "asked", "found"),
    [
        ([CPU], 0, "auto", "cpu"),
        ([CUDA, CPU], 0, "auto", "cpu"),  # built with CUDA, on a machine without
        ([CPU], 1, "auto", "cpu"),
        ([CUDA, CPU], 1, "auto", "cuda:0"),
        ([CUDA, CPU], 1, "cpu", "cpu"),
        ([CUDA, CPU], 1, "cuda", "cuda:0"),
        ([CUDA, CPU], 3, "cuda:2", "cuda:2"),
    ],
)
def test_device(machine, available: list[str], gpus: int, asked: str, found: str) -> None:
    machine(available, gpus)
    assert onnx_device(asked) == found


@pytest.mark.parametrize(
    ("available", "gpus", "asked", "message"),
    [
        ([CPU], 1, "cuda", "'cuda': this onnxruntime has no CUDA, only CPU.*onnxruntime-gpu"),
        ([CUDA, CPU], 0, "cuda", "'cuda' is not there: the CUDA driver sees 0 devices"),
        ([CUDA, CPU], 2, "cuda:2", "'cuda:2' is not there.*sees 2 devices"),
        ([CUDA, CPU], 2, "cuda:x", "'cuda:x' is unknown; use auto, cpu, cuda or cuda:N"),
    ],
)
def test_device_that_cannot_be_had(
    machine, available: list[str], gpus: int, asked: str, message: str
) -> None:
    machine(available, gpus)
    with pytest.raises(ValueError, match=message):
        onnx_device(asked)


def test_providers_in_order(machine) -> None:
    machine([TENSORRT, CUDA, CPU], 2)
    assert [name for name, _ in providers(Target("cpu"))] == [CPU]
    on_gpu = providers(Target("cuda:1"))
    assert [name for name, _ in on_gpu] == [CUDA, CPU] and on_gpu[0][1]["device_id"] == 1
    compiled = providers(Target("cuda:1", tensorrt=True), {"trt_timing_cache_enable": True})
    assert [name for name, _ in compiled] == [TENSORRT, CUDA, CPU]
    assert compiled[0][1] == {"device_id": 1, "trt_timing_cache_enable": True}


def test_tensorrt_that_cannot_be_had(machine) -> None:
    machine([CUDA, CPU], 1)
    with pytest.raises(ValueError, match="no TensorRT, only CUDA.*CPU"):
        providers(Target("cuda:0", tensorrt=True))
    with pytest.raises(ValueError, match="needs a GPU, the device is cpu"):
        providers(Target("cpu", tensorrt=True))


def test_threads(tmp_path: Path) -> None:
    assert 1 <= available_threads() <= (os.cpu_count() or 1)
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"small")
    assert session_options(Target(), path).intra_op_num_threads == available_threads()
    options = session_options(Target(threads=3), path)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.enable_cpu_mem_arena


def test_large_graphs_keep_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    with path.open("wb") as file:
        file.truncate(LARGE_FILE)
    assert not session_options(Target(), path).enable_cpu_mem_arena
