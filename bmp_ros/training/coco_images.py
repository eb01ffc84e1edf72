# SPDX-License-Identifier: Apache-2.0
"""Folders in COCO's format as training images: decoded and resized once, kept in a cache.

What annotations may lack is taken as such, not as an answer: people without a segmentation teach
boxes and joints only, crowds and ``ignore_regions`` are neither people nor background, joints of
visibility 0 have no place.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bmp_ros.evaluation.coco_folder import read_document
from bmp_ros.evaluation.ground_truth import complete_person, people_of
from bmp_ros.image_files import read_annotated_image
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.training.detections import Detected
from bmp_ros.training.images import TrainingImage
from bmp_ros.training.joint_maps import JointMap, joint_map

LONGER_SIDE = 480
"""Pixels to which larger images are shrunk in the cache, unless a recipe says otherwise."""
COCO_MAP = joint_map("coco", None, COCO_17)
NEVER_TRAINED = frozenset({785, 40083, 196141, 197388})
"""COCO ids of photographs that figures and golden vectors of this project use."""
_FORMAT = 1


@dataclass(frozen=True)
class Person:
    """One labelled person, in pixels of the cached image.

    box: (4,) float32 xyxy. joints: (K, 3) float32 x y v of the network's skeleton.
    mask: (h, w) bool, the part of the mask within its box of pixels, or None. corner: x and
    y of that part.
    """

    box: np.ndarray
    joints: np.ndarray
    mask: np.ndarray | None
    corner: tuple[int, int]


@dataclass(frozen=True)
class Seen:
    """A person as networks saw them, in pixels of the cached image; see `Detected`.

    mask: the part of the mask within its box of pixels, which begins at ``corner`` (x, y).
    """

    box: np.ndarray
    mask: np.ndarray
    corner: tuple[int, int]
    keypoints: np.ndarray | None

    @classmethod
    def of(cls, person: Detected) -> Seen:
        mask, corner = _cut(person.mask)
        return cls(person.box, mask, corner, person.keypoints)

    def whole(self, height: int, width: int) -> Detected:
        mask = np.zeros((height, width), bool)
        x, y = self.corner
        mask[y : y + self.mask.shape[0], x : x + self.mask.shape[1]] = self.mask
        return Detected(self.box, mask, self.keypoints)


@dataclass(frozen=True)
class Entry:
    """An image of the cache: where its pixels begin, its size, its people."""

    file_name: str
    image_id: Any
    coco_id: int | None
    first: int
    height: int
    width: int
    people: Sequence[Person]
    ignore: np.ndarray


class CocoImages:
    """The images of one COCO file, as `TrainingImage`.

    folder: ``file_name`` is looked for in ``images/`` of it and in itself. annotations: the COCO
    file, below the folder or anywhere. cache: a folder for decoded pixels, which may be deleted.
    leave_out: image ids that are not to be seen; only: those that are (None: all). all_joints:
    joints of visibility 0 are not in the image (rendered ones) instead of not labelled. count:
    only the first so many. masked: only images with somebody whose mask is known. joints: where
    the file's joints go (default: COCO's onto COCO's). longer_side: pixels to which images are
    shrunk; None keeps them as they are and out of the cache: they are read when they are drawn,
    as data sets need that are larger than the disk.

    Raises FileNotFoundError for a file that is missing, ValueError for annotations that cannot be
    used, and for images that nothing may be trained on (`NEVER_TRAINED`).
    """

    def __init__(
        self,
        folder: Path,
        annotations: Path,
        cache: Path,
        *,
        leave_out: Iterable[Any] = (),
        only: Iterable[Any] | None = None,
        all_joints: bool = False,
        count: int | None = None,
        masked: bool = False,
        joints: JointMap = COCO_MAP,
        longer_side: int | None = LONGER_SIDE,
    ) -> None:
        file = annotations if annotations.is_file() else folder / annotations
        if not file.is_file():
            raise FileNotFoundError(f"neither {annotations} nor {file} is there")
        self.file = file
        self.all_joints = all_joints
        text = file.read_bytes()
        document = read_document(file)
        refuse_untrainable(document["images"], file)
        chosen = {image["id"] for image in document["images"]} if only is None else set(only)
        chosen -= set(leave_out)
        images = [image for image in document["images"] if image["id"] in chosen][:count]
        self.left_out = sum(image["id"] not in chosen for image in document["images"])
        if not images:
            raise ValueError(f"{file} has no images to train on")
        self.joints, self._longer_side = joints, longer_side
        self._images, self._labels = images, Labels.of(document)
        self._places = [find_image(folder, image) for image in images]
        self._file: Path | None = None
        if longer_side is not None:
            key = hashlib.sha256(text + json.dumps(self._decoding()).encode()).hexdigest()[:16]
            cache.mkdir(parents=True, exist_ok=True)
            self._file = cache / f"{file.stem}-{key}.pixels"
            self._fill(self._file)
        self.seen_file = cache / "none" if self._file is None else self._file.with_suffix(".seen")
        """What `bmp_ros.training.detections` writes: for every image its people as seen."""
        self.entries: list[Entry]
        self.seen: list[list[Seen | None]] | None
        self._read()
        self._numbers = [
            number for number in range(len(images)) if not masked or self._has_mask(number)
        ]

    def _decoding(self) -> list[Any]:
        """What the cached pixels and labels depend on, beside the COCO file."""
        first = [_FORMAT, self._longer_side, [image["id"] for image in self._images]]
        return first if self.joints == COCO_MAP else [*first, repr(self.joints)]

    def _fill(self, pixels: Path) -> None:
        labels = pixels.with_suffix(".labels")
        if labels.is_file() and pixels.is_file():
            return
        entries = []
        first = 0
        for image in self._images:
            entries.append(self._labels.entry(image, self.joints, self._longer_side, first))
            first += entries[-1].width * entries[-1].height * 3
        _decode(entries, self._images, self._places, pixels)
        part = pixels.with_suffix(".part")
        part.write_bytes(pickle.dumps(entries))
        part.replace(labels)  # appears when it is whole: what is there is believed

    def _read(self) -> None:
        self.entries, self.seen = [], None
        if self._file is None:
            return
        self._pixels = np.memmap(self._file, np.uint8, "r")
        self.entries = _read_cached(self._file.with_suffix(".labels"))
        if self.seen_file.is_file():
            self.seen = _read_cached(self.seen_file)

    def __getstate__(self) -> dict[str, Any]:
        """Without pixels and labels: processes that prepare samples read the files themselves,
        all at once, instead of waiting for each other's."""
        if self._file is None:
            return self.__dict__
        empty: dict[str, Any] = {
            "_pixels": None,
            "entries": [],
            "seen": None,
            "_labels": None,
            "_places": [],
        }
        return {**self.__dict__, **empty}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._read()

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def coco_ids(self) -> list[int]:
        """Of the images that are COCO's."""
        chosen = [self._images[number].get("coco_id") for number in self._numbers]
        return sorted(coco_id for coco_id in chosen if coco_id is not None)

    @property
    def image_ids(self) -> set[Any]:
        """Of all images, those without a mask included."""
        return {image["id"] for image in self._images}

    @cached_property
    def with_joints(self) -> list[tuple[int, int]]:
        """Image and row of every person with a labelled joint that the network has."""
        if self._file is not None:
            return [
                (place, row)
                for place, number in enumerate(self._numbers)
                for row, person in enumerate(self.entries[number].people)
                if (person.joints[:, 2] > 0).any()
            ]
        used = [source for source, _ in self.joints.pairs]
        return [
            (place, row)
            for place, number in enumerate(self._numbers)
            for row, item in enumerate(self._labels.people_in(self._images[number]["id"]))
            if (points := item.get("keypoints"))
            and any(points[3 * joint + 2] > 0 for joint in used)
        ]

    @property
    def has_masks(self) -> bool:
        """Whether the mask of any person is known."""
        return any(map(self._has_mask, self._numbers))

    def _has_mask(self, number: int) -> bool:
        if self._file is not None:
            return any(person.mask is not None for person in self.entries[number].people)
        people = self._labels.people_in(self._images[number]["id"])
        return any(bool(item.get("segmentation")) for item in people)

    def __getitem__(self, place: int) -> TrainingImage:
        return self.labelled(self._numbers[place])

    def labelled(self, number: int) -> TrainingImage:
        """Image ``number`` of the file's, those without a mask included."""
        if self._file is None:
            listed = self._images[number]
            entry = self._labels.entry(listed, self.joints, None, 0)
            path = self._places[number]
            image = read_annotated_image(path, listed["width"], listed["height"])
        else:
            entry = self.entries[number]
            pixels = self._pixels[entry.first : entry.first + entry.height * entry.width * 3]
            image = np.asarray(pixels).reshape(entry.height, entry.width, 3)
        height, width = entry.height, entry.width
        people = entry.people
        masks = np.zeros((len(people), height, width), bool)
        for mask, person in zip(masks, people, strict=True):
            if person.mask is not None:
                x, y = person.corner
                rows, columns = person.mask.shape
                mask[y : y + rows, x : x + columns] = person.mask
        joints = np.array([person.joints for person in people], np.float32)
        joints = joints.reshape(-1, len(self.joints.target), 3)
        return TrainingImage(
            image,
            masks,
            joints[..., :2],
            joints[..., 2].astype(np.int64),
            ()
            if self.seen is None
            else [
                None if person is None else person.whole(height, width)
                for person in self.seen[number]
            ],
            has_mask=np.array([person.mask is not None for person in people], bool),
            given_boxes=np.array([person.box for person in people], np.float32).reshape(-1, 4),
            ignore=entry.ignore,
            all_joints=np.full(len(people), self.all_joints),
            skeleton=self.joints.target,
        )


