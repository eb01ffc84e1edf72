# SPDX-License-Identifier: Apache-2.0
"""Averages of weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bmp_ros.training.average import main


def save(file: Path, fill: float, width: int = 3) -> str:
    network = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
    for parameter in network.parameters():
        nn.init.constant_(parameter, fill)
    network[1].num_batches_tracked.fill_(int(fill))
    torch.save(network.state_dict(), file)
    return str(file)


def test_it_is_the_mean(tmp_path: Path) -> None:
    files = [save(tmp_path / "a.pth", 1.0), save(tmp_path / "b.pth", 4.0)]
    assert main([*files, "--output", str(tmp_path / "c.pth")]) == 0
    mean = torch.load(tmp_path / "c.pth", weights_only=True)
    assert torch.equal(mean["0.weight"], torch.full((3, 2), 2.5))
    assert mean["1.num_batches_tracked"].item() == 4


def test_other_networks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [save(tmp_path / "a.pth", 1.0), save(tmp_path / "b.pth", 1.0, width=4)]
    assert main([*files, "--output", str(tmp_path / "c.pth")]) == 1
    assert "'0.weight' differs" in capsys.readouterr().err
    assert not (tmp_path / "c.pth").exists()
    assert main([str(tmp_path / "none.pth"), "--output", str(tmp_path / "c.pth")]) == 1
