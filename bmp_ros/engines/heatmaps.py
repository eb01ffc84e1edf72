# SPDX-License-Identifier: Apache-2.0
"""Keypoints from heatmaps in NumPy: arg-max and a step of less than a pixel.

DARK (Zhang et al., "Distribution-Aware Coordinate Representation", CVPR 2020) takes the logarithm
of a blurred heatmap as a parabola around the maximum and moves to its vertex; UDP does so with
coordinates that have no half-pixel shift. Before it was the quarter offset of Newell et al.
("Stacked Hourglass Networks", ECCV 2016). UDP's combined targets have maps of the offset.

All decoders take heatmaps (N, K, h, w) float32 and return points (N, K, 2) float64, x y in
heatmap pixels, and peaks (N, K) float32, the values at the maxima before blurring. A map without
a positive value gives (-1, -1).
"""

from __future__ import annotations

import cv2
import numpy as np

BLUR_RADIUS = 5
BLUR_SIGMA = 2.0
"""An 11x11 Gaussian; 2.0 is the sigma that OpenCV derives from that size."""
LOG_RANGE = (1e-3, 50.0)
"""Heatmap values are clipped to this range before the logarithm."""
RANK_TOLERANCE = 1e-15
"""Smallest ratio of singular values that the pseudo-inverse treats as full rank."""


LEAST_VALUE = 1e-10
"""DARK without UDP: heatmap values are at least this before the logarithm."""
LONGEST_STEP = 5.0
"""DARK without UDP: a vertex farther from the maximum, in cells, is none of a peak: the maximum
itself is taken. (The published decoders have no limit; random maps send their joints anywhere.)"""
COMBINED_BLUR = 23
COMBINED_RADIUS = 0.0546875
"""UDP's combined targets: side of the Gaussian that smooths the maps, and the unit of the offsets
as a part of the heatmap's longer side."""


def blur_matrix(size: int, dtype: type = np.float32) -> np.ndarray:
    """Return (size, size): the Gaussian of one axis, with zeros beyond both ends.

    A separable blur of a small map is two products with such matrices.
    """
    taps = np.exp(-0.5 * (np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1) / BLUR_SIGMA) ** 2)
    taps /= taps.sum()
    distance = np.arange(size)[:, None] - np.arange(size)[None, :] + BLUR_RADIUS
    inside = (distance >= 0) & (distance <= 2 * BLUR_RADIUS)
    return np.where(inside, taps[np.where(inside, distance, 0)], 0).astype(dtype)


