# SPDX-License-Identifier: Apache-2.0
"""What is drawn of a network in training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("pycocotools", reason="pycocotools is not installed")

from torch import nn

from bmp_ros.training import scoring
from bmp_ros.training.images import TrainingImage


def labelled(people: int, grey: int) -> TrainingImage:
    masks = np.zeros((people, 40, 40), bool)
    masks[:, 5:30, 5:30] = True
    return TrainingImage(
        np.full((40, 40, 3), grey, np.uint8), masks, np.zeros((people, 17, 2), np.float32),
        np.zeros((people, 17)),
    )  # fmt: skip


def test_images_with_people_are_drawn_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "make_engine", lambda *_: None)
    monkeypatch.setitem(scoring._ASK, "detector", lambda engine, image: scoring.Answers())
    task = SimpleNamespace(role="detector")
    images = [labelled(0, 20 + number) for number in range(8)] + [
        labelled(1, 200),
        labelled(2, 240),
    ]
    drawing = tmp_path / "predictions" / "0000001.png"
    scoring.score_network(task, nn.Identity(), images, "cpu", drawing)  # type: ignore[arg-type]
    side = scoring.DRAWN_HEIGHT
    greys = cv2.imread(str(drawing))[side // 2, side // 2 :: side, 0]
    assert greys.tolist() == [200, 240, 20, 21, 22, 23]
