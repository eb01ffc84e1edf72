# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="exports come from torch")
pytest.importorskip("onnx", reason="writing ONNX files needs onnx")

from bmp_ros.cli.main import main  # noqa: E402
from bmp_ros.engines import build_loop  # noqa: E402
from bmp_ros.engines.export import check  # noqa: E402
from bmp_ros.engines.export.int8 import Calibration  # noqa: E402
from bmp_ros.engines.export.preset import export_preset  # noqa: E402
from bmp_ros.engines.presets import load_preset  # noqa: E402
from bmp_ros.resources import tiny_network  # noqa: E402
from bmp_ros.weights.errors import WeightsMissing  # noqa: E402

FILES = [
    "detector.masks.onnx", "detector.onnx", "pose_estimator.onnx", "random.yaml",
    "segmenter.decoder.onnx", "segmenter.onnx",
]  # fmt: skip


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_command(native: Path, exported: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "a" / "b"
    assert main(["export", str(native), "--output", str(output)]) == 0
    assert listed(output) == FILES
    printed = capsys.readouterr().out
    assert re.search(r"segmenter.decoder.onnx +0\.\d\d  logits (1\.0|0\.999)\d+, scores", printed)
    for name in FILES:
        if name.endswith(".onnx"):
            assert name in printed
            half, full = (output / name).stat().st_size, (exported.parent / name).stat().st_size
            assert half < 0.8 * full, f"{name} is stored in fp16"


def test_the_preset_says_what_the_native_one_said(native: Path, exported: Path) -> None:
    before, after = load_preset(native), load_preset(exported)
    assert after.loop == before.loop and after.description.startswith("Random networks.")
    assert after.detector.settings.nms_iou == 0.5
    assert after.pose_estimator.settings.flip_test is True
    assert after.segmenter is not None and after.segmenter.settings.max_sprinkle_area == 0
    for choice in (after.detector, after.pose_estimator, after.segmenter):
        assert choice.engine == "onnx" and "/" not in choice.settings.weights


def test_a_refused_export_leaves_nothing(
    native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(check, "LEAST_COSINE", 1.1)
    output = tmp_path / "out"
    assert main(["export", str(native), "--output", str(output)]) == 1
    said = capsys.readouterr().err
    assert "detector.onnx: output 'boxes'" in said and "cosine similarity 1.0" in said
    assert listed(output) == []


def test_a_refused_export_keeps_what_was_there(
    native: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Path(shutil.copytree(exported.parent, tmp_path / "out"))
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    monkeypatch.setattr(check, "LEAST_COSINE", 1.1)
    with pytest.raises(check.ExportRefused):
        export_preset(load_preset(native), output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_a_folder_of_another_preset(native: Path, tmp_path: Path) -> None:
    (tmp_path / "._other.yaml").write_bytes(b"of macOS")
    with pytest.raises(WeightsMissing):  # the hidden file is no preset
        export_preset(load_preset(native, {"detector": {"weights": "nowhere.pth"}}), tmp_path)
    (tmp_path / "other.yaml").write_text("description: x")
    with pytest.raises(ValueError, match="holds other.yaml.*folder of its own"):
        export_preset(load_preset(native), tmp_path)


def test_the_preset_itself_is_not_overwritten(native: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(native.parent, tmp_path / "mine")) / native.name
    before = {path.name: path.read_bytes() for path in mine.parent.iterdir()}
    with pytest.raises(ValueError, match=f"holds {mine.name} of the preset that is exported"):
        export_preset(load_preset(mine), tmp_path / "mine" / ".." / "mine")
    assert {path.name: path.read_bytes() for path in mine.parent.iterdir()} == before


def test_networks_are_not_quantised_in_place(exported: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(exported.parent, tmp_path / "mine"))
    content = yaml.safe_load((mine / exported.name).read_text())
    (mine / exported.name).unlink()
    for role in ("detector", "pose_estimator", "segmenter"):
        content[role]["weights"] = str(mine / content[role]["weights"])
    preset = tmp_path / exported.name
    preset.write_text(yaml.safe_dump(content))
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="holds detector.onnx of the preset that is exported"):
        export_preset(
            load_preset(preset), mine, precision="int8", calibration=Calibration(tmp_path)
        )


def test_an_engine_without_export(native: Path, tmp_path: Path) -> None:
    section = {"engine": "mmdet", "config": "x", "weights": "y"}
    content = {**yaml.safe_load(native.read_text()), "detector": section}
    path = tmp_path / "preset.yaml"
    path.write_text(yaml.safe_dump(content))
    preset = load_preset(path)
    with pytest.raises(ValueError, match="detector has engine 'mmdet'.*rtmdet_ins.*vit_pose"):
        export_preset(preset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_networks_that_are_exported_already_are_taken_as_they_are(
    native: Path, tmp_path: Path
) -> None:
    """As of a preset in which one network was trained anew and the others came exported."""
    content = yaml.safe_load(native.read_text())
    for role in ("detector", "segmenter"):
        content[role] = {"engine": "onnx", "weights": f"tiny/{role}"}
    pose = content["pose_estimator"]
    pose["weights"] = str(native.parent / pose["weights"])
    path = tmp_path / "preset.yaml"
    path.write_text(yaml.safe_dump(content))
    files = export_preset(load_preset(path), tmp_path / "out")
    tiny = tiny_network("detector").parent
    names = {file.path.name for file in files}
    assert "pose_estimator.onnx" in names and len(names) == 5
    for name in names - {"pose_estimator.onnx"}:
        assert (tmp_path / "out" / name).read_bytes() == (tiny / name).read_bytes()
    image = np.full((96, 128, 3), 90, np.uint8)
    build_loop(tmp_path / "out" / "preset.yaml", "cpu", iterations=1)(image)
    with pytest.raises(ValueError, match="preset tiny: its networks are ONNX files already; use"):
        export_preset(load_preset("tiny"), tmp_path / "again")


def test_weights_that_are_missing(native: Path, tmp_path: Path) -> None:
    preset = load_preset(native, {"detector": {"weights": "nowhere.pth"}})
    with pytest.raises(WeightsMissing, match="nowhere.pth"):
        export_preset(preset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_precision(native: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="precision is 'int4', allowed: fp16-weights, fp32, fp16"):
        export_preset(load_preset(native), tmp_path, precision="int4")
