# SPDX-License-Identifier: Apache-2.0
"""The command line of the trainings: ``bmp train RECIPE.yaml --output DIR``.

An interrupted training goes on where it was when called again in the same way.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from bmp_ros.training.optimisation import Schedule
    from bmp_ros.training.samples import Task
    from bmp_ros.training.trainer import Score

COCO_IDS = "coco_ids.json"
"""Beside the weights: the COCO images that they were trained on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of a training; nothing is imported for them."""
    parser.add_argument(
        "network",
        help="a recipe (YAML file, see docs/training.md), or detector, pose or segmenter",
    )
    parser.add_argument("--data", type=Path, help="folder of bmp_ros.synthetic.dataset")
    parser.add_argument(
        "--root", type=Path, default=Path(), help="where the recipe's folders are (default: here)"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("~/.cache/bmp_ros/training"),
        help="folder for decoded images; may be deleted (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of this training")
    parser.add_argument("--steps", type=int, help="batches in all")
    parser.add_argument("--batch", type=int, help="images per step; of a pose network people")
    parser.add_argument(
        "--accumulate", type=int, help="parts in which a step is computed, for little memory"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="end after so long, whatever the steps: the learning rate falls with the clock",
    )
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--size", type=_size, help="canvas, WIDTHxHEIGHT, multiples of 32")
    parser.add_argument(
        "--start-from",
        type=Path,
        help="weights (.pth), folder of exported networks, name of the zoo or a preset",
    )
    parser.add_argument("--device", default="auto", help="auto (CUDA if there is one), cpu, cuda")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"),
        help="of the computation; bf16 is faster with AVX512-BF16 or AMX and on GPUs",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare samples")
    parser.add_argument("--threads", type=int, help="of the computation (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Train; return the exit code. Raises what stops a training: ValueError and the like."""
    import cv2
    import torch

    from bmp_ros.training import processes
    from bmp_ros.training.checkpoints import read_checkpoint
    from bmp_ros.training.scoring import preset_section
    from bmp_ros.training.trainer import refuse_wrong, train

    for option, least in (("threads", 1), ("workers", 0)):
        value = getattr(args, option)
        if value is not None and value < least:
            raise ValueError(f"--{option} is {value}, must be at least {least}")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    given = {
        name: value
        for name, value in (
            ("steps", args.steps), ("batch", args.batch), ("learning_rate", args.learning_rate),
            ("accumulate", args.accumulate),
        )
        if value is not None
    }  # fmt: skip

    def prepared() -> tuple[Task, Schedule, str]:
        task, schedule, precision, coco_ids = _training(args, given)
        preset_section(cast(Any, task))  # refuses a size that no preset may have
        refuse_wrong(task, schedule, args.minutes)
        if read_checkpoint(args.output, schedule) is None:  # refuses that of another training
            _refuse_foreign(args.output, task.name)
        if coco_ids is not None:
            args.output.mkdir(parents=True, exist_ok=True)
            (args.output / COCO_IDS).write_text(json.dumps(coco_ids), encoding="utf-8")
        return task, schedule, args.precision or precision

    with processes.joined(device) as own:
        # The first process fills the cache and writes what it finds wrong.
        task, schedule, precision = processes.first_alone(prepared)
        score = _score(task, args.output, own)
        if processes.rank() == 0:
            print(_announcement(task, schedule, precision, own, score is not None), flush=True)
        if score is None and schedule.score_every and processes.rank() == 0:
            print(
                "no AP and no drawings: they need pycocotools (requirements/train.txt) and a "
                "recipe's images"
            )
        weights_file = train(
            task, schedule, args.output, device=own, precision=precision,
            workers=args.workers, minutes=args.minutes, score=score,
        )  # fmt: skip
        if weights_file is not None and processes.rank() == 0:
            scored = score is not None and schedule.score_every > 0
            best = weights_file.with_suffix(".best.pth") if scored else weights_file
            preset = _write_preset(task, best)
            print(f"{preset} runs {best.name} beside the tiny networks")
            print(weights_file)
    return 0


