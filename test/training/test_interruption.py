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
import sys
from pathlib import Path
import torch
from bmp_ros.training.optimisation import Schedule
from bmp_ros.training.trainer import train

class Line:
    name, taken = "line", 0

    def __init__(self):
        self.network = torch.nn.Linear(1, 1)

    def sample(self, number, seed, *, validation=False):
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
    train(Line(), Schedule(10**6, 2, 1e-3, save_every=10**6), Path(sys.argv[1]), workers=1)
"""
PATIENCE_S = 120.0


def test_a_closed_terminal_loses_no_step(tmp_path: Path) -> None:
    """The kernel sends SIGHUP to every process of it, those that prepare samples among them."""
    program, taken = tmp_path / "program.py", tmp_path / "taken"
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
        while not taken.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert taken.is_file(), os.read(terminal, 9999).decode()
        os.close(terminal)
        process.wait(PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert torch.load(tmp_path / "last.pth", weights_only=True)["step"] == int(taken.read_text())


def test_systems_without_hangup_have_interruptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows."""
    monkeypatch.delattr(signal, "SIGHUP")
    with pytest.raises(SystemExit), interruption_noted() as interruption:
        signal.raise_signal(signal.SIGTERM)
        assert interruption.noted
