# SPDX-License-Identifier: Apache-2.0
"""bmp_d3 on OpenMMLab and bmp_d3 on the native networks: the same people from the same files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]
pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("mmpose", reason="MMPose is not installed")
pytest.importorskip("mmcv.ops", reason="mmcv is installed without its operators")
pytest.importorskip("sam2", reason="the sam2 package is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

sys.path.insert(0, str(Path(__file__).parents[1]))

from random_sam2 import random_sam2_checkpoint  # noqa: E402
from random_vit import random_state_dict  # noqa: E402
from random_weights import drawn_image, random_rtmdet_ins  # noqa: E402

from bmp_ros.engines import build_loop  # noqa: E402
from bmp_ros.loop.frame import Frame  # noqa: E402
from bmp_ros.weights.zoo import load_zoo  # noqa: E402


def test_same_people_from_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMP_MODELS", str(tmp_path))
    zoo, image = load_zoo(), drawn_image(240, 320, 4)
    vit_b = {"width": 768, "depth": 12, "hidden": 3072, "channels": 256, "num_keypoints": 21}
    contents = {
        "rtmdet-ins-l-mask": {"state_dict": random_rtmdet_ins("l", 80, seed=4, image=image)},
        "maskpose-b-1.0.0": {"state_dict": random_state_dict(**vit_b)},
        "sam2.1-hiera-base-plus": random_sam2_checkpoint("b+"),
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / zoo[name].file_name)
    native, adapted = build_loop("bmp_d3", "cpu"), build_loop("bmp_d3_openmmlab", "cpu")
    assert native.settings == adapted.settings

    own, other = (
        loop.detector.detect(Frame(image), score_threshold=0.35) for loop in (native, adapted)
    )
    # MMDetection limits candidates over all classes, so it may find fewer; whom it finds we find.
    distance = np.abs(other.boxes[:, None] - own.boxes[None]).max(axis=-1)
    assert len(other.boxes) >= 5
    matched = distance.argmin(axis=1)
    assert (distance.min(axis=1) < 0.05).mean() > 0.9

    chosen = np.unique(matched)[:3]
    boxes, masks = own.boxes[chosen], own.masks(chosen)
    poses = [
        loop.pose_estimator.estimate(Frame(image), boxes, masks) for loop in (native, adapted)
    ]
    np.testing.assert_allclose(poses[0].scores, poses[1].scores, atol=0.02)

    people, report = adapted.run(image, boxes)
    assert len(people) == 3 and people.skeleton.name == "coco_17"
    assert "segment" in report.stage_ms and people.raw_masks.any()
