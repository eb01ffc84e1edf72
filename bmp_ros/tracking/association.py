# SPDX-License-Identifier: Apache-2.0
"""How alike a track and a detection are: masks, poses, boxes; and the best assignment.

Masks are compared on a grid of every s-th pixel, at most 160 wide and high, as lists of the pixels
that belong to somebody: the cost depends on how much of the image people fill, not on how many
pairs there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from bmp_ros.loop.people import People

GRID = 160
JOINT_SCORE = 0.3
LEAST_JOINTS = 4
MANY_JOINTS = 8


@dataclass(frozen=True)
class Pixels:
    """Pixels of N masks on a coarse grid.

    stride: of the grid, pixels. owners (P,) int64 ascending, points (P, 2) float32 x y in pixels
    of the image. areas: (N,) number of points. labels: (h, w) int32, 0 = nobody, row + 1.
    """

    stride: int
    owners: np.ndarray
    points: np.ndarray
    areas: np.ndarray
    labels: np.ndarray

    def of_each(self) -> list[np.ndarray]:
        """The points of every person, N arrays (P_i, 2)."""
        return np.split(self.points, np.cumsum(self.areas)[:-1]) if len(self.areas) else []


def coarse_pixels(people: People) -> Pixels:
    """The masks of ``people`` on the coarse grid."""
    height, width = people.image_size
    stride = max(1, -(-max(height, width) // GRID))
    count = len(people)
    labels = np.zeros((-(-height // stride), -(-width // stride)), np.int32)
    owners, points = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.float32)]
    areas = np.zeros(count, np.int64)
    # The window holds the box and what a segmenter may add around it.
    low = people.boxes[:, :2] - 0.15 * (people.boxes[:, 2:] - people.boxes[:, :2])
    high = people.boxes[:, 2:] + 0.15 * (people.boxes[:, 2:] - people.boxes[:, :2])
    windows = np.concatenate([np.floor(low / stride), np.ceil(high / stride) + 1], axis=1)
    windows = np.clip(windows, 0, [labels.shape[1], labels.shape[0]] * 2).astype(np.int64)
    for row, (x0, y0, x1, y1) in enumerate(windows.tolist()):
        window = people.masks[
            row, y0 * stride : y1 * stride : stride, x0 * stride : x1 * stride : stride
        ]
        y, x = window.nonzero()
        areas[row] = len(y)
        y, x = y + y0, x + x0
        labels[y, x] = row + 1
        owners.append(np.full(len(y), row))
        points.append(np.stack([x, y], axis=1).astype(np.float32) * stride)
    return Pixels(stride, np.concatenate(owners), np.concatenate(points), areas, labels)


@dataclass(frozen=True)
class MaskOverlap:
    """iou, inside: (T, N) overlap of predicted and new masks over their union, and over the
    smaller one; NaN where either is empty. covered: (T, N) share of the predicted mask."""

    iou: np.ndarray
    inside: np.ndarray
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
    x, y = np.rint((points + shift[owners]) / new.stride).astype(np.int64).T
    height, width = new.labels.shape
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    labels = np.zeros(len(x), np.int64)
    labels[inside] = new.labels[y[inside], x[inside]]
    shared = np.bincount(owners * (others + 1) + labels, minlength=count * (others + 1))
    shared = shared.reshape(count, others + 1)[:, 1:].astype(np.float64)
    own = np.bincount(owners[inside], minlength=count)[:, None].astype(np.float64)
    shared = np.minimum(shared, np.minimum(own, new.areas))
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = shared / (own + new.areas - shared)
        smaller = shared / np.minimum(own, new.areas)
        covered = shared / own
        of_new = shared / new.areas
    empty = (own == 0) | (new.areas == 0)
    iou[empty] = smaller[empty] = np.nan
    return MaskOverlap(iou, smaller, np.nan_to_num(covered), np.nan_to_num(of_new))


def box_similarity(tracks: np.ndarray, boxes: np.ndarray, buffers: np.ndarray) -> np.ndarray:
    """(T, N) IoU of boxes (cx, cy, w, h) of which both were grown by ``buffers`` (T,) of their
    size on every side (Yang et al., Cascaded-BIoU, WACV 2023)."""
    grown = 1 + 2 * buffers[:, None, None]
    half_a, half_b = tracks[:, None, 2:] * grown / 2, boxes[None, :, 2:] * grown / 2
    low = np.maximum(tracks[:, None, :2] - half_a, boxes[None, :, :2] - half_b)
    high = np.minimum(tracks[:, None, :2] + half_a, boxes[None, :, :2] + half_b)
    shared = np.clip(high - low, 0, None).prod(axis=2)
    total = (4 * half_a.prod(axis=2)) + (4 * half_b.prod(axis=2))
    return shared / np.maximum(total - shared, 1e-9)


def pose_similarity(
    joints: np.ndarray,
    joint_scores: np.ndarray,
    people: People,
    areas: np.ndarray,
    slack: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """OKS of T predicted poses (T, K, 2) with the N of ``people``, and its reliability: (T, N).

    Only joints confident on both sides count; NaN with fewer than four. areas: (N,) square pixels.
    slack: (T,) factor on the sigmas, for predictions over a longer time. The reliability is the
    mean score of the joints that count, less with fewer than eight.
    """
    scores = people.keypoint_scores.astype(np.float64)
    both = (joint_scores > JOINT_SCORE)[:, None] & (scores > JOINT_SCORE)[None]
    sigmas = np.asarray(people.skeleton.sigmas)
    spread = 2 * (2 * sigmas) ** 2 * (slack**2)[:, None]
    distance = ((joints[:, None] - people.keypoints[None].astype(np.float64)) ** 2).sum(axis=-1)
    similar = np.exp(-distance / (spread[:, None] * np.maximum(areas, 1.0)[None, :, None]))
    count = both.sum(axis=2)
    enough = count >= LEAST_JOINTS
    total = np.where(enough, count, 1)
    oks = np.where(enough, (similar * both).sum(axis=2) / total, np.nan)
    sure = np.minimum(joint_scores[:, None], scores[None]) * both
    return oks, np.clip(sure.sum(axis=2) / np.maximum(total, MANY_JOINTS), 0, 1)


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
