# SPDX-License-Identifier: Apache-2.0
"""Heatmaps as tensors: sparsemax, flip merge and UDP-DARK for all people and joints at once.

The formulas of the decoder are those of ``bmp_ros.engines.heatmaps``; nothing here waits for the
device.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from bmp_ros.engines.heatmaps import LOG_RANGE, RANK_TOLERANCE, blur_matrix


def sparsemax2d(maps: Tensor) -> Tensor:
    """Project each (h, w) map onto the probability simplex; most cells become exactly zero.

    Martins and Astudillo, "From Softmax to Sparsemax" (ICML 2016), equation 3. maps: (N, K, h, w)
    float32. Returns the same shape, values in [0, 1] that sum to 1 per map.
    """
    values = maps.flatten(2)
    values = values - values.amax(dim=-1, keepdim=True)
    ordered = values.sort(dim=-1, descending=True).values
    partial_sums = ordered.cumsum(dim=-1) - 1
    rank = torch.arange(1, values.shape[-1] + 1, device=maps.device, dtype=maps.dtype)
    support = (rank * ordered > partial_sums).sum(dim=-1, keepdim=True)
    threshold = partial_sums.gather(-1, support - 1) / support
    return (values - threshold).clamp(0, 1).view_as(maps)


def merge_flipped(outputs: Tensor, flip_indices: Tensor) -> Tensor:
    """Average the outputs of N crops with those of their mirror images.

    outputs: (2 N, K, h, w) heatmaps or (2 N, K) values: first the crops, then their mirror images
    in the same order. flip_indices: (K,) int64, the joint's partner. Returns the first N, merged.
    """
    straight, mirrored = outputs.chunk(2)
    mirrored = mirrored[:, flip_indices]
    if mirrored.ndim == 4:
        mirrored = mirrored.flip(3)
    return (straight + mirrored) / 2


def decode_udp_dark(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Locate the maximum of each heatmap to a fraction of a pixel, on the heatmaps' device.

    heatmaps: (N, K, h, w) float32. Returns points (N, K, 2) float64, x y in heatmap pixels, and
    peaks (N, K) float32, as ``bmp_ros.engines.heatmaps.decode_udp_dark`` does.
    """
    people, joints, height, width = heatmaps.shape
    maps = heatmaps.flatten(0, 1)
    peaks, index = maps.flatten(1).max(dim=1)
    y, x = index // width, index % width

    blurred = _blur_matrix(height, maps.device) @ maps @ _blur_matrix(width, maps.device)
    rescale = peaks / (blurred.amax(dim=(1, 2)) + 1e-12)
    around = torch.arange(-1, 2, device=maps.device)
    rows = (y[:, None] + around).clamp(0, height - 1)
    columns = (x[:, None] + around).clamp(0, width - 1)
    each = torch.arange(len(maps), device=maps.device)
    patches = blurred[each[:, None, None], rows[:, :, None], columns[:, None, :]]
    logs = (patches * rescale[:, None, None]).clamp(*LOG_RANGE).log()

    points = torch.stack([x, y], dim=1) + parabola_vertex(logs.double())
    points = points.where(peaks[:, None] > 0, -1.0)
    return points.view(people, joints, 2), peaks.view(people, joints)


@lru_cache(maxsize=8)
def _blur_matrix(size: int, device: torch.device) -> Tensor:
    # Kept on the device: an upload here would wait for the network that runs before the decoder.
    return torch.from_numpy(blur_matrix(size)).to(device)


def parabola_vertex(patches: Tensor) -> Tensor:
    """Return the Newton step from the middle of (M, 3, 3) float64 patches, (M, 2) x y.

    See ``bmp_ros.engines.heatmaps.parabola_vertex``.
    """
    middle, left, right = patches[:, 1, 1], patches[:, 1, 0], patches[:, 1, 2]
    above, below = patches[:, 0, 1], patches[:, 2, 1]
    dx, dy = (right - left) / 2, (below - above) / 2
    ridge = torch.finfo(torch.float32).eps
    dxx, dyy = right - 2 * middle + left + ridge, below - 2 * middle + above + ridge
    diagonal = patches[:, 2, 2] + patches[:, 0, 0]
    dxy = (diagonal - right - below + 2 * middle - left - above) / 2

    determinant = dxx * dyy - dxy**2
    frobenius = dxx**2 + dyy**2 + 2 * dxy**2
    full_rank = determinant.abs() > RANK_TOLERANCE * frobenius
    divisor = determinant.where(full_rank, frobenius.clamp(min=torch.finfo(torch.float64).tiny))
    a, b, c = dyy.where(full_rank, dxx), (-dxy).where(full_rank, dxy), dxx.where(full_rank, dyy)
    return -torch.stack([a * dx + b * dy, b * dx + c * dy], dim=1) / divisor[:, None]
