# SPDX-License-Identifier: Apache-2.0
"""Short runs of what is run for an hour by hand: faults, mutated inputs, killed processes."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from node_harness import wait_for

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
DECODERS = ["image", "compressed_image", "camera_info", "people", "preset", "picture"]
if importlib.util.find_spec("torch") is not None:
    DECODERS.append("checkpoint")
RUNS = (
    ["soak.py", "--minutes", "0.5", "--size", "160x120", "--max-gap", "60"],
    ["fuzz.py", *DECODERS, "--count", "60"],
    ["restarts.py", "--rounds", "1"],
)


LIMIT_S = 1200.0
"""Of one run: several times what it takes, as the machine may be busy."""


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    return importlib.import_module("soak")


def run_to_end(command: list[str], limit_s: float = LIMIT_S) -> tuple[int, str, str]:
    """Exit code and output; no process that the command started outlives it."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            errors += f"\nkilled after {limit_s:g} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output, errors


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS, ids=lambda command: command[0])
def test_short_run(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, output, errors = run_to_end([sys.executable, str(BENCHMARKS / command[0]), *command[1:]])
    with capsys.disabled():  # the figures are of interest also when all is well
        print(f"\n{output.strip()}")
    assert code == 0, errors


def test_no_process_outlives_a_run_that_hangs() -> None:
    sleep = "import time; time.sleep(600)"
    program = (
        "import subprocess, sys; "
        f"print(subprocess.Popen([sys.executable, '-c', {sleep!r}]).pid, flush=True); {sleep}"
    )
    for limit_s in (3.0, 30.0, 200.0):  # a busy machine takes its time to start the two
        code, output, errors = run_to_end([sys.executable, "-c", program], limit_s)
        assert code == -signal.SIGKILL and f"killed after {limit_s:g} s" in errors
        if output.strip():
            break

    def is_gone() -> bool:
        try:  # nobody may be there to take its exit code
            return ") Z " in Path(f"/proc/{int(output)}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_for(is_gone, "the end of what the run had started")


def test_node_that_does_not_end_is_said_to(soak: Any) -> None:
    program = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print(flush=True); "
    with subprocess.Popen(
        [sys.executable, "-c", program + "signal.pause()"], stdout=subprocess.PIPE
    ) as node:
        assert node.stdout is not None and node.stdout.readline() == b"\n"
        assert soak.end(node, signal.SIGINT, 0.1) == ["the node still ran 0.1 s after SIGINT"]
        node.kill()


@pytest.mark.parametrize("minutes", [4.0, 6.0])
def test_memory_is_judged_after_five_minutes(
    soak: Any, capsys: pytest.CaptureFixture[str], minutes: float
) -> None:
    rig = SimpleNamespace(
        sent=Counter(), results=Counter(), heard=[], bodies=[], faults={}, gaps=Counter()
    )
    witness = soak.Witness(rig, os.getpid())
    witness.memory = [(second, 100.0 + second) for second in range(int(60 * minutes))]
    wrong = soak.judge(rig, witness, 60 * minutes, 60.0)
    if minutes < 5:
        assert wrong == [] and "no verdict on memory" in capsys.readouterr().out
    else:
        assert len(wrong) == 1 and "memory grew by 239.7 MB" in wrong[0]


def test_a_large_image_at_the_end_is_no_growth(soak: Any) -> None:
    """Medians of three minutes that go up and down, as those of an hour did, and one high one."""
    levels = [196, 207, 281, 222, 222, 214, 205, 217, 201, 190, 201, 188, 206, 196, 204, 208, 186,
              200, 272]  # fmt: skip
    witness = soak.Witness(SimpleNamespace(), os.getpid())
    witness.memory = [(60.0 * minute, levels[minute // 3]) for minute in range(57)]
    assert witness.growth(0.0, 3420.0, 180.0) < 0
    witness.memory = [(at, level + at / 3420 * 50) for at, level in witness.memory]
    assert 20 < witness.growth(0.0, 3420.0, 180.0) < 60
    for begin in (600, 1700, 2500):  # one step, whenever it comes but for the last minutes
        witness.memory = [(60.0 * m, 200.0 + 40 * (60 * m > begin)) for m in range(57)]
        assert witness.growth(0.0, 3420.0, 180.0) >= 20