def _announcement(task: Any, schedule: Schedule, precision: str, device: str, scored: bool) -> str:
    """What is about to be trained, on how much, for how long."""
    from bmp_ros.training.mixture import Mixture

    learning = [p.numel() for p in task.network.parameters() if p.requires_grad]
    words = f"{type(task.network).__name__}, {sum(learning) / 1e6:.1f} M parameters that learn"
    if isinstance(task.images, Mixture):
        images, kept = (
            sum(map(len, folders)) for folders in (task.images.folders, task.images.held_out)
        )
        words += f"; {images} images, {kept} kept aside"
    score_every = schedule.score_every if scored else 0
    first = min(n for n in (schedule.save_every, score_every, schedule.steps) if n)
    return (
        f"{words}; {schedule.steps} steps of {schedule.batch}, {precision} on {device}; a line of "
        f"losses first after step {first}"
    )


def _score(task: Any, output: Path, device: str) -> Score | None:
    """What scores a task's checkpoints; None for rendered images alone, and where pycocotools,
    which counts, is not installed."""
    from bmp_ros.training.mixture import Mixture
    from bmp_ros.training.scoring import score_network

    if not isinstance(task.images, Mixture) or importlib.util.find_spec("pycocotools") is None:
        return None

    def score(network: Any, step: int) -> dict[str, float]:
        drawing = output / "predictions" / f"{step:07d}.jpg"
        return score_network(task, network, task.images.kept_aside(), device, drawing)

    return score


def _write_preset(task: Any, weights: Path) -> Path:
    """``section.yaml``, what a preset says to run ``weights``, and ``preset.yaml``, the preset
    ``tiny`` with that section; return the latter."""
    import yaml

    from bmp_ros.resources import find_preset

    section = {task.role: task.section(str(weights.absolute()))}
    preset = yaml.safe_load(find_preset("tiny").read_text(encoding="utf-8")) | section
    preset["description"] = (
        f"{type(task.network).__name__} as trained by bmp train, beside the tiny networks, whose "
        "thresholds these are."
    )
    for name, content in (("section", section), ("preset", preset)):
        text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=95)
        (weights.parent / f"{name}.yaml").write_text(text, encoding="utf-8")
    return weights.parent / "preset.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """The same for ``python -m bmp_ros.training``; errors become one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m bmp_ros.training", description=__doc__.split("\n")[0]
    )
    add_arguments(parser)
    try:
        return run(parser.parse_args(arguments))
    except KeyboardInterrupt:
        return 130
    except (FileNotFoundError, ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _refuse_foreign(output: Path, name: str) -> None:
    """Raise ValueError where a training that begins would write over weights and presets."""
    for file in (f"{name}.pth", "preset.yaml", "section.yaml"):
        if (output / file).exists():
            raise ValueError(
                f"{output} holds {file}, and no training that goes on: it would be overwritten in "
                "the end; choose a folder of its own"
            )


def _training(
    args: argparse.Namespace, given: Mapping[str, Any]
) -> tuple[Task, Schedule, str, Sequence[int] | None]:
    """The task, its schedule and its precision, of a recipe or of rendered images alone; of a
    recipe also the COCO ids that are trained on.

    given: entries of the schedule that the command line says.
    """
    import torch

    from bmp_ros.training.recipe import fitted, prepare, read_recipe, start_from
    from bmp_ros.training.tasks import KINDS, make_task

    if args.network not in KINDS:
        file = Path(args.network)
        if not file.is_file():
            raise FileNotFoundError(
                f"{args.network!r} is neither a recipe that is there nor one of {', '.join(KINDS)}"
            )
        recipe = read_recipe(file, given)
        if args.size is not None:
            recipe = replace(recipe, size=args.size)
        if args.start_from is not None:
            start = args.start_from
            recipe = replace(recipe, start_from=str(start.absolute() if start.exists() else start))
        torch.manual_seed(recipe.schedule.seed)
        task, coco_ids = prepare(recipe, args.root, args.cache.expanduser())
        return task, recipe.schedule, recipe.precision, coco_ids
    if args.data is None:
        raise ValueError(f"{args.network} without a recipe needs --data, a folder of images")
    schedule = fitted(KINDS[args.network].schedule, {}, given)
    torch.manual_seed(schedule.seed)
    task = make_task(args.network, args.data, args.size)
    if args.start_from is not None:
        start_from(task, args.start_from)
    return task, schedule, "fp32", None


def _size(text: str) -> tuple[int, int]:
    width, separator, height = text.partition("x")
    if separator and width.isdigit() and height.isdigit():
        size = int(width), int(height)
        if min(size) >= 32 and not any(side % 32 for side in size):
            return size
    raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT in multiples of 32")
