# SPDX-License-Identifier: Apache-2.0
"""The method and the door to the engines need NumPy, OpenCV and PyYAML, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOREIGN = (
    "torch", "torchvision", "rclpy", "mmdet", "mmpose", "mmcv", "mmengine", "onnxruntime", "sam2",
    "huggingface_hub", "tensorrt",
)  # fmt: skip

BLOCK = f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FOREIGN!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Block())
"""

REPORT = f"""
import sys
print(sorted({{name.split(".")[0] for name in sys.modules}} & set({FOREIGN!r})))
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


@pytest.mark.parametrize("room", ["bmp_ros.loop", "bmp_ros.engines", "bmp_ros.engines.registry"])
def test_import_with_everything_else_blocked(room: str) -> None:
    done = run(f"{BLOCK}\nimport {room}\nprint('imported')")
    assert done.stdout == "imported\n", done.stderr


def test_block_blocks() -> None:
    done = run(f"{BLOCK}\nimport onnxruntime")
    assert done.returncode == 1 and "onnxruntime is blocked" in done.stderr


@pytest.mark.parametrize("room", ["bmp_ros.loop", "bmp_ros.engines"])
def test_import_leaves_the_others_alone_where_they_are_installed(room: str) -> None:
    done = run(f"import {room}\n{REPORT}")
    assert done.stdout == "[]\n", done.stderr


def test_one_frame_with_everything_else_blocked() -> None:
    scripted = str(Path(__file__).parent)
    code = f"""
{BLOCK}
sys.path.insert(0, {scripted!r})
from scripted import Actor, grey_image, stage
print(stage([Actor((1, 1, 5, 9))]).loop(grey_image(10, 10)))
"""
    done = run(code)
    assert done.stdout == "People(1 in 10x10, coco_17: 1 in iteration 1)\n", done.stderr
