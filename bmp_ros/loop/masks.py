# SPDX-License-Identifier: Apache-2.0
"""Instance masks: run lengths, exclusive masks, painting people out, holes and sprinkles.

A stack of masks is bool (N, H, W); a rectangle is (x, y, width, height) in whole pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

Rectangle = tuple[int, int, int, int]

_HOLE_LOGIT = 10.0
_SPRINKLE_LOGIT = -10.0


def mask_rectangles(masks: np.ndarray) -> np.ndarray:
    """Return the bounding rectangle of every mask: (N, 4) int32 x, y, width, height.

    A mask without a pixel has the rectangle (0, 0, 0, 0).
    """
    rectangles = np.zeros((len(masks), 4), np.int32)
    for row, mask in zip(rectangles, masks, strict=True):
        row[:] = _bounding_rectangle(mask)
    return rectangles


def _bounding_rectangle(mask: np.ndarray) -> Rectangle:
    """x, y, width, height; half the time of cv2.boundingRect, since rows are read once and of the
    columns only the part that holds the person."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return 0, 0, 0, 0
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    return left, top, right - left, bottom - top


def encode_runs(
    mask: np.ndarray, rectangle: Rectangle | None = None
) -> tuple[Rectangle, np.ndarray]:
    """Encode one mask as run lengths inside a rectangle, without loss.

    mask: (H, W) bool. rectangle: (x, y, width, height) that holds every pixel of the mask; found
    here when not given. Returns the rectangle and ``counts`` (R,) uint32: lengths of alternating
    background and foreground runs, column by column (COCO's order), background first, so that
    ``counts[1::2].sum()`` is the area and ``{"size": [height, width], "counts": counts}`` is an
    uncompressed COCO run-length mask of the rectangle. A mask without a pixel gives
    ``((0, 0, 0, 0), [])``.

    Raises ValueError when the rectangle lies outside the image or misses pixels of the mask.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(
            f"mask must be bool (H, W), got shape {mask.shape} and dtype {mask.dtype}; "
            "threshold it first"
        )
    if rectangle is None:
        x, y, width, height = _bounding_rectangle(mask)
    else:
        x, y, width, height = (int(value) for value in rectangle)
        if min(x, y, width, height) < 0 or x + width > mask.shape[1] or y + height > mask.shape[0]:
            raise ValueError(
                f"rectangle x={x} y={y} width={width} height={height} lies outside the mask's "
                f"{mask.shape[1]}x{mask.shape[0]} pixels"
            )
    area = int(np.count_nonzero(mask))
    if area == 0:
        return (0, 0, 0, 0), np.zeros(0, np.uint32)
    crop = mask[y : y + height, x : x + width]
    inside = int(np.count_nonzero(crop))
    if inside != area:
        raise ValueError(
            f"rectangle x={x} y={y} width={width} height={height} misses {area - inside} of the "
            f"mask's {area} pixels; pass mask_rectangles(masks) or leave the rectangle out"
        )
    # Transposing with OpenCV makes columns contiguous several times faster than NumPy does.
    columns = cv2.transpose(crop.view(np.uint8)).ravel()
    edges = np.flatnonzero(columns[1:] != columns[:-1])
    starts_with_person = int(columns[0])
    counts = np.empty(len(edges) + 1 + starts_with_person, np.int64)
    counts[0] = 0  # the background run in front of a rectangle that begins with a person's pixel
    ends = np.append(edges + 1, columns.size)
    counts[starts_with_person:] = np.diff(ends, prepend=0)
    return (x, y, width, height), counts.astype(np.uint32)


def decode_runs(counts: np.ndarray, width: int, height: int) -> np.ndarray:
    """Decode run lengths into the mask of their rectangle: (height, width) bool.

    counts: as `encode_runs` returns them. No counts at all decode to an empty mask.
    Raises ValueError when they do not fill ``width * height`` pixels exactly.
    """
    runs = np.asarray(counts, dtype=np.int64)
    if len(runs) == 0:
        return np.zeros((height, width), np.bool_)
    if runs.ndim != 1 or runs.min() < 0 or runs.sum() != width * height:
        raise ValueError(
            f"run lengths must be a flat list of counts >= 0 that sum to width*height = "
            f"{width}*{height} = {width * height}, got {len(runs)} runs that sum to {runs.sum()}"
        )
    foreground = np.arange(len(runs)) % 2 == 1
    return np.repeat(foreground, runs).reshape(width, height).T


def paste_runs(target: np.ndarray, counts: np.ndarray, rectangle: Rectangle) -> None:
    """Write the mask of a rectangle (x, y, width, height) into ``target`` (H, W) bool.

    Nothing is allocated before the sizes are known to fit. Raises ValueError for a rectangle
    outside of the target, and as `decode_runs` does.
    """
    x, y, width, height = rectangle
    if min(rectangle) < 0 or y + height > target.shape[0] or x + width > target.shape[1]:
        raise ValueError(
            f"a mask at x={x} y={y} of {width}x{height} pixels lies outside the image of "
            f"{target.shape[1]}x{target.shape[0]} pixels"
        )
    target[y : y + height, x : x + width] = decode_runs(counts, width, height)


def coco_run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) bool as COCO's uncompressed run lengths: ``{"size": [H, W], "counts": […]}``.

    Of the whole image, column by column, background first; a mask without a pixel is one run.
    """
    height, width = mask.shape
    _, counts = encode_runs(mask, (0, 0, width, height))
    return {"size": [height, width], "counts": counts.tolist() or [height * width]}


