# SPDX-License-Identifier: Apache-2.0
"""Means over everything that a step sees, in however many processes it is computed.

A loss is a sum divided by a weight (joints, people, assigned locations) that differs from process
to process. Averaging the quotients would favour processes with few people; the weights are
therefore summed over all processes before the division.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

_alone = False


def shared_weight(weight: Tensor | float, like: Tensor, least: float = 1.0) -> Tensor:
    """``max(sum of weight over all processes, least)`` per process, to divide a local sum by.

    The mean of the quotients over the processes, which DDP takes of the gradients, then is the
    whole sum over the whole weight. like: a tensor whose device the result has.
    """
    total = torch.as_tensor(weight, dtype=torch.float32, device=like.device).detach().clone()
    count = 1
    if not _alone and distributed.is_available() and distributed.is_initialized():
        count = distributed.get_world_size()
        distributed.all_reduce(total)
    return total.clamp(min=least) / count


@contextmanager
def alone() -> Iterator[None]:
    """Losses that only one process computes, as in validation: nothing is summed."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before
