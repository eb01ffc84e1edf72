# SPDX-License-Identifier: Apache-2.0
"""docs/adding_a_network.md: its blocks are run as they stand, each where it says it belongs."""

from __future__ import annotations

import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bmp_ros.engines import build, build_loop, settings
from bmp_ros.loop import SettingsError
from bmp_ros.loop.protocols import Poses
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.synthetic.clip_file import open_clip

PAGE = Path(__file__).resolve().parents[1] / "docs" / "adding_a_network.md"
DETECTOR = "bmp_ros.engines.hog_detector"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def block(beginning: str, language: str = "python") -> str:
    (found,) = [text for text in blocks(language) if text.startswith(beginning)]
    return found


@pytest.fixture
def detector_module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The page's file, as if it lay where its first line says."""
    module = types.ModuleType(DETECTOR)
    exec(block(f"# {DETECTOR.replace('.', '/')}.py"), vars(module))
    monkeypatch.setitem(sys.modules, DETECTOR, module)
    return module


@pytest.fixture
def registered(detector_module: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's additions to settings.py and build.py, as if they stood at the files' ends."""
    monkeypatch.setattr(settings, "DETECTORS", settings.DETECTORS.copy())
    monkeypatch.setattr(build, "_BUILDERS", build._BUILDERS.copy())
    for module, added in ((settings, "HogSettings"), (build, "_hog")):
        name = module.__name__.replace(".", "/")
        monkeypatch.setattr(module, added, None, raising=False)  # removed again afterwards
        exec(block(f"# {name}.py"), vars(module))


class Upright:
    """A pose estimator of the page's reader: 17 joints down the middle of the box."""

    skeleton = COCO_17

    def estimate(self, frame: Any, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        middle = (boxes[:, None, 0] + boxes[:, None, 2]) / 2
        share = np.linspace(0.1, 0.9, 17, dtype=np.float32)
        y = boxes[:, None, 1] + share * (boxes[:, None, 3] - boxes[:, None, 1])
        keypoints = np.stack([np.broadcast_to(middle, y.shape), y], axis=2)
        return Poses(keypoints, np.full(y.shape, 0.9, np.float32))


def test_the_pages_test(detector_module: types.ModuleType) -> None:
    exec(block("# test/engines/test_hog_detector.py"), vars(detector_module))
    detector_module.test_finds_somebody_in_the_demo_clip()


def test_own_program(detector_module: types.ModuleType) -> None:
    names = vars(detector_module) | {
        "weights": cv2.HOGDescriptor_getDefaultPeopleDetector(),
        "pose_estimator": Upright(),
        "image": next(iter(open_clip())).image,
    }
    exec(block("from bmp_ros.loop import BMPLoop"), names)
    people = names["people"]
    assert len(people) >= 2 and people.keypoints.shape == (len(people), 17, 2)
    assert not people.masks.any(), "the page says so"


def test_nodes_hook_is_as_shown() -> None:
    shown: dict[str, Any] = {}
    text = block("import sys\nfrom bmp_ros.ros.bmp_node import main")
    exec(text[text.index("def ") : text.index("sys.exit")], shown)
    parameters = inspect.signature(shown["build_loop"]).parameters
    assert set(parameters) < set(inspect.signature(build_loop).parameters)
    interfaces = "bmp_ros.ros.interfaces"
    pytest.importorskip(interfaces, reason="no ROS 2 or bmp_msgs here", exc_type=ImportError)
    node = pytest.importorskip("bmp_ros.ros.bmp_node", reason="no rclpy", exc_type=ImportError)
    assert "build_loop" in inspect.signature(node.main).parameters


def test_preset(registered: None, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from bmp_ros.networks.conv_pose import ConvPose
    from bmp_ros.networks.residual_pyramid import PyramidSize

    size = PyramidSize(
        channels=(8, 8, 16, 16, 24), depths=(1, 1, 1, 1), widths=(16, 16, 24)
    )  # a small one
    torch.save(ConvPose(size, 17).state_dict(), tmp_path / "pose.pth")
    np.save(tmp_path / "hog.npy", cv2.HOGDescriptor_getDefaultPeopleDetector())
    preset = tmp_path / "hog.yaml"
    preset.write_text(block("# hog.yaml", "yaml"), encoding="utf-8")
    loop = build_loop(preset, device="cpu")
    assert type(loop.detector).__name__ == "HogDetector" and loop.segmenter is None
    assert len(loop(next(iter(open_clip())).image)) >= 2
    with pytest.raises(SettingsError, match="stride is 7, allowed: a whole number from 8 to 64"):
        build_loop(preset, device="cpu", detector={"stride": 7})


def test_nothing_is_left_behind() -> None:
    assert "hog" not in settings.DETECTORS and "hog" not in build._BUILDERS
    assert not hasattr(settings, "HogSettings") and not hasattr(build, "_hog")
