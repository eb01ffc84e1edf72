# SPDX-License-Identifier: Apache-2.0
"""A folder of labelled images for the training tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainings need torch")

import torch

sys.path.insert(0, str(Path(__file__).parent))
from discs import disc_image

from bmp_ros.loop.masks import coco_run_lengths
from bmp_ros.training import trainer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only wait for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks this small learn in a tenth of the time that their curves are drawn in; a test of
    test_trainer.py draws them all the same."""
    monkeypatch.setattr(trainer, "draw_curves", lambda folder: None)


@pytest.fixture(scope="session")
def disc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as bmp_ros.synthetic.dataset writes it, with 50 images of 0 to 3 discs."""
    folder = tmp_path_factory.mktemp("discs")
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for number in range(50):
        labelled = disc_image(number, number % 4)
        name = f"{number:06d}"
        cv2.imwrite(str(folder / "images" / f"{name}.jpg"), labelled.image)
        people = [
            {
                "segmentation": coco_run_lengths(mask),
                "keypoints": np.column_stack([joints, np.full(17, 2)]).ravel().tolist(),
            }
            for mask, joints in zip(labelled.masks, labelled.keypoints, strict=True)
        ]
        label = {"image": {"file_name": f"{name}.jpg"}, "annotations": people}
        (folder / "labels" / f"{name}.json").write_text(json.dumps(label))
    return folder
