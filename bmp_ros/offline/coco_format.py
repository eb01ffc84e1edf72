# SPDX-License-Identifier: Apache-2.0
"""Boxes, keypoints and masks of people as COCO writes them, without pycocotools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from bmp_ros.loop.masks import coco_run_lengths, decode_runs
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


def expand_counts(text: str) -> list[int]:
    """The inverse of `compress_counts`. Raises ValueError for a text that is cut short."""
    counts: list[int] = []
    value = shift = 0
    for letter in text.encode("ascii"):
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("run lengths have a character that none may have")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift  # the sign goes on to the left
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("run lengths end in the middle of a number")
    return counts


def segmentation_mask(segmentation: Any, height: int, width: int) -> np.ndarray | None:
    """A mask (H, W) bool of COCO's segmentation; None where it says nothing (empty, or None).

    segmentation: run lengths ``{"size": [H, W], "counts": text or list}``, or polygons (lists of
    x y in turn; pixels whose centre is inside or on the border). Raises ValueError for anything
    else and for another size.
    """
    if isinstance(segmentation, dict):
        counts, size = segmentation.get("counts"), segmentation.get("size")
        if size != [height, width]:
            raise ValueError(f"its mask has the size {size}, the image [{height}, {width}]")
        if isinstance(counts, str):
            counts = expand_counts(counts)
        if not isinstance(counts, list) or not all(type(count) is int for count in counts):
            raise ValueError("its run lengths are no text or list of whole numbers")
        if not all(0 <= count <= height * width for count in counts):
            raise ValueError(f"its run lengths are not all from 0 to {height * width}, all pixels")
        return np.ascontiguousarray(decode_runs(np.array(counts), width, height))
    if not segmentation:
        return None
    return _filled(segmentation, height, width)


def _filled(polygons: Sequence[Any], height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    try:
        corners = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
    except (TypeError, ValueError, OverflowError):
        raise ValueError("its polygons are no lists of x y in turn") from None
    if not all(np.isfinite(each).all() and np.abs(each).max(initial=0) < 1e6 for each in corners):
        raise ValueError("its polygons have corners that lie nowhere")
    for each in filter(len, corners):
        # COCO's coordinates are continuous, OpenCV's name pixel centres; 4 bits of fraction.
        fixed = np.round((each - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 1, shift=4)
    return mask.astype(np.bool_)
