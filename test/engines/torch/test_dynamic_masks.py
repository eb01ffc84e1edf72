# SPDX-License-Identifier: Apache-2.0
"""The mask decoder against the published steps, restated one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bmp_ros.engines.letterbox import Letterbox, mask_resampling
from bmp_ros.engines.torch import dynamic_masks
from bmp_ros.engines.torch.dynamic_masks import mask_logits, masks_on_image

CANVAS = 160


def slow_logits(prototypes: Tensor, kernel: Tensor, prior: Tensor) -> Tensor:
    """One person: prototypes (8, h, w), kernel (169,), prior (3,) -> (h, w)."""
    height, width = prototypes.shape[-2:]
    x, y, stride = prior
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    relative = torch.stack([x - 8 * columns, y - 8 * rows]) / (8 * stride)
    values = torch.cat([relative, prototypes])
    offsets = {"weights": (0, 80, 144), "biases": (152, 160, 168)}
    for (before, after), at, bias_at in zip(
        [(10, 8), (8, 8), (8, 1)], offsets["weights"], offsets["biases"], strict=True
    ):
        weight = kernel[at : at + before * after].reshape(after, before)
        bias = kernel[bias_at : bias_at + after]
        values = torch.einsum("oi,ihw->ohw", weight, values) + bias[:, None, None]
        values = values.relu() if after > 1 else values
    return values[0]


@pytest.fixture
def people() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    cells = CANVAS // 8
    prototypes = torch.randn(8, cells, cells, generator=generator)
    kernels = torch.randn(7, 169, generator=generator)
    places = torch.randint(0, cells, (7, 2), generator=generator) * 8
    strides = torch.tensor([8, 16, 32, 8, 16, 32, 8])[:, None]
    return prototypes, kernels, torch.cat([places, strides], dim=1)


def test_logits(people: tuple[Tensor, Tensor, Tensor]) -> None:
    prototypes, kernels, priors = people
    expected = [slow_logits(prototypes, k, p) for k, p in zip(kernels, priors, strict=True)]
    fast = mask_logits(prototypes, kernels, priors)
    torch.testing.assert_close(fast, torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_nobody(people: tuple[Tensor, Tensor, Tensor]) -> None:
    prototypes, kernels, priors = people
    assert mask_logits(prototypes, kernels[:0], priors[:0]).shape == (0, 20, 20)


@pytest.mark.parametrize("pixels_at_once", [1, 10**9])
@pytest.mark.parametrize("shape", [(90, 160), (160, 120), (360, 480), (40, 30)])
def test_masks_equal_two_bilinear_steps(
    people: tuple[Tensor, Tensor, Tensor],
    shape: tuple[int, int],
    pixels_at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Image sizes for which the published second step needs no rounding."""
    monkeypatch.setattr(dynamic_masks, "PIXELS_AT_ONCE", pixels_at_once)
    logits = mask_logits(*people)
    height, width = shape
    letterbox = Letterbox.fit(height, width, CANVAS)
    on_canvas = functional.interpolate(logits[None], scale_factor=8, mode="bilinear")
    size = [CANVAS * max(shape) // CANVAS] * 2
    expected = functional.interpolate(on_canvas, size=size, mode="bilinear")[0, :, :height, :width]

    rows, columns = (torch.tensor(matrix) for matrix in mask_resampling(letterbox))
    visible = logits[:, : rows.shape[1], : columns.shape[1]]
    masks = masks_on_image(visible, rows, columns)
    assert masks.shape == (7, height, width) and masks.dtype == np.bool_
    clear = expected.abs() > 1e-4
    assert clear.float().mean() > 0.99
    np.testing.assert_array_equal(masks[clear.numpy()], (expected > 0)[clear].numpy())
    assert 0.05 < masks.mean() < 0.95
