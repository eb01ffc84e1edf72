# SPDX-License-Identifier: Apache-2.0
"""``results.json`` read back: the people of every image, as `ResultsFile` wrote them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bmp_ros.image_files import shown_name
from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import SKELETONS, Skeleton
from bmp_ros.offline.coco_format import segmentation_mask
from bmp_ros.offline.infer_files import RESULTS_NAME
from bmp_ros.reading import MAX_JSON_BYTES, FileTooLargeError, read_limited


class ResultsError(ValueError):
    """A file of results cannot be read; the message names it and what is wrong."""


@dataclass(frozen=True)
class Results:
    """A document of results, its images in the order in which they were processed.

    images: entries with ``file_name``, ``width``, ``height`` and, of videos, ``frame`` and
    ``seconds``. annotations: of each image, by its id. info: what `ResultsFile` was given.
    """

    path: Path
    skeleton: Skeleton
    images: Sequence[Mapping[str, Any]]
    annotations: Mapping[int, Sequence[Mapping[str, Any]]]
    info: Mapping[str, Any]

    def __iter__(self) -> Iterator[tuple[Mapping[str, Any], People]]:
        """Each image's entry and its people. Raises ResultsError for damaged ones."""
        for entry in self.images:
            yield entry, self.people(entry)

    def people(self, entry: Mapping[str, Any]) -> People:
        """Of one image; visibility and presence that were left out are NaN."""
        try:
            return _people(
                self.annotations.get(entry["id"], ()), entry["height"], entry["width"],
                self.skeleton,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError, cv2.error) as error:
            raise ResultsError(
                f"{shown_name(self.path)}: image {entry.get('file_name')!r}: "
                f"{type(error).__name__}: {error}"
            ) from error


def open_results(path: Path) -> Results:
    """Read the results of `bmp infer --json`. path: the file, or the folder it lies in.

    Raises ResultsError for what is no such file.
    """
    if path.is_dir():
        path = path / RESULTS_NAME
    name = shown_name(path)
    try:
        content = read_limited(path, MAX_JSON_BYTES, "split it")
        document = json.loads(content)
    except FileTooLargeError as error:
        raise ResultsError(str(error)) from error
    except FileNotFoundError:
        raise ResultsError(f"there is no {name}; `bmp infer --json` writes one") from None
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{name} is no JSON: {error}") from error
    try:
        (category,) = document["categories"]
        if not all(isinstance(each, dict) and "id" in each for each in document["images"]):
            raise ValueError("an image of `images` has no id")
        annotations = defaultdict(list)
        for each in document["annotations"]:
            annotations[each["image_id"]].append(each)
        return Results(
            path, _skeleton(category), document["images"], dict(annotations),
            document.get("info", {}),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(
            f"{name} is no document of `bmp infer --json`: {type(error).__name__}: {error}"
        ) from error


def _skeleton(category: Mapping[str, Any]) -> Skeleton:
    names = tuple(category["keypoints"])
    known = next((each for each in SKELETONS.values() if each.names == names), None)
    if known is not None:
        return known
    edges = tuple((a - 1, b - 1) for a, b in category["skeleton"])
    return Skeleton("of the results", names, edges, (), ())


def _people(
    annotations: Sequence[Mapping[str, Any]], height: int, width: int, skeleton: Skeleton
) -> People:
    count, joints = len(annotations), len(skeleton)

    def column(name: str, default: float, kind: type) -> np.ndarray:
        return np.array([each.get(name, default) for each in annotations], kind)

    def per_joint(name: str) -> np.ndarray:
        unknown = [float("nan")] * joints
        rows = [each.get(name, unknown) for each in annotations]
        return np.array(rows, np.float32).reshape(count, joints)

    boxes = np.array([each["bbox"] for each in annotations], np.float32).reshape(count, 4)
    boxes[:, 2:] += boxes[:, :2]
    keypoints = np.array([each["keypoints"] for each in annotations], np.float32)
    keypoints = keypoints.reshape(count, joints, 3)
    masks = np.zeros((count, height, width), np.bool_)
    for row, each in zip(masks, annotations, strict=True):
        mask = segmentation_mask(each.get("segmentation"), height, width)
        if mask is not None:
            row[:] = mask
    return People(
        boxes=boxes,
        scores=column("score", 0.0, np.float32),
        pose_scores=column("pose_score", 0.0, np.float32),
        mask_scores=column("mask_score", 0.0, np.float32),
        keypoints=keypoints[..., :2].copy(),
        keypoint_scores=keypoints[..., 2].copy(),
        visibility=per_joint("visibility"),
        presence=per_joint("presence"),
        masks=masks,
        raw_masks=masks,
        has_mask=masks.any(axis=(1, 2)),
        iterations=column("iteration", 1, np.int32),
        track_ids=column("track_id", -1, np.int32),
        skeleton=skeleton,
    )
