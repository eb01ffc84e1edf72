# SPDX-License-Identifier: Apache-2.0
"""benchmarks/gpu.py without a GPU: every variant that needs none, on small networks."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sam2", reason="the sam2 package is not installed")
pytest.importorskip("onnx", reason="onnx is not installed, which reads the tiny networks")

from bmp_ros.engines.torch_networks import is_emulated  # noqa: E402  (it imports torch)

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True,
        timeout=850, check=False, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip


@pytest.mark.skipif(
    is_emulated("bf16", "cpu"), reason="this processor has no AVX-512, bf16 takes minutes on it"
)
def test_every_variant_runs_and_is_written_down(tmp_path: Path) -> None:
    small = ("--device", "cpu", "--small", "--frames", "1", "--warm-up", "1")
    done = run(*small, "--limit-seconds", "800", "--output", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    variants = found["variants"]
    assert not [name for name, variant in variants.items() if {"error", "skipped"} & set(variant)]
    exact, half = variants["fp32, 2 people"], variants["bf16, 2 people"]
    for each in (exact["ours"], exact["published"], half["ours"]):
        assert each["people"] == 2 and each["median_ms"]["total"] > 0
        assert set(each["device_ms"]) == {
            "detector.boxes", "detector.masks", "pose_estimator.network", "segmenter.encoder",
            "segmenter.decoder",
        }  # fmt: skip
    agreement = half["agreement"]
    assert 0.9 < agreement["logit_cosine"] < 1, "bf16 is near fp32, and not the same"
    trained = variants["tiny, trained, bf16"]
    assert trained["people"][0] >= 3 and trained["compared"] >= 3
    assert trained["mask_iou"]["mean"] > 0.97 and trained["keypoint_px"]["median"] < 1
    assert variants["tiny, trained, fp32"]["mask_iou"]["mean"] == pytest.approx(1, abs=1e-3)
    assert variants["bf16, 2 people, profile"]["host"]
    gflop = variants["GFLOP per frame"]
    assert gflop["published 3"] > gflop["ours 3"] > gflop["ours 1"] > 0
    text = (tmp_path / "gpu.md").read_text()
    assert "| fp32, 2 people, ours |" in text and "## Failed\n\nnothing" in text


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_compared_with_fp32_comes_after_it(device: str) -> None:
    spec = importlib.util.spec_from_file_location("benchmark_on_a_gpu", SCRIPT)
    assert spec is not None and spec.loader is not None
    gpu = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = gpu
    path = list(sys.path)
    try:
        spec.loader.exec_module(gpu)
        bench = gpu.Bench(device, small=False, frames=1, warm_up=1)
        names = [name for name, _ in gpu.variants(bench)]
    finally:
        sys.path[:] = path
        del sys.modules[spec.name]
    seen = set()
    for name in names:
        precision, _, rest = name.partition(", ")
        people = rest.split(" people")[0]
        if precision == "fp32" and rest == f"{people} people":
            seen.add(people)
        elif precision in ("fp16", "bf16") and people.isdigit() and "profile" not in rest:
            assert people in seen, name
    assert seen == {"1", "5", "20"}
    assert device == "cpu" or names.index("fp16, 5 people, CUDA graphs") == 1


def test_a_packed_folder_runs_by_itself(tmp_path: Path) -> None:
    done = run("--pack", tmp_path / "packed")
    assert done.returncode == 0, done.stdout + done.stderr
    files = [path for path in (tmp_path / "packed").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60e6
    assert not [path for path in files if path.name.startswith(".git")], "they hide other files"
    assert (tmp_path / "packed/packages/hydra/grammar/gen").is_dir()
    # What is installed here must not be what is found: the packed packages come first.
    inside = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path.insert(0, 'benchmarks'); "
         "import gpu, bmp_ros, sam2.build_sam; "
         "print(bmp_ros.__file__, sam2.__file__, gpu.load_preset('tiny').name)"],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path / "packed",
        env={**os.environ, "PYTHONPATH": "packages"},
    )  # fmt: skip
    assert inside.returncode == 0, inside.stderr
    package, sam2, preset = inside.stdout.split()
    assert Path(package).is_relative_to(tmp_path / "packed/bmp_ros") and preset == "tiny"
    assert "packages/sam2" in sam2
    again = run("--pack", tmp_path / "packed")
    assert again.returncode != 0 and "is not empty" in again.stderr


def test_no_gpu_is_said_at_once_and_a_limit_begins_nothing(tmp_path: Path) -> None:
    refused = run("--output", tmp_path)
    assert refused.returncode == 2 and "sees no CUDA device" in refused.stdout
    late = run("--device", "cpu", "--small", "--limit-seconds", "1", "--output", tmp_path)
    assert late.returncode == 0, late.stdout + late.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())["variants"]
    assert found and all("limit of 1 s" in variant["skipped"] for variant in found.values())