def decode_udp_dark(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """UDP with DARK. The step is not limited: on a map that is no peak it can be long."""
    people, joints, height, width = heatmaps.shape
    maps, x, y, peaks = _maxima(heatmaps)
    each = np.arange(len(maps))

    blurred = blur_matrix(height) @ maps @ blur_matrix(width)
    rescale = peaks / (blurred.max(axis=(1, 2)) + 1e-12)
    rows = np.clip(y[:, None] + (-1, 0, 1), 0, height - 1)
    columns = np.clip(x[:, None] + (-1, 0, 1), 0, width - 1)
    patches = blurred[each[:, None, None], rows[:, :, None], columns[:, None, :]]
    logs = np.log(np.clip(patches * rescale[:, None, None], *LOG_RANGE))

    points = np.stack([x, y], axis=1) + parabola_vertex(logs.astype(np.float64))
    return _joints(points, peaks, (people, joints))


def _maxima(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Maps (N K, h, w), and of each the x, y (N K,) int64 of its maximum and the value there."""
    maps = heatmaps.reshape(-1, *heatmaps.shape[2:]).astype(np.float32, copy=False)
    y, x = np.divmod(maps.reshape(len(maps), -1).argmax(axis=1), maps.shape[2])
    return maps, x, y, maps[np.arange(len(maps)), y, x]


def _joints(
    points: np.ndarray, peaks: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    points[peaks <= 0] = -1
    return points.reshape(*shape, 2), peaks.reshape(shape)


def decode_quarter(
    heatmaps: np.ndarray, *, axes_apart: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The maximum, a quarter of a cell towards the higher neighbour of each axis.

    As published, a maximum in the first two or the last column or row stays where it is.
    axes_apart: as MMPose reads it, such a column keeps x only, such a row y only; in the very
    first ones it keeps both.
    """
    people, joints, height, width = heatmaps.shape
    maps, x, y, peaks = _maxima(heatmaps)
    each = np.arange(len(maps))
    inside_x, inside_y = (x > 1) & (x < width - 1), (y > 1) & (y < height - 1)
    column, row = np.clip(x, 1, width - 2), np.clip(y, 1, height - 2)
    dx = maps[each, y, column + 1] - maps[each, y, column - 1]
    dy = maps[each, row + 1, x] - maps[each, row - 1, x]
    if axes_apart:
        moves = np.stack([inside_x & (y > 0), inside_y & (x > 0)], axis=1)
    else:
        moves = (inside_x & inside_y)[:, None]
    step = 0.25 * np.sign(np.stack([dx, dy], axis=1)) * moves
    return _joints(np.stack([x, y], axis=1) + step.astype(float), peaks, (people, joints))


def decode_dark(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DARK without UDP: derivatives over two cells, none within two cells of the border."""
    people, joints, height, width = heatmaps.shape
    maps, x, y, peaks = _maxima(heatmaps)
    blurred = blur_matrix(height, np.float64) @ maps @ blur_matrix(width, np.float64)
    highest = blurred.max(axis=(1, 2))
    rescale = np.divide(peaks, highest, out=np.ones_like(highest), where=highest > 0)
    inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    column, row = (np.clip(at, 2, size - 3) for at, size in ((x, width), (y, height)))
    reach = np.arange(-2, 3)
    patches = blurred[
        np.arange(len(maps))[:, None, None],
        row[:, None, None] + reach[:, None],
        column[:, None, None] + reach,
    ]
    logs = np.log(np.maximum(patches * rescale[:, None, None], LEAST_VALUE))
    step = _wide_vertex(logs)
    near = np.linalg.norm(step, axis=1) <= LONGEST_STEP
    step[~(inside & near)] = 0
    return _joints(np.stack([x, y], axis=1) + step, peaks, (people, joints))


def _wide_vertex(patches: np.ndarray) -> np.ndarray:
    """The Newton step from the middle of (M, 5, 5) patches, (M, 2) x y; 0 on a flat one."""
    middle = patches[:, 2, 2]
    dx = (patches[:, 2, 3] - patches[:, 2, 1]) / 2
    dy = (patches[:, 3, 2] - patches[:, 1, 2]) / 2
    dxx = (patches[:, 2, 4] - 2 * middle + patches[:, 2, 0]) / 4
    dyy = (patches[:, 4, 2] - 2 * middle + patches[:, 0, 2]) / 4
    dxy = (patches[:, 3, 3] - patches[:, 1, 3] - patches[:, 3, 1] + patches[:, 1, 1]) / 4
    determinant = dxx * dyy - dxy**2
    inverse = np.divide(1, determinant, out=np.zeros_like(determinant), where=determinant != 0)
    return -np.stack([dyy * dx - dxy * dy, dxx * dy - dxy * dx], axis=1) * inverse[:, None]


def decode_udp_combined(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """UDP's combined targets: heatmaps (N, 3 K, h, w), of each joint a map, x and y offsets.

    The offset is read at the maximum of the smoothed map, which is also where the peak is read.
    """
    people, channels, height, width = heatmaps.shape
    maps = np.ascontiguousarray(heatmaps[:, ::3], np.float32).reshape(-1, height, width)
    side = (COMBINED_BLUR, COMBINED_BLUR)
    smooth = np.empty_like(maps)
    for source, target in zip(maps, smooth, strict=True):
        cv2.GaussianBlur(source, side, 0, dst=target)
    _, x, y, peaks = _maxima(smooth[None])
    offsets = heatmaps.reshape(-1, 3, height, width)[np.arange(len(x)), 1:, y, x]
    unit = COMBINED_RADIUS * max(height, width)
    points = np.stack([x, y], axis=1) + offsets.astype(np.float64) * unit
    return _joints(points, peaks, (people, channels // 3))


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


def merge_flipped(
    outputs: np.ndarray, flip_indices: np.ndarray, *, shift: bool = False
) -> np.ndarray:
    """Average the outputs of N crops with those of their mirror images.

    outputs: (2 N, K, h, w) heatmaps or (2 N, K) values: first the crops, then their mirror images
    in the same order. flip_indices: (K,), the joint's partner. shift: move the mirrored maps by
    one cell to the right, for networks whose heatmaps cover crops by the convention ``corners``.
    Returns the first N, merged.
    """
    straight, mirrored = np.split(outputs, 2)
    mirrored = mirrored[:, flip_indices]
    if mirrored.ndim == 4:
        mirrored = mirrored[..., ::-1]
        if shift:
            mirrored = np.concatenate([mirrored[..., :1], mirrored[..., :-1]], axis=-1)
    return (straight + mirrored) / 2


def merge_flipped_combined(outputs: np.ndarray, flip_indices: np.ndarray) -> np.ndarray:
    """As `merge_flipped`, of UDP's combined maps (2 N, 3 K, h, w): x offsets change their sign."""
    joints = outputs.reshape(len(outputs), -1, 3, *outputs.shape[2:])
    straight, mirrored = np.split(joints, 2)
    mirrored = mirrored[:, flip_indices, :, :, ::-1] * np.array([1, -1, 1], np.float32).reshape(
        3, 1, 1
    )
    return ((straight + mirrored) / 2).reshape(-1, *outputs.shape[1:])
