# SPDX-License-Identifier: Apache-2.0
"""A minute of benchmarks/soak.py; an hour of it is run by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parents[2] / "benchmarks" / "soak.py"


@pytest.mark.slow
def test_a_minute_of_random_faults(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(SOAK), "--minutes", "1", "--size", "160x120"],
        capture_output=True, text=True,
    )  # fmt: skip
    with capsys.disabled():  # the figures are of interest also when all is well
        print(f"\n{done.stdout.strip()}")
    assert done.returncode == 0, done.stderr
