# SPDX-License-Identifier: Apache-2.0
"""Folders of images with annotations in COCO's format: COCO, OCHuman, one's own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bmp_ros.evaluation.datasets import LabelledImage
from bmp_ros.evaluation.ground_truth import complete_person, people_of, shape_problems
from bmp_ros.evaluation.seen_images import coco_id_of
from bmp_ros.image_files import read_annotated_image
from bmp_ros.reading import read_json

_COCO_KEYS = {"images": ("id", "file_name"), "annotations": ("image_id",), "categories": ("id",)}
"""Lists of a COCO file, and what each of their entries must have."""


class CocoFolder:
    """The images of a COCO file, read as they go.

    folder: ``file_name`` is looked for in ``images/`` of it and in itself. annotations: the COCO
    file, by default ``annotations.json`` in the folder. count: only the first so many images.
    leave_out: COCO ids of images that are not used; ``left_out`` tells how many there were.
    Raises FileNotFoundError when there is no such file or image, ValueError when it is not in
    COCO's format.
    """

    def __init__(
        self,
        folder: Path,
        annotations: Path | None = None,
        *,
        count: int | None = None,
        name: str | None = None,
        leave_out: Collection[int] = (),
    ) -> None:
        file = _find_annotations(folder) if annotations is None else annotations
        document = read_document(file)
        self.name = name or str(folder)
        self.categories: Sequence[Mapping[str, Any]] = document["categories"]
        self._folder = folder
        if not document["images"]:
            raise ValueError(f"{file} lists no images")
        images = [entry for entry in document["images"] if coco_id_of(entry) not in leave_out]
        self.left_out = len(document["images"]) - len(images)
        self._images: list[dict[str, Any]] = images[:count]
        if not self._images:
            raise ValueError(
                f"all {self.left_out} images of {file} were seen in training by the networks that "
                "are to be scored; choose other images"
            )
        self._annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in document["annotations"]:
            self._annotations[annotation["image_id"]].append(annotation)
        self._files = [self._file(entry) for entry in self._images]
        try:
            check_people(document, self._images)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[LabelledImage]:
        for entry, file in zip(self._images, self._files, strict=True):
            image = read_annotated_image(file, entry.get("width"), entry.get("height"))
            height, width = image.shape[:2]
            sized = {**entry, "width": width, "height": height}
            yield LabelledImage(image, sized, self._annotations.get(entry["id"], ()))

    def _file(self, entry: Mapping[str, Any]) -> Path:
        """Looked for beforehand: a file that is missing is told at once, not after an hour."""
        places = [self._folder / "images" / entry["file_name"], self._folder / entry["file_name"]]
        for place in places:
            if place.is_file():
                return place
        raise FileNotFoundError(
            f"image {entry['id']!r} is neither {places[0]} nor {places[1]}; a score over fewer "
            "images than annotated would mislead, so leave it out of the annotations"
        )


def _find_annotations(folder: Path) -> Path:
    file = folder / "annotations.json"
    if file.is_file():
        return file
    others = sorted(str(path.relative_to(folder)) for path in folder.glob("**/*.json"))[:5]
    hint = f"; is it {' or '.join(others)}?" if others else "."
    raise FileNotFoundError(f"{file} is not there{hint} Name another with --annotations FILE")


def read_document(file: Path) -> dict[str, Any]:
    """A file in COCO's format; the kinds of its ids and names are checked.

    Raises OSError when it cannot be read, ValueError naming it for another format.
    """
    document = read_json(file)
    missing = [
        name
        for name in _COCO_KEYS
        if not isinstance(document, dict) or not isinstance(document.get(name), list)
    ]
    if missing:
        raise ValueError(
            f"{file} is not in COCO's format: it needs the lists {', '.join(_COCO_KEYS)} and has "
            f"no {', '.join(missing)}. (OCHuman's own ochuman.json is another format; use its "
            "ochuman_coco_format_*.json.)"
        )
    for name, keys in _COCO_KEYS.items():
        for number, entry in enumerate(document[name]):
            lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if lacking:
                raise ValueError(
                    f"{file} is not in COCO's format: entry {number} of {name} lacks "
                    f"{', '.join(lacking)}"
                )
    for problem in shape_problems(document):
        raise ValueError(f"{file} is not in COCO's format: {problem}")
    return document


def check_people(
    document: Mapping[str, Any], images: Iterable[Mapping[str, Any]], *, joints: bool = True
) -> None:
    """Find out before the work what would be stumbled over in its course, or in the end.

    images: of the document, those that are used. joints: whether people have COCO's.
    Raises ValueError for ids that are not unique or of no image, and annotations of people that
    cannot be used.
    """
    ids = Counter(image["id"] for image in document["images"])
    twice = next((name for name, count in ids.items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{ids[twice]} images have the id {twice!r}, ids must be unique")
    if len({isinstance(name, str) for name in ids}) > 1:
        raise ValueError("some ids of images are numbers and some are texts; make them one kind")
    people = people_of(document)
    strangers = [item for item in document["annotations"] if item["image_id"] not in ids]
    texts = {str(name) for name in ids}
    # Those of images that were taken out of the list do no harm.
    of_other_kind = any(str(item["image_id"]) in texts for item in strangers)
    if strangers and (of_other_kind or len(strangers) == len(document["annotations"])):
        wrong, right = strangers[0]["image_id"], next(iter(ids))
        raise ValueError(
            f"{len(strangers)} annotations are of images that are not listed, such as {wrong!r}; "
            f"ids of images are as {right!r}, and text and numbers are not the same"
        )
    chosen = {image["id"]: image for image in images}
    for item in people:
        image = chosen.get(item["image_id"])
        if image is not None and (image.get("height") and image.get("width")):
            complete_person(item if joints else {**item, "keypoints": None}, image)
