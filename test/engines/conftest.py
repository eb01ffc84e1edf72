# SPDX-License-Identifier: Apache-2.0
"""A preset of small random native networks, and its export, made once for all tests here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # random networks, golden vectors


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a preset with engines rtmdet_ins, conv_pose, point_segmenter; weights beside."""
    torch = pytest.importorskip("torch", reason="exports come from torch")
    torch.set_num_threads(1)  # networks this small lose more to waiting threads than they gain
    pytest.importorskip("onnx", reason="writing ONNX files needs onnx")
    from random_tiny import random_conv_pose, random_point_segmenter
    from random_weights import SMALL, random_rtmdet_ins

    folder = tmp_path_factory.mktemp("native")
    weights = {
        "detector": random_rtmdet_ins(SMALL, 1, seed=3, input_size=(160, 128)),
        "pose": random_conv_pose(),
        "segmenter": random_point_segmenter(),
    }
    for name, state_dict in weights.items():
        torch.save(state_dict, folder / f"{name}.pth")
    preset = {
        "description": "Random networks.",
        "detector": {"engine": "rtmdet_ins", "weights": "detector.pth", "input_size": [160, 128],
                     "nms_iou": 0.5},
        "pose_estimator": {"engine": "conv_pose", "weights": "pose.pth", "background_factor": 0.7},
        "segmenter": {"engine": "point_segmenter", "weights": "segmenter.pth",
                      "max_hole_area": 0, "max_sprinkle_area": 0},
        "loop": {"iterations": 2, "detection_threshold": 0.4, "max_people": 6},
    }  # fmt: skip
    path = folder / "random.yaml"
    path.write_text(yaml.safe_dump(preset), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def exported(native: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preset file of the export, its weights in float32; networks beside it."""
    from bmp_ros.engines.export.preset import export_preset
    from bmp_ros.engines.presets import load_preset

    folder = tmp_path_factory.mktemp("exported")
    export_preset(load_preset(native), folder, precision="fp32")
    return folder / "random.yaml"
