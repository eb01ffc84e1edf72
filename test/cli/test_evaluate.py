# SPDX-License-Identifier: Apache-2.0
"""``bmp evaluate``: what it prints, writes and refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("pycocotools", reason="pycocotools is not installed")

for folder in ("evaluation", "loop"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

from numbered import NumberedDataset, numbered_loop, write_folder  # noqa: E402
from scripted import Actor  # noqa: E402

import bmp_ros.cli.evaluate  # noqa: E402
import bmp_ros.engines  # noqa: E402
from bmp_ros.cli.main import main  # noqa: E402

LEFT = Actor((10, 10, 60, 110), score=0.9)
RIGHT = Actor((120, 10, 180, 110), score=0.8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dataset = NumberedDataset({1: [LEFT, RIGHT], 2: [LEFT]})
    folder = tmp_path / "Räume"
    document = write_folder(folder, dataset)
    (folder / "annotations.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """A loop that knows the folder in place of one with networks; what it was asked for."""
    asked: list[tuple] = []

    def build_loop(preset: str, device: str, **options: object) -> object:
        asked.append((preset, device, options))
        return numbered_loop({1: [[LEFT], [RIGHT]], 2: [[LEFT]]})

    monkeypatch.setattr(bmp_ros.engines, "build_loop", build_loop)
    monkeypatch.setattr(bmp_ros.cli.evaluate, "seen_by_preset", lambda preset: frozenset({4711}))
    return asked


def test_tables_and_json(
    folder: Path, built: list[tuple], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "scores.json"
    code = main(
        ["evaluate", "--dataset", str(folder), "--preset", "mine.yaml", "--device", "cpu",
         "--iterations", "1,2", "--box-nms", "0.3,0.6", "--json", str(file)]
    )  # fmt: skip
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    assert built == [("mine.yaml", "cpu", {"precision": "fp32"})]
    assert "preset mine.yaml, device cpu, fp32; " in printed.out
    assert printed.out.count("keypoints ") == 4
    document = json.loads(file.read_text())
    assert document["preset"] == "mine.yaml" and document["images"] == 2
    reached = [
        (row["iterations"], row["box_nms_iou"], row["results"]["boxes"]["ar"])
        for row in document["settings"]
    ]
    assert reached == [
        (1, 0.3, pytest.approx(2 / 3)), (1, 0.6, pytest.approx(2 / 3)), (2, 0.3, 1), (2, 0.6, 1),
    ]  # fmt: skip
    assert document["machine"]["processor"] in printed.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--iterations", "1;2"], "--iterations is '1;2', needs whole numbers with commas"),
        (["--box-nms", "many"], "--box-nms is 'many', needs numbers with commas between"),
        (["--iterations", "9"], "iterations is 9, allowed: a whole number from 1 to 5"),
        (["--count", "0"], "count is 0, must be at least 1"),
        (["--annotations", "nowhere.json"], "nowhere.json"),
        (["--dataset", "nothing"], "'nothing' is neither easy, "),
    ],
)
def test_failures_are_one_line(
    folder: Path,
    built: list[tuple],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert main(["evaluate", "--dataset", str(folder), *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("bmp evaluate: ") and printed.err.count("\n") == 1
    assert message in printed.err


def test_counts_of_nothing_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A negative one would leave the last people out without a word."""
    for count in ("0", "-1"):
        assert main(["evaluate", "--mpii", str(tmp_path), "--count", count]) == 1
        assert f"--count is {count}, must be at least 1" in capsys.readouterr().err


def test_unknown_presets_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--dataset", str(folder), "--preset", "bmp_d33"]) == 1
    error = capsys.readouterr().err
    assert "no preset is called 'bmp_d33'; did you mean bmp_d3? There are auto, " in error
