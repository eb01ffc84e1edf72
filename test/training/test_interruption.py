# SPDX-License-Identifier: Apache-2.0
"""A terminal that is closed, and systems without its signal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch

from bmp_ros.training.interruption import interruption_noted

TRAIN = """
import sys, time
from pathlib import Path
import torch
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter as Loader
from bmp_ros.training.optimisation import Schedule
from bmp_ros.training.trainer import train

def look(loader, timeout=0.1, take=Loader._try_get_data):
    # Seconds between two looks at the workers, not 5.
    if Path(sys.argv[1], "taken").is_file():
        Path(sys.argv[1], "waits").touch()
    return take(loader, timeout)

class Line:
    name, taken = "line", 0

    def __init__(self):
        self.network = torch.nn.Linear(1, 1)

    def sample(self, number, seed, *, validation=False):
        time.sleep(1 if number >= 2 and not validation else 0)
        return torch.ones(1)

    def collate(self, samples):
        return torch.stack(samples)

    def losses(self, network, batch):
        if network.training:
            self.taken += 1
            Path(sys.argv[1], "taken").write_text(str(self.taken))
        return {"square": network(batch).square().mean()}

if __name__ == "__main__":
    torch.set_num_threads(1)
    Loader._try_get_data = look
    train(Line(), Schedule(10**6, 2, 1e-3, save_every=10**6), Path(sys.argv[1]), workers=1)
"""
PATIENCE_S = 120.0


def test_a_closed_terminal_loses_no_step(tmp_path: Path) -> None:
    """The shell sends SIGHUP to every process of the job, those that prepare samples among them,
    for which the step at hand waits; and the kernel sends one more."""
    program, waits = tmp_path / "program.py", tmp_path / "waits"
    program.write_text(TRAIN)
    terminal, its_end = os.openpty()

    def own_terminal() -> None:
        fcntl.ioctl(its_end, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path)],
        stdin=its_end, stdout=its_end, stderr=its_end, start_new_session=True,
        preexec_fn=own_terminal, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    os.close(its_end)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not waits.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert waits.is_file(), os.read(terminal, 9999).decode()
        os.killpg(process.pid, signal.SIGHUP)
        os.close(terminal)
        process.wait(PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    step = torch.load(tmp_path / "last.pth", weights_only=True)["step"]
    assert step == int((tmp_path / "taken").read_text())
    assert step >= 2, "the step that waited for its samples"


def test_systems_without_hangup_have_interruptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows."""
    monkeypatch.delattr(signal, "SIGHUP")
    with pytest.raises(SystemExit), interruption_noted() as interruption:
        signal.raise_signal(signal.SIGTERM)
        assert interruption.noted
