# SPDX-License-Identifier: Apache-2.0
"""One training in several processes, through torch's DDP: ``torchrun --nproc-per-node 4 …``.

A batch is the same whatever the number of processes: each computes its part of it, and what losses
are divided by is summed over all (`bmp_ros.training.normalisers`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

Result = TypeVar("Result")
LONGEST_WAIT = timedelta(hours=2)
"""Of the other processes while the first one decodes images or scores the network."""


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that ``torchrun`` started and leave them in the end.

    Yields the device of this process: its own GPU, if ``device`` is cuda. Alone, nothing happens.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    try:
        yield device
    finally:
        _leave(torch.device(device))


def _leave(device: torch.device) -> None:
    """Destroy the group of processes without Python's lock.

    gloo's destructor waits for its threads, and one that still lets go of the last tensor needs
    the lock. The group's Python object keeps it meanwhile, and the process waits for ever; the
    backend's own object, where it goes last, gives it up (seen with torch 2.7).
    """
    group = distributed.group.WORLD
    backend = None if group is None else group._get_backend(device)
    del group
    distributed.destroy_process_group()
    del backend


def count() -> int:
    """How many processes train together."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def rank() -> int:
    """Number of this process, from 0; process 0 writes the files."""
    return distributed.get_rank() if count() > 1 else 0


def first_alone(work: Callable[[], Result]) -> Result:
    """What ``work`` returns in this process; the first process does it before the others begin.

    Where it fails in the first one, the others leave with exit code 1 and without words, so that
    its error is the only one to be read.
    """
    if count() == 1:
        return work()
    done = [False]
    if rank() > 0:
        distributed.broadcast_object_list(done, src=0)
        if not done[0]:
            raise SystemExit(1)
        return work()
    try:
        result = work()
        done = [True]
    finally:
        distributed.broadcast_object_list(done, src=0)
    return result


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        distributed.barrier()


def gathered(item: Any) -> list[Any]:
    """``item`` of every process, in their order."""
    if count() == 1:
        return [item]
    items: list[Any] = [None] * count()
    distributed.all_gather_object(items, item)
    return items


def in_any(condition: bool, device: str) -> bool:
    """Whether ``condition`` holds in any process; all ask at the same point."""
    if count() == 1:
        return condition
    found = torch.tensor(float(condition), device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return bool(found.item())


def mean_rows(row: dict[str, float]) -> dict[str, float]:
    """The mean over all processes of each number of a row; a loss's is that of the whole batch."""
    rows = gathered(row)
    return {name: sum(each[name] for each in rows) / len(rows) for name in row}


class Losses(nn.Module):
    """The losses of a batch as a module's output, which is what DDP wraps."""

    def __init__(self, task: Any, network: nn.Module) -> None:
        super().__init__()
        self._losses = task.losses
        self.network = network

    def forward(self, batch: Any) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self._losses(self.network, batch)
        return losses


def shared(losses: Losses, device: str, *, all_used: bool) -> nn.Module:
    """``losses`` with gradients averaged over all processes.

    all_used: every parameter has a gradient in each step. Otherwise, as of a detector whose people
    have no masks, DDP looks which ones have.
    """
    if count() == 1:
        return losses
    ids = [torch.device(device)] if device.startswith("cuda") else None
    return DistributedDataParallel(losses, device_ids=ids, find_unused_parameters=not all_used)


def without_sharing(losses: nn.Module, condition: bool) -> Any:
    """Where ``condition`` holds, gradients are not averaged yet: more of the batch follows."""
    if condition and isinstance(losses, DistributedDataParallel):
        return losses.no_sync()
    return nullcontext()


def synchronised(network: nn.Module, device: str) -> nn.Module:
    """Batch norms with the statistics of all processes, which torch has for CUDA only."""
    if count() > 1 and device.startswith("cuda"):
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network


class Numbers(torch.utils.data.Sampler[int]):
    """Sample numbers of this process in their order: number n is random by itself, so no order
    has to be.

    first, last: steps. batch: samples of a step in all processes. parts: of a step, in each of
    which every process has ``size`` samples. ``ended``: no step is begun any more.
    """

    def __init__(self, first: int, last: int, batch: int, parts: int) -> None:
        if batch % (parts * count()):
            raise ValueError(
                f"batch is {batch}: it must be a multiple of accumulate, {parts}, times the "
                f"number of processes, {count()}"
            )
        self._steps, self._batch, self._parts = range(first, last), batch, parts
        self.size = batch // (parts * count())
        self.ended = False

    def __iter__(self) -> Iterator[int]:
        for step in self._steps:
            if self.ended:
                return
            yield from self._of(step)

    def _of(self, step: int) -> Sequence[int]:
        first = step * self._batch + rank() * self.size
        starts = range(first, first + self._batch, self.size * count())
        return [start + offset for start in starts for offset in range(self.size)]

    def __len__(self) -> int:
        return len(self._steps) * self._parts * self.size
