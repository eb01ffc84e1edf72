# SPDX-License-Identifier: Apache-2.0
"""Ground truth in COCO's format, made fit for pycocotools.

What annotations of people may lack, and what then holds:

* ``iscrowd``: 0. With 1, the annotation is a region in which results count neither way; its
  keypoints, if any, are not read.
* ``segmentation`` (absent, empty): for masks, the person's box is such a region.
* ``keypoints``: for keypoints, results near the person count neither way (COCO's own rule).
* ``num_keypoints``: counted. ``area``: of the mask, without one of the box.
* ``bbox``: of the mask; without a mask as well, the annotation is refused.

A segmentation is a list of polygons or run lengths, compressed or not. Annotations of other
categories than people are left out. Ids of annotations are not read: pycocotools takes an id of 0
for "no match", so people are numbered from 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bmp_ros.fields import shown
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.offline.coco_format import expand_counts

LARGEST = 1e5
"""Pixels beyond which no corner of a polygon is believed: pycocotools takes memory for every pixel
of the outline, and all there is for one that is not a number."""
_IDS = (("images", ("id",)), ("annotations", ("image_id", "category_id")), ("categories", ("id",)))
CATEGORY = {"id": 1, "name": "person", "keypoints": list(COCO_17.names)}


def shape_problems(document: Mapping[str, Any]) -> Iterator[str]:
    """What in the lists of a COCO document (``images``, ``annotations``, ``categories``) is of a
    kind that cannot be worked with, one line each; what is missing is not said."""
    for name, keys in _IDS:
        for number, entry in enumerate(document[name]):
            where = f"entry {number} of {name}"
            if not isinstance(entry, Mapping):
                yield f"{where} is {shown(entry)}, needs a mapping of names to values"
                continue
            for key in keys:
                value = entry.get(key, 0)
                if not isinstance(value, str) and not is_number(value):
                    yield f"{where} has the {key} {shown(value)}, needs a number or a text"
            if not isinstance(entry.get("coco_id"), int | str | None):
                yield f"{where} has the coco_id {shown(entry['coco_id'])}, needs a number"
            if name == "images" and not isinstance(entry.get("file_name", ""), str):
                yield f"{where} has the file_name {shown(entry['file_name'])}, needs a text"
            names = entry.get("keypoints") if name == "categories" else None
            if names is not None and not (
                isinstance(names, list) and all(isinstance(each, str) for each in names)
            ):
                yield f"{where} has the keypoints {shown(names)}, needs a list of names"


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a number that can be reckoned with: finite, and no whole
    number beyond those that a float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -(2**53) <= value <= 2**53


def truth_for(kind: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document that pycocotools needs to score ``boxes``, ``masks`` or ``keypoints``.

    Raises ValueError naming the annotation that cannot be used, and why.
    """
    images = {image["id"]: image for image in document["images"]}
    if len(images) != len(document["images"]):
        raise ValueError("two images of the ground truth have the same id; ids must be unique")
    people: list[dict[str, Any]] = []
    for annotation in people_of(document):
        if annotation["image_id"] not in images:
            raise ValueError(
                f"annotation {annotation.get('id')} is of image {annotation['image_id']!r}, which "
                "the ground truth does not list under images"
            )
        person = complete_person(annotation, images[annotation["image_id"]])
        if kind == "masks" and not person["segmentation"]:
            left, top, width, height = person["bbox"]
            right, bottom = left + width, top + height
            person["segmentation"] = [[left, top, left, bottom, right, bottom, right, top]]
            person["iscrowd"] = 1
        people.append({**person, "id": len(people) + 1})
    return {"images": list(images.values()), "annotations": people, "categories": [CATEGORY]}


