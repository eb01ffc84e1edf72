# SPDX-License-Identifier: Apache-2.0
"""Recipes: what is trained, from what, on which images, how long. YAML files.

Every problem of a recipe is found before the first step.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bmp_ros.evaluation.ground_truth import is_number
from bmp_ros.fields import shown
from bmp_ros.loop.skeletons import COCO_17, SKELETONS, Skeleton
from bmp_ros.reading import read_json, read_yaml
from bmp_ros.training.check_data import check_data
from bmp_ros.training.coco_images import LONGER_SIDE, CocoImages
from bmp_ros.training.cut_outs import CutOuts
from bmp_ros.training.joint_maps import JointMap, category_joints, joint_map
from bmp_ros.training.mixture import Mixture
from bmp_ros.training.optimisation import Schedule
from bmp_ros.training.samples import Task
from bmp_ros.training.starting import start_from
from bmp_ros.training.tasks import KINDS, Size, make_task

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Source:
    """A folder in COCO's format. weight: images are drawn in proportion to it.

    annotations: the COCO file, below the folder. all_joints: a joint of visibility 0 is not in the
    image, as in rendered ones; otherwise nobody labelled it. cut_outs: its people are pasted
    into other images. count: only the first so many images. masked: only images with
    somebody whose mask is known, which is all that a segmenter learns from. joint_map: where the
    file's joints go, see `bmp_ros.training.joint_maps`; None: by the joints that the file names.
    validation: nothing of it is trained on, all of it is kept aside.
    """

    folder: str
    annotations: str = "annotations.json"
    weight: float = 1.0
    all_joints: bool = False
    cut_outs: bool = False
    count: int | None = None
    masked: bool = False
    joint_map: Any = None
    validation: bool = False


@dataclass(frozen=True)
class Recipe:
    """What a YAML file says.

    network: a key of `KINDS`. options: the network's own, see its task. start_from: a folder of
    exported networks, a file of weights (.pth), a name of the zoo or a preset. longer_side: pixels
    to which images are shrunk in the cache, None to read them from their files. held_out: what is
    not trained on, as validation, thresholds and checkpoints need it: a share of every folder's
    images, or a JSON file beside the recipe with ids by annotation file. pasted_share: of the
    images, those that get people of other ones pasted in.
    """

    network: str
    data: Sequence[Source]
    held_out: Mapping[str, Sequence[Any]] | float
    size: Size | None = None
    start_from: str | None = None
    schedule: Schedule = field(default_factory=lambda: Schedule(1, 1, 1e-3))
    precision: str = "fp32"
    pasted_share: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    longer_side: int | None = LONGER_SIDE

    @property
    def skeleton(self) -> Skeleton:
        """The joints that the network learns; ValueError for a name that is not known."""
        name = self.options.get("skeleton", COCO_17.name)
        if name not in SKELETONS:
            raise ValueError(f"skeleton is {name!r}, allowed: {', '.join(SKELETONS)}")
        return SKELETONS[name]


def read_recipe(file: Path, given: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe; ValueError names the file, what is wrong and what is allowed.

    given: entries of the schedule that replace those of the file.
    """
    given = given or {}
    values = read_yaml(file, "it is no recipe")
    if not isinstance(values, dict):
        raise ValueError(f"{file} is not a recipe: it must be a mapping with network and data")
    _known(file, "recipe", values, Recipe)
    network = values.get("network")
    if not isinstance(network, str) or network not in KINDS:
        raise ValueError(f"{file}: network is {shown(network)}, known are {', '.join(KINDS)}")
    data = values.get("data")
    if not isinstance(data, list) or not data:
        raise ValueError(f"{file}: data must list at least one folder")
    sources = []
    for entry in data:
        _known(file, "data", entry, Source)
        if "folder" not in entry:
            raise ValueError(f"{file}: an entry of data has no folder: {entry}")
        source = Source(**entry)
        if not source.weight >= 0:
            raise ValueError(
                f"{file}: weight of {source.folder} is {source.weight}, allowed: >= 0"
            )
        sources.append(source)
    if not sum(source.weight for source in sources if not source.validation) > 0:
        raise ValueError(f"{file}: every weight of data is 0, so that there is nothing to draw")
    schedule = values.get("schedule", {})
    _known(file, "schedule", schedule, Schedule)
    if "drops" in schedule:
        schedule["drops"] = tuple(schedule["drops"])
    own = replace(KINDS[network].schedule, **schedule)
    if problems := own.problems():
        raise ValueError(f"{file}: schedule: {'; '.join(problems)}")
    schedule = fitted(own, schedule, given)
    precision = values.get("precision", "fp32")
    if precision not in PRECISIONS:
        raise ValueError(f"{file}: precision is {precision!r}, allowed: {', '.join(PRECISIONS)}")
    pasted = values.get("pasted_share", 0.0)
    if not is_number(pasted) or not 0 <= pasted <= 1:
        raise ValueError(f"{file}: pasted_share is {shown(pasted)}, allowed: 0 to 1")
    longer_side = values.get("longer_side", LONGER_SIDE)
    if pasted > 0 and longer_side is None:
        raise ValueError(
            f"{file}: people are pasted (pasted_share {pasted}) from the cache only: longer_side "
            "must be a number of pixels"
        )
    size = values.get("size")
    if size is not None and not (
        isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
    ):
        raise ValueError(f"{file}: size is {shown(size)}, needs [width, height]")
    return Recipe(
        network,
        sources,
        _held_out(file, values.get("held_out")),
        None if size is None else (size[0], size[1]),
        values.get("start_from"),
        schedule,
        precision,
        float(pasted),
        values.get("options", {}),
        longer_side,
    )


