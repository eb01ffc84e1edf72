# SPDX-License-Identifier: Apache-2.0
"""Losses of the segmenter: cross-entropy and Dice for masks, squared error for their scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bmp_ros.training.detector_loss import dice_loss
from bmp_ros.training.normalisers import shared_weight

NEAR_SHARE = 0.5
"""Part of the cross-entropy that is counted per pixel of the person instead of the image."""
ENTROPY, DICE, SCORE = 1.0, 1.0, 1.0


def segmenter_loss(logits: Tensor, scores: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Weighted losses ``entropy``, ``dice`` and ``score`` of G people; their sum is minimised.

    logits, masks: (G, h, w), masks in [0, 1]. scores: (G,) in [0, 1].
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    # A person fills a few percent of the image: averaged over all cells alone, its own cells
    # would hardly count. Dice ignores how sure the rest is; this does not.
    person = masks.sum(dim=(1, 2)).clamp(min=16)
    near = entropy.sum(dim=(1, 2)) / (4 * person)
    people = shared_weight(len(masks), logits)
    each = NEAR_SHARE * near + (1 - NEAR_SHARE) * entropy.mean(dim=(1, 2)) * 4
    with torch.no_grad():
        found, truth = logits > 0, masks > 0.5
        union = (found | truth).sum(dim=(1, 2)).clamp(min=1)
        overlap = (found & truth).sum(dim=(1, 2)) / union
    return {
        "entropy": ENTROPY * each.sum() / people,
        "dice": DICE * dice_loss(logits.sigmoid(), masks).sum() / people,
        "score": SCORE * (scores - overlap).square().sum() / people,
    }
