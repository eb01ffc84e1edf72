# SPDX-License-Identifier: Apache-2.0
"""Networks of the published sizes with random weights: as slow as the real ones, for timing."""

from __future__ import annotations

from typing import Any

import torch

from bmp_ros.engines.build import assemble
from bmp_ros.engines.presets import EngineChoice, Preset
from bmp_ros.loop.bmp_loop import BMPLoop


def untrained_loop(preset: Preset, device: str, precision: str, compile: bool) -> BMPLoop:
    """Build the loop of a preset without its weights files.

    Sizes are read from the names of the weights. Raises ValueError for a name or an engine of
    which the size cannot be told.
    """
    torch.manual_seed(0)
    return assemble(preset, _random_weights, device, precision, compile)


def _random_weights(choice: EngineChoice) -> Any:
    if choice.declaration.random_weights is None:
        raise ValueError(f"engine {choice.engine} declares no random weights")
    return choice.declaration.random_weights(choice.settings)
