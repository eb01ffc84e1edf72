# SPDX-License-Identifier: Apache-2.0
"""The mask conditioning equals the published one on vectors that its code gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bmp_ros.training.mask_background import (
    DILATE_SEEDS,
    ERODE_SEEDS,
    MaskBackground,
    dimmed,
    enlarged,
    shrunk,
    smoothed,
    without_patches,
)

PUBLISHED = MaskBackground()
TIES = 0.002
"""Share of the mask's pixels that two seeds may be equally near to."""


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    file = Path(__file__).parents[1] / "data" / "seed_networks" / "bmp_maskbackground.npz"
    with np.load(file) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def mask(golden: dict[str, np.ndarray]) -> np.ndarray:
    return golden["mask"] > 0


def differing(mask: np.ndarray, stored: np.ndarray) -> float:
    return float((mask != (stored > 0)).sum() / (stored > 0).sum())


@pytest.mark.parametrize("dim", ["0.2", "0.25", "1.0"])
def test_dimming(dim: str, golden: dict[str, np.ndarray], mask: np.ndarray) -> None:
    assert (dimmed(golden["image"], mask, float(dim)) == golden[f"val_alpha_{dim}"]).all()


def test_morphology(golden: dict[str, np.ndarray], mask: np.ndarray) -> None:
    assert differing(smoothed(mask), golden["smoothed"]) == 0
    assert differing(enlarged(mask), golden["by_dilation"]) == 0
    assert differing(shrunk(mask), golden["by_erosion"]) == 0


def test_patches(golden: dict[str, np.ndarray], mask: np.ndarray) -> None:
    less = without_patches(mask, ERODE_SEEDS, 0.5, np.random.RandomState(3))
    more = ~without_patches(~mask, DILATE_SEEDS, 0.1, np.random.RandomState(4))
    assert differing(less, golden["patch_erode_seed3"]) <= TIES
    assert differing(more, golden["patch_dilate_seed4"]) <= TIES
    few = np.zeros_like(mask)
    few[3, :5] = True
    assert (without_patches(few, ERODE_SEEDS, 1.0, np.random.RandomState(0)) == few).all()


@pytest.mark.parametrize("seed", range(6))
def test_whole_damage(seed: int, golden: dict[str, np.ndarray], mask: np.ndarray) -> None:
    damaged = PUBLISHED.damaged(mask, np.random.RandomState(seed))
    assert differing(damaged, golden[f"perturb_seed{seed}"]) <= TIES


def test_damage_of_many_seeds(golden: dict[str, np.ndarray], mask: np.ndarray) -> None:
    for seed, (area, inside) in enumerate(golden["perturb_stats_seed_area_inter"]):
        damaged = PUBLISHED.damaged(mask, np.random.RandomState(seed))
        assert abs(damaged.sum() - area) <= 0.01 * area, seed
        assert abs((damaged & mask).sum() - inside) <= 0.01 * area, seed


def test_training_image(golden: dict[str, np.ndarray], mask: np.ndarray) -> None:
    image = MaskBackground(dim=0.2).apply(golden["image"], mask, np.random.RandomState(2))
    different = (image != golden["train_img_seed2"]).any(axis=2)
    assert different.mean() <= TIES


def test_no_mask_and_no_probability_change_nothing(
    golden: dict[str, np.ndarray], mask: np.ndarray
) -> None:
    random = np.random.RandomState(0)
    assert PUBLISHED.apply(golden["image"], np.zeros_like(mask), random) is golden["image"]
    assert MaskBackground(prob=0).apply(golden["image"], mask, random) is golden["image"]
    still = MaskBackground(dilate_prob=0, erode_prob=0)
    assert (still.damaged(mask, random) == mask).all()


@pytest.mark.parametrize("wrong", [{"dim": 1.5}, {"erode_prob": 0.7}, {"prob": -1}])
def test_parameters_out_of_range_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MaskBackground(**wrong)
