# SPDX-License-Identifier: Apache-2.0
"""From a detector's candidates to people: threshold, box NMS, limit. NumPy, for every backend."""

from __future__ import annotations

import numpy as np

from bmp_ros.engines.letterbox import Letterbox
from bmp_ros.loop.box_nms import box_nms


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

    kept = box_nms(image_boxes, scores[chosen], nms_iou, extra_pixel=0.0)
    chosen, image_boxes = chosen[kept], letterbox.clip_to_image(image_boxes[kept])
    visible = np.flatnonzero(~_is_empty(image_boxes))[:max_people]
    chosen = chosen[visible]
    return image_boxes[visible], scores[chosen], chosen


def _is_empty(boxes: np.ndarray) -> np.ndarray:
    """(N,) bool: width or height is zero or negative; NaN is not empty."""
    return (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
