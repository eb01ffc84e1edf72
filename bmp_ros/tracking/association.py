# SPDX-License-Identifier: Apache-2.0
"""How alike a track and a detection are: masks, poses, boxes; and the best assignment.

Masks are compared on a grid of every s-th pixel, of about 160 x 120 points whatever the image's
proportions, as lists of the pixels that belong to somebody: the cost depends on how much of the
image people fill, not on how many pairs there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from bmp_ros.loop.people import People

GRID_POINTS = 160 * 120
JOINT_SCORE = 0.3
LEAST_JOINTS = 4
MANY_JOINTS = 8


@dataclass(frozen=True)
class Pixels:
    """Pixels of N masks on a coarse grid.

    stride: of the grid, pixels. owners (P,) int64 ascending, points (P, 2) float32 x y in pixels
    of the image, places (P,) int64 the same as rows of ``image.reshape(-1, 3)``. areas: (N,)
    number of points, starts: (N + 1,) where those of each person begin. labels: (h, w) int32,
    0 = nobody, row + 1.
    """

    stride: int
    owners: np.ndarray
    points: np.ndarray
    places: np.ndarray
    areas: np.ndarray
    starts: np.ndarray
    labels: np.ndarray

    def of(self, row: int) -> np.ndarray:
        """(P_i, 2) the points of one person."""
        return self.points[self.starts[row] : self.starts[row + 1]]


def coarse_pixels(people: People) -> Pixels:
    """The masks of ``people`` on the coarse grid; of who has none, a silhouette."""
    height, width = people.image_size
    stride = max(1, math.ceil(math.sqrt(height * width / GRID_POINTS)))
    count = len(people)
    labels = np.zeros((-(-height // stride), -(-width // stride)), np.int32)
    # The window holds the box and what a segmenter may add around it.
    margins = 0.15 * (people.boxes[:, 2:] - people.boxes[:, :2])
    low = np.floor((people.boxes[:, :2] - margins) / stride)
    high = np.ceil((people.boxes[:, 2:] + margins) / stride) + 1
    windows = np.maximum(np.concatenate([low, high], axis=1), 0)
    windows = np.minimum(windows, [labels.shape[1], labels.shape[0]] * 2).astype(np.int64)
    coarse = _with_silhouettes(people, people.masks[:, ::stride, ::stride], windows, stride)
    found = [np.zeros(0, np.int64)]
    for mask, (x0, y0, x1, y1) in zip(coarse, windows.tolist(), strict=True):
        found.append(mask[y0:y1, x0:x1].ravel().nonzero()[0])
    inside = np.concatenate(found)
    areas = np.array([len(part) for part in found[1:]], np.int64)
    owners = np.repeat(np.arange(count), areas)
    left, top, right = np.repeat(windows[:, :3].T, areas, axis=1)
    y = ((inside + 0.5) / (right - left)).astype(np.int64)  # NumPy divides integers slowly
    x = inside - y * (right - left) + left
    y += top
    labels.reshape(-1)[y * labels.shape[1] + x] = np.repeat(
        np.arange(1, count + 1, dtype=np.int32), areas
    )
    x *= stride
    y *= stride
    points = np.empty((len(x), 2), np.float32)
    points[:, 0], points[:, 1] = x, y
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(areas, out=starts[1:])
    return Pixels(stride, owners, points, y * width + x, areas, starts, labels)


def _with_silhouettes(
    people: People, masks: np.ndarray, windows: np.ndarray, stride: int
) -> np.ndarray:
    """``masks`` (N, h, w) with a silhouette of everybody who has none: the convex hull of the sure
    joints, where fewer than four are sure an ellipse in the box.

    windows: (N, 4) outside of which nothing of somebody counts. Enough to know their colours, and
    who hides whom. Silhouettes take nothing of masks, and nothing of those who stand nearer: whose
    boxes end lower.
    """
    missing = np.flatnonzero(~people.has_mask)
    if not len(missing):
        return masks
    masks = masks.copy()
    taken = masks.any(axis=0)
    sure = (people.keypoint_scores > JOINT_SCORE) & np.isfinite(people.keypoints).all(axis=2)
    fractions = 4  # bits of OpenCV's fixed-point numbers
    scale = (1 << fractions) / stride
    side = max(people.image_size)  # far outside these numbers would overflow
    joints = np.rint(np.nan_to_num(people.keypoints).clip(-side, 2 * side) * scale)
    boxes = np.rint(people.boxes.clip(-side, 2 * side) * scale).astype(np.int32)
    for row in missing[np.argsort(-people.boxes[missing, 3], kind="stable")].tolist():
        canvas = np.zeros(taken.shape, np.uint8)
        if int(sure[row].sum()) >= LEAST_JOINTS:
            hull = cv2.convexHull(joints[row, sure[row]].astype(np.int32))
            cv2.fillConvexPoly(canvas, hull, 1, cv2.LINE_8, fractions)
        else:
            x0, y0, x1, y1 = boxes[row].tolist()
            centre = (x0 + x1) // 2, (y0 + y1) // 2
            axes = max(0, 2 * (x1 - x0) // 5), max(0, (y1 - y0) // 2)
            cv2.ellipse(canvas, centre, axes, 0, 0, 360, 1, -1, cv2.LINE_8, fractions)
        left, top, right, bottom = windows[row].tolist()
        inside = slice(top, bottom), slice(left, right)
        masks[row][inside] = (canvas[inside] > 0) & ~taken[inside]
        taken[inside] |= masks[row][inside]
    return masks


@dataclass(frozen=True)
class MaskOverlap:
    """(T, N) overlap of predicted and new masks. iou: over their union, NaN where either is empty.
    covered, of_new: share of the predicted mask, and of the new one."""

    iou: np.ndarray
    covered: np.ndarray
    of_new: np.ndarray


def mask_overlap(pixels: list[np.ndarray], shift: np.ndarray, new: Pixels) -> MaskOverlap:
    """Overlap of the masks of T tracks, each moved by its ``shift`` (T, 2), with N new ones.

    pixels: T arrays (P, 2).
    """
    count, others = len(pixels), len(new.areas)
    lengths = np.array([len(part) for part in pixels], np.int64)
    owners = np.repeat(np.arange(count), lengths)
    points = np.concatenate([np.zeros((0, 2), np.float32), *pixels])
    # Around the image is a border of one cell, in which everything beyond counts for nothing.
    height, width = new.labels.shape
    framed = np.full((height + 2, width + 2), others + 1, np.int32)
    framed[1:-1, 1:-1] = new.labels
    moved = np.add(points.T, np.repeat(shift.T.astype(np.float32), lengths, axis=1), order="C")
    moved /= new.stride
    np.rint(moved, out=moved)
    np.fmax(moved, -1, out=moved)  # what is no number is outside, too
    np.minimum(moved, np.array([[width], [height]], np.float32), out=moved)
    x, y = moved.astype(np.int64) + 1
    slots = framed.reshape(-1).take(y * (width + 2) + x) + owners * (others + 2)
    found = np.bincount(slots, minlength=count * (others + 2)).reshape(count, others + 2)
    own = found[:, :-1].sum(axis=1, keepdims=True).astype(np.float64)
    shared = np.minimum(found[:, 1:-1], np.minimum(own, new.areas))
    known = (own > 0) & (new.areas > 0)
    iou = np.where(known, shared / np.maximum(own + new.areas - shared, 1), np.nan)
    return MaskOverlap(iou, shared / np.maximum(own, 1), shared / np.maximum(new.areas, 1))


def box_similarity(tracks: np.ndarray, boxes: np.ndarray, buffers: np.ndarray) -> np.ndarray:
    """(T, N) IoU of boxes (cx, cy, w, h) of which both were grown by ``buffers`` (T,) of their
    size on every side (Yang et al., Cascaded-BIoU, WACV 2023)."""
    half = (0.5 + buffers)[:, None]
    first, second = tracks.T[:, :, None], boxes.T[:, None]  # x and y first: no sums over two
    half_a, half_b = first[2:] * half, second[2:] * half
    low = np.maximum(first[:2] - half_a, second[:2] - half_b)
    sides = np.minimum(first[:2] + half_a, second[:2] + half_b)
    sides -= low
    np.maximum(sides, 0, out=sides)
    shared: np.ndarray = sides[0] * sides[1]
    total = 4 * (half_a[0] * half_a[1] + half_b[0] * half_b[1]) - shared
    return shared / np.maximum(total, 1e-9)


def pose_similarity(
    joints: np.ndarray,
    joint_scores: np.ndarray,
    people: People,
    areas: np.ndarray,
    slack: np.ndarray,
    wanted: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """OKS of T predicted poses (T, K, 2) with the N of ``people``, and its reliability: (T, N).

    Only joints confident on both sides count; NaN with fewer than four, and where the pair is not
    ``wanted`` (T, N). areas: (N,) square pixels. slack: (T,) factor on the sigmas, for predictions
    over a longer time. The reliability is the mean score of the joints that count, less with
    fewer than eight.
    """
    rows, columns = wanted.nonzero()
    scores = np.minimum(joint_scores[rows], people.keypoint_scores[columns])
    both = scores > JOINT_SCORE
    sigmas = np.asarray(people.skeleton.sigmas)
    spread = 2 * (2 * sigmas) ** 2 * (slack**2)[rows, None] * np.maximum(areas, 1.0)[columns, None]
    steps = joints[rows] - people.keypoints[columns]
    steps *= steps
    similar = np.exp(-(steps[..., 0] + steps[..., 1]) / spread) * both
    count = both.sum(axis=1)
    total = np.maximum(count, 1)
    oks, sure = np.full(wanted.shape, np.nan), np.zeros(wanted.shape)
    oks[rows, columns] = np.where(count >= LEAST_JOINTS, similar.sum(axis=1) / total, np.nan)
    sure[rows, columns] = (scores * both).sum(axis=1) / np.maximum(total, MANY_JOINTS)
    return oks, sure.clip(0, 1)


def assign(similarity: np.ndarray, threshold: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the assignment with the largest sum, pairs below ``threshold`` left out.

    similarity: (T, N); threshold: one, or (T, 1). Such pairs count nothing in the sum, too.
    """
    allowed = similarity >= threshold
    if not allowed.any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows, columns = linear_sum_assignment(-np.where(allowed, similarity, 0.0))
    good = allowed[rows, columns]
    return rows[good], columns[good]
