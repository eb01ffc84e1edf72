# SPDX-License-Identifier: Apache-2.0
"""Loss of the pose network: cross-entropy of where each joint is."""

from __future__ import annotations

from torch import Tensor

from bmp_ros.training.normalisers import shared_weight

ABSENT_WEIGHT = 0.1
"""Target of a joint outside the crop: uniform, which is easily learned."""


def location_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean, over joints, of the Kullback-Leibler divergence from target to prediction.

    logits: (n, K, h, w). targets: (n, K, h, w) peaks, all zero for a joint that is not there.
    weights: (n, K). Cross-entropy learns where a joint is in a tenth of the steps that squared
    error of heatmaps takes: nearly all cells of a heatmap are empty and tell nothing.
    """
    predicted = logits.flatten(2).log_softmax(dim=2)
    flat = targets.flatten(2)
    mass = flat.sum(dim=2, keepdim=True)
    there = mass > 0
    uniform = 1 / flat.shape[2]
    share = (flat / mass.clamp(min=1e-6)).where(there, uniform)
    entropy = -(share * share.clamp(min=1e-12).log()).sum(dim=2)
    divergence = -(share * predicted).sum(dim=2) - entropy
    weights = weights.where(there[..., 0], ABSENT_WEIGHT * weights)
    return (divergence * weights).sum() / shared_weight(weights.sum(), logits)
