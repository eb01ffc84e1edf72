# SPDX-License-Identifier: Apache-2.0
"""`bmp bench`: what it refuses; test/test_tiny_preset.py runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmp_ros.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "720p"], "--size is '720p', needs WIDTHxHEIGHT in pixels"),
        (["--later", "5"], "needs 0 <= later < people"),
        (["--threads", "-2"], "--threads is -2, needs at least 1"),
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
