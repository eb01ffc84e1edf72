# SPDX-License-Identifier: Apache-2.0
"""A COCO file of what a preset's networks see: of unlabelled images, or only the masks that
labelled people lack.

The work can be interrupted: every image is one line of ``FILE.part``, and what is there is not
done again. The COCO file appears when it is whole.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bmp_ros.evaluation.coco_folder import check_people, read_document
from bmp_ros.image_files import (
    IMAGE_SUFFIXES,
    natural_key,
    read_annotated_image,
    read_image,
)
from bmp_ros.loop.bmp_loop import BMPLoop
from bmp_ros.loop.box_nms import box_iou
from bmp_ros.loop.frame import Frame
from bmp_ros.offline.coco_format import run_length_string, xywh
from bmp_ros.training.coco_images import Labels, find_image
from bmp_ros.writing import open_part, part_of

LEAST_SCORE = 0.3
"""Of a joint, to be written as labelled."""
LEAST_OVERLAP = 0.5
"""IoU of a labelled box and a detection, whose mask is then the person's."""
LEAST_INSIDE = 0.5
"""Of a segmenter's mask, what must lie in the labelled box; less is another person's."""
MOST_PROMPTS = 6
INSIDE_MARGIN = 0.1
"""Of a box's sides, what a mask may reach beyond it."""


@dataclass(frozen=True)
class Annotated:
    """images: how many there are. before: done by an earlier run. people: written in all.

    failed: images that could not be read, each with why.
    """

    images: int
    before: int
    people: int
    failed: Sequence[str]


