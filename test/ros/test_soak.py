# SPDX-License-Identifier: Apache-2.0
"""Short runs of what is run for an hour by hand: faults, mutated inputs, killed processes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
DECODERS = ["image", "compressed_image", "camera_info", "people", "preset", "picture"]
if importlib.util.find_spec("torch") is not None:
    DECODERS.append("checkpoint")
RUNS = (
    ["soak.py", "--minutes", "0.5", "--size", "160x120", "--max-gap", "60"],
    ["fuzz.py", *DECODERS, "--count", "60"],
    ["restarts.py", "--rounds", "1"],
)


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS, ids=lambda command: command[0])
def test_short_run(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / command[0]), *command[1:]],
        capture_output=True, text=True,
    )  # fmt: skip
    with capsys.disabled():  # the figures are of interest also when all is well
        print(f"\n{done.stdout.strip()}")
    assert done.returncode == 0, done.stderr
