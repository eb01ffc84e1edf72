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

from collections.abc import Mapping
from typing import Any

from bmp_ros.loop.skeletons import COCO_17

CATEGORY = {"id": 1, "name": "person", "keypoints": list(COCO_17.names)}


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
    ids = {item["id"] for item in categories if item.get("name") == "person"}
    if not ids and len(categories) == 1:
        ids = {categories[0]["id"]}
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
    """
    mask = _mask(annotation, image)
    box = annotation.get("bbox")
    crowd = int(annotation.get("iscrowd") or 0)
    keypoints = (not crowd and annotation.get("keypoints")) or [0] * (3 * len(COCO_17))
    if len(keypoints) != 3 * len(COCO_17):
        raise ValueError(
            f"annotation {annotation.get('id')} has {len(keypoints)} numbers of keypoints, needs "
            f"{3 * len(COCO_17)}: x, y and visibility of COCO's {len(COCO_17)} joints"
        )
    if not box:
        box = _box_of(mask, annotation)
    area = annotation.get("area")
    return {
        "image_id": annotation["image_id"],
        "category_id": CATEGORY["id"],
        "iscrowd": crowd,
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
        size, pixels = list(shape["size"]), [image.get("height"), image.get("width")]
        if None not in pixels and size != pixels:
            raise ValueError(
                f"annotation {annotation.get('id')} has a mask of {size[1]}x{size[0]} pixels, its "
                f"image {image['id']!r} {pixels[1]}x{pixels[0]}"
            )
        if isinstance(counts, list):
            mask: dict[str, Any] = coco_mask.frPyObjects({"size": size, "counts": counts}, *size)
            return mask
        return {"size": size, "counts": counts}
    polygons = [polygon for polygon in shape or () if len(polygon) >= 6]
    if not polygons:
        return None
    if not image.get("height") or not image.get("width"):
        raise ValueError(
            f"image {image['id']!r} needs its width and height in the ground truth, since "
            f"annotation {annotation.get('id')} is a polygon"
        )
    merged: dict[str, Any] = coco_mask.merge(
        coco_mask.frPyObjects(polygons, image["height"], image["width"])
    )
    return merged


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
