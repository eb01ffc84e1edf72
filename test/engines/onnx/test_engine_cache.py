# SPDX-License-Identifier: Apache-2.0
"""What TensorRT is told, without TensorRT: shapes of every dynamic input, formats, cache keys."""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from bmp_ros.engines.onnx import engine_cache, graph  # noqa: E402
from bmp_ros.engines.onnx.card import KINDS, largest_canvas, part_path  # noqa: E402
from bmp_ros.engines.onnx.engine_cache import (  # noqa: E402
    any_name,
    cache_options,
    file_hash,
    profile_options,
    tensorrt_version,
)
from bmp_ros.engines.onnx.graph import Graph  # noqa: E402
from bmp_ros.engines.onnx.target import Target  # noqa: E402
from bmp_ros.resources import resource_root  # noqa: E402

TINY = resource_root() / "models" / "tiny"
FILES = sorted(TINY.glob("*.onnx"))


def shapes(options: dict[str, str], which: str) -> dict[str, list[int]]:
    """What is in ``name:1x3x4,other:2`` of one of the three options."""
    parts = options[f"trt_profile_{which}_shapes"].split(",")
    named = (part.rsplit(":", 1) for part in parts)
    return {name: [int(length) for length in lengths.split("x")] for name, lengths in named}


def test_a_profile_by_example() -> None:
    inputs = {"crops": ("people", 3, 256, 192), "image": (1, 3, "height", "width"), "fixed": (4,)}
    assert profile_options(inputs, 640) == {
        "trt_profile_min_shapes": "crops:1x3x256x192,image:1x3x32x32",
        "trt_profile_opt_shapes": "crops:8x3x256x192,image:1x3x640x640",
        "trt_profile_max_shapes": "crops:32x3x256x192,image:1x3x640x640",
    }
    assert profile_options({"canvas": (1, 3, 640, 640)}, 640) == {}
    with pytest.raises(ValueError, match="input x has the axis 'frames', and no range is known"):
        profile_options({"x": ("frames",)}, 640)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_dynamic_input_of_the_packaged_networks_has_a_range(file: Path) -> None:
    loaded = Graph(file, Target())
    inputs = {value.name: value.shape for value in loaded._session.get_inputs()}
    options = profile_options(inputs, largest_canvas(loaded.card.facts))
    dynamic = {name: shape for name, shape in inputs.items() if any_name(shape)}
    if not dynamic:
        assert not options
        return
    least, usual, most = (shapes(options, which) for which in ("min", "opt", "max"))
    assert least.keys() == usual.keys() == most.keys() == dynamic.keys()
    for name, shape in dynamic.items():
        for axis, low, middle, high in zip(
            shape, least[name], usual[name], most[name], strict=True
        ):
            assert 1 <= low <= middle <= high and (isinstance(axis, str) or low == high == axis)


def test_the_cache_of_another_gpu_version_or_graph_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_cache, "tensorrt_version", lambda: "11.4.1")
    monkeypatch.setattr(engine_cache, "gpu_name", lambda index: f"NVIDIA-H100-{index}-sm90")
    one, other = tmp_path / "a.onnx", tmp_path / "b" / "a.onnx"
    other.parent.mkdir()
    one.write_bytes(b"one")
    other.write_bytes(b"other")
    options, folder = cache_options(one, tmp_path / "trt", 0)
    assert folder == tmp_path / f"trt/tensorrt-11.4.1-NVIDIA-H100-0-sm90/a-{file_hash(one)}"
    assert options["trt_engine_cache_path"] == str(folder)
    assert options["trt_timing_cache_path"] == str(folder.parent)
    assert options["trt_engine_cache_enable"] and options["trt_timing_cache_enable"]
    folders = {folder, cache_options(other, tmp_path / "trt", 0)[1]}
    folders.add(cache_options(one, tmp_path / "trt", 1)[1])
    monkeypatch.setattr(engine_cache, "tensorrt_version", lambda: "10.16.2")
    folders.add(cache_options(one, tmp_path / "trt", 0)[1])
    assert len(folders) == 4


@pytest.mark.parametrize(
    ("number", "version"), [(8601, "8.6.1"), (101602, "10.16.2"), (110401, "11.4.1")]
)
def test_version_of_tensorrt(number: int, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def getInferLibVersion(self) -> int:  # noqa: N802  (its name in TensorRT)
            return number

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    assert tensorrt_version() == version


def test_without_tensorrt_its_version_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert tensorrt_version() == "unknown" and engine_cache.gpu_name(0) == "unknown"


@pytest.mark.parametrize(
    ("version", "half", "wanted"), [("11.4.1", False, False), ("10.16.2", True, True)]
)
def test_options_of_a_file(
    version: str, half: bool, wanted: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("BMP_MODELS", str(tmp_path))
    monkeypatch.setattr(graph, "tensorrt_version", lambda: version)
    target = Target("cuda:0", tensorrt=True, half_precision=half)
    with caplog.at_level(logging.INFO):
        options = graph._tensorrt_options(TINY / "pose_estimator.onnx", target)
    assert options.get("trt_fp16_enable", False) == wanted
    assert options["trt_profile_max_shapes"] == "crops:32x3x192x144"
    assert Path(options["trt_engine_cache_path"]).is_dir()
    assert "builds its engine of pose_estimator.onnx" in caplog.text


def test_fp16_of_an_fp32_graph_is_refused_by_a_tensorrt_without_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMP_MODELS", str(tmp_path))
    monkeypatch.setattr(graph, "tensorrt_version", lambda: "11.4.1")
    with pytest.raises(ValueError, match="TensorRT 11.4.1 does what a graph says.*fp16"):
        graph._tensorrt_options(
            TINY / "detector.onnx", Target("cuda:0", tensorrt=True, half_precision=True)
        )


@pytest.mark.parametrize("people", [1, 3, 5, 11])
def test_padded_people_change_no_answer(people: int) -> None:
    plain, padded = (Graph(TINY / "pose_estimator.onnx", Target()) for _ in range(2))
    padded.padded = True
    seen: list[int] = []
    run = padded._run
    padded._run = lambda given, keep: seen.append(len(given["crops"])) or run(given, keep)  # type: ignore
    crops = np.random.default_rng(people).normal(size=(people, 3, 192, 144)).astype(np.float32)
    found, wanted = padded.run({"crops": crops}), plain.run({"crops": crops})
    assert set(seen) <= set(engine_cache.SIZES) and sum(seen) >= people
    np.testing.assert_allclose(found["heatmaps"], wanted["heatmaps"], atol=1e-5)


def test_what_is_not_of_people_passes_padding(tmp_path: Path) -> None:
    """The graph of masks answers prototypes of the image, and kernels of people."""
    first = TINY / "detector.onnx"
    boxes = Graph(first, Target())
    (_, _, height, width) = boxes._session.get_inputs()[0].shape
    canvas = np.random.default_rng(0).normal(size=(1, 3, height, width)).astype(np.float32)
    features = boxes.run({"canvas": canvas}, ("features_8", "features_16", "features_32"))
    kept = {name: value for name, value in features.items() if name.startswith("features")}
    path = part_path(first, "rtmdet_ins", KINDS["rtmdet_ins"].parts[1])
    plain, padded = Graph(path, Target()), Graph(path, Target())
    padded.padded = True
    locations = np.array([5, 900, 33, 7, 1200], np.int64)
    found, wanted = (each.run({**kept, "locations": locations}) for each in (padded, plain))
    assert found.keys() == wanted.keys() and len(found["kernels"]) == 5
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-4)
