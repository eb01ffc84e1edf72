# SPDX-License-Identifier: Apache-2.0
"""Two processes learn what one learns from the same batches, and go on exactly."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from figures import write_figures

from bmp_ros.training import processes, trainer
from bmp_ros.training.checkpoints import read_checkpoint
from bmp_ros.training.command import main
from bmp_ros.training.normalisers import alone, shared_weight
from bmp_ros.training.optimisation import Schedule
from bmp_ros.training.recipe import prepare, read_recipe

WORKER = """
import sys
from bmp_ros.training import command, trainer
trainer.VALIDATION_BATCHES = 1
sys.exit(command.main(sys.argv[1:]))
"""
VIT = {"width": 384, "depth": 1, "hidden": 64, "channels": 8}
RECIPES: dict[str, dict[str, Any]] = {
    # Of the head's batch norms the statistics are kept; the transformer has none.
    "vit_pose": {"options": {"variant": VIT}, "size": [96, 128]},
    "rtmdet_ins": {
        "options": {"variant": {"widen": 0.125, "deepen": 0.17}, "painted_share": 0.0},
        "size": [96, 96],
    },
}  # fmt: skip


def write_recipe(root: Path, network: str, **schedule: Any) -> Path:
    write_figures(root / "figures", 6, people=2)
    source = {"folder": "figures", "annotations": "coco.json"}
    steps = {
        "steps": 5, "batch": 4, "warmup": 1, "save_every": 5, "learning_rate": 1e-2,
        "frozen_norms": True, "optimizer": "sgd", "averaging": 0.5, **schedule,
    }  # fmt: skip
    recipe = {
        "network": network, "data": [source, {**source, "validation": True}],
        "schedule": steps, **RECIPES[network],
    }  # fmt: skip
    file = root / f"{network}.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return file


def train_alone(root: Path, recipe: Path, output: str, *more: str) -> Any:
    """The whole command in this process; its checkpoint."""
    assert main(arguments(root, recipe, output, *more)) == 0
    return torch.load(root / output / "last.pth", weights_only=True)


def arguments(root: Path, recipe: Path, output: str, *more: str) -> list[str]:
    return [
        str(recipe), "--root", str(root), "--cache", str(root / "cache"), "--output",
        str(root / output), "--threads", "1", "--device", "cpu", *more,
    ]  # fmt: skip


def train_together(count: int, root: Path, recipe: Path, output: str, *more: str) -> Any:
    """The same in ``count`` processes, as ``torchrun`` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", WORKER, *arguments(root, recipe, output, *more)]
    running = []
    for rank in range(count):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **place, **where}
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(command, env=environment, stderr=pipe, stdout=pipe))
    try:
        for process in running:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in running:
            process.kill()
    return torch.load(root / output / "last.pth", weights_only=True)


def first_weights(root: Path, recipe: Path) -> dict[str, Any]:
    """Those that a training of the recipe begins with."""
    read = read_recipe(recipe)
    torch.manual_seed(read.schedule.seed)
    task, _ = prepare(read, root, root / "cache")
    return task.network.state_dict()


def difference(first: dict[str, Any], second: dict[str, Any], start: dict[str, Any]) -> float:
    """Largest difference of two networks, in parts of what the training changed."""
    moved = max(float((first[k].double() - start[k].double()).abs().max()) for k in start)
    apart = max(float((first[k].double() - second[k].double()).abs().max()) for k in start)
    assert moved > 1e-4, "the training changed something"
    return apart / moved


@pytest.mark.parametrize("network", sorted(RECIPES))
def test_two_processes_learn_as_one_does(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    file = write_recipe(tmp_path, network)
    start = first_weights(tmp_path, file)
    one = train_alone(tmp_path, file, "one")
    two = train_together(2, tmp_path, file, "two")
    assert len(two["others"]) == 1, "the random states of the other process"
    assert difference(one["network"], two["network"], start) < 1e-5
    with pytest.raises(ValueError, match="in 2 processes, these are 1"):
        read_checkpoint(tmp_path / "two", read_recipe(file).schedule)


def test_parts_of_a_batch_learn_as_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a loss whose weight is the same in all parts, as that of heatmaps is."""
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    file = write_recipe(tmp_path, "vit_pose")
    start = first_weights(tmp_path, file)
    whole = train_alone(tmp_path, file, "whole")
    parts = train_alone(tmp_path, file, "parts", "--accumulate", "2")
    assert difference(whole["network"], parts["network"], start) < 1e-5


def test_each_process_has_its_part_of_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def numbers(rank: int, count: int, parts: int) -> list[int]:
        monkeypatch.setattr(processes, "count", lambda: count)
        monkeypatch.setattr(processes, "rank", lambda: rank)
        return list(processes.Numbers(1, 3, 8, parts))

    assert numbers(0, 1, 1) == numbers(0, 1, 4) == list(range(8, 24))
    assert numbers(0, 2, 1) == [8, 9, 10, 11, 16, 17, 18, 19]
    assert numbers(1, 2, 1) == [12, 13, 14, 15, 20, 21, 22, 23]
    assert numbers(0, 2, 2) == [8, 9, 12, 13, 16, 17, 20, 21]
    assert numbers(1, 2, 2) == [10, 11, 14, 15, 18, 19, 22, 23]
    with pytest.raises(ValueError, match="batch is 8.*processes, 3"):
        numbers(0, 3, 1)


def test_weights_are_never_below_the_least() -> None:
    like = torch.zeros(())
    assert shared_weight(0.2, like) == 1 and shared_weight(5, like) == 5
    with alone():
        assert shared_weight(torch.tensor(3), like) == 3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": "1e-3"}, "learning_rate is '1e-3', needs a number"),
        ({"accumulate": 3}, "accumulate is 3, must divide batch, 8"),
        ({"shape": "steps"}, "cosine, drops"),
        ({"optimizer": "lion"}, "adamw, adam, sgd"),
        ({"drops": (2.0,)}, "drops"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5"),
    ],
)
def test_schedules_out_of_range_are_named(wrong: dict[str, Any], words: str) -> None:
    values: dict[str, Any] = {"steps": 4, "batch": 8, "learning_rate": 1e-3, **wrong}
    problems = Schedule(**values).problems()
    assert len(problems) == 1 and words in problems[0]
