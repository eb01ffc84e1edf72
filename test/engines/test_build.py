# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from bmp_ros.engines import build
from bmp_ros.engines.build import build_loop, locate_weights
from bmp_ros.engines.presets import load_preset
from bmp_ros.weights.errors import WeightsMissing


def test_everything_that_is_missing_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMP_MODELS", str(tmp_path))
    preset = load_preset("bmp_d3", {"detector": {"weights": "own/detector.pth"}})
    with pytest.raises(WeightsMissing) as caught:
        locate_weights(preset)
    said = str(caught.value)
    assert said.startswith("preset bmp_d3 needs weights that are not here: ")
    assert "own/detector.pth: check the path; " in said
    assert (
        "fetch maskpose-b-1.0.0, sam2.1-hiera-base-plus with `bmp models download bmp_d3`" in said
    )
    assert str(tmp_path) in said


def test_libraries_that_are_missing_beside_the_weights_are_named_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMP_MODELS", str(tmp_path))
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.raises(
        WeightsMissing, match=r"download bmp_apache.*Also not installed: (.*)"
    ) as e:
        build_loop("bmp_apache")
    ending = str(e.value).rpartition("Also not installed: ")[2]
    assert ending == "PyTorch (`pip install -r requirements/torch.txt`), sam2 (Apache-2.0)"
    with pytest.raises(WeightsMissing, match="Also not installed: .*mmpose"):
        build_loop("td_simcc")
    with pytest.raises(WeightsMissing, match="check the path$"):
        build_loop("tiny", detector={"weights": "gone.onnx"})
    monkeypatch.setattr(build, "find_spec", lambda name: object())
    with pytest.raises(WeightsMissing) as e:
        build_loop("bmp_apache")
    assert "not installed" not in str(e.value)


def test_one_file_that_is_missing(tmp_path: Path) -> None:
    preset = load_preset("tiny", {"detector": {"weights": str(tmp_path / "detector.onnx")}})
    with pytest.raises(WeightsMissing, match=r"detector\.onnx: check the path"):
        locate_weights(preset)
