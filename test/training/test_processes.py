# SPDX-License-Identifier: Apache-2.0
"""Two processes learn what one learns from the same batches, and go on exactly."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
import yaml
from discs import disc_image
from figures import write_figures

from bmp_ros.training import processes, trainer
from bmp_ros.training.checkpoints import read_checkpoint
from bmp_ros.training.command import main
from bmp_ros.training.normalisers import alone, shared_weight
from bmp_ros.training.optimisation import Schedule
from bmp_ros.training.recipe import prepare, read_recipe

WORKER = """
import json, os, sys
from functools import partial
from torch import distributed
from bmp_ros.training import command, trainer
trainer.VALIDATION_BATCHES = 1
trainer.draw_curves = lambda folder: None
place = {"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}
join = distributed.init_process_group
for store, arguments in json.loads(sys.argv[1]):
    # They meet in a file: a port that was free may be taken when it is used.
    distributed.init_process_group = partial(join, init_method=f"file://{store}", **place)
    if command.main(arguments):
        sys.exit(1)
"""
VIT = {"width": 384, "depth": 1, "hidden": 64, "channels": 8}
HRNET = {"widths": [8, 16, 32, 64], "modules": [1, 1, 1], "blocks": 1}
HIERA = {
    "embed_dim": 16, "heads": 1, "stages": [1, 1, 2, 1], "global_blocks": [3],
    "windows": [8, 4, 4, 4], "position_side": 7,
}  # fmt: skip
DIMMED = {"mask_background": {"dim": 0.25}}
# A recipe's name -> its network, narrower. Of the batch norms the statistics are kept.
RECIPES: dict[str, dict[str, Any]] = {
    "maskpose": {
        "network": "vit_pose", "size": [96, 128],
        "options": {"variant": VIT, "skeleton": "multi_23", **DIMMED},
    },
    "vitpose_multi": {
        "network": "vit_pose", "size": [96, 128],
        "options": {"variant": VIT, "skeleton": "multi_21"},
    },
    "pmpose": {
        "network": "pmpose", "options": {"variant": VIT, "skeleton": "multi_23", **DIMMED},
    },
    "rtmdet_ins_maskout": {
        "network": "rtmdet_ins", "size": [96, 96],
        "options": {"variant": {"widen": 0.125, "deepen": 0.17}, "mosaic_share": 0.0},
    },
    "pose2seg": {
        "network": "pose2seg", "size": [256, 256],
        "options": {"variant": HIERA, "freeze_encoder": True, "corrections": 1},
    },
    "hrnet": {"network": "hrnet", "size": [64, 96], "options": {"variant": HRNET}},
    "omnipose": {"network": "omnipose", "size": [64, 96], "options": {"variant": HRNET}},
    "tiny_detector": {"network": "detector", "size": [96, 96]},
    "tiny_pose": {"network": "pose"},
    "tiny_segmenter": {"network": "segmenter", "size": [64, 64]},
}  # fmt: skip


RATES = {
    "maskpose": 1.0, "vitpose_multi": 1.0, "tiny_pose": 1.0, "hrnet": 0.1, "omnipose": 0.1,
    "pose2seg": 0.1, "pmpose": 0.1,
}  # fmt: skip
"""Where gradients are small: weights change by far more than float32 rounds them."""


def write_recipe(root: Path, name: str, **schedule: Any) -> Path:
    recipe = {**RECIPES[name]}
    multi = str(recipe.get("options", {}).get("skeleton", "")).startswith("multi")
    sources = []
    for data_set in ("coco", "mpii", "aic") if multi else ("coco",):
        folder = root / data_set
        if not folder.exists():
            make_uneven(write_figures(folder, 6, data_set, people=2))
        sources.append({"folder": data_set, "annotations": f"{data_set}.json"})
    steps = {
        "steps": 3, "batch": 4, "warmup": 1, "save_every": 3,
        "learning_rate": RATES.get(name, 1e-2), "frozen_norms": True, "optimizer": "sgd",
        "averaging": 0.5, "weight_decay": 0.0, **schedule,
    }  # fmt: skip
    recipe |= {"data": [*sources, {**sources[0], "validation": True}], "schedule": steps}
    file = root / f"{name}.yaml"
    file.write_text(yaml.safe_dump(recipe))
    torch.save(first_weights(root, file), root / f"{name}.pth")
    file.write_text(yaml.safe_dump({**recipe, "start_from": f"{name}.pth"}))
    return file


def first_weights(root: Path, recipe: Path) -> dict[str, Any]:
    """Random ones; a detector's boxes are no points, so that every part of its loss counts."""
    read = read_recipe(recipe)
    torch.manual_seed(0)
    task, _ = prepare(read, root, root / "cache")
    for name, parameter in task.network.named_parameters():
        if "rtm_reg" in name and name.endswith("bias"):
            torch.nn.init.constant_(parameter, 1.0)
    return task.network.state_dict()


def make_uneven(file: Path) -> None:
    """Take people, masks and joints away, so that what losses are divided by differs from process
    to process."""
    document = json.loads(file.read_text())
    for number, person in enumerate(document["annotations"]):
        joints = person["keypoints"]
        for joint in range(len(joints) // 3):
            if (number + joint) % 3 == 0:
                joints[3 * joint + 2] = 1
            if (number + joint) % (2 + number % 4) == 0:
                joints[3 * joint : 3 * joint + 3] = [0, 0, 0]
        if number % 5 == 1:
            del person["segmentation"]
    del document["annotations"][3::4]
    file.write_text(json.dumps(document))


def train_alone(root: Path, recipe: Path, output: str, *more: str) -> Any:
    """The whole command in this process; its checkpoint."""
    assert main(arguments(root, recipe, output, *more)) == 0
    return torch.load(root / output / "last.pth", weights_only=True)


def arguments(root: Path, recipe: Path, output: str, *more: str) -> list[str]:
    return [
        str(recipe), "--root", str(root), "--cache", str(root / "cache"), "--output",
        str(root / output), "--threads", "1", "--device", "cpu", *more,
    ]  # fmt: skip


def train_together(
    count: int, trainings: Sequence[Sequence[str]], stores: Path
) -> list[tuple[int, str]]:
    """Commands, one after the other, each in the same ``count`` processes, until one fails.

    stores: an empty folder, for the files in which they meet. Returns the exit code of each
    process and what it says on stderr.
    """
    stores.mkdir()
    given = json.dumps([(str(stores / str(n)), list(each)) for n, each in enumerate(trainings)])
    return run_together(count, [WORKER, given])


def run_together(count: int, program: Sequence[str]) -> list[tuple[int, str]]:
    """A program, ``python -c`` and its arguments, in so many processes that know of each other.

    Returns the exit code of each process and what it says on stderr.
    """
    running = []
    for rank in range(count):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        environment = {**os.environ, **place, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", *program]
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(command, env=environment, stderr=pipe, stdout=pipe))
    try:
        errors = [process.communicate(timeout=600)[1].decode() for process in running]
        return [(each.returncode, error) for each, error in zip(running, errors, strict=True)]
    finally:
        for process in running:
            process.kill()


def difference(first: dict[str, Any], second: dict[str, Any], start: dict[str, Any]) -> float:
    """Largest difference of two networks, in parts of what the training changed."""
    moved = max(float((first[k].double() - start[k].double()).abs().max()) for k in start)
    apart = max(float((first[k].double() - second[k].double()).abs().max()) for k in start)
    assert moved > 1e-3, "the training changed something"
    return apart / moved


class Together(NamedTuple):
    """What two processes learned of every recipe, in ``folder/two/NAME``: a gigabyte.

    ended: exit codes and stderr of both, of which the last recipe has wrong data.
    """

    folder: Path
    ended: list[tuple[int, str]]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    root = tmp_path_factory.mktemp("together")
    names = sorted(RECIPES)
    if importlib.util.find_spec("sam2") is None:
        names.remove("pose2seg")
    commands = [arguments(root, write_recipe(root, name), f"two/{name}") for name in names]
    wrong = root / "wrong.yaml"
    wrong.write_text((root / "hrnet.yaml").read_text().replace("folder: coco", "folder: coca"))
    commands.append(arguments(root, wrong, "two/wrong"))
    ended = train_together(2, commands, root / "stores")
    said = "\n".join(error for _, error in ended)
    assert all((root / "two" / name / "last.pth").is_file() for name in names), said
    yield Together(root, ended)
    shutil.rmtree(root)


@pytest.fixture
def two(together: Together) -> Path:
    return together.folder


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_two_processes_learn_as_one_does(
    name: str, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "pose2seg":
        pytest.importorskip("sam2", reason="SAM's modules are those of the package sam2")
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    file = two / f"{name}.yaml"
    start = torch.load(two / f"{name}.pth", weights_only=True)
    one = train_alone(two, file, f"one/{name}")
    both = torch.load(two / "two" / name / "last.pth", weights_only=True)
    assert len(both["others"]) == 1, "the random states of the other process"
    assert difference(one["network"], both["network"], start) < 1e-5
    rows = [
        next(csv.DictReader((two / count / name / "losses.csv").open()))
        for count in ("one", "two")
    ]
    assert {k: float(v) for k, v in rows[1].items()} == pytest.approx(
        {k: float(v) for k, v in rows[0].items()}, rel=1e-4, abs=1e-7
    )


def test_two_processes_of_torchrun(two: Path) -> None:
    """The command of docs/training.md."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("RANK", None)
    recipe = two / "hrnet.yaml"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command = [*torchrun, "2", "-m", "bmp_ros.training", *arguments(two, recipe, "torchrun")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pose 3/3") == 1, "the first process alone speaks"
    assert "find_unused_parameters" not in done.stderr
    first, second = (
        torch.load(two / place / "last.pth", weights_only=True)["network"]
        for place in ("torchrun", "two/hrnet")
    )
    start = torch.load(two / "hrnet.pth", weights_only=True)
    assert difference(first, second, start) < 1e-5


def test_two_processes_say_one_error_of_wrong_data(together: Together) -> None:
    """Of the first process; the other one leaves without words."""
    (first, said), (second, nothing) = together.ended
    assert first == second == 1
    assert said.count("problems in the data, no step was taken") == 1
    assert "problems" not in nothing and "Traceback" not in nothing


JOIN_AND_LEAVE = """
import os, sys
from functools import partial
from torch import distributed
from bmp_ros.training import processes
place = {"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}
join = distributed.init_process_group
for number in range(40):
    store = f"file://{sys.argv[1]}/{number}"
    distributed.init_process_group = partial(join, init_method=store, **place)
    with processes.joined("cpu") as device:
        processes.first_alone(lambda: None)
        processes.in_any(False, device)
"""


def test_processes_leave_while_gloo_lets_go_of_tensors(tmp_path: Path) -> None:
    """With torch's own way of leaving one process in four waited for ever."""
    assert [code for code, _ in run_together(2, [JOIN_AND_LEAVE, str(tmp_path)])] == [0, 0]


def test_two_processes_go_on_as_two(two: Path) -> None:
    schedule = read_recipe(two / "hrnet.yaml").schedule
    with pytest.raises(ValueError, match="in 2 processes, these are 1"):
        read_checkpoint(two / "two" / "hrnet", schedule)


def test_parts_of_a_batch_learn_as_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a loss whose weight is the same in all parts, as that of heatmaps is."""
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    file = write_recipe(tmp_path, "hrnet")
    start = torch.load(tmp_path / "hrnet.pth", weights_only=True)
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


@pytest.mark.parametrize("name", ["pose", "segmenter"])
def test_a_process_without_people_takes_part_in_every_sum(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the others wait for it, or take its gradients for a sum."""
    from bmp_ros.training import pose_loss, segmenter_loss
    from bmp_ros.training.tasks import make_task

    class Discs:
        cut_outs = None

        def __init__(self, people: int) -> None:
            self.people = people

        def draw(self, number: int, seed: int, validation: bool) -> Any:
            return np.random.default_rng(number), disc_image(number, self.people)

    sums: list[float] = []

    def counted(weight: Any, like: torch.Tensor, least: float = 1.0) -> torch.Tensor:
        sums.append(float(weight))
        return shared_weight(weight, like, least)

    for module in (pose_loss, segmenter_loss):
        monkeypatch.setattr(module, "shared_weight", counted)
    size = None if name == "pose" else (64, 64)
    totals = []
    for people in (2, 0):
        task = make_task(name, cast(Any, Discs(people)), size)
        task.network.train()
        losses = task.losses(task.network, task.collate([task.sample(n, 0) for n in range(2)]))
        totals.append(torch.stack(list(losses.values())).sum())
    assert len(sums) == 2 and sums[0] > 0 and sums[1] == 0
    assert totals[0] > 0 and totals[1] == 0
    totals[1].backward()
    assert all(p.grad is not None and not p.grad.any() for p in task.network.parameters())
    assert all(buffer.isfinite().all() for buffer in task.network.buffers())


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
