# SPDX-License-Identifier: Apache-2.0
"""Letterbox geometry: image <-> canvas; and priors and mask resampling of RTMDet-Ins.

NumPy and OpenCV only: every backend of the detector and of the point segmenter uses this file.

The image is scaled, up or down, until it fills one side of the canvas, and padded at the right
and at the bottom. The two axes round to whole pixels separately, so each has its own scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from bmp_ros.engines.crops import RGB_MEAN, RGB_STD
from bmp_ros.networks.rtmdet_ins_layout import STRIDES

PADDING_VALUE = 114
"""Grey level of the padding, all three channels; the networks were trained with it."""

BGR_MEAN = tuple(RGB_MEAN[::-1].tolist())
BGR_STD = tuple(RGB_STD[::-1].tolist())
"""Normalisation of the canvas, (value - mean) / std in BGR order."""


def canvas_size(input_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (width, height) of a canvas given so, or as the side of a square one.

    Raises ValueError unless both are positive multiples of 32, the coarsest stride.
    """
    size = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    coarsest = STRIDES[-1]
    if len(size) != 2 or any(side < coarsest or side % coarsest for side in size):
        raise ValueError(
            f"input_size must be a positive multiple of {coarsest} (the coarsest stride), or two "
            f"of them (width, height), got {input_size}; the published networks use 640"
        )
    return size


@dataclass(frozen=True)
class Letterbox:
    """How an image of ``image_height`` x ``image_width`` lies on a canvas.

    canvas: (width, height) in pixels. resized_height, resized_width: the size of the image on the
    canvas, whose origin it shares.
    """

    image_height: int
    image_width: int
    canvas: tuple[int, int]
    resized_height: int
    resized_width: int

    @classmethod
    def fit(cls, image_height: int, image_width: int, canvas: int | tuple[int, int]) -> Letterbox:
        """Return the letterbox in which the image is as large as the canvas permits.

        canvas: (width, height), or the side of a square one. The image fills one of the sides; the
        other one rounds half up and keeps at least one pixel.
        """
        width, height = (canvas, canvas) if isinstance(canvas, int) else canvas
        factor = min(width / image_width, height / image_height)
        resized_height, resized_width = (
            max(1, int(side * factor + 0.5)) for side in (image_height, image_width)
        )
        return cls(image_height, image_width, (width, height), resized_height, resized_width)

    @property
    def scale(self) -> tuple[float, float]:
        """Canvas pixels per image pixel, (x, y); they differ by the rounding of the sizes."""
        return self.resized_width / self.image_width, self.resized_height / self.image_height

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return the image (H, W, 3) uint8 on its canvas (height, width, 3) uint8, padded."""
        height, width = self.resized_height, self.resized_width
        canvas = np.empty((*self.canvas[::-1], 3), np.uint8)
        canvas[:height, :width] = cv2.resize(
            image, (width, height), interpolation=cv2.INTER_LINEAR
        )
        canvas[height:] = PADDING_VALUE
        canvas[:height, width:] = PADDING_VALUE
        return canvas

    def boxes_to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes (N, 4) xyxy from canvas to image pixels; float32, not clipped."""
        x, y = self.scale
        return np.asarray(boxes, np.float32) * np.array((1 / x, 1 / y) * 2, np.float32)

    def clip_to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Clip boxes (N, 4) xyxy in image pixels to the image; NaN stays NaN."""
        sides = np.array((self.image_width, self.image_height) * 2, np.float32)
        return np.clip(boxes, np.float32(0), sides)


def detector_input(canvas: np.ndarray) -> np.ndarray:
    """Return a canvas (h, w, 3) uint8 BGR as the networks read it: (1, 3, h, w) float32."""
    inputs = canvas[None].transpose(0, 3, 1, 2).astype(np.float32, order="C")
    inputs -= np.array(BGR_MEAN, np.float32)[:, None, None]
    inputs /= np.array(BGR_STD, np.float32)[:, None, None]
    return inputs


def grid_priors(canvas: int | tuple[int, int]) -> np.ndarray:
    """Return the priors (P, 3) float32: x and y in canvas pixels, and stride, of every location.

    canvas: (width, height), or the side of a square one. Level by level (strides 8, 16, 32), row
    by row; the prior of a cell is its upper left corner (grid offset 0). P = 8400 for a square of
    640.
    """
    width, height = (canvas, canvas) if isinstance(canvas, int) else canvas
    levels = []
    for stride in STRIDES:
        columns, rows = (
            np.arange(side // stride, dtype=np.float32) * stride for side in (width, height)
        )
        x, y = np.meshgrid(columns, rows)
        levels.append(np.stack([x, y, np.full_like(x, stride)], axis=-1).reshape(-1, 3))
    return np.concatenate(levels)


@lru_cache(maxsize=8)
def mask_resampling(letterbox: Letterbox) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows, columns) such that ``rows @ grid @ columns.T`` is a mask grid on the image.

    grid: mask logits on the canvas at stride 8. rows: (H, h) float32, columns: (W, w) float32;
    h and w count the cells of the grid, from its origin, that reach the image at all: give
    ``grid[:h, :w]``.

    The networks were trained and published with two bilinear steps, grid to canvas and canvas to
    image, which no single step equals. Both are linear and separable, so their product is one
    small matrix per axis. (mmdet rounds the size of the second step up to whole pixels and swaps
    the axes' scales in it; here each axis has its exact scale, so masks and boxes stay aligned.)
    """
    scale_x, scale_y = letterbox.scale
    width, height = letterbox.canvas
    rows = _resampling_matrix(letterbox.image_height, scale_y, height)
    columns = _resampling_matrix(letterbox.image_width, scale_x, width)
    return rows, columns


def _resampling_matrix(image_side: int, scale: float, canvas: int) -> np.ndarray:
    """Return the matrix (image_side, cells) float32 from stride-8 cells to image pixels."""
    stride = STRIDES[0]
    to_canvas = _bilinear_matrix(canvas // stride, (np.arange(canvas) + 0.5) / stride - 0.5)
    to_image = _bilinear_matrix(canvas, (np.arange(image_side) + 0.5) * scale - 0.5)
    matrix = to_image @ to_canvas
    used = int(np.flatnonzero(matrix.any(axis=0))[-1]) + 1
    matrix = np.ascontiguousarray(matrix[:, :used], np.float32)
    matrix.flags.writeable = False  # it is cached
    return matrix


def _bilinear_matrix(samples: int, positions: np.ndarray) -> np.ndarray:
    """Return (len(positions), samples) float64: bilinear weights, clamped at both ends."""
    positions = np.clip(positions, 0, samples - 1)
    lower = np.floor(positions).astype(np.intp)
    upper = np.minimum(lower + 1, samples - 1)
    weights = np.zeros((len(positions), samples))
    each = np.arange(len(positions))
    weights[each, lower] += 1 - (positions - lower)
    weights[each, upper] += positions - lower
    return weights
