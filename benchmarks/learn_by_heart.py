# SPDX-License-Identifier: Apache-2.0
"""Do the recipes' networks learn at all? Eight drawn figures, learned by heart at reduced width.

``python benchmarks/learn_by_heart.py [NETWORK …]`` trains each network on eight images and prints
how far the loss fell and the AP on these same eight. It tests the machinery and claims nothing
about accuracy. ``--full RECIPE …`` instead takes 20 steps of a recipe at its full width, all on
the same batch of ``--batch`` samples, exports the checkpoint and runs both as presets. The exit
code is 1 when a loss is not finite or did not fall (by 80 % without --full), or an AP is not
above 0.3.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "test" / "training"))
from figures import write_figures

from bmp_ros.engines import build_loop
from bmp_ros.engines.export.preset import export_preset
from bmp_ros.engines.presets import load_preset
from bmp_ros.training import recipe as recipe_file
from bmp_ros.training import trainer
from bmp_ros.training.command import main as train
from bmp_ros.training.recipe import read_recipe
from bmp_ros.training.tasks import KINDS

RECIPES = Path(__file__).parents[1] / "config" / "training"
LEAST_FALL, LEAST_AP = 0.8, 0.3
STILL = {"scale": [0.9, 1.1], "rotate": 10, "half_body_prob": 0, "shift": 0.03}
_STILL_DETECTOR = {"painted_share": 0.0, "mosaic_share": 0.0, "zoom": [0.9, 1.1]}
_VIT = {"width": 384, "depth": 2, "hidden": 384, "channels": 32}
_TRUNK = {"widths": [16, 32, 64, 128], "modules": [1, 1, 1], "blocks": 1}
REDUCED: dict[str, tuple[dict[str, Any], list[int] | None, dict[str, Any]]] = {
    "vit_pose": (
        {
            "variant": _VIT,
            "mask_background": {"dim": 0.25},
            "drop_path": 0.1,
            "augmentation": STILL,
        },
        [96, 128],
        {"steps": 100, "batch": 8, "learning_rate": 1e-3},
    ),
    "pmpose": (
        {"variant": {**_VIT, "depth": 1}, "mask_background": {"dim": 0.25}, "augmentation": STILL},
        [192, 256],
        {"steps": 60, "batch": 4, "learning_rate": 5e-4},
    ),
    "hrnet": (
        {"variant": _TRUNK, "augmentation": STILL},
        [64, 96],
        {"steps": 400, "batch": 8, "learning_rate": 3e-3},
    ),
    "omnipose": (
        {"variant": _TRUNK, "augmentation": STILL},
        [64, 96],
        {"steps": 400, "batch": 8, "learning_rate": 3e-3},
    ),
    "rtmdet_ins": (
        {"variant": {"widen": 0.125, "deepen": 0.17}, **_STILL_DETECTOR},
        [160, 128],
        {"steps": 400, "batch": 8, "learning_rate": 4e-3},
    ),
    "pose2seg": (
        {"variant": "t", "freeze_encoder": False, "corrections": 0, "most": 1},
        [256, 256],
        {"steps": 60, "batch": 2, "learning_rate": 5e-4},
    ),
    "detector": (_STILL_DETECTOR, [160, 128], {"steps": 300, "batch": 4, "learning_rate": 2e-3}),
    "pose": ({}, None, {"steps": 300, "batch": 4, "learning_rate": 2e-3}),
    "segmenter": ({}, [160, 128], {"steps": 300, "batch": 4, "learning_rate": 1.5e-3}),
}
"""Options, size and schedule by network. SAM's smallest encoder is the narrowest that a preset
knows, and 256 pixels the smallest size; untrained, it has to learn too. The tiny networks
(detector, pose, segmenter) are small as they are."""
RATES = {"pose2seg": 1e-4}
"""Of --full, where it is not 1e-3."""
PLAIN = {
    "warmup": 10, "shape": "cosine", "layer_decay": 1.0, "averaging": 0.9, "weight_decay": 0.0,
    "optimizer": "adamw", "clip": 10.0, "warmup_from": 0.0,
}  # fmt: skip


def run_recipe(
    root: Path, values: dict[str, Any], threads: int, people: int = 1
) -> tuple[list[dict[str, str]], Path]:
    """Train a recipe's values on the figures below ``root``; the rows of losses and the folder.

    Networks of several data sets' joints learn from figures of these data sets.
    """
    multi = str(values["options"].get("skeleton", "")).startswith("multi")
    sources: list[dict[str, Any]] = []
    for data_set in ("coco", "mpii", "aic") if multi else ("coco",):
        write_figures(root / data_set, data_set=data_set, people=people)
        sources.append({"folder": data_set, "annotations": f"{data_set}.json"})
    values = {**values, "data": [*sources, {**sources[0], "validation": True}], "held_out": None}
    recipe = root / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}))
    output = root / "out"
    arguments = [str(recipe), "--root", str(root), "--cache", str(root / "cache")]
    code = train([*arguments, "--output", str(output), "--threads", str(threads)])
    if code:
        raise SystemExit(code)
    return list(csv.DictReader((output / "losses.csv").open())), output


@contextmanager
def one_batch(size: int) -> Iterator[None]:
    """Trainings begun in here see the same ``size`` samples in each step."""
    make_task = recipe_file.make_task

    def make(*arguments: Any) -> Any:
        task = make_task(*arguments)
        draw = task.sample

        def sample(number: int, seed: int, *, validation: bool = False) -> Any:
            return draw(number if validation else number % size, seed, validation=validation)

        task.sample = sample  # type: ignore[method-assign]
        return task

    with mock.patch.object(recipe_file, "make_task", make):
        yield


def total(row: dict[str, str]) -> float:
    other = ("step", "learning_rate", "AP")
    return sum(float(v) for k, v in row.items() if k not in other and not k.startswith("held-out"))


def by_heart(network: str, threads: int) -> bool:
    options, size, steps = REDUCED[network]
    values: dict[str, Any] = {"network": network, "options": options, "size": size}
    every = max(1, steps["steps"] // 10)
    values["schedule"] = {**PLAIN, **steps, "save_every": every, "score_every": steps["steps"]}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows, _ = run_recipe(Path(folder), values, threads)
    fall, ap = 1 - total(rows[-1]) / total(rows[0]), float(rows[-1]["AP"])
    seconds = time.monotonic() - started
    print(f"{network}: loss down {fall:.0%}, AP {ap:.2f}, {steps['steps']} steps, {seconds:.0f} s")
    return fall >= LEAST_FALL and ap > LEAST_AP


def untrained_preset(root: Path) -> dict[str, Any]:
    """A preset of the small networks in PyTorch: `bmp export` takes no networks that it made."""
    from bmp_ros.networks.conv_pose import ConvPose
    from bmp_ros.networks.point_segmenter import PointSegmenter
    from bmp_ros.networks.rtmdet_ins import PACKAGED_SIZE, RTMDetIns

    networks = {
        "detector": (
            RTMDetIns(PACKAGED_SIZE, 1),
            {"engine": "rtmdet_ins", "input_size": [160, 128]},
        ),
        "pose_estimator": (ConvPose(), {"engine": "conv_pose", "flip_test": False}),
        "segmenter": (PointSegmenter(), {"engine": "point_segmenter"}),
    }
    preset: dict[str, Any] = {
        "description": "A trained network beside untrained ones.",
        "loop": {},
    }
    for role, (network, section) in networks.items():
        torch.save(network.state_dict(), root / f"{role}.pth")
        preset[role] = {**section, "weights": str(root / f"{role}.pth")}
    return preset


def full_width(name: str, batch: int, threads: int, side: int | None) -> bool:
    """20 steps; the checkpoint and its export as the networks of a preset."""
    recipe = read_recipe(RECIPES / f"{name}.yaml")
    values: dict[str, Any] = {"network": recipe.network, "options": dict(recipe.options)}
    values["options"].pop("freeze_backbone", None)  # nothing to start from
    values["size"] = None if recipe.size is None else list(recipe.size)
    if side is not None and recipe.network in ("rtmdet_ins", "pose2seg"):
        values["size"] = [side, side]
    steps = {"steps": 20, "batch": batch, "save_every": 5, "score_every": 20, "warmup": 2}
    rate = RATES.get(recipe.network, 1e-3)
    values["schedule"] = {**PLAIN, **steps, "learning_rate": rate}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with one_batch(batch):
            rows, output = run_recipe(root, values, threads, people=2)
        losses = [total(row) for row in rows]
        preset = untrained_preset(root)
        preset |= yaml.safe_load((output / "section.yaml").read_text())
        file = root / "mine.yaml"
        file.write_text(yaml.safe_dump(preset))
        export_preset(load_preset(file), root / "exported", tell=lambda line: None)
        image = np.full((128, 160, 3), 60, np.uint8)
        for each in (file, root / "exported" / "mine.yaml"):
            build_loop(each, "cpu", iterations=1)(image)
    good = bool(np.isfinite(losses).all()) and losses[-1] < losses[0]
    told = " ".join(f"{loss:.4g}" for loss in losses)
    seconds = time.monotonic() - started
    print(f"{name}: losses {told}, runs as a preset, exported and run, {seconds:.0f} s")
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(REDUCED)} (default: all)")
    parser.add_argument("--full", nargs="+", metavar="RECIPE", help="of config/training")
    parser.add_argument("--batch", type=int, default=2, help="of --full (%(default)s)")
    parser.add_argument(
        "--side", type=int, help="pixels of the square canvas of a detector's or SAM's --full"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    unknown = [name for name in args.networks if name not in REDUCED]
    if unknown:
        parser.error(f"{unknown[0]} is none of {', '.join(REDUCED)}")
    assert set(REDUCED) <= set(KINDS)
    trainer.VALIDATION_BATCHES = 1  # the scores say what is asked here
    if args.full:
        done = [full_width(name, args.batch, args.threads, args.side) for name in args.full]
    else:
        done = [by_heart(name, args.threads) for name in args.networks or REDUCED]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
