# SPDX-License-Identifier: Apache-2.0
"""Advice for slow presets that fits the cause; memory that goes back."""

import platform
from pathlib import Path

import pytest
from rclpy.logging import get_logger

from bmp_ros.engines import build
from bmp_ros.engines.presets import load_preset
from bmp_ros.ros.engine_loading import _faster, free_memory, load_engines, memory_in_use
from bmp_ros.ros.settings import EngineSettings
from bmp_ros.weights import downloads


@pytest.mark.parametrize(
    ("preset", "wanted", "wrong"),
    [
        ("bmp_d3", "preset:=tiny is made for CPUs", "other programs"),
        ("tiny", "preset:=tiny_fast", "preset:=tiny is"),
        ("tiny_fast", "other programs", "preset:="),
    ],
)
def test_advice_for_a_slow_preset(preset: str, wanted: str, wrong: str) -> None:
    said = _faster(load_preset(preset))
    assert wanted in said
    assert wrong not in said


def test_no_byte_is_downloaded_where_a_library_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMP_MODELS", str(tmp_path))
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    monkeypatch.setattr(downloads, "download", lambda *_, **__: pytest.fail("it downloads"))
    settings = EngineSettings(preset="bmp_apache", auto_download=True)
    with pytest.raises(ModuleNotFoundError, match=r"bmp_apache needs .*PyTorch \(`pip.*, sam2"):
        load_engines(settings, get_logger("test"), lambda: False)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_memory_that_is_freed_goes_back_to_the_system() -> None:
    parts = [bytes(1500) for _ in range(60_000)]  # each too large for Python's own pools
    last = bytes(1500)
    before = int(memory_in_use()["memory of the process (MB)"])
    del parts
    free_memory()
    assert int(memory_in_use()["memory of the process (MB)"]) < before - 60
    assert len(last) == 1500