def fitted(schedule: Schedule, said: Mapping[str, Any], given: Mapping[str, Any]) -> Schedule:
    """``schedule`` with the entries ``given``; ValueError for what is out of range.

    Warm-up and the steps between two validations, where a recipe does not say them (``said``), are
    at most a tenth of the steps: the defaults are those of trainings that take days.
    """
    schedule = replace(schedule, **given)
    if problems := schedule.problems():
        raise ValueError("; ".join(problems))
    tenth = max(1, schedule.steps // 10)
    names = [name for name in ("warmup", "save_every") if name not in said]
    return replace(schedule, **{name: min(getattr(schedule, name), tenth) for name in names})


def _held_out(file: Path, value: Any) -> Mapping[str, Sequence[Any]] | float:
    if value is None:
        return {}
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 < value < 1:
            raise ValueError(f"{file}: held_out is {value}, a share is between 0 and 1")
        return float(value)
    if not isinstance(value, str):
        raise ValueError(
            f"{file}: held_out is {shown(value)}, needs a share or the name of a JSON file"
        )
    ids: dict[str, list[Any]] = read_json(file.parent / value)
    if not isinstance(ids, dict):
        raise ValueError(
            f"{file.parent / value} needs lists of ids by the name of their annotation file"
        )
    return ids


def kept_ids(recipe: Recipe, annotations: Path) -> Sequence[Any]:
    """Ids of the images of an annotation file that are kept aside.

    A share is one of all ids in an order that looks random and is the same every time.
    """
    if isinstance(recipe.held_out, Mapping):
        return recipe.held_out.get(annotations.name, [])
    images = read_json(annotations)["images"]
    ids = sorted((image["id"] for image in images), key=lambda n: zlib.crc32(str(n).encode()))
    return ids[: max(1, round(recipe.held_out * len(ids)))]


def open_folders(
    recipe: Recipe, root: Path, cache: Path
) -> tuple[list[CocoImages], list[CocoImages]]:
    """The folders that are trained on, below ``root``, and those of the images kept aside."""
    folders, held_out = [], []
    for source in recipe.data:
        folder, annotations = root / source.folder, Path(source.annotations)
        kept = [] if source.validation else kept_ids(recipe, folder / annotations)
        options: dict[str, Any] = {
            "all_joints": source.all_joints, "count": source.count, "masked": source.masked,
            "joints": joints_of(source, folder, recipe.skeleton),
            "longer_side": recipe.longer_side,
        }  # fmt: skip
        if source.validation:
            held_out.append(CocoImages(folder, annotations, cache, **options))
            continue
        folders.append(CocoImages(folder, annotations, cache, leave_out=kept, **options))
        if folders[-1].left_out:
            held_out.append(CocoImages(folder, annotations, cache, only=kept, **options))
    if not held_out:
        raise ValueError(
            "nothing is kept aside to tell when to stop: say held_out: 0.1 for a tenth of the "
            "images, held_out: FILE.json for these of your choice, or validation: true of a folder"
        )
    return folders, held_out


def _refuse_empty(
    recipe: Recipe, folders: Sequence[CocoImages], held_out: Sequence[CocoImages]
) -> None:
    """Raise ValueError where a folder that is drawn from, or all images kept aside, show no person
    with the labels that the network learns from, though other images of the file do."""
    lacking = next((words for folder in folders if (words := _lacking(recipe, [folder]))), None)
    # Some folders may be without masks, as images without people are.
    lacking = lacking or _lacking(recipe, folders, masks=KINDS[recipe.network].needs_masks)
    if lacking:
        raise ValueError(
            f"{lacking} in the images that are left to train on, only in those kept aside: keep "
            "fewer, or choose them (held_out: FILE.json)"
        )
    if lacking := _lacking(recipe, held_out, masks=KINDS[recipe.network].needs_masks):
        count = sum(len(folder.image_ids) for folder in held_out)
        raise ValueError(
            f"{lacking} in the {count} images that are kept aside, so that {recipe.network} could "
            "not be judged by them: keep more (held_out: 0.2 for a fifth), choose them (held_out: "
            "FILE.json), or say validation: true of a folder"
        )


def _lacking(recipe: Recipe, folders: Sequence[CocoImages], *, masks: bool = False) -> str | None:
    """What no person has in any of the folders, None where there is somebody to learn from.

    masks: whether a mask must be known.
    """
    files = ", ".join(sorted({str(folder.file) for folder in folders}))
    if not any(len(folder) for folder in folders) or (
        masks and not any(folder.has_masks for folder in folders)
    ):
        return f"{files}: no person has a segmentation"
    if KINDS[recipe.network].needs_joints and not any(folder.with_joints for folder in folders):
        return f"{files}: no person has a labelled joint"
    return None


def joints_of(source: Source, folder: Path, skeleton: Skeleton) -> JointMap:
    """Where the joints of a source go; ValueError names the file."""
    file = folder / source.annotations
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there")
    names = category_joints(read_json(file))
    try:
        return joint_map(source.joint_map, names, skeleton)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def prepare(recipe: Recipe, root: Path, cache: Path) -> tuple[Task, list[int]]:
    """Open the images below ``root`` and build the task; return it and the COCO ids it sees.

    cache: a folder for decoded images. Raises ValueError or FileNotFoundError for images,
    annotations or weights that cannot be used.
    """
    check_data(recipe, root)
    folders, held_out = open_folders(recipe, root, cache)
    sources = [source for source in recipe.data if not source.validation]
    _refuse_empty(recipe, [f for f, s in zip(folders, sources, strict=True) if s.weight], held_out)
    pasted = [folder for folder, source in zip(folders, sources, strict=True) if source.cut_outs]
    cut_outs = CutOuts(pasted, share=recipe.pasted_share) if recipe.pasted_share > 0 else None
    mixture = Mixture(folders, [source.weight for source in sources], held_out, cut_outs)
    task = make_task(recipe.network, mixture, recipe.size, recipe.options)
    if recipe.start_from is not None:
        for line in start_from(task, recipe.start_from, root):
            print(f"start_from: {line}")
    return task, sorted({coco_id for folder in folders for coco_id in folder.coco_ids})


def _known(file: Path, section: str, values: Any, kind: type) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{file}: {section} must be a mapping, it is {values!r}")
    names = [item.name for item in fields(kind)]
    unknown = [name for name in values if name not in names]
    if unknown:
        raise ValueError(
            f"{file}: {section} has no entry {unknown[0]!r}; known are {', '.join(names)}"
        )
