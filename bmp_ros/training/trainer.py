# SPDX-License-Identifier: Apache-2.0
"""The training loop that all networks share: reproducible, resumable, with curves.

A folder holds everything of a training: ``last.pth`` (to go on from), ``losses.csv``,
``curves.png``, ``NAME.best.pth`` and in the end ``NAME.pth``, the averaged weights.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from bmp_ros.training import processes
from bmp_ros.training.checkpoints import (
    random_states,
    read_checkpoint,
    set_random_states,
    write_checkpoint,
)
from bmp_ros.training.interruption import Interruption, interruption_noted
from bmp_ros.training.normalisers import alone
from bmp_ros.training.optimisation import (
    Schedule,
    learning_rate,
    make_optimizer,
    moving_average,
)
from bmp_ros.training.records import append_row, draw_curves, in_words, keep_rows, to_tensorboard
from bmp_ros.training.samples import Samples, Task, batches_of

VALIDATION_BATCHES = 12
VALIDATION_BATCH = 8
"""Samples of a validation's batch at most: they are prepared between two steps."""
VALIDATION_SEED = 2**31


Score = Callable[[nn.Module, int], dict[str, float]]
"""(averaged network, step) -> scores of images that are kept aside; the first is to rise."""


@dataclass
class _Training:
    """What changes from step to step."""

    task: Task
    schedule: Schedule
    folder: Path
    device: str
    precision: str

    def __post_init__(self) -> None:
        network = self.task.network.to(self.device, memory_format=torch.channels_last)
        self.network = processes.synchronised(network, self.device)
        self.losses = processes.shared(
            processes.Losses(self.task, self.network), self.device,
            all_used=getattr(self.task, "all_used", False),
        )  # fmt: skip
        schedule = self.schedule
        self.average = AveragedModel(
            self.network, multi_avg_fn=moving_average(schedule.averaging), use_buffers=True
        )
        self.optimizer = make_optimizer(
            self.network, schedule, getattr(self.task, "layer_of", None)
        )
        kind = torch.device(self.device).type
        self.scaler = torch.amp.GradScaler(kind, enabled=self.precision == "fp16")
        self.means: defaultdict[str, list[float]] = defaultdict(list)
        self.best: float | None = None
        self.scored = -1
        self.step = 0
        self.saved = 0  # the step of the last row
        self.rate = 0.0

    def restore(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])
        self.saved = int(state.get("saved", self.step))
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = state.get("best")
        self.rate = float(state.get("rate", 0.0))
        self.scored = int(state.get("scored", -1))
        self.means.update(state.get("means", {}))
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "saved": self.saved,
            "rate": self.rate,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best": self.best,
            "scored": self.scored,
        }

    def take(self, parts: list[Any], over: float) -> None:
        """One step from the parts of a batch. over: share of a limited time that is over."""
        self.step += 1
        set_training(self.network, self.schedule.frozen_norms)
        self.rate = learning_rate(self.step, self.schedule, over)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        for number, part in enumerate(parts, 1):
            with processes.without_sharing(self.losses, number < len(parts)):
                self._learn(part, len(parts))
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update_parameters(self.network)

    def _learn(self, part: Any, parts: int) -> None:
        kind = torch.device(self.device).type
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(kind, dtype, enabled=self.precision != "fp32"):
            losses = self.losses(_to(part, self.device))
        total = torch.stack(list(losses.values())).sum()
        if not total.isfinite():
            raise FloatingPointError(
                f"the loss is {total.item()} at step {self.step}; lower --learning-rate "
                f"(now {self.schedule.learning_rate}) and start again from {self.folder}/last.pth"
            )
        self.scaler.scale(total / parts).backward()
        for name, loss in losses.items():
            self.means[name].append(loss.item())


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
    score: Score | None = None,
) -> Path | None:
    """Train until the schedule is done; go on from ``folder/last.pth`` if it is there.

    precision: "fp32", "bf16" or "fp16" (autocast; weights stay float32, fp16 scales its loss).
    workers: processes that prepare samples; 0 prepares them in this one.
    stop_after: leave after so many steps in all, as an interruption would. minutes: for a machine
    that is lent for a time: the learning rate falls with the clock where that is ahead of the
    steps, and the training is done when either is over; such a training cannot be repeated. What
    it has spent before an interruption counts. score: called before the first step, every
    ``schedule.score_every`` steps and in the end, whether steps or time are over.
    Returns the file of the averaged weights, or None when stopped before the end. Ctrl-C
    (KeyboardInterrupt), SIGTERM and SIGHUP (SystemExit) leave a checkpoint of the last step.
    Raises ValueError when the folder holds a training with another schedule, and for a batch that
    is smaller in each process and part than the task's ``least_batch``.
    """
    refuse_wrong(task, schedule, minutes)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(schedule.seed + processes.rank())
    training = _Training(task, schedule, folder, device, precision)
    state = read_checkpoint(folder, schedule)
    if state is not None:
        training.restore(state)
        if processes.rank() == 0:
            print(f"{task.name}: goes on after step {training.step} of {schedule.steps}")
            keep_rows(folder / "losses.csv", training.saved)
    if precision == "bf16" and device == "cpu":
        _keep_depthwise_single(training.network)
    last = schedule.steps if stop_after is None else min(stop_after, schedule.steps)
    spent = 0.0 if state is None else float(state.get("seconds", 0.0))
    clock = _Clock(minutes, spent, training.step)
    numbers = processes.Numbers(training.step, last, schedule.batch, schedule.accumulate)
    # Where the time was over before the last score was taken, one more step is followed by it.
    unscored = score is not None and schedule.score_every and training.scored < training.step
    numbers.ended = clock.over >= 1 and not unscored
    batches = iter(batches_of(task, schedule, numbers, workers, pinned=device.startswith("cuda")))
    if state is None and score is not None and schedule.score_every:
        _score_start(training, score)
    if state is not None:  # last: nothing before the first step may draw from them any more
        set_random_states(state["random"])
    progress = tqdm(
        desc=task.name, total=schedule.steps, initial=training.step, unit="step",
        disable=not sys.stderr.isatty() or processes.rank() > 0,
    )  # fmt: skip
    with interruption_noted() as interruption:
        # It may have been ended while it was validated or scored.
        owed = training.saved < training.step < last and _is_due(training.step, schedule, score)
        if owed and not numbers.ended:
            _save(training, clock, score, interruption, ended=False)
        while len(parts := list(islice(batches, schedule.accumulate))) == schedule.accumulate:
            over = clock.over
            # What is being prepared still comes: the processes end with their work, not in it.
            numbers.ended = over >= 1
            training.take(parts, over)
            if training.step < last and processes.in_any(bool(interruption.noted), device):
                _stop(training, clock)
                return None
            progress.update()
            # When the time is over the end is near, and its save scores.
            if _is_due(training.step, schedule, score) and not numbers.ended:
                ended = training.step == schedule.steps
                _save(training, clock, score, interruption, ended=ended)
        stopped = training.step == last < schedule.steps
        if training.step > training.saved:
            _save(training, clock, score, interruption, ended=not stopped)
        if stopped:
            return None
        weights = folder / f"{task.name}.pth"
        if processes.rank() == 0:
            torch.save(training.average.module.state_dict(), weights)
        processes.wait()
    return weights


