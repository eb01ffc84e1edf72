# SPDX-License-Identifier: Apache-2.0
"""The classic top-down presets, from files in the published layout to people; random weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.openmmlab
pytest.importorskip("mmpose", reason="MMPose is not installed")
pytest.importorskip("mmcv.ops", reason="mmcv is installed without its operators")
torch = pytest.importorskip("torch", reason="torch is not installed")

sys.path.insert(0, str(Path(__file__).parents[1]))

from random_weights import SMALL, random_rtmdet_ins  # noqa: E402

from bmp_ros.engines import build_loop  # noqa: E402
from bmp_ros.engines.openmmlab.configs import load_config  # noqa: E402
from bmp_ros.engines.openmmlab.models import build_model  # noqa: E402
from bmp_ros.engines.presets import load_preset  # noqa: E402
from bmp_ros.weights.zoo import load_zoo  # noqa: E402

BOXES = np.array([[20, 15, 120, 190], [90.5, 40, 170, 210]], np.float32)


@pytest.mark.parametrize("preset", ["td_simcc", "td_rle"])
def test_preset_runs(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMP_MODELS", str(tmp_path))
    zoo, chosen = load_zoo(), load_preset(preset)
    network = build_model(
        load_config(chosen.pose_estimator.settings.config, "mmpose"), "mmpose", None, "cpu"
    )
    contents = {
        chosen.detector.settings.weights: random_rtmdet_ins(SMALL, 80, seed=3),
        chosen.pose_estimator.settings.weights: network.state_dict(),
    }
    for name, state_dict in contents.items():
        torch.save({"meta": {}, "state_dict": state_dict}, tmp_path / zoo[name].file_name)
    loop = build_loop(preset, device="cpu")
    image = np.random.default_rng(5).integers(0, 256, (240, 180, 3), np.uint8)

    people = loop(image, BOXES)
    assert len(people) == 2 and np.isfinite(people.keypoints).all()
    assert people.skeleton.name == "coco_17" and not people.masks.any()

    found, report = loop.run(image)
    assert len(found) > 0, "the detector's random weights find somebody"
    assert report.iterations == 1 and "segment" not in report.stage_ms
    assert found.masks.any(), "the masks are the detector's"
    assert (found.mask_scores == 0).all()
