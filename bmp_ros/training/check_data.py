# SPDX-License-Identifier: Apache-2.0
"""Everything that is wrong with the data of a recipe, found before the first step, as one list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmp_ros.evaluation.ground_truth import (
    is_number,
    people_of,
    segmentation_problem,
    shape_problems,
)
from bmp_ros.reading import read_json
from bmp_ros.training.coco_images import find_image, refuse_untrainable
from bmp_ros.training.joint_maps import JointMap, category_joints, joint_map

if TYPE_CHECKING:
    from bmp_ros.training.recipe import Recipe, Source

SHOWN = 100
"""Problems that the message lists; more are counted."""
MARGIN = 2.0
"""Pixels that a box may reach beyond the image, as rounding makes them."""


def check_data(recipe: Recipe, root: Path) -> None:
    """Raise ValueError with all problems of the folders of ``recipe`` below ``root``, if any."""
    problems = list(data_problems(recipe, root))
    if problems:
        lines = [f"  {line}" for line in problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"  … and {len(problems) - SHOWN} more")
        many = "problem" if len(problems) == 1 else "problems"
        raise ValueError(
            "\n".join([f"{len(problems)} {many} in the data, no step was taken:", *lines])
        )


def data_problems(recipe: Recipe, root: Path) -> Iterator[str]:
    """One line per problem, with the file and the id that it is about."""
    for source in recipe.data:
        file = root / source.folder / source.annotations
        for problem in _source_problems(recipe, source, root / source.folder, file):
            yield f"{file}: {problem}"
    yield from _no_masks(recipe, root)
    named = recipe.held_out if isinstance(recipe.held_out, Mapping) else {}
    for name, kept in named.items():
        files = [
            root / source.folder / source.annotations
            for source in recipe.data
            if Path(source.annotations).name == name
        ]
        unknown = sorted(set(kept) - set().union(*map(_ids, files)), key=str) if files else []
        if unknown:
            some = ", ".join(map(str, unknown[:5])) + (" …" if len(unknown) > 5 else "")
            yield f"{files[0]}: held_out names images that it does not have: {some}"


def _no_masks(recipe: Recipe, root: Path) -> Iterator[str]:
    """Of a network that learns from masks, if no folder that is trained on has any."""
    from bmp_ros.training.tasks import KINDS

    if not KINDS[recipe.network].needs_masks:
        return
    sources = [source for source in recipe.data if not source.validation]
    files = [root / source.folder / source.annotations for source in sources]
    for file in files:
        try:
            people = people_of(read_json(file))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return  # said of the file
        if any(item.get("segmentation") for item in people):
            return
    yield (
        f"{', '.join(map(str, files))}: no person has a segmentation, which {recipe.network} "
        "learns from (bmp annotate makes them)"
    )


def _ids(file: Path) -> set[Any]:
    """Ids of the images of a COCO file; none of a file that cannot be read, as was said of it."""
    try:
        return {image["id"] for image in read_json(file)["images"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _source_problems(recipe: Recipe, source: Source, folder: Path, file: Path) -> Iterator[str]:
    if not file.is_file():
        yield "there is no such file"
        return
    try:
        document = read_json(file)
    except (ValueError, OSError) as error:
        yield str(error)
        return
    lists = ("images", "annotations", "categories")
    lacking = [
        name for name in lists
        if not isinstance(document, dict) or not isinstance(document.get(name), list)
    ]  # fmt: skip
    if lacking:
        yield f"not in COCO's format: it has no list {', '.join(lacking)}"
        return
    if problems := list(shape_problems(document)):
        yield from problems
        return
    joints = None
    try:
        joints = joint_map(source.joint_map, category_joints(document), recipe.skeleton)
    except ValueError as error:
        yield str(error)
    try:
        refuse_untrainable(document["images"], file)
        people = people_of(document)
    except ValueError as error:
        yield str(error)
        return
    yield from _image_problems(document["images"], folder)
    images = {image["id"]: image for image in document["images"] if "id" in image}
    yield from _twice("annotation", [item.get("id") for item in document["annotations"]])
    for item in people:
        for problem in _person_problems(item, images, joints):
            yield f"annotation {item.get('id')} (image {item.get('image_id')!r}): {problem}"
    yield from _nothing_to_learn(people, joints, source, recipe)


def _twice(what: str, ids: Sequence[Any]) -> Iterator[str]:
    for number, count in Counter(str(n) for n in ids if n is not None).items():
        if count > 1:
            yield f"{what} id {number} is used {count} times, ids must be unique"


def _image_problems(images: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[str]:
    yield from _twice("image", [image.get("id") for image in images])
    for number, image in enumerate(images):
        name = f"image {image.get('id', f'number {number}')}"
        lacking = [key for key in ("id", "file_name", "width", "height") if key not in image]
        if lacking:
            yield f"{name} has no {', '.join(lacking)}"
            continue
        if not (is_number(image["width"]) and is_number(image["height"])) or not (
            image["width"] >= 1 and image["height"] >= 1
        ):
            yield f"{name} is {image['width']}x{image['height']} pixels, needs 1x1 at least"
        try:
            find_image(folder, image)
        except FileNotFoundError as error:
            yield str(error)


def _person_problems(
    item: Mapping[str, Any], images: Mapping[Any, Mapping[str, Any]], joints: JointMap | None
) -> Iterator[str]:
    image = images.get(item.get("image_id"))
    if image is None:
        yield "no such image is listed"
        return
    if not (is_number(image.get("width")) and is_number(image.get("height"))):
        return  # said of the image
    yield from _box_problems(item, image)
    yield from _mask_problems(item, image)
    if joints is not None and not item.get("iscrowd"):
        yield from _joint_problems(item.get("keypoints"), joints)


def _box_problems(item: Mapping[str, Any], image: Mapping[str, Any]) -> Iterator[str]:
    box = item.get("bbox")
    if not box:
        if not item.get("segmentation"):
            yield "has neither a bbox nor a segmentation"
        return
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        yield f"bbox is {box}, needs x, y, width and height"
        return
    left, top, width, height = box
    if width < 0 or height < 0:
        yield f"bbox {box} has a negative side"
    elif (
        left < -MARGIN or top < -MARGIN
        or left + width > image["width"] + MARGIN or top + height > image["height"] + MARGIN
    ):  # fmt: skip
        yield f"bbox {box} lies outside the image, {image['width']}x{image['height']} pixels"


def _mask_problems(item: Mapping[str, Any], image: Mapping[str, Any]) -> Iterator[str]:
    mask = item.get("segmentation")
    if isinstance(mask, Mapping):
        size = mask.get("size")
        if size != [image["height"], image["width"]]:
            yield f"segmentation has the size {size}, its image {image['height'], image['width']}"
        elif problem := segmentation_problem(mask):
            yield f"has {problem}"
    elif isinstance(mask, list):
        for polygon in mask:
            if not isinstance(polygon, list) or len(polygon) % 2:
                yield "segmentation has a polygon that is no list of x, y pairs"
                break
            elif problem := segmentation_problem([polygon]):
                yield f"has {problem}"
    elif mask is not None:
        yield f"segmentation is {type(mask).__name__}, needs polygons or run lengths"


def _joint_problems(points: Any, joints: JointMap) -> Iterator[str]:
    if not points:
        return
    if not isinstance(points, list):
        points = [points]
    if len(points) != 3 * joints.source or not all(map(is_number, points)):
        yield (
            f"keypoints are {len(points)} values, need {3 * joints.source} numbers: x, y and "
            f"visibility of {joints.source} joints"
        )
        return
    wrong = sorted({value for value in points[2::3] if value not in (0, 1, 2)})
    if wrong:
        yield f"keypoints have the visibility {wrong[0]}, allowed: 0, 1, 2"


def _nothing_to_learn(
    people: Sequence[Mapping[str, Any]], joints: JointMap | None, source: Source, recipe: Recipe
) -> Iterator[str]:
    from bmp_ros.training.tasks import KINDS

    if source.masked and not any(item.get("segmentation") for item in people):
        yield "masked: true, but no person has a segmentation (bmp annotate makes them)"
    if joints is None or not KINDS[recipe.network].needs_joints:
        return
    used = [source for source, _ in joints.pairs]
    labelled = (item.get("keypoints") for item in people if not item.get("iscrowd"))
    points = (each for each in labelled if isinstance(each, list))
    if not any(len(p) > 3 * joint + 2 and p[3 * joint + 2] for p in points for joint in used):
        yield f"no person has a labelled joint that {joints.target.name} knows"