def annotate(
    loop: BMPLoop, folder: Path, output: Path, preset: str, annotations: Path | None = None
) -> Annotated:
    """Let ``loop`` look at the images of ``folder`` and write a COCO file.

    annotations: a COCO file whose people keep everything they have and get a mask where they have
    none: the segmenter's, prompted with their joints, or the mask of a detection in their box.
    None: everybody whom the loop finds is written.
    Raises ValueError for a part that was written from other images or by another preset, and where
    ``output`` is there and finished; BeingWrittenError while another run writes there.
    """
    document = None
    if annotations is not None:
        document = read_document(annotations)
        check_people(document, document["images"], joints=False)
    listed = _listed(folder, document)
    _refuse_labels(output, annotations)
    part = part_of(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    begin = {
        "preset": preset, "folder": str(folder), "annotations": str(annotations or ""),
        "images": [[entry["id"], entry["file_name"]] for entry in listed],
    }  # fmt: skip
    labels = None if document is None else Labels.of(document)
    failed: list[str] = []
    with open_part(output, keep=True) as sink:
        done = _resume(part, begin)
        before = len(done)
        if not part.stat().st_size:
            sink.write(json.dumps(begin) + "\n")
        bar = tqdm(listed, "annotating", disable=not sys.stderr.isatty(), unit="image")
        for entry in bar:
            if entry["id"] in done:
                continue
            try:
                line = _annotated(loop, folder, entry, labels)
            except (OSError, ValueError) as error:
                failed.append(str(error))
                continue
            done[entry["id"]] = line
            sink.write(json.dumps(line) + "\n")
            sink.flush()
        whole = _whole(document, listed, done, loop)
        whole.setdefault("info", {})["annotated_by"] = f"bmp annotate, preset {preset}"
        ready = output.with_name(output.name + ".whole")
        ready.write_text(json.dumps(whole), encoding="utf-8")
        ready.replace(output)
        if not failed:  # what failed may be there next time
            part.unlink()
    return Annotated(len(listed), before, len(whole["annotations"]), failed)


def _refuse_labels(output: Path, annotations: Path | None) -> None:
    """Labels that people have made or corrected are not replaced by those of networks; a file that
    an interrupted run, or one that could not read all images, left is."""
    if not output.exists():
        return
    if annotations is not None and output.samefile(annotations):
        raise ValueError(
            f"{output} is the file of the annotations and would be overwritten; choose another "
            "--output"
        )
    if not part_of(output).exists():
        raise ValueError(
            f"{output} is there, and what was labelled or corrected in it would be lost; choose "
            "another --output, or move it away"
        )


def _listed(folder: Path, document: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Entries of the images: those of the COCO file, or of all files of the folder."""
    if document is not None:
        return [dict(image) for image in document["images"]]
    files = sorted(
        (f for f in folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file()),
        key=natural_key,
    )
    names = [file.relative_to(folder).as_posix() for file in files]
    names = [name for name in names if not any(part[0] == "." for part in name.split("/"))]
    if not names:
        raise ValueError(f"{folder} has no images")
    return [{"id": number, "file_name": name} for number, name in enumerate(sorted(names), 1)]


def _resume(part: Path, begin: Mapping[str, Any]) -> dict[Any, dict[str, Any]]:
    """The images that are done, by id; a last line that was cut short is cut off."""
    lines = part.read_bytes().split(b"\n")
    whole, torn = lines[:-1], lines[-1]
    if not whole and json.dumps(begin).encode().startswith(torn):
        os.truncate(part, 0)
        return {}
    try:
        first = json.loads(whole[0] if whole else torn)
        wanted = json.loads(json.dumps(begin))
        different = [key for key in wanted if first.get(key) != wanted[key]]
        done = {line["image"]["id"]: line for line in map(json.loads, whole[1:])}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{part} is in the way: it was not written by bmp annotate, or is damaged; move it "
            "away or name another --output"
        ) from error
    if different:
        raise ValueError(
            f"{part} is of another run ({', '.join(different)} differ); delete it or name another "
            "--output"
        )
    os.truncate(part, sum(len(line) + 1 for line in whole))
    return done


def _annotated(
    loop: BMPLoop, folder: Path, entry: Mapping[str, Any], labels: Labels | None
) -> dict[str, Any]:
    """What a line holds: the entry of the image with its size, and people or masks by number."""
    path = find_image(folder, entry)
    if labels is None:
        image = read_image(path)
        height, width = image.shape[:2]
        sized = {**entry, "width": width, "height": height}
        return {"image": sized, "people": list(_found(loop, image))}
    image = read_annotated_image(path, entry.get("width"), entry.get("height"))
    people = labels.people.get(entry["id"], [])
    lacking = [
        (number, item) for number, item in enumerate(people)
        if not item.get("segmentation") and not item.get("iscrowd") and item.get("bbox")
    ]  # fmt: skip
    masks = dict(_masks(loop, image, lacking)) if lacking else {}
    return {"image": dict(entry), "masks": masks}


def _found(loop: BMPLoop, image: np.ndarray) -> Iterator[dict[str, Any]]:
    people = loop(image)
    for row in range(len(people.boxes)):
        scores = people.keypoint_scores[row]
        seen = np.where(scores > LEAST_SCORE, 2, 0)
        places = np.where(seen[:, None] > 0, people.keypoints[row], 0)
        joints = np.column_stack([places, seen]).astype(float).round(2)
        yield {
            "category_id": 1, "iscrowd": 0, "bbox": xywh(people.boxes[row]),
            "area": float(people.masks[row].sum()), "score": float(people.scores[row]),
            "segmentation": run_length_string(people.masks[row]),
            "keypoints": joints.ravel().tolist(), "num_keypoints": int((seen > 0).sum()),
        }  # fmt: skip


def _masks(
    loop: BMPLoop, image: np.ndarray, people: Sequence[tuple[int, Mapping[str, Any]]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run lengths by the person's number; none for a person whom no network found."""
    frame = Frame(image)
    boxes = np.array([item["bbox"] for _, item in people], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    detected = _detected_masks(loop, frame, boxes)
    for place, (number, item) in enumerate(people):
        mask = _prompted(loop, frame, boxes[place], item, detected[place])
        if mask is None or not mask.any():
            mask = detected[place]
        if mask is not None and mask.any():
            yield str(number), run_length_string(mask)


def _detected_masks(loop: BMPLoop, frame: Frame, boxes: np.ndarray) -> list[np.ndarray | None]:
    """The mask of the detection that fits each box best, None without one."""
    found = loop.detector.detect(frame, score_threshold=LEAST_SCORE)
    if found.masks is None or not len(found.boxes):
        return [None] * len(boxes)
    overlap = box_iou(boxes, found.boxes)
    best = overlap.argmax(axis=1)
    fit = [overlap[row, column] >= LEAST_OVERLAP for row, column in enumerate(best)]
    used = np.unique(best[fit])
    if not len(used):
        return [None] * len(boxes)
    masks = dict(zip(used.tolist(), found.masks(used), strict=True))
    return [masks[int(c)] if good else None for c, good in zip(best, fit, strict=True)]


def _prompted(
    loop: BMPLoop, frame: Frame, box: np.ndarray, item: Mapping[str, Any],
    detected: np.ndarray | None,
) -> np.ndarray | None:  # fmt: skip
    """The segmenter's mask of a person from its labelled joints; None without joints or segmenter,
    and where most of it lies outside of the labelled box."""
    joints = np.array(item.get("keypoints") or [], np.float32).reshape(-1, 3)
    visible = joints[joints[:, 2] == 2] if (joints[:, 2] == 2).any() else joints[joints[:, 2] > 0]
    if loop.segmenter is None or not len(visible):
        return None
    # Spread over the list: neighbours in it are mostly neighbours on the body.
    chosen = np.unique(np.linspace(0, len(visible) - 1, MOST_PROMPTS).round().astype(int))
    points = np.ascontiguousarray(visible[chosen, :2])[None]
    prior = None if detected is None else detected[None]
    found = loop.segmenter.segment(frame, points, np.ones(points.shape[:2], np.int32), prior)
    mask: np.ndarray = found.masks[0]
    margin = INSIDE_MARGIN * np.tile(box[2:] - box[:2], 2) * (-1, -1, 1, 1)
    left, top, right, bottom = np.round(box + margin).astype(int).clip(min=0)
    inside = int(mask[top:bottom, left:right].sum())
    return mask if inside >= LEAST_INSIDE * max(int(mask.sum()), 1) else None


def _whole(
    document: Mapping[str, Any] | None, listed: Iterable[Mapping[str, Any]],
    done: Mapping[Any, Mapping[str, Any]], loop: BMPLoop,
) -> dict[str, Any]:  # fmt: skip
    """The COCO document of all images that are done."""
    if document is None:
        names = list(loop.pose_estimator.skeleton.names)
        lines = [done[entry["id"]] for entry in listed if entry["id"] in done]
        people = [
            {"image_id": line["image"]["id"], **person}
            for line in lines for person in line["people"]
        ]  # fmt: skip
        return {
            "images": [line["image"] for line in lines],
            "annotations": [{"id": number, **p} for number, p in enumerate(people, 1)],
            "categories": [{"id": 1, "name": "person", "keypoints": names}],
        }
    masks: dict[int, dict[str, Any]] = {}
    labels = Labels.of(document)
    for image_id, line in done.items():
        for number, mask in line["masks"].items():
            masks[id(labels.people[image_id][int(number)])] = mask
    people = [
        {**item, "segmentation": masks[id(item)]} if id(item) in masks else item
        for item in document["annotations"]
    ]
    return {**document, "annotations": people, "info": dict(document.get("info") or {})}