def people_of(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The annotations of people: of the category ``person``, or of the only one there is.

    Raises ValueError when it cannot be told which category that is.
    """
    categories = document.get("categories", [])
    ids = {item.get("id") for item in categories if item.get("name") == "person"}
    if not ids and len(categories) == 1:
        ids = {categories[0].get("id")}
    ids.discard(None)
    if not ids:
        names = ", ".join(str(item.get("name")) for item in categories) or "none"
        raise ValueError(
            f"the ground truth has no category 'person' (it has: {names}); name the category of "
            "people so"
        )
    return [item for item in document["annotations"] if item.get("category_id") in ids]


def complete_person(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of one annotation with everything filled in that pycocotools reads.

    image: its entry, whose width and height are needed for polygons only.
    Raises ValueError naming the annotation, and what in it cannot be used.
    """
    name = f"annotation {annotation.get('id')}"
    box, area = annotation.get("bbox"), annotation.get("area")
    if box and not (_are_numbers(box) and len(box) == 4 and min(box[2:]) >= 0):
        raise ValueError(
            f"{name} has the bbox {shown(box)}, needs x, y, width and height in pixels"
        )
    if area is not None and not (is_number(area) and area >= 0):
        raise ValueError(f"{name} has the area {shown(area)}, needs a number of pixels")
    crowd = annotation.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise ValueError(f"{name} has iscrowd {shown(crowd)}, allowed: 0, 1")
    keypoints = (not crowd and annotation.get("keypoints")) or [0] * (3 * len(COCO_17))
    if not _are_numbers(keypoints):
        raise ValueError(f"{name} has the keypoints {shown(keypoints)}, needs numbers")
    if len(keypoints) != 3 * len(COCO_17):
        raise ValueError(
            f"{name} has {len(keypoints)} numbers of keypoints, needs "
            f"{3 * len(COCO_17)}: x, y and visibility of COCO's {len(COCO_17)} joints"
        )
    try:
        mask = _mask(annotation, image)
    except _UnusableError as error:
        raise ValueError(f"{name} has {error}") from error
    if not box:
        box = _box_of(mask, annotation)
    return {
        "image_id": annotation["image_id"],
        "category_id": CATEGORY["id"],
        "iscrowd": int(crowd),
        "bbox": [float(value) for value in box],
        "area": float(area) if area is not None else _area_of(mask, box),
        "segmentation": mask,
        "keypoints": list(keypoints),
        "num_keypoints": sum(visibility > 0 for visibility in keypoints[2::3]),
    }


def _mask(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any] | None:
    """Compressed run lengths of the annotation's segmentation, None without one."""
    from pycocotools import mask as coco_mask

    shape = annotation.get("segmentation")
    if isinstance(shape, dict):
        counts = shape.get("counts")
        if not counts:
            return None
        size, pixels = _checked_size(shape), [image.get("height"), image.get("width")]
        if None not in pixels and size != pixels:
            raise ValueError(
                f"annotation {annotation.get('id')} has a mask of {size[1]}x{size[0]} pixels, its "
                f"image {image['id']!r} {pixels[1]}x{pixels[0]}"
            )
        if isinstance(counts, list):
            mask: dict[str, Any] = coco_mask.frPyObjects({"size": size, "counts": counts}, *size)
            return mask
        return {"size": size, "counts": counts}
    polygons = _checked_polygons(shape or [])
    if not polygons:
        return None
    if not image.get("height") or not image.get("width"):
        raise ValueError(
            f"image {image['id']!r} needs its width and height in the ground truth, since "
            f"annotation {annotation.get('id')} is a polygon"
        )
    sides = image["height"], image["width"]
    if not all(is_number(side) and 1 <= side <= LARGEST for side in sides):
        raise _UnusableError(f"an image of {shown(sides[1])}x{shown(sides[0])} pixels")
    merged: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(polygons, *map(int, sides)))
    return merged


class _UnusableError(ValueError):
    """A segmentation that pycocotools would run into; the message is the end of a sentence."""


def segmentation_problem(shape: Any) -> str:
    """What is wrong with a segmentation, as the end of a sentence; empty where nothing is."""
    try:
        if not isinstance(shape, dict):
            _checked_polygons(shape or [])
        elif shape.get("counts"):
            _checked_size(shape)
    except _UnusableError as error:
        return str(error)
    return ""


def _checked_size(shape: Mapping[str, Any]) -> list[int]:
    """Height and width of run lengths that add up to all pixels."""
    size: Any = shape.get("size")
    counts = shape["counts"]
    if not _are_numbers(size) or len(size) != 2 or not all(side >= 1 for side in size):
        raise _UnusableError(f"a segmentation of the size {shown(size)}, needs [height, width]")
    height, width = (int(side) for side in size)
    try:
        text = counts.decode("ascii") if isinstance(counts, bytes) else counts
        runs = expand_counts(text) if isinstance(text, str) else text
    except ValueError as error:
        raise _UnusableError(f"a segmentation that is damaged: {error}") from error
    # Masks of thousands of runs are common: no loop of Python's over them.
    numbers = isinstance(runs, list) and set(map(type, runs)) <= {int, float}
    if not numbers or min(runs, default=0) < 0 or sum(runs) != height * width:
        raise _UnusableError(
            f"a segmentation whose run lengths are not the {height * width} pixels of its size"
        )
    return [height, width]


def _checked_polygons(shape: Any) -> list[Sequence[float]]:
    """Those that have an area: three corners or more."""
    if not isinstance(shape, list) or not all(_are_numbers(each) for each in shape):
        raise _UnusableError(f"the segmentation {shown(shape)}, needs lists of x, y in turn")
    for polygon in shape:
        if len(polygon) % 2:
            raise _UnusableError(f"a polygon of {len(polygon)} numbers, needs x, y in turn")
        if polygon and max(map(abs, polygon)) > LARGEST:
            raise _UnusableError(f"a polygon with a corner beyond {LARGEST:g} pixels")
    return [polygon for polygon in shape if len(polygon) >= 6]


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(is_number(value) for value in values)


def _box_of(mask: dict[str, Any] | None, annotation: Mapping[str, Any]) -> list[float]:
    from pycocotools import mask as coco_mask

    if mask is None:
        raise ValueError(
            f"annotation {annotation.get('id')} of image {annotation['image_id']!r} has neither a "
            "bbox nor a segmentation; remove it or add one"
        )
    return [float(value) for value in coco_mask.toBbox(mask)]


def _area_of(mask: dict[str, Any] | None, box: list[float]) -> float:
    from pycocotools import mask as coco_mask

    return float(box[2] * box[3]) if mask is None else float(coco_mask.area(mask))