def refuse_wrong(task: Task, schedule: Schedule, minutes: float | None) -> None:
    """Raise ValueError for a time or a batch with which `train` could take no step."""
    if minutes is not None and not minutes > 0:
        raise ValueError(f"--minutes is {minutes}, it must be above 0")
    if minutes is not None and processes.count() > 1:
        raise ValueError("--minutes is for one process: the clocks of several differ")
    size = processes.Numbers(0, schedule.steps, schedule.batch, schedule.accumulate).size
    least = getattr(task, "least_batch", 1)
    if size < least and not schedule.frozen_norms:
        raise ValueError(
            f"batch is {schedule.batch}, which is {size} for each process and part: "
            f"{type(task.network).__name__} needs {least} at least, since it has a batch norm "
            "over one value per sample; enlarge batch, or say frozen_norms: true"
        )


@dataclass
class _Clock:
    """minutes: the time that there is, None for any. spent: seconds of before an interruption.

    first, lap: the step and the time from which on the speed is taken."""

    minutes: float | None
    spent: float
    first: int
    started: float = field(default_factory=time.monotonic)
    lap: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.started

    @property
    def over(self) -> float:
        """Share of the time that is over."""
        return 0.0 if self.minutes is None else self.seconds / (60 * self.minutes)


def _is_due(step: int, schedule: Schedule, score: Score | None) -> bool:
    """Whether ``step`` is followed by a checkpoint: scores are due between two as well."""
    scored = score is not None and schedule.score_every and step % schedule.score_every == 0
    return bool(step % schedule.save_every == 0 or scored)


