# SPDX-License-Identifier: Apache-2.0
"""Recipes: what is trained, from what, on which pictures, how long. YAML files.

Every problem of a recipe is found before the first step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from bmp_ros.training.coco_pictures import CocoPictures
from bmp_ros.training.cut_outs import CutOuts
from bmp_ros.training.mixture import Mixture
from bmp_ros.training.read_back import calibrate, read_back_tiny
from bmp_ros.training.tasks import KINDS, Size, make_task
from bmp_ros.training.trainer import Schedule, Task

CALIBRATION_BATCHES = 8
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Source:
    """A folder in COCO's format. weight: pictures are drawn in proportion to it.

    annotations: the COCO file, below the folder. all_joints: a joint of visibility 0 is not in the
    picture, as in rendered ones; otherwise nobody labelled it. cut_outs: its people are pasted
    into other pictures. count: only the first so many pictures. masked: only pictures with
    somebody whose mask is known, which is all that a segmenter learns from.
    """

    folder: str
    annotations: str = "annotations.json"
    weight: float = 1.0
    all_joints: bool = False
    cut_outs: bool = False
    count: int | None = None
    masked: bool = False


@dataclass(frozen=True)
class Recipe:
    """What a YAML file says.

    network: detector, pose or segmenter. start_from: a folder of exported networks or a file of
    weights (.pth). held_out: a JSON file beside the recipe with the ids of every annotation file
    that are not trained on: validation, thresholds and checkpoints are theirs. pasted_share: of
    the pictures, those that get people of other ones pasted in.
    """

    network: str
    data: Sequence[Source]
    held_out: Mapping[str, Sequence[Any]]
    size: Size | None = None
    start_from: str | None = None
    schedule: Schedule = field(default_factory=lambda: Schedule(1, 1, 1e-3))
    precision: str = "fp32"
    pasted_share: float = 0.0


def read_recipe(file: Path) -> Recipe:
    """Read a recipe; ValueError names the file, what is wrong and what is allowed."""
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{file} is not a recipe: it must be a mapping with network and data")
    _known(file, "recipe", values, Recipe)
    network = values.get("network")
    if network not in KINDS:
        raise ValueError(f"{file}: network is {network!r}, known are {', '.join(KINDS)}")
    given = values.get("data")
    if not isinstance(given, list) or not given:
        raise ValueError(f"{file}: data must list at least one folder")
    sources = []
    for entry in given:
        _known(file, "data", entry, Source)
        if "folder" not in entry:
            raise ValueError(f"{file}: an entry of data has no folder: {entry}")
        source = Source(**entry)
        if not source.weight >= 0:
            raise ValueError(
                f"{file}: weight of {source.folder} is {source.weight}, allowed: >= 0"
            )
        sources.append(source)
    if not sum(source.weight for source in sources) > 0:
        raise ValueError(f"{file}: every weight of data is 0, so that there is nothing to draw")
    schedule = values.get("schedule", {})
    _known(file, "schedule", schedule, Schedule)
    precision = values.get("precision", "fp32")
    if precision not in PRECISIONS:
        raise ValueError(f"{file}: precision is {precision!r}, allowed: {', '.join(PRECISIONS)}")
    held_out = values.get("held_out")
    size = values.get("size")
    return Recipe(
        network,
        sources,
        json.loads((file.parent / held_out).read_text(encoding="utf-8")) if held_out else {},
        None if size is None else (int(size[0]), int(size[1])),
        values.get("start_from"),
        replace(KINDS[network].schedule, **schedule),
        precision,
        float(values.get("pasted_share", 0.0)),
    )


def open_folders(
    recipe: Recipe, root: Path, cache: Path
) -> tuple[list[CocoPictures], list[CocoPictures]]:
    """The folders that are trained on, below ``root``, and those of the pictures kept aside."""
    folders, held_out = [], []
    for source in recipe.data:
        folder, annotations = root / source.folder, Path(source.annotations)
        kept = recipe.held_out.get(annotations.name, [])
        options: dict[str, Any] = {
            "all_joints": source.all_joints, "count": source.count, "masked": source.masked,
        }  # fmt: skip
        folders.append(CocoPictures(folder, annotations, cache, leave_out=kept, **options))
        if folders[-1].left_out:
            held_out.append(CocoPictures(folder, annotations, cache, only=kept, **options))
    if not held_out:
        raise ValueError("held_out names no picture of the data: nothing tells when to stop")
    return folders, held_out


def prepare(recipe: Recipe, root: Path, cache: Path) -> tuple[Task, list[int]]:
    """Open the pictures below ``root`` and build the task; return it and the COCO ids it sees.

    cache: a folder for decoded pictures. Raises ValueError or FileNotFoundError for pictures,
    annotations or weights that cannot be used.
    """
    folders, held_out = open_folders(recipe, root, cache)
    pasted = [
        folder for folder, source in zip(folders, recipe.data, strict=True) if source.cut_outs
    ]
    cut_outs = CutOuts(pasted, share=recipe.pasted_share) if recipe.pasted_share > 0 else None
    mixture = Mixture(folders, [source.weight for source in recipe.data], held_out, cut_outs)
    task = make_task(recipe.network, mixture, recipe.size)
    if recipe.start_from is not None:
        start_from(task, root / recipe.start_from)
    return task, sorted({coco_id for folder in folders for coco_id in folder.coco_ids})


def start_from(task: Task, weights: Path) -> None:
    """Load a folder of exported networks, or a file of weights, into the task's network."""
    if weights.is_dir():
        read_back_tiny(task.name, task.network, weights)
        batches = [
            task.collate([task.sample(number, 0) for number in range(first, first + 8)])
            for first in range(0, 8 * CALIBRATION_BATCHES, 8)
        ]
        calibrate(task.network, lambda: _run(task, task.network, batches))
    else:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        task.network.load_state_dict(state)


def _run(task: Task, network: nn.Module, batches: Sequence[Any]) -> None:
    for batch in batches:
        task.losses(network, batch)


def _known(file: Path, section: str, values: Any, kind: type) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{file}: {section} must be a mapping, it is {values!r}")
    names = [item.name for item in fields(kind)]
    unknown = [name for name in values if name not in names]
    if unknown:
        raise ValueError(
            f"{file}: {section} has no entry {unknown[0]!r}; known are {', '.join(names)}"
        )
