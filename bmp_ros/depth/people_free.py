# SPDX-License-Identifier: Apache-2.0
"""Depth images without the people: for maps and costmaps that should not remember them."""

from __future__ import annotations

import cv2
import numpy as np

from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.depth.depth_grid import Alignment
from bmp_ros.depth.lens_change import seen_by
from bmp_ros.loop.masks import mask_rectangles


def depth_without_people(
    depth: np.ndarray,
    masks: np.ndarray,
    margin: int,
    *,
    camera: CameraModel | None = None,
    depth_camera: CameraModel | None = None,
) -> np.ndarray:
    """A copy of ``depth`` in which every person is unknown: 0, or NaN where it is floating.

    depth: (h, w) uint16 or floating. masks: (N, H, W) bool. margin: pixels of the image by which
    masks are grown, for outlines that are a little tight. camera, depth_camera: calibrations of
    image and depth image; without both, the two show the same view, whatever their sizes are.
    A depth pixel of which a person covers any part is unknown.
    Raises ValueError for a negative margin, and for calibrations that do not fit.
    """
    if margin < 0:
        raise ValueError(f"margin must be >= 0 pixels, got {margin}")
    result: np.ndarray = depth.copy()
    unknown = np.nan if depth.dtype.kind == "f" else 0
    alignment = Alignment.of(masks.shape[1:], depth.shape)
    if camera is not None and depth_camera is not None:
        if not camera.has_lens_of(depth_camera):
            all_people = np.zeros(masks.shape[1:], np.uint8)
            for top, left, grown in _grown(masks, margin):
                window = all_people[top : top + grown.shape[0], left : left + grown.shape[1]]
                np.maximum(window, grown, out=window)
            result[seen_by(depth_camera, all_people, camera, 0).view(bool)] = unknown
            return result
        alignment = Alignment.of(masks.shape[1:], depth.shape, camera, depth_camera)
    for top, left, grown in _grown(masks, margin):
        if alignment.is_identity:
            target = result[top : top + grown.shape[0], left : left + grown.shape[1]]
            target[grown[: target.shape[0], : target.shape[1]].view(bool)] = unknown
            continue
        rows, first_y, end_y = _spans(alignment, 1, top, grown.shape[0], depth.shape[0])
        columns, first_x, end_x = _spans(alignment, 0, left, grown.shape[1], depth.shape[1])
        if not rows.size or not columns.size:
            continue
        # Sums over rectangles of the mask: above 0 where the person covers a part of the pixel.
        sums = cv2.integral(grown)
        covered = (
            sums[end_y[:, None], end_x] - sums[first_y[:, None], end_x]
            - sums[end_y[:, None], first_x] + sums[first_y[:, None], first_x]
        )  # fmt: skip
        result[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][covered > 0] = unknown
    return result


def _grown(masks: np.ndarray, margin: int) -> list[tuple[int, int, np.ndarray]]:
    """Top, left and what is inside (uint8, 0 or 1) of every mask grown by ``margin``."""
    height, width = masks.shape[1:]
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    windows = []
    for mask, (x, y, w, h) in zip(masks, mask_rectangles(masks).tolist(), strict=True):
        if not w:
            continue
        left, top = max(0, x - margin), max(0, y - margin)
        right, bottom = min(width, x + w + margin), min(height, y + h + margin)
        inside = np.ascontiguousarray(mask[top:bottom, left:right]).view(np.uint8)
        windows.append((top, left, cv2.dilate(inside, kernel) if margin else inside))
    return windows


def _spans(
    alignment: Alignment, axis: int, low: int, size: int, limit: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of the depth image that touch a window of the image, along one axis (0: x).

    Returns their indices and, of each, the first and the end row (or column) of the window that
    it touches.
    """
    scale, shift = alignment.scale[axis], alignment.shift[axis]
    first = int(np.floor((low - 0.5) * scale + shift + 0.5 + 1e-6))
    end = int(np.ceil((low + size - 0.5) * scale + shift + 0.5 - 1e-6))
    indices = np.arange(max(first, 0), min(end, limit))
    # Edges of these pixels in the image, counted from the window's first edge. Rounded, since an
    # edge that meets an edge must not touch the pixel beyond.
    edges = np.round((indices - 0.5 - shift) / scale + 0.5 - low, 6)
    start = np.clip(np.floor(edges), 0, size).astype(np.intp)
    stop = np.clip(np.ceil(np.round(edges + 1 / scale, 6)), 0, size).astype(np.intp)
    return indices, start, stop
