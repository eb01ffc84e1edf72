# SPDX-License-Identifier: Apache-2.0
"""Boxes that another program has found, from a JSON file in COCO's style, by image and frame."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bmp_ros.image_files import shown_name
from bmp_ros.loop.protocols import Detections
from bmp_ros.offline.coco_format import PERSON, segmentation_mask
from bmp_ros.reading import MAX_JSON_BYTES, FileTooLargeError, read_limited

LARGEST = 1e7
"""Pixels beyond which no coordinate is believed."""


class BoxFileError(ValueError):
    """The file, or an entry of it, cannot be used; the message names both."""


@dataclass
class _Image:
    """Entries of one image. label: what the file calls it. frame: of a video, else None."""

    label: str
    frame: int | None = None
    entries: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)
    asked_for: bool = False


class BoxFile:
    """People's boxes of many images: COCO results, or a document with ``annotations``.

    An entry has ``bbox`` (x y width height), perhaps ``score`` (1 without), ``segmentation`` and
    ``category_id`` (people only are used: 1, or the category called person). Which image it
    belongs to is said by ``images`` of the document (``id``, ``file_name``, for videos ``frame``
    from 0), by ``file_name`` and ``frame`` of the entry itself, or by its ``image_id``: the name
    of the file, with or without suffix, or the number at the end of it, as in COCO's names.

    other_classes: entries left out because they are no people.
    """

    def __init__(self, path: Path) -> None:
        """Read the file. Raises BoxFileError when it cannot be read or an entry is no box."""
        self.path = path
        self.other_classes = 0
        document = _read(path)
        entries = document.get("annotations") if isinstance(document, dict) else document
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise BoxFileError(
                f"{shown_name(path)} has no boxes: it must be a list of COCO results, or a "
                "document with a list `annotations`"
            )
        listed = document.get("images", []) if isinstance(document, dict) else []
        people = _people_ids(document.get("categories") if isinstance(document, dict) else None)
        self._images: dict[Any, _Image] = {}
        named: dict[tuple[str, int | None], Any] = {}
        for image in self._checked_images(listed):
            frame, label = image.get("frame"), str(image.get("file_name", image["id"]))
            before = image["id"] if image["id"] in self._images else named.get((label, frame))
            if before is not None:
                raise BoxFileError(
                    f"{shown_name(path)}: of `images`, two are the same ({label!r}, id "
                    f"{image['id']!r}; id {before!r}): ids, and names with their `frame`, must "
                    "be unique"
                )
            named[label, frame] = image["id"]
            self._images[image["id"]] = _Image(label, frame)
        for number, entry in enumerate(entries):
            if entry.get("iscrowd"):
                continue
            if entry.get("category_id", PERSON) not in people:
                self.other_classes += 1
                continue
            self._check(number, entry)
            self._image_of(number, entry).entries.append((number, entry))
        self._by_name: dict[str, list[_Image]] = {}
        for each in self._images.values():
            self._by_name.setdefault(PurePosixPath(each.label).name, []).append(each)

    def of(
        self, path: Path, height: int, width: int, frame: int | None = None
    ) -> Detections | None:
        """Boxes of an image file, or of a frame of a video; None when the file says nothing of it.

        masks: where every box has one. Raises BoxFileError for a mask that does not fit.
        """
        image = self._find(path, frame)
        if image is None:
            return None
        image.asked_for = True
        corners = [_corners(entry["bbox"]) for _, entry in image.entries]
        scores = [float(entry.get("score", 1.0)) for _, entry in image.entries]
        masks = []
        for number, entry in image.entries:
            try:
                masks.append(segmentation_mask(entry.get("segmentation"), height, width))
            except ValueError as error:
                raise BoxFileError(f"{self._named(number)}: {error}") from error
        boxes = np.array(corners, np.float32).reshape(-1, 4)
        if not masks or any(mask is None for mask in masks):
            return Detections(boxes, np.array(scores, np.float32))
        stack = np.stack([mask for mask in masks if mask is not None])
        return Detections(boxes, np.array(scores, np.float32), lambda rows: stack[rows])

    def knows(self, path: Path) -> bool:
        """Whether there is anything about an image or video."""
        return bool(self._candidates(path))

    def not_asked_for(self) -> list[str]:
        """What the file calls the images with boxes that `of` was never asked for."""
        return [
            each.label if each.frame is None else f"{each.label}, frame {each.frame}"
            for each in self._images.values()
            if each.entries and not each.asked_for
        ]

    def _find(self, path: Path, frame: int | None) -> _Image | None:
        return next((each for each in self._candidates(path) if each.frame == frame), None)

    def _candidates(self, path: Path) -> list[_Image]:
        """Everything that may be about a file, by its name, else by the number in it."""
        named = self._by_name.get(path.name) or self._by_name.get(path.stem) or []
        exact = [each for each in named if _is_end_of(each.label, path)]
        others = {each.label for each in named}
        if exact or len(others) == 1:  # of equal names in other folders nobody knows which
            return exact or named
        number = re.search(r"(\d+)$", path.stem)
        numbered = self._images.get(int(number[1])) if number else None
        return [numbered] if numbered is not None and numbered.label.isdecimal() else []

    def _image_of(self, number: int, entry: Mapping[str, Any]) -> _Image:
        """The image of an entry, made at the first entry where the document lists none."""
        key: Any = entry.get("image_id")
        if isinstance(key, str | int) and key in self._images:
            return self._images[key]
        frame = entry.get("frame")
        if "file_name" in entry:
            key, label = (str(entry["file_name"]), frame), str(entry["file_name"])
        elif isinstance(key, str | int):
            key, label = (key if frame is None else (key, frame)), str(key)
        else:
            raise BoxFileError(f"{self._named(number)} has neither an image_id nor a file_name")
        return self._images.setdefault(key, _Image(label, frame))

    def _checked_images(self, listed: Any) -> Iterator[Mapping[str, Any]]:
        if not isinstance(listed, list):
            raise BoxFileError(f"{shown_name(self.path)}: `images` is no list")
        for image in listed:
            if not isinstance(image, dict) or not isinstance(image.get("id"), str | int):
                raise BoxFileError(f"{shown_name(self.path)}: an image of `images` has no id")
            self._check_frame(f"{shown_name(self.path)}: image {image['id']!r}", image)
            yield image

    def _check(self, number: int, entry: Mapping[str, Any]) -> None:
        box: Any = entry.get("bbox")
        score: Any = entry.get("score", 1.0)
        if not _are_numbers(box, 4) or min(box[2:]) < 0:
            raise BoxFileError(
                f"{self._named(number)} has the bbox {box!r}; needs x, y, width and height in "
                "pixels"
            )
        if not _are_numbers([score], 1) or not 0 <= score <= 1:
            raise BoxFileError(
                f"{self._named(number)} has the score {score!r}; needs a number from 0 to 1"
            )
        self._check_frame(self._named(number), entry)

    @staticmethod
    def _check_frame(name: str, of: Mapping[str, Any]) -> None:
        frame = of.get("frame")
        if frame is not None and (type(frame) is not int or frame < 0):
            raise BoxFileError(f"{name} has the frame {frame!r}; needs a whole number from 0")

    def _named(self, number: int) -> str:
        return f"{shown_name(self.path)}: entry {number}"


def _read(path: Path) -> Any:
    try:
        return json.loads(read_limited(path, MAX_JSON_BYTES, "split it"))
    except FileTooLargeError as error:
        raise BoxFileError(str(error)) from error
    except OSError as error:
        raise BoxFileError(f"{shown_name(path)} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also of numbers with thousands of digits
        raise BoxFileError(f"{shown_name(path)} is not JSON: {error}") from error


def _people_ids(categories: Any) -> list[Any]:
    """Ids of the category called person; 1 where there are no categories."""
    if not isinstance(categories, list):
        return [PERSON]
    named = [each for each in categories if isinstance(each, dict) and "id" in each]
    people = [each["id"] for each in named if str(each.get("name")).lower() == "person"]
    return people or [PERSON]


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        # Not by isfinite: JSON knows whole numbers that no float can hold.
        and all(type(value) in (int, float) and abs(value) <= LARGEST for value in values)
    )


def _corners(box: Iterable[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


def _is_end_of(label: str, path: Path) -> bool:
    """Whether the folders that a label names are those of the path, from its end."""
    parts = PurePosixPath(label).parts
    there = path.absolute().parts
    ends = (there, (*there[:-1], path.stem))
    return any(end[-len(parts) :] == parts for end in ends)
