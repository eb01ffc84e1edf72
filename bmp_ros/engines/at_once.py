# SPDX-License-Identifier: Apache-2.0
"""Several images in the networks of one loop at a time, where a device likes that.

A small network uses a second core badly: on two cores `tiny` takes 0.8 of the time it takes on
one. Two images, each on one core, take half. Large networks fill all cores with one image and a
GPU is filled by one, too, and each image in work costs memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bmp_ros.engines.build import locate_weights
from bmp_ros.engines.presets import Preset

MOST = 4
"""Images at a time, unless somebody asks for more: masks of large photographs take much memory."""


def share_cores(
    preset: Preset, device: str, at_once: int | None
) -> tuple[int, dict[str, Mapping[str, Any]]]:
    """Return how many images to give to a loop at a time, and options of `build_loop` for that.

    at_once: as asked for; None: one per core where all networks of the preset are small ONNX
    files and run on the CPU, else 1. The options share the cores out, where the preset does not
    say itself how many threads a network has.
    Raises what `onnx_device` and `locate_weights` raise.
    """
    engines = {
        role: choice
        for role, choice in preset.engines.items()
        if choice.declaration.runtime != "none"
    }
    if not engines or any(each.declaration.runtime != "onnxruntime" for each in engines.values()):
        return at_once or 1, {}
    from bmp_ros.engines.onnx.target import LARGE_FILE, available_threads, onnx_device

    if onnx_device(device) != "cpu":
        return at_once or 1, {}
    cores = available_threads()
    if at_once is None:
        small = all(path.stat().st_size < LARGE_FILE for path in locate_weights(preset).values())
        at_once = min(cores, MOST) if small else 1
    threads = max(1, cores // at_once)
    return at_once, {
        role: {"threads": threads}
        for role, choice in engines.items()
        if at_once > 1 and getattr(choice.settings, "threads", None) is None
    }
