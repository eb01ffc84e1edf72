# SPDX-License-Identifier: Apache-2.0
"""Keypoints from heatmaps in NumPy: arg-max and the sub-pixel step of UDP-DARK.

DARK (Zhang et al., "Distribution-Aware Coordinate Representation", CVPR 2020) takes the logarithm
of a blurred heatmap as a parabola around the maximum and moves to its vertex; UDP does so with
coordinates that have no half-pixel shift.
"""

from __future__ import annotations

import numpy as np

BLUR_RADIUS = 5
BLUR_SIGMA = 2.0
"""An 11x11 Gaussian; 2.0 is the sigma that OpenCV derives from that size."""
LOG_RANGE = (1e-3, 50.0)
"""Heatmap values are clipped to this range before the logarithm."""
RANK_TOLERANCE = 1e-15
"""Smallest ratio of singular values that the pseudo-inverse treats as full rank."""


def blur_matrix(size: int) -> np.ndarray:
    """Return (size, size) float32: the Gaussian of one axis, with zeros beyond both ends.

    A separable blur of a small map is two products with such matrices.
    """
    taps = np.exp(-0.5 * (np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1) / BLUR_SIGMA) ** 2)
    taps /= taps.sum()
    distance = np.arange(size)[:, None] - np.arange(size)[None, :] + BLUR_RADIUS
    inside = (distance >= 0) & (distance <= 2 * BLUR_RADIUS)
    return np.where(inside, taps[np.where(inside, distance, 0)], 0).astype(np.float32)


def decode_udp_dark(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Locate the maximum of each heatmap to a fraction of a pixel.

    heatmaps: (N, K, h, w) float32. Returns points (N, K, 2) float64, x y in heatmap pixels, and
    peaks (N, K) float32, the value at the maximum before blurring. A map without a positive value
    gives (-1, -1). The sub-pixel step is not limited: on a map that is no peak it can be long.
    """
    people, joints, height, width = heatmaps.shape
    maps = heatmaps.reshape(-1, height, width).astype(np.float32, copy=False)
    index = maps.reshape(len(maps), -1).argmax(axis=1)
    y, x = np.divmod(index, width)
    each = np.arange(len(maps))
    peaks = maps[each, y, x]

    blurred = blur_matrix(height) @ maps @ blur_matrix(width)
    rescale = peaks / (blurred.max(axis=(1, 2)) + 1e-12)
    rows = np.clip(y[:, None] + (-1, 0, 1), 0, height - 1)
    columns = np.clip(x[:, None] + (-1, 0, 1), 0, width - 1)
    patches = blurred[each[:, None, None], rows[:, :, None], columns[:, None, :]]
    logs = np.log(np.clip(patches * rescale[:, None, None], *LOG_RANGE))

    points = np.stack([x, y], axis=1) + parabola_vertex(logs.astype(np.float64))
    points[peaks <= 0] = -1
    return points.reshape(people, joints, 2), peaks.reshape(people, joints)


def parabola_vertex(patches: np.ndarray) -> np.ndarray:
    """Return the Newton step from the middle of (M, 3, 3) patches to the vertex, (M, 2) x y.

    Minus the pseudo-inverse of the Hessian times the gradient, from central differences; the mixed
    derivative is the one-diagonal formula of UDP.
    """
    middle, left, right = patches[:, 1, 1], patches[:, 1, 0], patches[:, 1, 2]
    above, below = patches[:, 0, 1], patches[:, 2, 1]
    dx, dy = (right - left) / 2, (below - above) / 2
    ridge = float(np.finfo(np.float32).eps)
    dxx, dyy = right - 2 * middle + left + ridge, below - 2 * middle + above + ridge
    diagonal = patches[:, 2, 2] + patches[:, 0, 0]
    dxy = (diagonal - right - below + 2 * middle - left - above) / 2

    determinant = dxx * dyy - dxy**2
    frobenius = dxx**2 + dyy**2 + 2 * dxy**2
    full_rank = np.abs(determinant) > RANK_TOLERANCE * frobenius
    # The inverse is the adjugate over the determinant; the pseudo-inverse of a symmetric matrix of
    # rank one is the matrix over its squared Frobenius norm.
    divisor = np.where(full_rank, determinant, np.maximum(frobenius, np.finfo(np.float64).tiny))
    a, b, c = (np.where(full_rank, dyy, dxx), np.where(full_rank, -dxy, dxy),
               np.where(full_rank, dxx, dyy))  # fmt: skip
    return -np.stack([a * dx + b * dy, b * dx + c * dy], axis=1) / divisor[:, None]


def merge_flipped(outputs: np.ndarray, flip_indices: np.ndarray) -> np.ndarray:
    """Average the outputs of N crops with those of their mirror images.

    outputs: (2 N, K, h, w) heatmaps or (2 N, K) values: first the crops, then their mirror images
    in the same order. flip_indices: (K,), the joint's partner. Returns the first N, merged.
    """
    straight, mirrored = np.split(outputs, 2)
    mirrored = mirrored[:, flip_indices]
    if mirrored.ndim == 4:
        mirrored = mirrored[..., ::-1]
    return (straight + mirrored) / 2
