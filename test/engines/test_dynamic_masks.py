# SPDX-License-Identifier: Apache-2.0
"""The NumPy formulas of the dynamic masks are those of the torch ones."""

from __future__ import annotations

import numpy as np
import pytest

from bmp_ros.engines.dynamic_masks import KERNEL_PARAMETERS, mask_logits, masks_on_image
from bmp_ros.engines.letterbox import Letterbox, grid_priors, mask_resampling

torch = pytest.importorskip("torch", reason="compares with the torch engine")


@pytest.mark.parametrize("people", [1, 7])
def test_same_as_torch(people: int) -> None:
    from bmp_ros.engines.torch import dynamic_masks as on_torch

    rng = np.random.default_rng(people)
    prototypes = rng.normal(size=(8, 13, 20)).astype(np.float32)
    kernels = rng.normal(size=(people, KERNEL_PARAMETERS)).astype(np.float32)
    priors = grid_priors((160, 128))[rng.integers(0, 420, people)]
    logits = mask_logits(prototypes, kernels, priors)
    wanted = on_torch.mask_logits(*map(torch.from_numpy, (prototypes, kernels, priors)))
    assert logits.shape == (people, 13, 20) and logits.dtype == np.float32
    np.testing.assert_allclose(logits, wanted.numpy(), rtol=1e-4, atol=1e-4)

    rows, columns = mask_resampling(Letterbox.fit(100, 160, (160, 128)))
    grid = logits[:, : rows.shape[1], : columns.shape[1]]
    masks = masks_on_image(grid, rows, columns)
    theirs = on_torch.masks_on_image(
        torch.from_numpy(grid), torch.tensor(rows), torch.tensor(columns)
    )
    assert masks.shape == (people, 100, 160) and 0 < masks.mean() < 1
    assert (masks ^ theirs).mean() < 1e-4


def test_nobody() -> None:
    logits = mask_logits(
        np.zeros((8, 4, 5), np.float32), np.zeros((0, 169), np.float32), np.zeros((0, 3))
    )
    assert logits.shape == (0, 4, 5)
