# SPDX-License-Identifier: Apache-2.0
"""From a detector's candidates to people: threshold, box NMS, limit. NumPy, for every backend."""

from __future__ import annotations

import numpy as np

from bmp_ros.engines.letterbox import Letterbox


def select_people(
    boxes: np.ndarray,
    scores: np.ndarray,
    letterbox: Letterbox,
    *,
    score_threshold: float,
    nms_iou: float,
    max_people: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose people among candidate boxes.

    boxes: (N, 4) float32 xyxy in canvas pixels. scores: (N,) float32. Returns boxes (M, 4) in
    image pixels inside the image, scores (M,) and the chosen rows (M,) of the input; best first,
    M <= max_people. Empty boxes are dropped, also those that lie on the padding alone; boxes are
    clipped to the image only after the NMS, which thus sees what the network said.

    NaN, in scores or boxes, passes every test and comes last: whoever reads the result must be
    able to notice a broken network.
    """
    chosen = np.flatnonzero(~(scores <= score_threshold))
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]  # NaN sorts to the end
    image_boxes = letterbox.boxes_to_image(boxes[chosen])
    solid = ~_is_empty(image_boxes)
    chosen, image_boxes = chosen[solid], image_boxes[solid]

    kept = suppress_overlaps(image_boxes, nms_iou)
    chosen, image_boxes = chosen[kept], letterbox.clip_to_image(image_boxes[kept])
    visible = np.flatnonzero(~_is_empty(image_boxes))[:max_people]
    chosen = chosen[visible]
    return image_boxes[visible], scores[chosen], chosen


def suppress_overlaps(boxes: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Greedy NMS: return the rows (M,) kept, in their order.

    boxes: (N, 4) xyxy, best first. A box goes when its IoU (continuous coordinates, without the
    +1 of some older code) with a kept one exceeds ``iou_threshold``. Boxes with NaN overlap
    nothing.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    waiting = np.arange(len(boxes))
    kept: list[int] = []
    while waiting.size:
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[waiting, :2])
        high = np.minimum(boxes[best, 2:], boxes[waiting, 2:])
        intersection = np.prod(np.maximum(high - low, 0), axis=1)
        # IoU > t without the division: areas are positive here, so the union is too.
        union = areas[best] + areas[waiting] - intersection
        waiting = waiting[~(intersection > np.float32(iou_threshold) * union)]
    return np.array(kept, np.intp)


def _is_empty(boxes: np.ndarray) -> np.ndarray:
    """(N,) bool: width or height is zero or negative; NaN is not empty."""
    return (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
