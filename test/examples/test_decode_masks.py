# SPDX-License-Identifier: Apache-2.0
"""examples/decode_masks: its decoding part run against Python's codec, the rest where rclcpp is.

No part of ROS is replaced here: the decoding part takes any type with the message's fields, and
the node itself is compiled only against the real rclcpp.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bmp_ros.loop.masks import encode_runs

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLE = CHECKOUT / "examples" / "decode_masks"
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]


def compiler() -> str:
    found = shutil.which("c++")
    if found is None:
        pytest.skip("no C++ compiler (apt: build-essential)")
    return found


def ros_includes(header: str) -> list[str]:
    """Include folders of the ROS that is sourced; skips where it has no such header."""
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    folders = [folder for p in prefixes for folder in (p / "include").glob("*")]
    if not any((folder / header).is_file() for folder in folders):
        pytest.skip(f"{header} is in no ROS package that is sourced")
    return [f"-isystem{folder}" for folder in folders]


def people_who_overlap_nowhere() -> np.ndarray:
    """(4, 40, 60) bool: two bodies with holes, one at the border, and one without a pixel."""
    rows, columns = np.mgrid[:40, :60]
    masks = np.zeros((4, 40, 60), np.bool_)
    for mask, (x, y) in zip(masks, [(12, 20), (40, 18), (59, 39)], strict=False):
        distance = np.hypot((rows - y) / 2, columns - x)
        mask[:] = (distance < 8) & (distance > 2)
    return masks


def labels_of(executable: Path, masks: np.ndarray) -> np.ndarray:
    request = [*masks.shape[1:], len(masks)]
    for mask in masks:
        rectangle, counts = encode_runs(mask)
        request += [*rectangle, len(counts), *counts.tolist()]
    done = subprocess.run(
        [executable], input=np.array(request, np.uint32).tobytes(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return np.frombuffer(done.stdout, np.uint8).reshape(masks.shape[1:])


@pytest.mark.parametrize("message", ["plain structs", "generated message"])
def test_decoding_part_paints_everybody(message: str, tmp_path: Path) -> None:
    options = [f"-I{CHECKOUT / 'bmp_msgs' / 'include'}", *WARNINGS, "-std=c++17"]
    if message == "generated message":
        options = ["-DWITH_ROS_MESSAGE", *ros_includes("bmp_msgs/msg/person_array.hpp"), *options]
    executable = tmp_path / "label_image"
    source = Path(__file__).with_name("label_image.cpp")
    subprocess.run(
        [compiler(), *options, f"-I{EXAMPLE / 'src'}", source, "-o", executable], check=True
    )
    masks = people_who_overlap_nowhere()
    expected = (masks * np.arange(1, 5, dtype=np.uint8)[:, None, None]).max(axis=0)
    assert set(np.unique(expected)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(labels_of(executable, masks), expected)
    crowd = np.zeros((300, 20, 20), np.bool_)
    crowd.reshape(300, 400)[np.arange(300), np.arange(300)] = True
    assert labels_of(executable, crowd).ravel()[250:302].tolist() == [
        251, 252, 253, 254, *[255] * 46, 0, 0
    ]  # fmt: skip


@pytest.mark.slow
def test_node_compiles_where_rclcpp_is() -> None:
    includes = ros_includes("rclcpp/rclcpp.hpp")
    source = EXAMPLE / "src" / "decode_masks.cpp"
    subprocess.run([compiler(), "-std=c++17", "-fsyntax-only", *includes, source], check=True)


def test_colcon_finds_the_example_when_it_is_named() -> None:
    """And only then: test_packaging.py lists what a plain colcon build takes."""
    colcon = shutil.which("colcon")
    if colcon is None:
        pytest.skip("colcon is not installed (make test brings it)")
    command = [colcon, "--log-base", os.devnull, "list", "--names-only", "--base-paths", EXAMPLE]
    listed = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ["bmp_decode_masks_example"]
