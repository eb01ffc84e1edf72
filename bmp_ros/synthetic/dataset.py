# SPDX-License-Identifier: Apache-2.0
"""Writes synthetic images to a folder in COCO's format, in several processes, resumable.

``python -m bmp_ros.synthetic.dataset --split train --count 3000 --output DIR``

``DIR/images/000000.jpg`` … hold the images, ``DIR/labels/000000.json`` … their answers and
``DIR/annotations.json`` all of them as COCO annotations. Images that are there are left alone,
so an interrupted call goes on where it was and a larger count adds to the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from bmp_ros.fork_server import fork_server_context
from bmp_ros.loop.masks import coco_run_lengths
from bmp_ros.synthetic.ground_truth import PeopleTruth
from bmp_ros.synthetic.splits import SPLITS, find_split

PIXEL_CENTRE = 0.5
"""Ground truth has pixel i cover [i, i + 1), COCO's keypoints have its centre at i."""
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Order:
    """One image to write: its split, seed, size and the folder it belongs to."""

    folder: Path
    split: str
    seed: int
    width: int
    height: int

    @property
    def image_file(self) -> Path:
        return self.folder / "images" / f"{self.seed:06d}.jpg"

    @property
    def label_file(self) -> Path:
        return self.folder / "labels" / f"{self.seed:06d}.json"


def write_dataset(
    folder: Path,
    split: str,
    count: int,
    *,
    start: int = 0,
    workers: int = 1,
    width: int = 640,
    height: int = 480,
) -> Path:
    """Write the images ``start`` .. ``start + count - 1`` of ``split``; return annotations.json.

    workers: processes, each with a renderer of its own. Raises ValueError for an unknown split,
    and for a folder with other images than rendered ones of this split and size.
    """
    find_split(split)
    _refuse_others(folder, split, (width, height))
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    orders = [Order(folder, split, seed, width, height) for seed in range(start, start + count)]
    missing = [order for order in orders if not order.label_file.is_file()]
    # Forked from a process without an OpenGL context, which does not survive that.
    with ProcessPoolExecutor(workers, fork_server_context(), _begin_worker, (workers,)) as pool:
        waiting = [pool.submit(write_picture, order) for order in missing]
        progress = tqdm(
            as_completed(waiting), f"rendering {split}", len(waiting), unit="image",
            disable=not sys.stderr.isatty(),
        )  # fmt: skip
        for done in progress:
            done.result()
    return gather_annotations(folder)


def _refuse_others(folder: Path, split: str, size: tuple[int, int]) -> None:
    """Neither is somebody's data set written over, nor are images of two kinds mixed."""
    labels = min((folder / "labels").glob("*.json"), default=None)
    if labels is None:
        images = folder / "images"
        if (folder / "annotations.json").exists() or (images.is_dir() and any(images.iterdir())):
            raise ValueError(
                f"{folder} holds images or annotations that were not rendered: they would be "
                "overwritten; choose a folder of its own"
            )
        return
    label = json.loads(labels.read_text(encoding="utf-8"))
    there = label.get("split", split), label["image"]["width"], label["image"]["height"]
    if there != (split, *size):
        raise ValueError(
            f"{folder} holds images of {there[0]}, {there[1]}x{there[2]} pixels, asked for is "
            f"{split}, {size[0]}x{size[1]}; choose a folder of its own"
        )


def _begin_worker(workers: int) -> None:
    cv2.setNumThreads(1)
    if workers > 1:  # a software renderer takes every core; a process a core does more
        os.environ.setdefault("LP_NUM_THREADS", "1")


def write_picture(order: Order) -> None:
    """Render one image; the label is written last and whole, so it says that both are there."""
    from bmp_ros.synthetic.generator import render_scene

    sample = render_scene(order.seed, order.split, order.width, order.height)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    if not cv2.imwrite(str(order.image_file), sample.image, quality):
        raise OSError(f"{order.image_file} could not be written; is the disk full?")
    label = {
        "image": {
            "id": order.seed,
            "file_name": order.image_file.name,
            "width": order.width,
            "height": order.height,
        },
        "annotations": annotations_of(sample.people, order.seed),
        "split": order.split,
    }
    part = order.label_file.with_suffix(".part")
    part.write_text(json.dumps(label), encoding="utf-8")
    part.replace(order.label_file)


def annotations_of(people: PeopleTruth, image_id: int) -> list[dict[str, Any]]:
    """COCO annotations of the people of one image, without ``id`` (it is unique per file).

    Boxes are xywh of the visible mask, masks uncompressed run lengths, keypoints x y v with pixel
    centres at whole numbers; a joint outside of the image is 0 0 0, as in COCO.
    """
    annotations = []
    for row in range(len(people)):
        left, top, right, bottom = people.boxes[row].astype(float).tolist()
        in_image = people.visibility[row] > 0
        places = np.where(in_image[:, None], people.keypoints[row] - PIXEL_CENTRE, 0)
        keypoints = np.column_stack([places.round(2), people.visibility[row]])
        annotations.append(
            {
                "image_id": image_id,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [left, top, right - left, bottom - top],
                "area": int(people.masks[row].sum()),
                "segmentation": coco_run_lengths(people.masks[row]),
                "keypoints": keypoints.ravel().tolist(),
                "num_keypoints": int(in_image.sum()),
                "identity": int(people.identities[row]),
            }
        )
    return annotations


def gather_annotations(folder: Path) -> Path:
    """Join all labels of a folder into ``annotations.json``, COCO's person keypoints layout."""
    labels = [
        json.loads(file.read_text(encoding="utf-8"))
        for file in sorted((folder / "labels").glob("*.json"))
    ]
    file = folder / "annotations.json"
    document = coco_document(
        [label["image"] for label in labels],
        [annotation for label in labels for annotation in label["annotations"]],
    )
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def coco_document(
    images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """A COCO file with one category, people with 17 keypoints; annotations get their ids."""
    from bmp_ros.loop.skeletons import COCO_17

    return {
        "images": list(images),
        "annotations": [{**item, "id": number} for number, item in enumerate(annotations, 1)],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_17.names)}],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bmp_ros.synthetic.dataset", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--split", choices=sorted(SPLITS), required=True)
    parser.add_argument("--count", type=int, required=True, help="images")
    parser.add_argument("--start", type=int, default=0, help="first seed (default 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    args = parser.parse_args(arguments)
    if min(args.count, args.workers) < 1 or args.start < 0:
        parser.error("--count and --workers must be at least 1, --start at least 0")
    try:
        file = write_dataset(
            args.output, args.split, args.count, start=args.start, workers=args.workers,
            width=args.width, height=args.height,
        )  # fmt: skip
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
