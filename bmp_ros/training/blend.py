# SPDX-License-Identifier: Apache-2.0
"""Weights between those that a training began with and those it ended with: ``python -m
bmp_ros.training.blend RECIPE.yaml NEW.pth --share 0.8 --output OUT.pth``.

A network fine-tuned on other images forgets some of what it knew; on the way from old weights
to the new ones lie networks that keep most of both (Wortsman et al., "Robust fine-tuning of
zero-shot models", CVPR 2022). The statistics of the batch norms are estimated anew, since those of
the two ends do not fit the weights between them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from bmp_ros.training.recipe import prepare, read_recipe
from bmp_ros.training.samples import Task

BATCHES, BATCH = 24, 8
SEED = 7
"""Of the samples by which the statistics are estimated."""


def blend(task: Task, new: dict[str, Tensor], share: float) -> None:
    """Move the weights of ``task.network`` by ``share`` of the way to ``new``, in [0, 1].

    Raises ValueError for a share out of range and for weights of another network.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}, allowed: 0 to 1")
    old = task.network.state_dict()
    if {k: v.shape for k, v in old.items()} != {k: v.shape for k, v in new.items()}:
        raise ValueError("the new weights are those of another network than the recipe's")
    task.network.load_state_dict(
        {k: v.lerp(new[k], share) if v.is_floating_point() else v for k, v in old.items()}
    )
    for module in task.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all batches
    task.network.train()
    with torch.no_grad():
        for first in range(0, BATCHES * BATCH, BATCH):
            samples = [task.sample(first + row, SEED) for row in range(BATCH)]
            task.losses(task.network, task.collate(samples))
    task.network.eval()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bmp_ros.training.blend", description=__doc__.split("\n")[0]
    )
    parser.add_argument("recipe", type=Path, help="its start_from are the old weights")
    parser.add_argument("new", type=Path, help="weights (.pth) that the training ended with")
    parser.add_argument("--share", type=float, required=True, help="0: the old ones, 1: the new")
    parser.add_argument("--output", type=Path, required=True, help="file (.pth) to write")
    parser.add_argument("--root", type=Path, default=Path(), help="see bmp train")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/bmp_ros/training"))
    args = parser.parse_args(arguments)
    try:
        new = torch.load(args.new, map_location="cpu", weights_only=True)
        task, _ = prepare(read_recipe(args.recipe), args.root, args.cache.expanduser())
        blend(task, new, args.share)
        torch.save(task.network.state_dict(), args.output)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
