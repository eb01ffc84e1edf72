# SPDX-License-Identifier: Apache-2.0
"""Numbers of RTMDet-Ins that the engines need as well, which run without torch, too."""

from __future__ import annotations

STRIDES = (8, 16, 32)
"""Pixels of the canvas per cell of the three feature maps."""

PROTOTYPES = 8
LAYER_WIDTHS = (PROTOTYPES + 2, 8, 8, 1)
"""Channels before and after the three layers."""
WEIGHTS = tuple(
    after * before for before, after in zip(LAYER_WIDTHS[:-1], LAYER_WIDTHS[1:], strict=True)
)
BIASES = LAYER_WIDTHS[1:]
KERNEL_PARAMETERS = sum(WEIGHTS) + sum(BIASES)
"""169: the weights of the three layers (80, 64, 8), then their biases (8, 8, 1)."""
