# SPDX-License-Identifier: Apache-2.0
"""How long and how fast a training learns: schedule, learning rates by layer, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

OPTIMIZERS = ("adamw", "adam", "sgd")
MOMENTUM = 0.9
"""Of sgd."""
SHAPES = ("cosine", "drops", "flat_cosine")


@dataclass(frozen=True)
class Schedule:
    """How a training goes on.

    steps: batches in all. batch: samples each, of all processes together. learning_rate: the
    highest one, reached after ``warmup`` steps. shape: "cosine" falls to ``final`` of it along
    half a cosine; "flat_cosine" does so from the middle of the steps; "drops" divides it by ten at
    each of ``drops``, shares of the steps. averaging: decay of the moving average of the weights.
    save_every: steps between checkpoints and validations. score_every: steps between scores (AP)
    and drawn predictions of images that are kept aside, 0 for never. accumulate: parts in which
    a batch is computed, for little memory; a mean over it is a mean over the parts. layer_decay:
    factor of the learning rate from layer to layer, from the last to the first. clip: largest
    norm of the gradient. warmup_from: share of the learning rate that the first step has.
    frozen_norms: batch norms keep their statistics, as small batches need.
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.05
    averaging: float = 0.998
    seed: int = 0
    warmup: int = 200
    save_every: int = 250
    score_every: int = 0
    accumulate: int = 1
    optimizer: str = "adamw"
    layer_decay: float = 1.0
    clip: float = 10.0
    shape: str = "cosine"
    drops: tuple[float, ...] = ()
    final: float = 0.01
    warmup_from: float = 0.0
    frozen_norms: bool = False

    def problems(self) -> list[str]:
        """What is out of range, each with the value and what is allowed."""
        wrong = [
            f"{item.name} is {getattr(self, item.name)!r}, needs a number"
            for item in fields(self)
            if item.type in ("int", "float") and not _is_number(getattr(self, item.name))
        ]
        if wrong:
            return wrong
        found = []
        for name in ("steps", "batch", "save_every", "accumulate"):
            if getattr(self, name) < 1:
                found.append(f"{name} is {getattr(self, name)}, must be at least 1")
        for name, low, high in (
            ("learning_rate", 0, math.inf), ("averaging", 0, 1), ("layer_decay", 0, 1),
            ("clip", 0, math.inf), ("final", 0, 1), ("warmup_from", 0, 1),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                found.append(f"{name} is {getattr(self, name)}, allowed: {low} to {high}")
        if self.accumulate >= 1 and self.batch % self.accumulate:
            found.append(f"accumulate is {self.accumulate}, must divide batch, {self.batch}")
        for name, allowed in (("optimizer", OPTIMIZERS), ("shape", SHAPES)):
            if getattr(self, name) not in allowed:
                found.append(f"{name} is {getattr(self, name)!r}, allowed: {', '.join(allowed)}")
        if any(not 0 < drop < 1 for drop in self.drops):
            found.append(f"drops are {list(self.drops)}, shares of the steps between 0 and 1")
        return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def learning_rate(step: int, schedule: Schedule, clock: float = 0.0) -> float:
    """The learning rate of ``step``, counted from 1: linear warm-up, then the schedule's shape.

    clock: share of the time that is over, where it is limited.
    """
    warm = min(1.0, step / max(1, schedule.warmup))
    warm = schedule.warmup_from + (1 - schedule.warmup_from) * warm
    share = max(clock, (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup))
    if schedule.shape == "drops":
        past = sum(max(clock, step / schedule.steps) > drop for drop in schedule.drops)
        return schedule.learning_rate * warm * 0.1**past
    if schedule.shape == "flat_cosine":
        share = 2 * share - 1
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, share))))
    return schedule.learning_rate * warm * (schedule.final + (1 - schedule.final) * cosine)


LayerOf = Callable[[str], tuple[int, int] | None]
"""A parameter's name -> number of its layer and of the last one; None: all learn alike."""


def make_optimizer(
    network: nn.Module, schedule: Schedule, layer_of: LayerOf | None = None
) -> torch.optim.Optimizer:
    """The optimiser of every parameter that learns; groups keep their ``scale`` of the rate."""
    groups = parameter_groups(network, schedule, layer_of)
    if schedule.optimizer == "adam":
        for group in groups:
            group["weight_decay"] = 0.0  # of Adam it would be no decay but a part of the loss
        return torch.optim.Adam(groups, lr=schedule.learning_rate)
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=schedule.learning_rate, momentum=MOMENTUM)
    return torch.optim.AdamW(groups, lr=schedule.learning_rate)


def parameter_groups(
    network: nn.Module, schedule: Schedule, layer_of: LayerOf | None = None
) -> list[dict[str, Any]]:
    """Parameters by layer; weight decay for weights only: norms, biases and embeddings of
    positions are not to shrink."""
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = None if layer_of is None else layer_of(name)
        scale = 1.0 if layer is None else schedule.layer_decay ** (layer[1] - layer[0])
        free = parameter.ndim <= 1 or name.endswith("pos_embed")
        decay = 0.0 if free else schedule.weight_decay
        group = {"params": [], "weight_decay": decay, "scale": scale}
        groups.setdefault((decay, scale), group)["params"].append(parameter)
    if not groups:
        raise ValueError("no parameter of the network may change: unfreeze a part of it")
    return list(groups.values())


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
