# SPDX-License-Identifier: Apache-2.0
"""Instance masks from prototypes: a small convolutional network per person (CondInst style).

Each person brings 169 parameters of three 1x1 layers, 10 -> 8 -> 8 -> 1 channels, ReLU between.
The input are two coordinates relative to the person's prior and the eight prototypes of the image.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bmp_ros.engines.dynamic_masks import BIASES, LAYER_WIDTHS, WEIGHTS
from bmp_ros.engines.letterbox import STRIDES

PIXELS_AT_ONCE = 2**25
"""Mask pixels resampled in one go: bounds the float32 logits to 128 MiB on any image."""


def mask_logits(prototypes: Tensor, kernels: Tensor, priors: Tensor) -> Tensor:
    """Return mask logits (n, h, w) float32 on the stride-8 grid of the canvas.

    prototypes: (8, h, w), the grid or its upper left part. kernels: (n, 169). priors: (n, 3),
    x and y in canvas pixels and stride.
    """
    height, width = prototypes.shape[-2:]
    stride = STRIDES[0]
    x, y, scale = priors.to(prototypes.device, torch.float32)[:, :, None].unbind(1)
    columns = torch.arange(width, device=prototypes.device) * stride
    rows = torch.arange(height, device=prototypes.device) * stride
    # 8 x the prior's stride is the unit of length in which the networks were trained.
    relative_x = ((x - columns) / (8 * scale))[:, None, :].expand(-1, height, -1)
    relative_y = ((y - rows) / (8 * scale))[:, :, None].expand(-1, -1, width)
    shared = prototypes.float().expand(len(kernels), -1, -1, -1)
    values = torch.cat([torch.stack([relative_x, relative_y], dim=1), shared], dim=1).flatten(2)

    parts = kernels.float().split([*WEIGHTS, *BIASES], dim=1)
    layers = len(WEIGHTS)
    for layer in range(layers):
        weights = parts[layer].unflatten(1, (LAYER_WIDTHS[layer + 1], LAYER_WIDTHS[layer]))
        values = torch.baddbmm(parts[layers + layer][:, :, None], weights, values)
        if layer < layers - 1:
            values = values.relu()
    return values.unflatten(2, (height, width))[:, 0]


def masks_on_image(logits: Tensor, rows: Tensor, columns: Tensor) -> np.ndarray:
    """Resample logits (n, h, w) and return the masks (n, H, W) bool.

    rows: (H, h), columns: (W, w), float32 on the device of the logits (``mask_resampling``).
    A pixel belongs to the mask where the probability exceeds 0.5, i.e. where the logit is > 0.
    """
    height, width = len(rows), len(columns)
    masks = np.empty((len(logits), height, width), bool)
    step = max(1, PIXELS_AT_ONCE // (height * width))
    for first in range(0, len(logits), step):
        on_image = rows @ (logits[first : first + step] @ columns.T)
        masks[first : first + step] = (on_image > 0).cpu().numpy()
    return masks
