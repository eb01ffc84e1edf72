# SPDX-License-Identifier: Apache-2.0
"""docs/adding_a_network.md: its blocks are written to a folder and run as they stand."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmp_ros.cli.main import main
from bmp_ros.engines import build_loop
from bmp_ros.loop import SettingsError
from bmp_ros.loop.protocols import Detector, Poses
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.synthetic.clip_file import open_clip

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "adding_a_network.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def block(beginning: str, language: str = "python") -> str:
    (found,) = [text for text in blocks(language) if text.startswith(beginning)]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The page's files, each under the name in its first line."""
    for language in ("python", "yaml"):
        for text in blocks(language):
            if (name := re.match(r"# (\w+\.(py|yaml))\n", text)) is not None:
                (tmp_path / name.group(1)).write_text(text, encoding="utf-8")
    assert {"little_pose.py", "hog.yaml"} <= {path.name for path in tmp_path.iterdir()}
    return tmp_path


def run_block(text: str, **names: Any) -> dict[str, Any]:
    exec(compile(text, str(PAGE), "exec", dont_inherit=True), names)
    return names


class Upright:
    """A pose estimator of the page's reader: 17 joints down the middle of the box."""

    skeleton = COCO_17

    def estimate(self, frame: Any, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        middle = (boxes[:, None, 0] + boxes[:, None, 2]) / 2
        share = np.linspace(0.1, 0.9, 17, dtype=np.float32)
        y = boxes[:, None, 1] + share * (boxes[:, None, 3] - boxes[:, None, 1])
        keypoints = np.stack([np.broadcast_to(middle, y.shape), y], axis=2)
        return Poses(keypoints, np.full(y.shape, 0.9, np.float32))


@pytest.fixture
def little(folder: Path) -> Path:
    """The preset of the pose network, with random weights beside it."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    network = run_block(block("# little_pose.py"))["LittlePose"](width=8)
    torch.save(network.state_dict(), folder / "little_pose.pth")
    return folder / "little.yaml"


def test_the_pose_network_has_thirty_lines() -> None:
    code = [line for line in block("# little_pose.py").splitlines() if line.strip()]
    assert len(code) <= 31


def test_pose_network_by_preset(little: Path) -> None:
    loop = build_loop(little, device="cpu")
    people = loop(next(iter(open_clip())).image)
    assert len(people) >= 2 and people.keypoint_scores.any(), "random weights have peaks, too"


def test_pose_network_in_infer(
    little: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "picture.png"), next(iter(open_clip())).image)
    arguments = ["--preset", str(little), "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main(["infer", "--source", str(tmp_path / "picture.png"), *arguments]) == 0
    assert re.search(r"1 image, [2-9] people", capsys.readouterr().out)


def test_pose_network_exported(little: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="writing ONNX files needs onnx")
    content = little.read_text(encoding="utf-8").replace("onnx, weights: tiny/detector", "hog")
    little.write_text(content.replace("little_pose.py", "[little_pose.py, hog_detector.py]"))
    from bmp_ros.engines.presets import load_preset

    (exported,) = (
        choice.declaration.export for role, choice in load_preset(little).engines.items()
        if role == "pose_estimator"
    )  # fmt: skip
    assert exported is not None
    source = exported(load_preset(little).pose_estimator.settings, _state_dict(little))
    from bmp_ros.engines.export.check import compare
    from bmp_ros.engines.export.write import write_graph
    from bmp_ros.engines.onnx.card import Card

    card = Card(source.kind, "heatmaps", source.weights, source.facts)
    write_graph(source.graphs[0], card, tmp_path / "pose.onnx", half_weights=False)
    assert compare(source.graphs[0], tmp_path / "pose.onnx")["heatmaps"] > 0.999


def _state_dict(preset: Path) -> Any:
    from bmp_ros.weights.checkpoint import load_state_dict

    return load_state_dict(preset.with_name("little_pose.pth"))


def test_hog_by_preset(folder: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    preset = folder / "hog.yaml"
    loop = build_loop(preset, device="cpu")
    assert type(loop.detector).__name__ == "HogDetector" and loop.segmenter is None
    assert isinstance(loop.detector, Detector)
    people = loop(next(iter(open_clip())).image)
    assert len(people) >= 2 and not people.masks.any(), "the page says so"
    with pytest.raises(SettingsError, match="stride is 7, allowed: a whole number from 8 to 64"):
        build_loop(preset, device="cpu", detector={"stride": 7})


def test_hog_needs_no_torch(folder: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    program = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is blocked")

sys.meta_path.insert(0, Block())
from bmp_ros.engines import build_loop
print(type(build_loop("hog.yaml", device="cpu").detector).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])},
    )  # fmt: skip
    assert done.stdout == "HogDetector\n", done.stderr


def test_the_pages_test(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    monkeypatch.chdir(folder)
    run_block(block("# test_hog.py"), np=np)["test_finds_somebody_in_the_demo_clip"]()


def test_own_program() -> None:
    detector = run_block(block("# hog_detector.py"), __name__="hog_detector_of_the_page")
    names = run_block(
        block("from bmp_ros.loop import BMPLoop"),
        HogDetector=detector["HogDetector"],
        pose_estimator=Upright(),
        image=next(iter(open_clip())).image,
    )
    people = names["people"]
    assert len(people) >= 2 and people.keypoints.shape == (len(people), 17, 2)


def test_nodes_hook_is_as_shown() -> None:
    text = block("import sys\nfrom bmp_ros.ros.bmp_node import main")
    shown = run_block(text[text.index("def ") : text.index("sys.exit")])
    parameters = inspect.signature(shown["build_loop"]).parameters
    assert set(parameters) < set(inspect.signature(build_loop).parameters)
    interfaces = "bmp_ros.ros.interfaces"
    pytest.importorskip(interfaces, reason="no ROS 2 or bmp_msgs here", exc_type=ImportError)
    node = pytest.importorskip("bmp_ros.ros.bmp_node", reason="no rclpy", exc_type=ImportError)
    assert "build_loop" in inspect.signature(node.main).parameters


def test_entry_points_group_is_the_one_that_is_read() -> None:
    from bmp_ros.engines.registry import GROUP, VARIABLE

    assert f'entry-points."{GROUP}"' in block("# pyproject.toml", "toml")
    assert f"`{VARIABLE}`" in PAGE.read_text(encoding="utf-8")
