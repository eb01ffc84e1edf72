# SPDX-License-Identifier: Apache-2.0
"""Random weights for networks that MMPose builds."""

from __future__ import annotations

import torch


def randomize(model: torch.nn.Module) -> None:
    """Give every tensor of an MMPose network random values that keep its outputs of order one.

    Attention is sharp, biases and batch statistics are not the neutral ones of a new network: a
    swapped axis or a missing bias shows.
    """
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.copy_(1 + 0.2 * noise.clamp(-2, 2))
            elif tensor.ndim == 1:
                tensor.copy_(0.1 * noise)
            elif name.endswith("pos_embed"):
                tensor.copy_(0.5 * noise)
            else:
                tensor.copy_(1.5 * noise / tensor[0].numel() ** 0.5)
