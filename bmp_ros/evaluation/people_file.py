# SPDX-License-Identifier: Apache-2.0
"""The people of a sequence of images in one .npz file, so that trackers get the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bmp_ros.loop.masks import decode_runs, encode_runs
from bmp_ros.loop.people import People

_ARRAYS = ("boxes", "scores", "pose_scores", "mask_scores", "keypoints", "keypoint_scores")


def save_people(path: Path, frames: Sequence[People], stamps: Sequence[float]) -> None:
    """Write what a tracker needs of every image: COCO's 17 joints, exclusive masks, scores.

    boxes (P, 4), scores (P,) … of all images one below the other; image f has the rows
    ``first_person[f] : first_person[f + 1]``. stamps: (F,) seconds.
    """
    encoded = [encode_runs(mask) for frame in frames for mask in frame.masks]
    runs = [counts for _, counts in encoded]
    height, width = frames[0].image_size
    np.savez_compressed(
        path,
        size=np.array([width, height]),
        stamps=np.asarray(stamps, np.float64),
        first_person=np.cumsum([0, *map(len, frames)]),
        rectangles=np.array([rectangle for rectangle, _ in encoded], np.int32).reshape(-1, 4),
        first_run=np.cumsum([0, *map(len, runs)]),
        runs=np.concatenate([np.zeros(0, np.uint32), *runs]),
        **{name: np.concatenate([getattr(frame, name) for frame in frames]) for name in _ARRAYS},
    )


def load_people(path: Path) -> tuple[list[People], np.ndarray]:
    """People of every image, and their stamps (F,); the opposite of `save_people`."""
    with np.load(path) as archive:
        saved = {name: archive[name] for name in archive.files}
    width, height = saved["size"].tolist()
    frames = []
    for number in range(len(saved["stamps"])):
        rows = slice(*saved["first_person"][number : number + 2].tolist())
        masks = np.zeros((rows.stop - rows.start, height, width), np.bool_)
        for mask, row in zip(masks, range(rows.start, rows.stop), strict=True):
            x, y, w, h = saved["rectangles"][row].tolist()
            runs = saved["runs"][slice(*saved["first_run"][row : row + 2].tolist())]
            mask[y : y + h, x : x + w] = decode_runs(runs, w, h)
        people = People.from_boxes(
            saved["boxes"][rows], saved["scores"][rows], height, width, masks=masks
        )
        frames.append(
            People(
                **{
                    **{name: getattr(people, name) for name in people.__dataclass_fields__},
                    **{name: saved[name][rows] for name in _ARRAYS},
                }
            )
        )
    return frames, saved["stamps"]
