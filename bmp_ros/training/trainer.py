# SPDX-License-Identifier: Apache-2.0
"""The training loop that all three networks share: reproducible, resumable, with curves.

A folder holds everything of a training: ``last.pth`` (to go on from), ``losses.csv``,
``curves.png`` and in the end ``NAME.pth``, the averaged weights.
"""

from __future__ import annotations

import copy
import math
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from bmp_ros.training.records import append_row, draw_curves, in_words, keep_rows

CLIP = 10.0
"""Largest norm of a gradient."""
VALIDATION_BATCHES = 12
VALIDATION_BATCH = 8
"""Samples of a validation's batch at most: they are prepared between two steps."""
VALIDATION_SEED = 2**31


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


@dataclass(frozen=True)
class Schedule:
    """steps: batches in all. batch: samples each. learning_rate: the highest one, reached after
    ``warmup`` steps, from where a half cosine leads down to a hundredth. averaging: decay of the
    moving average of the weights. save_every: steps between checkpoints and validations."""

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.05
    averaging: float = 0.998
    seed: int = 0
    warmup: int = 200
    save_every: int = 250


class _Samples(Dataset[Any]):
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


def train(
    task: Task,
    schedule: Schedule,
    folder: Path,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    workers: int = 0,
    stop_after: int | None = None,
    minutes: float | None = None,
) -> Path | None:
    """Train until the schedule is done; go on from ``folder/last.pth`` if it is there.

    precision: "fp32" or "bf16" (autocast; weights stay float32), faster where the processor has
    instructions for it. workers: processes that prepare samples; 0 prepares them in this one.
    stop_after: leave after so many steps in all, as an interruption would. minutes: for a machine
    that is lent for a time: the learning rate falls with the clock where that is ahead of the
    steps, and the training is done when either is over; such a training cannot be repeated. What
    it has spent before an interruption counts.
    Returns the file of the averaged weights, or None when stopped before the end.
    Raises ValueError when the folder holds a training with another schedule.
    """
    if minutes is not None and not minutes > 0:
        raise ValueError(f"--minutes is {minutes}, it must be above 0")
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(schedule.seed)
    network = task.network.to(device, memory_format=torch.channels_last)
    average = AveragedModel(
        network, multi_avg_fn=moving_average(schedule.averaging), use_buffers=True
    )
    optimizer = torch.optim.AdamW(_parameter_groups(network, schedule), lr=schedule.learning_rate)
    state = _checkpoint(folder, schedule)
    first = 0 if state is None else int(state["step"])
    if state is not None:
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        keep_rows(folder / "losses.csv", first)
    if precision == "bf16" and device == "cpu":
        _keep_depthwise_single(network)
    last = schedule.steps if stop_after is None else min(stop_after, schedule.steps)
    spent = 0.0 if state is None else float(state.get("seconds", 0.0))
    start = time.monotonic() - spent

    def clock() -> float:
        """Share of the time that is over."""
        return 0.0 if minutes is None else (time.monotonic() - start) / (60 * minutes)

    numbers = _Numbers(range(first * schedule.batch, last * schedule.batch), schedule.batch)
    numbers.ended = clock() >= 1
    batches = iter(_batches(task, schedule, numbers, workers, pinned=device.startswith("cuda")))
    if state is not None:  # last: nothing before the first step may draw from them any more
        _set_random_states(state["random"])
    means: defaultdict[str, list[float]] = defaultdict(list)
    progress = tqdm(
        enumerate(batches, first + 1), task.name, schedule.steps, initial=first, unit="step",
        disable=not sys.stderr.isatty(),
    )  # fmt: skip
    step, rate, saved = first, 0.0, first
    began = time.monotonic()

    def save() -> None:
        nonlocal began, saved
        row = {name: float(np.mean(values)) for name, values in means.items()}
        means.clear()
        held_out = validate(task, average.module, schedule, device)
        row |= {f"held-out {name}": value for name, value in held_out.items()}
        speed = (step - saved) * schedule.batch / (time.monotonic() - began)
        began, saved = time.monotonic(), step
        append_row(folder / "losses.csv", {"step": step, "learning_rate": rate, **row})
        seconds = time.monotonic() - start
        _save(folder, step, schedule, network, average, optimizer, seconds)
        draw_curves(folder)
        words = in_words({**row, "samples per second": speed})
        print(f"{task.name} {step}/{schedule.steps}: {words}", flush=True)

    for step, batch in progress:
        network.train()
        over = clock()
        # What is being prepared still comes: the processes end with their work, not in it.
        numbers.ended = over >= 1
        rate = learning_rate(step, schedule, over)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            losses = task.losses(network, _to(batch, device))
        total = torch.stack(list(losses.values())).sum()
        if not total.isfinite():
            raise FloatingPointError(
                f"the loss is {total.item()} at step {step}; lower --learning-rate "
                f"(now {schedule.learning_rate}) and start again from {folder}/last.pth"
            )
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        average.update_parameters(network)
        for name, loss in losses.items():
            means[name].append(loss.item())
        if step % schedule.save_every == 0:
            save()
    if step > saved:
        save()
    if step == last < schedule.steps:
        return None
    weights = folder / f"{task.name}.pth"
    torch.save(average.module.state_dict(), weights)
    return weights


