# SPDX-License-Identifier: Apache-2.0
"""``bmp models import``: a file is read, has to be what its name says, and is put in place."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))

from golden_yolov5 import DATA  # noqa: E402

import bmp_ros.cli.models  # noqa: E402
from bmp_ros.cli.main import main  # noqa: E402
from bmp_ros.engines import yolov5  # noqa: E402
from bmp_ros.weights.checkpoint import load_state_dict  # noqa: E402
from bmp_ros.weights.zoo import load_zoo  # noqa: E402


def entry(name: str, licence: str = "GPL-3.0", **more: Any) -> dict[str, Any]:
    return {
        "role": "detector", "network": f"network {name}", "licence": licence,
        "manual": {"page": "https://example.org/drive", "name": f"{name}.pt"},
        "engine": {"engine": "yolov5"},
    } | more  # fmt: skip


ZOO = {
    "yolov5n-crowdhuman": entry("yolov5n-crowdhuman"),
    "yolov5s-crowdhuman": entry("yolov5s-crowdhuman", "Apache-2.0"),
    "rtmdet-ins-tiny-coco": entry("rtmdet", engine={"engine": "rtmdet_ins"}),
    "nothing-known": entry("unknown", engine=None),
}


@pytest.fixture(scope="module")
def nano() -> dict[str, Any]:
    torch.manual_seed(0)
    assert yolov5.ENGINE.random_weights is not None
    found = yolov5.ENGINE.random_weights(yolov5.YOLOv5Options("yolov5n-crowdhuman"))
    return {name: value.half() for name, value in found.items()}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder; the zoo is the one above."""
    catalogue = tmp_path / "zoo.yaml"
    catalogue.write_text(yaml.safe_dump({"weights": ZOO}))
    monkeypatch.setattr(bmp_ros.cli.models, "load_zoo", lambda: load_zoo(catalogue))
    monkeypatch.setattr(sys, "stdin", open(os.devnull))
    monkeypatch.setenv("BMP_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


GPL = ("--accept-licence", "GPL-3.0")


def bring(*arguments: str | Path) -> int:
    return main(["models", "import", *map(str, arguments)])


def test_file_is_recognised_put_in_place_and_pinned(
    models: Path, nano: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "download (1).pt"
    torch.save({"state_dict": nano}, file)
    assert bring(file, *GPL) == 0
    printed = capsys.readouterr()
    target = models / "yolov5n-crowdhuman.pt"
    tensors = len(nano)
    assert f"yolov5n-crowdhuman (yolov5, {tensors} tensors, 1.8 M parameters)" in printed.out
    assert "licence GPL-3.0 (using these weights puts GPL-3.0 terms" in printed.out
    assert printed.out.endswith(f"yolov5n-crowdhuman: {target}\n") and printed.err == ""
    assert target.read_bytes() == file.read_bytes()
    pin = json.loads((models / "pinned.json").read_text())["yolov5n-crowdhuman"]
    assert pin["file"] == target.name and len(pin["sha256"]) == 64
    assert sorted(path.name for path in models.iterdir() if path.name[0] != ".") == [
        "pinned.json", target.name
    ]  # fmt: skip
    # Once more, from where it lies now.
    assert bring(target, *GPL) == 0
    # Other bytes than those of before need a word.
    torch.save({"state_dict": nano, "epoch": 1}, file)
    assert bring(file, *GPL) == 1
    assert "the pin of an earlier file says" in capsys.readouterr().err
    assert bring(file, *GPL, "--repin") == 0
    assert target.read_bytes() == file.read_bytes()
    assert len(load_state_dict(target)) == tensors


def test_licence_has_to_be_accepted(
    models: Path, nano: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "yolov5n-crowdhuman.pt"
    torch.save(nano, file)
    assert bring(file) == 1
    error = capsys.readouterr().err
    assert "GPL-3.0, the licence of yolov5n-crowdhuman, was not accepted" in error
    assert "nothing was imported" in error and not (models / file.name).exists()


def foreign(tmp_path: Path, nano: dict) -> dict[str, Path]:
    mark = tmp_path / "mark"

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {mark}",)

    files = {name: tmp_path / f"{name}.pt" for name in ("other", "evil", "damaged", "html")}
    torch.save({"layer.weight": torch.zeros(3, 3)}, files["other"])
    torch.save({"model": Evil()}, files["evil"])
    torch.save(nano, files["damaged"])
    content = files["damaged"].read_bytes()
    files["damaged"].write_bytes(content[: len(content) // 2])
    files["html"].write_text("<!DOCTYPE html><title>Google Drive - Virus scan warning</title>")
    return files


@pytest.mark.parametrize("named", [False, True], ids=["by layout", "by name"])
def test_foreign_damaged_and_hostile_files(
    models: Path, nano: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str], named: bool
) -> None:
    name = ("--name", "yolov5n-crowdhuman") if named else ()
    found = {}
    for kind, file in foreign(tmp_path, nano).items():
        assert bring(file, *name, *GPL) == 1
        found[kind] = capsys.readouterr().err
        assert found[kind].startswith("bmp models import: ") and "Traceback" not in found[kind]
    other = "is not yolov5n-crowdhuman" if named else "is none of the networks"
    assert other in found["other"]
    assert "system, which could run code" in found["evil"]
    assert not (tmp_path / "mark").exists()
    assert "cut short" in found["damaged"] and "is not a checkpoint" in found["html"]
    assert not models.exists() or not list(models.glob("*.pt"))


def test_another_size_than_the_name_says(
    models: Path, nano: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file.pt"
    torch.save(nano, file)
    assert bring(file, "--name", "yolov5s-crowdhuman") == 1
    assert "but yolov5 of another size (yolov5, " in capsys.readouterr().err
    assert bring(DATA / "yolov5_tiny_checkpoint_fixture.pt") == 1
    assert "is none of the networks" in capsys.readouterr().err


def test_names_and_paths_that_are_not_there(
    models: Path, nano: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file.pt"
    torch.save(nano, file)
    for arguments, message in (
        ((tmp_path / "gone.pt",), "there is no file"),
        ((file, "--name", "yolov5n"), "or yolov5n-crowdhuman? `bmp models list`"),
        ((file, "--name", "nothing-known"), "names no engine"),
    ):
        assert bring(*arguments) == 1
        assert message in capsys.readouterr().err