def refuse_untrainable(images: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Raise ValueError where ``images`` name photographs that must stay unseen."""
    found = sorted({image.get("coco_id") for image in images} & NEVER_TRAINED, key=str)
    if found:
        raise ValueError(
            f"{file} has the COCO images {', '.join(map(str, found))}, by which networks of "
            "this package are judged; remove them from the file"
        )


def find_image(folder: Path, image: Mapping[str, Any]) -> Path:
    """The file of an entry under ``images``; FileNotFoundError names both places."""
    places = [folder / image["file_name"], folder / "images" / image["file_name"]]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"image {image['id']!r} is neither {places[0]} nor {places[1]}")


@dataclass(frozen=True)
class Labels:
    """People and regions of all images of a COCO file, as the file has them."""

    people: Mapping[Any, list[Mapping[str, Any]]]
    regions: Mapping[str, Any]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Labels:
        people: defaultdict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for annotation in people_of(document):
            people[annotation["image_id"]].append(annotation)
        return cls(people, document.get("ignore_regions", {}))

    def people_in(self, image_id: Any) -> list[Mapping[str, Any]]:
        """Those of the image that become people of its `Entry`, in the same order."""
        return [item for item in self.people.get(image_id, ()) if _is_person(item)]

    def entry(
        self, image: Mapping[str, Any], joints: JointMap, longer_side: int | None, first: int
    ) -> Entry:
        """The labels of ``image`` (an item of the file) in the pixels of the shrunk image."""
        largest = max(image["width"], image["height"])
        scale = 1.0 if longer_side is None else min(1.0, longer_side / largest)
        width, height = (max(1, round(image[side] * scale)) for side in ("width", "height"))
        labelled = self.people.get(image["id"], ())
        ignore = [_completed(item, image)["bbox"] for item in labelled if item.get("iscrowd")]
        ignore += self.regions.get(str(image["id"]), [])
        boxes = np.array(ignore, np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        people = [
            _person(item, image, (width, height), joints) for item in self.people_in(image["id"])
        ]
        return Entry(
            image["file_name"], image["id"], image.get("coco_id"), first, height, width, people,
            boxes * np.float32(scale),
        )  # fmt: skip


def _read_cached(file: Path) -> Any:
    """What this file or `bmp_ros.training.detections` pickled: arrays in the classes above.

    Raises ValueError for anything else, a damaged file among it.
    """
    with file.open("rb") as source:
        try:
            return _CacheReader(source).load()
        except Exception as error:  # damaged pickles raise nearly any
            again = "the next start makes it again"
            if file.suffix == ".seen":
                again = "bmp_ros.training.detections makes it again"
            raise ValueError(
                f"{file} is no cached file of training images, or a damaged one "
                f"({str(error) or type(error).__name__}); delete it, {again}"
            ) from error


class _CacheReader(pickle.Unpickler):
    """Makes nothing but what the cache holds: the file may come from another machine."""

    def find_class(self, module: str, name: str) -> Any:
        own = {each.__name__: each for each in (Entry, Person, Seen)}
        # Files of before release 0.2 name the module as it was called then.
        if module in (__name__, "bmp_ros.training.coco_pictures") and name in own:
            return own[name]
        arrays = ("numpy", "ndarray"), ("numpy", "dtype")
        makers = "_reconstruct", "_frombuffer", "scalar"
        if (module, name) in arrays or (module.startswith("numpy.") and name in makers):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no such file needs")


def _is_person(item: Mapping[str, Any]) -> bool:
    """Neither a crowd nor a box without area."""
    return not item.get("iscrowd") and (not item.get("bbox") or min(item["bbox"][2:]) > 0)


def _completed(item: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """`complete_person` of any number of joints: they are read apart from it."""
    return complete_person({**item, "keypoints": None}, image)


def _person(
    item: Mapping[str, Any], image: Mapping[str, Any], size: tuple[int, int], joints: JointMap
) -> Person:
    from pycocotools import mask as coco_mask

    complete = _completed(item, image)
    scale = np.array(size) / [image["width"], image["height"]]
    box = np.array(complete["bbox"], np.float64)
    box[2:] += box[:2]
    box = np.clip(box.reshape(2, 2) * scale, 0, size).reshape(4)
    given = item.get("keypoints") or [0] * (3 * joints.source)
    if len(given) != 3 * joints.source:
        raise ValueError(
            f"annotation {item.get('id')} has {len(given)} numbers of keypoints, needs "
            f"{3 * joints.source}: x, y and visibility of {joints.source} joints"
        )
    points = joints(np.array(given, np.float32).reshape(-1, 3))
    points[:, :2] = (points[:, :2] + 0.5) * scale - 0.5
    mask, corner = None, (0, 0)
    if complete["segmentation"]:
        whole = coco_mask.decode(complete["segmentation"])
        if whole.shape != size[::-1]:
            whole = cv2.resize(whole * np.uint8(255), size, interpolation=cv2.INTER_AREA) > 127
        whole = whole.astype(bool)
        if whole.any():
            mask, corner = _cut(whole)
    return Person(box.astype(np.float32), points, mask, corner)


def _cut(mask: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of ``mask`` (H, W) that has pixels, and its corner x, y; (0, 0) pixels of none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros((0, 0), bool), (0, 0)
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return part.copy(), (int(columns[0]), int(rows[0]))


def _decode(
    entries: Sequence[Entry],
    images: Sequence[Mapping[str, Any]],
    places: Sequence[Path],
    target: Path,
) -> None:
    """Write the pixels of all images; the file appears when it is whole."""
    part = target.with_suffix(".part")
    with part.open("wb") as sink:
        for entry, listed, place in zip(entries, images, places, strict=True):
            image = read_annotated_image(place, listed["width"], listed["height"])
            size = (entry.width, entry.height)
            if image.shape[1::-1] != size:
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            sink.write(image.tobytes())
    part.replace(target)
