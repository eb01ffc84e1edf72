# SPDX-License-Identifier: Apache-2.0
"""Greedy non-maximum suppression of boxes, and box overlap."""

from __future__ import annotations

import numpy as np

_BLOCK = 32
"""Boxes that are compared with all others at a time: fast for few, small for thousands."""


def box_nms(
    boxes: np.ndarray, scores: np.ndarray, iou_threshold: float, *, extra_pixel: float = 1.0
) -> np.ndarray:
    """Suppress boxes that overlap a better one.

    boxes: (N, 4) xyxy pixels. scores: (N,). A box survives while its IoU with every better
    survivor is <= ``iou_threshold``; widths, heights and intersections count ``extra_pixel`` more:
    1 as in HRNet's and MMPose's NMS, 0 in continuous coordinates. Returns the kept indices (n,)
    int64, best first; on equal scores the lower index is better. NaN in a box: it overlaps
    nothing; as a score: it comes last.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    waiting = np.argsort(-np.asarray(scores), kind="stable")
    kept: list[int] = []
    while len(waiting):
        block, rest = waiting[:_BLOCK], waiting[_BLOCK:]
        overlaps = box_iou(boxes[block], boxes[waiting], extra_pixel=extra_pixel)
        spared = ~(overlaps > iou_threshold)
        alive = np.ones(len(waiting), np.bool_)
        for row, index in enumerate(block.tolist()):
            if alive[row]:
                kept.append(index)
                alive &= spared[row]
        waiting = rest[alive[_BLOCK:]]
    return np.array(kept, np.int64)


def box_iou(first: np.ndarray, second: np.ndarray, *, extra_pixel: float = 0.0) -> np.ndarray:
    """Intersection over union of every pair: (N, 4) and (M, 4) xyxy -> (N, M) float64.

    ``extra_pixel`` is added to widths and heights (1 for boxes that name their last pixel). Two
    boxes without any area overlap by 0.
    """
    first = np.asarray(first, np.float64).reshape(-1, 1, 4)
    second = np.asarray(second, np.float64).reshape(1, -1, 4)
    size_first = first[..., 2:] - first[..., :2] + extra_pixel
    size_second = second[..., 2:] - second[..., :2] + extra_pixel
    overlap = (
        np.minimum(first[..., 2:], second[..., 2:])
        - np.maximum(first[..., :2], second[..., :2])
        + extra_pixel
    )
    intersection = np.clip(overlap, 0.0, None).prod(axis=-1)
    union = size_first.prod(axis=-1) + size_second.prod(axis=-1) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
