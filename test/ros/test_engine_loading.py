# SPDX-License-Identifier: Apache-2.0
"""What the node says of a preset that is slow: advice that fits the cause."""

import pytest

from bmp_ros.engines.presets import load_preset
from bmp_ros.ros.engine_loading import _faster


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
