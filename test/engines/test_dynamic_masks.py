# SPDX-License-Identifier: Apache-2.0
"""The mask decoder against the published steps, restated one by one; the same in torch."""

from __future__ import annotations

import numpy as np
import pytest

from bmp_ros.engines.dynamic_masks import mask_logits, masks_on_image
from bmp_ros.engines.letterbox import Letterbox, mask_resampling

torch = pytest.importorskip("torch", reason="compares with torch")
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from bmp_ros.networks.rtmdet_ins import mask_logits as mask_logits_of_tensors  # noqa: E402

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


@pytest.mark.parametrize("count", [1, 7])
def test_logits(people: tuple[Tensor, Tensor, Tensor], count: int) -> None:
    prototypes, kernels, priors = people[0], people[1][:count], people[2][:count]
    expected = torch.stack(
        [slow_logits(prototypes, k, p) for k, p in zip(kernels, priors, strict=True)]
    )
    fast = mask_logits(prototypes.numpy(), kernels.numpy(), priors.numpy())
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, expected, rtol=1e-4, atol=1e-4)
    for_training = mask_logits_of_tensors(prototypes, kernels, priors)
    torch.testing.assert_close(for_training, expected, rtol=1e-4, atol=1e-4)


def test_nobody() -> None:
    nobody = np.zeros((0, 169), np.float32), np.zeros((0, 3))
    assert mask_logits(np.zeros((8, 4, 5), np.float32), *nobody).shape == (0, 4, 5)


@pytest.mark.parametrize("shape", [(90, 160), (160, 120), (360, 480), (40, 30)])
def test_masks_equal_two_bilinear_steps(
    people: tuple[Tensor, Tensor, Tensor], shape: tuple[int, int]
) -> None:
    """Image sizes for which the published second step needs no rounding."""
    logits = mask_logits(*(tensor.numpy() for tensor in people))
    height, width = shape
    on_canvas = functional.interpolate(
        torch.from_numpy(logits)[None], scale_factor=8, mode="bilinear"
    )
    size = [CANVAS * max(shape) // CANVAS] * 2
    expected = functional.interpolate(on_canvas, size=size, mode="bilinear")
    expected = expected[0, :, :height, :width].numpy()

    rows, columns = mask_resampling(Letterbox.fit(height, width, CANVAS))
    masks = masks_on_image(logits[:, : rows.shape[1], : columns.shape[1]], rows, columns)
    assert masks.shape == (7, height, width) and masks.dtype == np.bool_
    clear = np.abs(expected) > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(masks[clear], (expected > 0)[clear])
    assert 0.05 < masks.mean() < 0.95
