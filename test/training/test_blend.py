# SPDX-License-Identifier: Apache-2.0
"""Weights between old and new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bmp_ros.training import blend as blending
from bmp_ros.training.blend import blend
from bmp_ros.training.tasks import make_task


@pytest.fixture
def task(disc_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(blending, "BATCHES", 2)
    torch.manual_seed(0)
    return make_task("segmenter", disc_folder, (128, 96))


def test_weights_lie_between_and_statistics_are_new(task: Any) -> None:
    name = "pyramid.stem.conv.weight"
    old = {k: v.clone() for k, v in task.network.state_dict().items()}
    new = {k: v + 1 if v.is_floating_point() else v for k, v in old.items()}
    blend(task, new, 0.25)
    found = task.network.state_dict()
    assert torch.allclose(found[name], old[name] + 0.25)
    mean = found["pyramid.stem.bn.running_mean"]
    assert mean.isfinite().all() and not torch.allclose(mean, torch.full_like(mean, 0.25))
    assert not task.network.training


def test_what_does_not_fit_is_refused(task: Any) -> None:
    new = task.network.state_dict()
    with pytest.raises(ValueError, match=r"1\.5"):
        blend(task, new, 1.5)
    with pytest.raises(ValueError, match="another network"):
        blend(task, {"weight": torch.zeros(1)}, 0.5)
