# SPDX-License-Identifier: Apache-2.0
"""`bmp bench`: what it refuses; test/test_tiny_preset.py runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bmp_ros.cli.main import main
from bmp_ros.resources import find_preset


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "720p"], "--size is '720p', needs WIDTHxHEIGHT in pixels"),
        (["--later", "5"], "needs 0 <= later < people"),
        (["--threads", "-2"], "--threads is -2, needs at least 1"),
        (["--preset", "tiny", "--later", "5"], "needs 0 <= later < people"),
        (["--onnxruntime"], "--onnxruntime is for --random-weights; with weights: `bmp export`"),
        (["--published-fp32"], "--published-fp32 is for --random-weights"),
        (["--random-weights", "--int8"], "--int8 is for --random-weights --onnxruntime"),
        (
            ["--random-weights", "--onnxruntime", "--precision", "bf16"],
            "--onnxruntime goes without --compile and --precision",
        ),
        (["--canvas", "wide"], "--canvas is 'wide', needs a side in pixels or WIDTHxHEIGHT"),
        (["--threads", "0"], "--threads is 0, needs at least 1"),
        (
            ["--preset", "tiny", "--compile"],
            "engine onnx (detector) runs in fp32 or fp16 without compilation",
        ),
    ],
)
def test_failures_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert main(["bench", *arguments, "--json", str(report)]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and not report.exists()
    assert printed.err.startswith("bmp bench: ") and message in printed.err


CROP = {"pose_estimator": {"input_size": [96, 128]}}
IMAGE = {"segmenter": {"image_size": 256}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "smaller", "words"),
    [
        (["edge"], {}, ["fp32", "torch", "canvas of the detector 416x320"]),
        (["edge", "--onnxruntime"], {}, ["fp32", "onnxruntime", "416x320"]),
        (
            ["edge", "--onnxruntime", "--int8", "--canvas", "192", "--published-fp32"], {},
            ["int8", "192x192", "exclusive", "published order of work in PyTorch, fp32", "torch"],
        ),
        (
            ["bmp_light", "--people", "2", "--canvas", "192"], IMAGE,
            ["segment", "prompts", "2 people"],
        ),
        (["td_posehrnet_w48", "--canvas", "160"], CROP, ["pose", "160x160"]),
        (["td_simdr_w48", "--canvas", "160"], CROP, ["pose"]),
        (["td_omnipose", "--canvas", "160"], CROP, ["pose"]),
        (["td_crowdhuman", "--canvas", "256x192"], CROP, ["pose", "256x192"]),
    ],
)  # fmt: skip
def test_presets_of_the_field_are_timed_with_random_weights(
    arguments: list[str], smaller: dict[str, dict[str, Any]], words: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Networks of their full size, from one command; few people on small canvases and in small
    crops, which a copy of the preset asks for, for the time it takes."""
    pytest.importorskip("torch", reason="torch is not installed")
    name, *options = arguments
    preset = tmp_path / f"{name}.yaml" if smaller else name
    if smaller:
        sections = yaml.safe_load(find_preset(name).read_text())
        Path(preset).write_text(
            yaml.safe_dump(sections | {role: sections[role] | smaller[role] for role in smaller})
        )
    small = ["--people", "1", "--size", "320x240", "--frames", "1"]
    assert main(["bench", "--random-weights", *small, "--preset", str(preset), *options]) == 0
    printed = capsys.readouterr().out
    assert f"{preset} (untrained)" in printed and "320x240, " in printed
    for word in words:
        assert word in printed
