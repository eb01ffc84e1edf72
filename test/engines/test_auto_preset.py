# SPDX-License-Identifier: Apache-2.0
"""Preset ``auto``: which preset it stands for, why, and what it says would give more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bmp_ros.engines import auto_preset, build_loop
from bmp_ros.engines.auto_preset import FULL, SMALL, choose_preset
from bmp_ros.engines.presets import load_preset
from bmp_ros.resources import find_preset
from bmp_ros.weights.zoo import load_zoo

ROOT = Path(__file__).resolve().parents[2]
DOWNLOAD = f"bmp models download {FULL} --accept-licence GPL-3.0"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("BMP_MODELS", str(folder))
    return folder


@pytest.fixture
def machine(models: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine on which `FULL` can run; arguments take away what it has."""

    def set_up(*, gpus: int = 1, lacks: tuple[str, ...] = (), torch: str | None = None) -> None:
        monkeypatch.setattr(auto_preset, "cuda_devices", lambda: gpus)
        monkeypatch.setattr(auto_preset, "_installed", lambda package: package not in lacks)
        monkeypatch.setattr(auto_preset, "_why_torch_sees_no_gpu", lambda: torch)
        for weights in load_zoo().for_preset(FULL):
            if weights.name not in lacks:
                (models / weights.file_name).write_bytes(b"x")

    return set_up


def test_everything_there_is_the_full_preset(machine) -> None:
    machine()
    choice = choose_preset()
    assert choice.preset == FULL and choice.more == ""
    assert load_preset("auto").name == FULL


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda:0"])
def test_no_gpu_is_the_small_preset_and_advises_no_installation(machine, device: str) -> None:
    machine(gpus=0, lacks=("torch", "sam2"))
    choice = choose_preset(device)
    assert choice.preset == SMALL
    assert ("device is cpu" if device == "cpu" else "no CUDA GPU") in choice.reason
    assert f"name the preset {FULL}" in choice.more and "seconds per frame" in choice.more
    assert "install" not in choice.more and "download" not in choice.more, "weights are here"


def test_a_cpu_that_is_asked_for_counts_more_than_a_gpu(machine) -> None:
    machine()
    assert choose_preset("cpu").preset == SMALL
    assert choose_preset("cuda:0").preset == FULL


@pytest.mark.parametrize(
    ("lacks", "words"),
    [
        (("maskpose-b-1.0.0",), ["maskpose-b-1.0.0", DOWNLOAD]),
        (("sam2.1-hiera-base-plus",), ["sam2.1-hiera-base-plus", f"download {FULL}`"]),
        (("torch",), ["PyTorch is not installed", "pip install torch"]),
        (("sam2",), ["not installed (sam2)", "sam2==1.1.0"]),
        (("hydra",), ["not installed (hydra)", "pip install hydra-core"]),
        (("torch", "rtmdet-ins-l-mask"), ["PyTorch", "rtmdet-ins-l-mask", DOWNLOAD]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_missing_is_named_with_its_remedy(machine, lacks, words: list[str]) -> None:
    machine(lacks=lacks)
    choice = choose_preset()
    assert choice.preset == SMALL
    for word in words:
        assert word in str(choice), word
    assert load_preset("auto").name == SMALL


def test_a_torch_that_cannot_use_the_gpu_is_named(machine) -> None:
    machine(torch="PyTorch 2.7.1 (a build without CUDA) cannot use the GPU")
    choice = choose_preset()
    assert choice.preset == SMALL
    assert "without CUDA" in choice.reason and "PyTorch" in choice.more


def test_why_this_torch_sees_no_gpu() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    reason = auto_preset._why_torch_sees_no_gpu()
    if torch.cuda.is_available():
        assert reason is None
    else:
        assert reason is not None and torch.__version__ in reason


def test_a_broken_torch_is_a_reason_and_no_error(machine, tmp_path: Path) -> None:
    broken = tmp_path / "torch"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise OSError('libcudart.so: cannot open')")
    code = "from bmp_ros.engines.auto_preset import _why_torch_sees_no_gpu as w; print(w())"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "libcudart.so" in done.stdout


def test_build_loop_takes_auto(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    with caplog.at_level("INFO"):
        loop = build_loop("auto", device="cpu", iterations=1)
    small = load_preset(SMALL).loop
    assert loop.settings.oks_threshold == small.oks_threshold and loop.settings.iterations == 1
    assert "preset auto: tiny, because device is cpu" in caplog.text


def test_no_preset_file_is_called_auto() -> None:
    with pytest.raises(FileNotFoundError, match="auto"):
        find_preset("auto")


COUNT = "from bmp_ros.engines.auto_preset import cuda_devices; print(cuda_devices())"


@pytest.mark.parametrize(("status", "count"), [(0, 2), (100, 0)], ids=["two GPUs", "CUDA error"])
def test_gpus_are_counted_by_the_driver(tmp_path: Path, status: int, count: int) -> None:
    """A stand-in for the driver's library, compiled and loaded as the true one is."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source = tmp_path / "driver.c"
    source.write_text(
        f"int cuInit(unsigned flags) {{ return flags ? 1 : {status}; }}\n"
        "int cuDeviceGetCount(int *count) { *count = 2; return 0; }\n"
    )
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", source], check=True
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("LD_LIBRARY_PATH", "")]))
    assert _counted({"LD_LIBRARY_PATH": path}) == count


def test_no_gpu_is_visible_when_all_are_hidden() -> None:
    assert _counted({"CUDA_VISIBLE_DEVICES": ""}) == 0


def _counted(changes: dict[str, str]) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env=environment, check=True, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    return int(done.stdout)
