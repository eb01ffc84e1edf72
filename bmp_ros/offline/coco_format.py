# SPDX-License-Identifier: Apache-2.0
"""Boxes, keypoints and masks of people as COCO writes them, without pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np

from bmp_ros.loop.masks import coco_run_lengths
from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import COCO_17

PERSON = 1
"""COCO's category id of people."""


def xywh(box: np.ndarray) -> list[float]:
    """x, y, width and height of a box (4,) xyxy, in continuous pixels."""
    left, top, right, bottom = box.astype(float).tolist()
    return [left, top, right - left, bottom - top]


def coco_keypoints(people: People, row: int, joints: int = len(COCO_17)) -> list[float]:
    """x, y and score of the first ``joints`` keypoints of one person, flat; by default COCO's 17.

    Pixel centres lie at whole numbers, in the loop as in COCO.
    """
    keypoints, scores = people.keypoints[row, :joints], people.keypoint_scores[row, :joints]
    flat: list[float] = np.column_stack([keypoints, scores]).astype(float).ravel().tolist()
    return flat


def run_length_string(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask (H, W) bool: ``{"size": [H, W], "counts": str}``."""
    plain = coco_run_lengths(mask)
    return {"size": plain["size"], "counts": compress_counts(plain["counts"])}


def compress_counts(counts: list[int]) -> str:
    """Pack run lengths into text, as pycocotools (``rleToString`` of maskApi.c) does.

    From the fourth on, each is replaced by its difference to the one before last. Then five bits
    make a character, lowest first: bit 5 says that more follow, and 48 is added.
    """
    text = bytearray()
    for index, count in enumerate(counts):
        rest = count - counts[index - 2] if index > 2 else count
        while True:
            bits = rest & 31
            rest >>= 5
            # Done when what is left repeats the sign bit of the last character.
            more = rest != (-1 if bits & 16 else 0)
            text.append(48 + (bits | 32 if more else bits))
            if not more:
                break
    return text.decode("ascii")