def _save(
    training: _Training,
    clock: _Clock,
    score: Score | None,
    interruption: Interruption,
    *,
    ended: bool,
) -> None:
    """Validate, write the row of losses, the checkpoint, the curves and the best weights.

    ended: no step follows, so that the network is scored whatever its step. The state is written
    before as well: a validation and a score take time, in which the process may be killed.
    """
    _write(training, clock)
    schedule, folder, step, task = training.schedule, training.folder, training.step, training.task
    saved = training.saved
    row = {name: float(np.mean(values)) for name, values in training.means.items()}
    training.means.clear()
    row = processes.mean_rows(row)
    due = schedule.score_every and step // schedule.score_every > saved // schedule.score_every
    if score is not None and (due or ended):
        training.scored = step
    if processes.rank() == 0:
        scores: dict[str, float] = {}
        with interruption.nothing_to_lose():
            losses = validate(task, training.average.module, schedule, training.device)
            if score is not None and schedule.score_every and (due or ended):
                scores = _scored(score, training, step)
        quality = -sum(losses.values())
        row |= {f"held-out {name}": value for name, value in losses.items()}
        if score is not None and schedule.score_every:
            # Every row has the same columns; where nothing was scored they are empty.
            quality = next(iter(scores.values()), float("-inf"))
            row |= {"AP": quality} if scores else {"AP": float("nan")}
        if _is_best(quality, training.best):
            training.best = quality
            torch.save(training.average.module.state_dict(), folder / f"{task.name}.best.pth")
        speed = (step - clock.first) * schedule.batch / (time.monotonic() - clock.lap)
        append_row(folder / "losses.csv", {"step": step, "learning_rate": training.rate, **row})
        to_tensorboard(folder, step, {"learning_rate": training.rate, **row})
        draw_curves(folder)
        words = in_words({**row, "samples per second": speed or math.nan})
        print(f"{task.name} {step}/{schedule.steps}: {words}", flush=True)
    clock.first, clock.lap = step, time.monotonic()
    training.saved = step
    _write(training, clock)


def _is_best(quality: float, best: float | None) -> bool:
    """Of equal scores the newest: a score that cannot tell them apart, such as no person found, is
    no reason to keep weights that have learned less."""
    if math.isnan(quality) or quality == float("-inf"):  # not scored
        return False
    return best is None or math.isnan(best) or quality >= best


def _write(training: _Training, clock: _Clock) -> None:
    """Write the checkpoint, with the losses of steps that are in no row yet."""
    own = processes.gathered(dict(training.means))
    means = {name: np.mean([each[name] for each in own], axis=0).tolist() for name in own[0]}
    state = {**training.state(), "means": means, "seconds": clock.seconds}
    write_checkpoint(training.folder, training.schedule, state)
    processes.wait()


def _stop(training: _Training, clock: _Clock) -> None:
    """Keep the state of an interrupted training; validation and score, which take time, wait."""
    _write(training, clock)
    if processes.rank() == 0:
        with suppress(OSError):  # the terminal may have gone
            print(
                f"{training.task.name}: stopped after step {training.step} of "
                f"{training.schedule.steps}; called again in the same way it goes on from there",
                flush=True,
            )


def _score_start(training: _Training, score: Score) -> None:
    """Score what the training begins with: the best weights until others are better."""
    if processes.rank() == 0:
        scores = _scored(score, training, 0)
        training.best = next(iter(scores.values()), None)
        best = training.folder / f"{training.task.name}.best.pth"
        torch.save(training.average.module.state_dict(), best)
        to_tensorboard(training.folder, 0, scores)
        words = in_words(scores)
        print(f"{training.task.name} 0/{training.schedule.steps}: {words}", flush=True)
    processes.wait()


def _scored(score: Score, training: _Training, step: int) -> dict[str, float]:
    before = random_states()
    network = copy.deepcopy(training.average.module).eval()
    scores = score(network, step)
    set_random_states(before)
    return scores


@torch.no_grad()
def validate(task: Task, network: nn.Module, schedule: Schedule, device: str) -> dict[str, float]:
    """Mean losses of the averaged network over the same held-out samples every time.

    Losses may draw random numbers; those of the training are left as they were, or where a
    training was interrupted would change what comes after.
    """
    before = random_states()
    torch.manual_seed(VALIDATION_SEED)
    network.eval()
    means: defaultdict[str, list[float]] = defaultdict(list)
    samples = Samples(task, VALIDATION_SEED, validation=True)
    size = min(schedule.batch, VALIDATION_BATCH)
    with alone():
        for first in range(0, VALIDATION_BATCHES * size, size):
            batch = task.collate([samples[first + row] for row in range(size)])
            for name, loss in task.losses(network, _to(batch, device)).items():
                means[name].append(loss.item())
    set_random_states(before)
    return {name: float(np.mean(values)) for name, values in means.items()}


def set_training(network: nn.Module, frozen_norms: bool) -> None:
    """Training mode; frozen norms stay in the other one."""
    network.train()
    if frozen_norms:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


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


def _to(batch: Any, device: str) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, (list, tuple)):
        moved = [_to(item, device) for item in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch
