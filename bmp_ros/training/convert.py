# SPDX-License-Identifier: Apache-2.0
"""Annotations of MPII, AI Challenger and CrowdPose as COCO files, which recipes train from.

The joints keep their order and number; the category names them, by which a recipe finds its joint
map (`bmp_ros.training.joint_maps`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bmp_ros.evaluation.pckh import LOWER, UNIT
from bmp_ros.image_files import read_image
from bmp_ros.jpeg_data import jpeg_header
from bmp_ros.reading import read_json
from bmp_ros.training.check_data import SHOWN
from bmp_ros.training.joint_maps import DATA_SETS

SOURCES = ("mpii", "aic", "crowdpose")
_HEAD_BYTES = 1 << 16
_AIC_VISIBILITY = {1: 2, 2: 1, 3: 0}
"""AIC's visible, hidden, not labelled -> COCO's 2, 1, 0."""


def convert(data_set: str, file: Path, images: Path) -> dict[str, Any]:
    """Read the annotations of a data set and return them as a COCO document.

    data_set: one of `SOURCES`. file: the JSON file as it is published: MPII's of MMPose and of
    HRNet's authors (``mpii_train.json``), AIC's own ``keypoint_train_annotations_*.json``,
    CrowdPose's own. images: the folder of the images, whose sizes are read where the file does
    not say them.

    Raises ValueError listing every entry that cannot be used, with its number or id.
    """
    if data_set not in SOURCES:
        raise ValueError(f"data set is {data_set!r}, allowed: {', '.join(SOURCES)}")
    given = read_json(file)
    document = _Document(images, len(DATA_SETS[data_set]))
    try:
        _READERS[data_set](given, document)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} is not as the annotations of {data_set} are: {type(error).__name__} {error}"
        ) from error
    if document.problems:
        lines = [f"  {line}" for line in document.problems[:SHOWN]]
        more = len(document.problems) - len(lines)
        lines += [f"  … and {more} more"] if more > 0 else []
        raise ValueError("\n".join([f"{len(document.problems)} problems in {file}:", *lines]))
    category = {"id": 1, "name": "person", "keypoints": list(DATA_SETS[data_set])}
    return {
        "info": {"description": f"{data_set}, converted from {file.name}"},
        "images": list(document.images.values()),
        "annotations": document.annotations,
        "categories": [category],
    }


class _Document:
    """Images and people as they are gathered, and what is wrong with them."""

    def __init__(self, folder: Path, joints: int) -> None:
        self.folder, self.joints = folder, joints
        self.images: dict[str, dict[str, Any]] = {}
        self.annotations: list[dict[str, Any]] = []
        self.problems: list[str] = []

    def image(self, name: str, image_id: Any = None) -> dict[str, Any] | None:
        """The entry of an image, whose size is read from its file the first time."""
        if name not in self.images:
            path = next(
                (p for p in (self.folder / name, self.folder / "images" / name) if p.is_file()),
                None,
            )
            if path is None:
                self.problems.append(f"image {name} is not in {self.folder}")
                return None
            try:
                width, height = image_size(path)
            except (OSError, ValueError) as error:
                self.problems.append(str(error))
                return None
            number = len(self.images) + 1 if image_id is None else image_id
            self.images[name] = {
                "id": number, "file_name": name, "width": width, "height": height,
            }  # fmt: skip
        return self.images[name]

    def add(
        self,
        where: str,
        image: Mapping[str, Any],
        box: np.ndarray,
        joints: np.ndarray,
        **more: Any,
    ) -> None:
        """One person. box: (4,) xyxy, clipped to the image. joints: (K, 3) x y v."""
        if joints.shape != (self.joints, 3) or not np.isfinite(joints).all():
            self.problems.append(f"{where}: keypoints are not {self.joints} finite x, y, v")
            return
        size = np.array([image["width"], image["height"]])
        corners = np.clip(box.reshape(2, 2), 0, size)
        extent = corners[1] - corners[0]
        if not np.isfinite(box).all() or (extent <= 0).any():
            self.problems.append(
                f"{where}: its box {box.tolist()} has no part in the image, {size[0]}x{size[1]}"
            )
            return
        joints = np.where(joints[:, 2:] > 0, joints, 0)
        self.annotations.append(
            {
                "id": len(self.annotations) + 1, "image_id": image["id"], "category_id": 1,
                "iscrowd": 0, "bbox": [*corners[0].tolist(), *extent.tolist()],
                "keypoints": joints.ravel().tolist(),
                "num_keypoints": int((joints[:, 2] > 0).sum()), **more,
            }
        )  # fmt: skip


def _mpii(people: list[Mapping[str, Any]], document: _Document) -> None:
    """A box is the square that published evaluations cut out, before its padding."""
    for number, person in enumerate(people):
        image = document.image(person["image"])
        if image is None:
            continue
        # Counted from 1 in the file; -1 -1 where a joint is not labelled.
        places = np.array(person["joints"], float) - 1
        labelled = np.array(person["joints_vis"], float) > 0
        half = UNIT * float(person["scale"]) / 2
        centre = np.array(person["center"], float) + (0, LOWER * float(person["scale"])) - 1
        joints = np.column_stack([places, np.where(labelled, 2, 0)])
        box = np.concatenate([centre - half, centre + half])
        document.add(f"person {number}", image, box, joints)


def _aic(images: list[Mapping[str, Any]], document: _Document) -> None:
    for entry in images:
        image = document.image(f"{entry['image_id']}.jpg")
        if image is None:
            continue
        for name, points in sorted(entry["keypoint_annotations"].items()):
            joints = np.array(points, float).reshape(-1, 3)
            joints[:, 2] = [_AIC_VISIBILITY.get(int(v), 0) for v in joints[:, 2]]
            box = np.array(entry["human_annotations"][name], float)
            document.add(f"image {entry['image_id']}, {name}", image, box, joints)


def _crowdpose(given: Mapping[str, Any], document: _Document) -> None:
    names = {}
    for entry in given["images"]:
        names[entry["id"]] = entry["file_name"]
        document.image(entry["file_name"], entry["id"])
    for item in given["annotations"]:
        image = document.images.get(names.get(item["image_id"], ""))
        if image is None:
            if item["image_id"] not in names:
                document.problems.append(f"annotation {item.get('id')}: no such image is listed")
            continue
        left, top, width, height = (float(value) for value in item["bbox"])
        box = np.array([left, top, left + width, top + height])
        joints = np.array(item["keypoints"], float).reshape(-1, 3)
        document.add(f"annotation {item.get('id')}", image, box, joints)


_READERS: dict[str, Callable[[Any, _Document], None]] = {
    "mpii": _mpii, "aic": _aic, "crowdpose": _crowdpose,
}  # fmt: skip


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as stored, of JPEG and PNG without decoding it."""
    with path.open("rb") as source:
        head = source.read(_HEAD_BYTES)
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 24:
        width, height = struct.unpack_from(">II", head, 16)
        return int(width), int(height)
    for data in _growing(path, head):
        header = jpeg_header(data)
        if header is not None:
            return header.width, header.height
    height, width = read_image(path).shape[:2]
    return int(width), int(height)


def _growing(path: Path, head: bytes) -> Iterator[bytes]:
    """The head of a file, then all of it: a JPEG may begin with a large preview."""
    yield head
    if head.startswith(b"\xff\xd8"):
        yield path.read_bytes()
