# SPDX-License-Identifier: Apache-2.0
"""A preset of ONNX engines runs where nothing but onnxruntime is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "onnx", "sam2", "mmdet", "mmpose", "rclpy"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
import logging
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
import cv2
from bmp_ros.engines import build_loop

loop = build_loop(sys.argv[1])
people = loop(cv2.imread(sys.argv[2]))
print("found", len(people), people.masks.shape, people.keypoints.shape)
assert "torch" not in sys.modules
"""  # noqa: E501


def test_torch_is_not_imported(exported: Path, tmp_path: Path) -> None:
    import cv2
    from random_weights import drawn_image

    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), drawn_image(120, 160, seed=3))
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(exported), str(picture)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "preset random: onnxruntime on cpu (auto), fp32" in done.stdout or (
        "preset random: onnxruntime on cuda:0 (auto), fp32" in done.stdout
    )
    found = int(done.stdout.split("found ")[1].split()[0])
    assert found > 1
    assert f"found {found} ({found}, 120, 160) ({found}, 17, 2)" in done.stdout
