# SPDX-License-Identifier: Apache-2.0
"""Networks of the published sizes with random weights: as slow as the real ones, for timing."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bmp_ros.benchmark.scripted import crowd
from bmp_ros.engines.build import assemble, build_loop
from bmp_ros.engines.presets import EngineChoice, Preset
from bmp_ros.image_files import write_image
from bmp_ros.loop.bmp_loop import BMPLoop

log = logging.getLogger(__name__)


def untrained_loop(preset: Preset, device: str, precision: str, compile: bool) -> BMPLoop:
    """Build the loop of a preset without its weights files.

    Sizes are read from the names of the weights. Raises ValueError for a name or an engine of
    which the size cannot be told.
    """
    torch.manual_seed(0)
    return assemble(preset, _random_weights, device, precision, compile)


def untrained_exported_loop(
    preset: Preset, device: str, *, threads: int, int8: bool = False
) -> BMPLoop:
    """The same through onnxruntime: exported into a folder that is gone when it is loaded.

    int8: quantised with pictures of the benchmark. Random networks react to rounding as no trained
    one does, so their agreement with fp32 says nothing and is not asked for.
    Raises what `export_preset` raises.
    """
    from bmp_ros.engines.export.int8 import LEAST_IMAGES, Calibration
    from bmp_ros.engines.export.preset import export_preset

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        pictures, files = Path(folder, "pictures"), Path(folder, "networks")
        pictures.mkdir()
        for seed in range(LEAST_IMAGES):
            write_image(pictures / f"{seed}.png", crowd(4, 640, 480, seed=seed).image)
        export_preset(
            preset,
            files,
            precision="int8" if int8 else "fp32",
            calibration=Calibration(pictures, least=0) if int8 else None,
            weights_of=_random_weights,
            # Every score is above it: there is somebody whose crops the pose network sees, and
            # whose joints prompt the segmenter.
            loop_settings=replace(
                preset.loop,
                detection_threshold=0.0,
                max_people=4,
                confidence_threshold=0.0,
                visibility_threshold=0.0,
            ),
            tell=log.info,
        )
        how = {role: {"threads": threads} for role in preset.engines}
        return build_loop(files / f"{preset.name}.yaml", device, **how)  # type: ignore[arg-type]


def _random_weights(choice: EngineChoice) -> Any:
    if choice.declaration.random_weights is None:
        raise ValueError(f"engine {choice.engine} declares no random weights")
    return choice.declaration.random_weights(choice.settings)
