# SPDX-License-Identifier: Apache-2.0
"""Loss of the pose network: squared error of heatmaps, hidden joints counting less."""

from __future__ import annotations

from torch import Tensor

SCALE = 1000.0
"""Heatmaps are almost empty, so their mean squared error is tiny; printed figures need digits."""


def heatmap_loss(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """heatmaps, targets: (n, K, h, w). weights: (n, K). Returns the weighted mean times 1000."""
    error = (heatmaps - targets).square().mean(dim=(2, 3))
    return SCALE * (error * weights).sum() / weights.sum().clamp(min=1)