def mask_from_run_lengths(segmentation: Mapping[str, Any]) -> np.ndarray:
    """(H, W) bool: the inverse of `coco_run_lengths`."""
    height, width = segmentation["size"]
    return np.ascontiguousarray(decode_runs(segmentation["counts"], width, height))


def exclusive_masks(masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Give every pixel to one person: the covering mask with the highest score.

    masks: (N, H, W) bool, unchanged. scores: (N,) finite; on equal scores the lower index wins.
    Returns (N, H, W) bool; a mask that loses all of its pixels stays as an empty one.
    """
    exclusive = np.empty(masks.shape, np.bool_)
    free = np.ones(masks.shape[1:], np.bool_)
    if not np.isfinite(scores).all():
        raise ValueError(f"mask scores must be finite, got {scores}; drop such people first")
    for index in np.argsort(-np.asarray(scores), kind="stable"):
        np.logical_and(masks[index], free, out=exclusive[index])
        np.logical_xor(free, exclusive[index], out=free)
    return exclusive


def paint_out(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return a copy of a BGR image (H, W, 3) with every pixel of every mask black.

    One pass over the image whatever the number of masks: the detector must not see the people
    again, and nothing else (no outline, no text) may tell it that they were there.
    """
    people = np.zeros(image.shape[:2], np.uint8)
    for mask in masks:
        np.bitwise_or(people, mask.view(np.uint8), out=people)
    return cv2.copyTo(image, 1 - people)  # what the mask leaves out is 0 in the new image


def remove_holes_and_sprinkles(
    logits: np.ndarray, *, max_hole_area: int = 10, max_sprinkle_area: int = 50
) -> np.ndarray:
    """Close small holes and drop small sprinkles of mask logits before they are upsampled.

    logits: (G, h, w) float32, mask where > 0. Both rules read the given logits: a background
    component (8-connected) of at most ``max_hole_area`` pixels becomes +10, a foreground one of at
    most ``max_sprinkle_area`` pixels becomes -10; the largest foreground component (each one, on a
    tie) always stays, so a small person does not vanish. An area of 0 turns its rule off. Returns
    new logits.

    The rules and the logits of 10 are those of ``SAM2Transforms.postprocess_masks`` in
    facebookresearch/sam2, whose image predictor has both areas at 0 by default and silently skips
    the step where its CUDA extension was not built. The default areas are those that BBoxMaskPose
    sets.
    """
    cleaned = logits.copy()
    for source, target in zip(logits, cleaned, strict=True):
        foreground = (source > 0).view(np.uint8)
        if max_hole_area > 0:
            target[_small_components(1 - foreground, max_hole_area, False)] = _HOLE_LOGIT
        if max_sprinkle_area > 0:
            target[_small_components(foreground, max_sprinkle_area, True)] = _SPRINKLE_LOGIT
    return cleaned


def _small_components(image: np.ndarray, max_area: int, spare_largest: bool) -> np.ndarray:
    """(h, w) bool: pixels of the components of ``image`` (uint8) no larger than ``max_area``."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(image, connectivity=8, ltype=cv2.CV_16U)
    areas = stats[:, cv2.CC_STAT_AREA]
    small = areas <= max_area
    small[0] = False  # label 0 is what is not in the image at all
    if spare_largest:
        small &= areas < areas[1:].max(initial=0)
    return small[labels]
