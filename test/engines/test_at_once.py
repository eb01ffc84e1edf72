# SPDX-License-Identifier: Apache-2.0
"""How many images a loop is given at a time, and how its networks share the cores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
from bmp_ros.engines.at_once import MOST, share_cores  # noqa: E402
from bmp_ros.engines.onnx import target  # noqa: E402
from bmp_ros.engines.presets import load_preset  # noqa: E402

ROLES = ("detector", "pose_estimator", "segmenter")


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch):
    return lambda count: monkeypatch.setattr(target, "available_threads", lambda: count)


@pytest.mark.parametrize(
    ("there", "asked", "at_once", "threads"),
    [
        (1, None, 1, None),
        (4, None, 4, 1),
        (4, 2, 2, 2),
        (4, 1, 1, None),
        (4, 3, 3, 1),
        (64, None, MOST, 64 // MOST),
        (2, 5, 5, 1),
    ],
)
def test_small_networks_share_the_cores(
    cores, there: int, asked: int | None, at_once: int, threads: int | None
) -> None:
    cores(there)
    options = {} if threads is None else dict.fromkeys(ROLES, {"threads": threads})
    assert share_cores(load_preset("tiny"), "cpu", asked) == (at_once, options)


def test_threads_that_the_preset_names_stay(cores) -> None:
    cores(4)
    preset = load_preset("tiny", {"detector": {"threads": 3}})
    _, options = share_cores(preset, "cpu", 2)
    assert options == dict.fromkeys(ROLES[1:], {"threads": 2})


def test_large_networks_get_one_image(
    cores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(4)
    monkeypatch.setattr(target, "LARGE_FILE", 1000)
    assert share_cores(load_preset("tiny"), "cpu", None) == (1, {})


def test_torch_gets_one_image_unless_asked_otherwise(cores) -> None:
    cores(4)
    preset = load_preset("bmp_d3")  # its weights need not be here
    assert share_cores(preset, "cpu", None) == (1, {})
    assert share_cores(preset, "cpu", 2) == (2, {})
    assert share_cores(replace(preset, segmenter=None), "cpu", None) == (1, {})