@torch.no_grad()
def validate(task: Task, network: nn.Module, schedule: Schedule, device: str) -> dict[str, float]:
    """Mean losses of the averaged network over the same held-out samples every time.

    Losses may draw random numbers; those of the training are left as they were, or where a
    training was interrupted would change what comes after.
    """
    before = _random_states()
    torch.manual_seed(VALIDATION_SEED)
    network.eval()
    means: defaultdict[str, list[float]] = defaultdict(list)
    samples = _Samples(task, VALIDATION_SEED, validation=True)
    size = min(schedule.batch, VALIDATION_BATCH)
    for first in range(0, VALIDATION_BATCHES * size, size):
        batch = task.collate([samples[first + row] for row in range(size)])
        for name, loss in task.losses(network, _to(batch, device)).items():
            means[name].append(loss.item())
    _set_random_states(before)
    return {name: float(np.mean(values)) for name, values in means.items()}


def _keep_depthwise_single(network: nn.Module) -> None:
    """Let depth-wise convolutions compute in float32: their gradients in bfloat16 take two
    to five times as long on CPUs (oneDNN 3.7)."""

    def single(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return forward(x.float())

        return run

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            layer.forward = single(layer.forward)


def learning_rate(step: int, schedule: Schedule, clock: float = 0.0) -> float:
    """The learning rate of ``step``, counted from 1: linear warm-up, then half a cosine.

    clock: share of the time that is over, where it is limited.
    """
    warm = min(1.0, step / max(1, schedule.warmup))
    share = max(clock, (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, share))))
    return schedule.learning_rate * warm * (0.01 + 0.99 * cosine)


def moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor | int], None]:
    """How `AveragedModel` shall average: exponentially, at first over the last tenth of the steps.

    With the full decay from the start, a thousand steps later the average still holds some of the
    untrained weights. All tensors at once: on a GPU each by itself would wait for the step.
    """

    def average(means: list[Tensor], values: list[Tensor], steps: Tensor | int) -> None:
        if not means[0].is_floating_point():  # the batch norms' counters
            torch._foreach_copy_(means, values)
            return
        number = float(steps)
        torch._foreach_lerp_(means, values, 1 - min(decay, (1 + number) / (10 + number)))

    return average


def _parameter_groups(network: nn.Module, schedule: Schedule) -> list[dict[str, Any]]:
    """Weight decay for weights only: norms and biases are not to shrink."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": weights, "weight_decay": schedule.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _batches(
    task: Task, schedule: Schedule, numbers: _Numbers, workers: int, pinned: bool
) -> Iterable[Any]:
    samples = _Samples(task, schedule.seed, validation=False)
    return DataLoader(
        samples,
        generator=torch.Generator().manual_seed(schedule.seed),  # else the loader draws from ours
        batch_size=schedule.batch,
        sampler=numbers,
        num_workers=workers,
        collate_fn=samples.collate,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_begin_worker if workers else None,
        prefetch_factor=max(2, 6 // workers) if workers else None,
        pin_memory=pinned,
    )


def _begin_worker(number: int) -> None:
    """Processes that prepare samples give way to the step, and to everybody else."""
    cv2.setNumThreads(1)
    if hasattr(os, "nice"):
        os.nice(5)


class _Numbers(torch.utils.data.Sampler[int]):
    """Sample numbers in their order: number n is random by itself, so no order has to be.

    ``ended``: no batch is begun any more.
    """

    def __init__(self, numbers: range, batch: int) -> None:
        self._numbers, self._batch = numbers, batch
        self.ended = False

    def __iter__(self) -> Iterator[int]:
        for number in self._numbers:
            if self.ended and number % self._batch == 0:
                return
            yield number

    def __len__(self) -> int:
        return len(self._numbers)


def _to(batch: Any, device: str) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, (list, tuple)):
        return type(batch)(_to(item, device) for item in batch)
    return batch


def _checkpoint(folder: Path, schedule: Schedule) -> dict[str, Any] | None:
    """What ``_save`` wrote, None without any; refuses that of another training."""
    file = folder / "last.pth"
    if not file.is_file():
        return None
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    if state["schedule"] != asdict(schedule):
        raise ValueError(
            f"{file} belongs to a training with {state['schedule']}, asked for is "
            f"{asdict(schedule)}; use the same options or another --output"
        )
    if "random" not in state:
        raise ValueError(
            f"{file} was written by a version that did not keep the random states, so that the "
            "training would not go on as it was; start a new one (another --output) from its "
            "weights"
        )
    return state


def _random_states() -> dict[str, Any]:
    """The states of every generator that a step may draw from, as ``torch.load`` takes them."""
    name, keys, position, has_gauss, cached = cast(tuple[Any, ...], np.random.get_state())
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    name, keys, *others = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *others))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))


def _save(
    folder: Path,
    step: int,
    schedule: Schedule,
    network: nn.Module,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    seconds: float,
) -> None:
    part = folder / "last.pth.part"
    torch.save(
        {
            "step": step,
            "schedule": asdict(schedule),
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": _random_states(),
            "seconds": seconds,
        },
        part,
    )
    part.replace(folder / "last.pth")
