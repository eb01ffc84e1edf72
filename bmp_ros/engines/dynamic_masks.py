# SPDX-License-Identifier: Apache-2.0
"""Instance masks from prototypes in NumPy: a small convolutional network per person (CondInst).

Each person brings 169 parameters of three 1x1 layers, 10 -> 8 -> 8 -> 1 channels, ReLU between.
The input are two coordinates relative to the person's prior and the eight prototypes of the image.
`bmp_ros.networks.rtmdet_ins.mask_logits` holds the same formulas for tensors, for training.
"""

from __future__ import annotations

import numpy as np

from bmp_ros.networks.rtmdet_ins_layout import (
    BIASES,
    LAYER_WIDTHS,
    PROTOTYPES,
    STRIDES,
    WEIGHTS,
)


def mask_logits(prototypes: np.ndarray, kernels: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """Return mask logits (n, h, w) float32 on the stride-8 grid of the canvas.

    prototypes: (8, h, w) float32, the grid or its upper left part. kernels: (n, 169) float32.
    priors: (n, 3), x and y in canvas pixels and stride.
    """
    people, (_, height, width) = len(kernels), prototypes.shape
    if not people:
        return np.empty((0, height, width), np.float32)
    stride = STRIDES[0]
    x, y, scale = np.asarray(priors, np.float32).T[:, :, None]
    # 8 x the prior's stride is the unit of length in which the networks were trained.
    relative_x = (x - np.arange(width, dtype=np.float32) * stride) / (8 * scale)  # (n, w)
    relative_y = (y - np.arange(height, dtype=np.float32) * stride) / (8 * scale)  # (n, h)

    parts = np.split(kernels, np.cumsum([*WEIGHTS, *BIASES])[:-1], axis=1)
    weights = [
        part.reshape(people, after, before)
        for part, before, after in zip(parts, LAYER_WIDTHS[:-1], LAYER_WIDTHS[1:], strict=False)
    ]
    biases = [part[:, :, None] for part in parts[len(weights) :]]

    # The first layer: all people share the prototypes, and the coordinates are separable.
    shared = np.ascontiguousarray(weights[0][:, :, 2:]).reshape(-1, PROTOTYPES)
    values = (shared @ prototypes.reshape(PROTOTYPES, -1)).reshape(people, -1, height, width)
    values += (weights[0][:, :, :1] * relative_x[:, None, :] + biases[0])[:, :, None, :]
    values += (weights[0][:, :, 1:2] * relative_y[:, None, :])[:, :, :, None]
    values = values.reshape(people, -1, height * width)
    for matrix, bias in zip(weights[1:], biases[1:], strict=True):
        np.maximum(values, 0, out=values)
        values = matrix @ values
        values += bias
    return values.reshape(people, height, width)


def masks_on_image(logits: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Resample logits (n, h, w) and return the masks (n, H, W) bool.

    rows: (H, h), columns: (W, w), float32 (``letterbox.mask_resampling``). A pixel belongs to the
    mask where the probability exceeds 0.5, i.e. where the logit is > 0.
    """
    masks = np.empty((len(logits), len(rows), len(columns)), np.bool_)
    for mask, grid in zip(masks, logits, strict=True):
        np.greater(rows @ (grid @ columns.T), 0, out=mask)
    return masks
