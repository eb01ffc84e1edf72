# SPDX-License-Identifier: Apache-2.0
"""Around YOLOv5: the image on its canvas, maps to boxes, non-maximum suppression. NumPy, OpenCV.

As the networks of 2021 were trained and are used: the image is centred on the canvas; boxes are
decoded relative to the cell that they were found in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from bmp_ros.engines.letterbox import PADDING_VALUE
from bmp_ros.loop.box_nms import box_nms

STRIDES = (8, 16, 32)
_COARSEST = STRIDES[-1]
_BOX_VALUES = 5  # x, y, width, height, objectness; then the classes
_MOST_CANDIDATES = 30_000


@dataclass(frozen=True)
class CentredLetterbox:
    """How an image lies on a canvas, the padding split evenly to both sides.

    image_size, canvas, resized: (width, height) in pixels. corner: x, y of the image's first pixel
    on the canvas. scale: canvas pixels per image pixel, as asked for; the resized image has it
    rounded to whole pixels.
    """

    image_size: tuple[int, int]
    canvas: tuple[int, int]
    resized: tuple[int, int]
    corner: tuple[int, int]
    scale: float

    @classmethod
    def fit(
        cls,
        image_size: tuple[int, int],
        largest: tuple[int, int],
        *,
        minimal: bool = True,
        enlarge: bool = True,
    ) -> CentredLetterbox:
        """Return the letterbox in which the image is as large as ``largest`` permits.

        largest: (width, height), multiples of 32. minimal: cut the canvas down to the multiples of
        32 that hold the image; else it is ``largest``. enlarge: small images are scaled up.
        """
        scale = min(side / image for side, image in zip(largest, image_size, strict=True))
        if not enlarge:
            scale = min(scale, 1.0)
        resized = [max(1, round(side * scale)) for side in image_size]
        canvas, corner = [], []
        for side, inner in zip(largest, resized, strict=True):
            padding = (side - inner) % _COARSEST if minimal else side - inner
            canvas.append(inner + padding)
            corner.append(round(padding / 2 - 0.1))  # half a pixel goes to the far side
        return cls(image_size, _pair(canvas), _pair(resized), _pair(corner), scale)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return the image (H, W, 3) uint8 on its canvas (height, width, 3) uint8, padded."""
        width, height = self.resized
        left, top = self.corner
        canvas = np.full((*self.canvas[::-1], 3), PADDING_VALUE, np.uint8)
        if self.resized != self.image_size:
            image = cv2.resize(image, self.resized, interpolation=cv2.INTER_LINEAR)
        canvas[top : top + height, left : left + width] = image
        return canvas

    def boxes_to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes (N, 4) xyxy from canvas to image pixels, clipped to the image; float32.

        As the original does: with the scale that was asked for and the unrounded padding, which
        is exact along the side that fills the canvas and within half a canvas pixel along the
        other. NaN stays NaN.
        """
        sides = np.array(self.image_size * 2, np.float32)
        padding = (np.array(self.canvas * 2, np.float32) - sides * np.float32(self.scale)) / 2
        mapped = (np.asarray(boxes, np.float32) - padding) / np.float32(self.scale)
        return np.clip(mapped, np.float32(0), sides)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def network_input(canvas: np.ndarray) -> np.ndarray:
    """Return a canvas (h, w, 3) uint8 BGR as the network reads it: (1, 3, h, w) float32 RGB."""
    planes = canvas[..., ::-1].transpose(2, 0, 1)[None]
    return np.ascontiguousarray(planes, np.float32) / np.float32(255)


def decode(maps: Sequence[np.ndarray], anchors: np.ndarray, threshold: float = -1.0) -> np.ndarray:
    """Return predictions (P, 5 + classes) float32 of the raw maps of one image.

    maps: (1, 3 * (5 + classes), h, w) at strides 8, 16, 32. anchors: (3, 3, 2) in canvas pixels.
    threshold: objectness above which a prediction is decoded; NaN passes. A row is centre x, y,
    width, height in canvas pixels, objectness, and the classes' scores. Order: levels, anchors,
    rows, columns.
    """
    found = []
    for raw, sizes, stride in zip(maps, anchors, STRIDES, strict=True):
        height, width = raw.shape[-2:]
        grid = raw.reshape(3, -1, height, width)  # anchor, value, row, column
        anchor, row, column = np.nonzero(~(_sigmoid(grid[:, 4]) <= threshold))
        values = _sigmoid(grid[anchor, :, row, column])
        cell = np.stack([column, row], axis=1).astype(np.float32)
        values[:, :2] = (values[:, :2] * 2 - np.float32(0.5) + cell) * np.float32(stride)
        values[:, 2:4] = np.square(values[:, 2:4] * 2) * sizes.astype(np.float32)[anchor]
        found.append(values)
    return np.concatenate(found)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # exp of a large number is infinite, the result 0
        result: np.ndarray = 1 / (1 + np.exp(-values.astype(np.float32)))
    return result


def select_boxes(
    predictions: np.ndarray,
    *,
    score_threshold: float,
    nms_iou: float,
    classes: Sequence[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    most: int = 300,
) -> np.ndarray:
    """Return the best boxes (N, 6) float32: x1 y1 x2 y2, score, class; best first.

    predictions: see `decode`. Objectness must exceed the threshold, and so must the score, which
    is objectness times class. Each prediction stands for its best class; with multi_label for
    every class that passes. classes: keep these only. Boxes of one class suppress each other by
    IoU > nms_iou; with agnostic boxes of all classes do. most: limit of the result.

    Predictions with NaN pass every test and come last, at most ``most`` of them: whoever reads the
    result must be able to notice a broken network.
    """
    broken = ~np.isfinite(predictions).all(axis=1)
    lost = predictions[broken][:most]
    sound = predictions[~broken]
    sound = sound[sound[:, 4] > score_threshold]
    scores = sound[:, _BOX_VALUES:] * sound[:, 4:5]
    if multi_label and scores.shape[1] > 1:
        row, label = np.nonzero(scores > score_threshold)
    else:
        label = scores.argmax(axis=1) if len(scores) else np.zeros(0, np.int64)
        row = np.flatnonzero(scores[np.arange(len(scores)), label] > score_threshold)
        label = label[row]
    if classes is not None:
        wanted = np.isin(label, list(classes))
        row, label = row[wanted], label[wanted]
    best = scores[row, label]
    order = np.argsort(-best, kind="stable")[:_MOST_CANDIDATES]
    row, label, best = row[order], label[order], best[order]
    boxes = corners(sound[row, :4])
    groups = [np.arange(len(row))]
    if not agnostic:
        groups = [np.flatnonzero(label == each) for each in np.unique(label)]
    kept = [
        group[box_nms(boxes[group], best[group], nms_iou, extra_pixel=0.0)] for group in groups
    ]
    chosen = np.sort(np.concatenate([*kept, np.zeros(0, np.int64)]))[:most]  # best first
    result = np.column_stack([boxes[chosen], best[chosen], label[chosen]]).astype(np.float32)
    if len(lost):
        nothing = np.full((len(lost), 6), np.nan, np.float32)
        result = np.concatenate([result, nothing])
    return result


def corners(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) as centre x, y, width, height -> xyxy."""
    centre, half = boxes[:, :2], boxes[:, 2:4] / 2
    return np.concatenate([centre - half, centre + half], axis=1)
