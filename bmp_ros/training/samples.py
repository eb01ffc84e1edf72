# SPDX-License-Identifier: Apache-2.0
"""What is trained, its samples by number, and batches of them, prepared here or by workers."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from typing import Any, Protocol

import cv2
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bmp_ros.fork_server import fork_server_context
from bmp_ros.training import processes
from bmp_ros.training.optimisation import Schedule


class Task(Protocol):
    """What is trained, on what, against which loss."""

    name: str
    network: nn.Module

    def sample(self, number: int, seed: int, *, validation: bool = False) -> Any:
        """Return sample ``number``, the same for the same number and seed."""
        ...

    def collate(self, samples: list[Any]) -> Any:
        """Join samples into a batch of tensors."""
        ...

    def losses(self, network: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Return the weighted losses of a batch; their sum is minimised."""
        ...


class Samples(Dataset[Any]):
    """The samples of a task by number, for training or for validation."""

    def __init__(self, task: Task, seed: int, validation: bool) -> None:
        self.task, self.seed, self.validation = task, seed, validation

    def __getstate__(self) -> dict[str, Any]:
        """Without the network, which processes that prepare samples do not need."""
        task = copy.copy(self.task)
        task.network = nn.Identity()
        return {**self.__dict__, "task": task}

    def __getitem__(self, number: int) -> Any:
        return self.task.sample(number, self.seed, validation=self.validation)

    def collate(self, samples: list[Any]) -> Any:
        return self.task.collate(samples)


def batches_of(
    task: Task, schedule: Schedule, numbers: processes.Numbers, workers: int, pinned: bool
) -> Iterator[Any]:
    """Parts of batches as the task collates them, of the sample ``numbers`` of this process.

    workers: processes that prepare them; 0: this one. pinned: in memory that a GPU reads directly.
    """
    samples = Samples(task, schedule.seed, validation=False)
    return iter(
        DataLoader(
            samples,
            generator=torch.Generator().manual_seed(schedule.seed),  # else it draws from ours
            batch_size=numbers.size,
            sampler=numbers,
            num_workers=workers,
            collate_fn=samples.collate,
            multiprocessing_context=(
                fork_server_context(outlives_terminal=True) if workers else None
            ),
            worker_init_fn=_begin_worker if workers else None,
            prefetch_factor=max(2, 6 // workers) if workers else None,
            pin_memory=pinned,
        )
    )


def _begin_worker(number: int) -> None:
    """Processes that prepare samples give way to the step, and to everybody else.

    Ctrl-C and logging out are for the first process: the step at hand may need their samples.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    cv2.setNumThreads(1)
    if hasattr(os, "nice"):
        os.nice(5)
