# SPDX-License-Identifier: Apache-2.0
"""Keypoints without heatmaps, in NumPy: distributions along x and along y, and regression.

SimDR/SimCC (Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose
Estimation", ECCV 2022) classifies each coordinate on its own. RLE (Li et al., "Human Pose
Regression with Residual Log-likelihood Estimation", ICCV 2021) regresses it with its error.

Points are (N, K, 2) float64, x y in cells of a grid that covers the crop, scores (N, K) float32.
"""

from __future__ import annotations

import numpy as np


def softmax(scores: np.ndarray) -> np.ndarray:
    """Shares (N, K, bins) float32 that sum to 1 over the bins."""
    shares = np.exp(scores - scores.max(axis=2, keepdims=True))
    shares /= shares.sum(axis=2, keepdims=True)
    return shares


def decode_simdr(along_x: np.ndarray, along_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most probable bin of each axis; the grid is as many cells as there are bins.

    along_x, along_y: (N, K, bins) shares. The score is the larger one of both peaks, as in SimDR's
    own evaluation.
    """
    return _best_bins(along_x, along_y), np.maximum(along_x.max(axis=2), along_y.max(axis=2))


def decode_simcc(along_x: np.ndarray, along_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `decode_simdr`, of raw scores and by MMPose's rule: the score is the smaller peak.

    A joint without a positive score gives (-1, -1).
    """
    points = _best_bins(along_x, along_y)
    scores = np.minimum(along_x.max(axis=2), along_y.max(axis=2))
    points[scores <= 0] = -1
    return points, scores


def _best_bins(along_x: np.ndarray, along_y: np.ndarray) -> np.ndarray:
    return np.stack([along_x.argmax(axis=2), along_y.argmax(axis=2)], axis=2).astype(np.float64)


def merge_flipped_bins(
    along_x: np.ndarray, along_y: np.ndarray, flip_indices: np.ndarray, *, shift: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Average the bins of N crops with those of their mirror images.

    along_x, along_y: (2 N, K, bins), first the crops, then their mirror images. shift: move the
    mirrored x by one bin to the left, as SimDR's evaluation does.
    """
    straight, mirrored = np.split(along_x, 2)
    mirrored = mirrored[:, flip_indices, ::-1]
    if shift:
        mirrored = np.concatenate([mirrored[..., 1:], mirrored[..., -1:]], axis=-1)
    straight_y, mirrored_y = np.split(along_y, 2)
    return (straight + mirrored) / 2, (straight_y + mirrored_y[:, flip_indices]) / 2


def decode_regression(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points as parts of the crop (a grid of one cell), and one minus the mean expected error.

    found: (N, K, 4), x y as parts of the crop's size, and the error of each in [0, 1].
    """
    return found[..., :2].astype(np.float64), 1 - found[..., 2:].mean(axis=2)


def merge_flipped_points(
    found: np.ndarray, flip_indices: np.ndarray, *, shift: float = 0.0
) -> np.ndarray:
    """Average regressed points (2 N, K, 4) of N crops with those of their mirror images.

    shift: how much farther left mirrored points belong, as a part of the crop's width: one pixel
    of it, 1 / width, for networks that count from the first pixel (convention ``corners``).
    """
    straight, mirrored = np.split(found, 2)
    mirrored = mirrored[:, flip_indices].copy()
    mirrored[..., 0] = 1 - mirrored[..., 0] - shift
    return (straight + mirrored) / 2
