# SPDX-License-Identifier: Apache-2.0
"""Nothing that the test splits show is ever seen in training."""

from __future__ import annotations

import cv2
import numpy as np

from bmp_ros.synthetic import palettes, textures
from bmp_ros.synthetic.groups import PAIRS
from bmp_ros.synthetic.looks import CLOTH_LAYERS, sample_look
from bmp_ros.synthetic.pose_templates import TEMPLATES
from bmp_ros.synthetic.poses import sample_pose
from bmp_ros.synthetic.splits import SPLITS
from bmp_ros.synthetic.textures import texture_bank


def test_splits_use_other_random_numbers_and_only_test_assets():
    codes = [split.code for split in SPLITS.values()]
    assert len(set(codes)) == len(codes)
    assets = {name: split.assets for name, split in SPLITS.items()}
    assert assets == {"train": "train", "easy": "test", "crowded": "test", "heavy": "test"}


def test_cloth_colors_are_disjoint():
    assert not set(palettes.TRAIN_CLOTH) & set(palettes.TEST_CLOTH)


def test_letters_are_written_on_8_bits(monkeypatch):
    """OpenCV 5, which pip brings where nothing is pinned, refuses others."""
    write, written = cv2.putText, []

    def strict(image, text, *rest):
        assert image.dtype == np.uint8
        written.append(text)
        return write(image, text, *rest)

    monkeypatch.setattr(cv2, "putText", strict)
    for seed in range(4):
        picture = textures._shapes(np.random.default_rng(seed), 8, 0.9)
        assert picture.shape == (textures.SIZE, textures.SIZE, 3) and np.isfinite(picture).all()
    assert written


def test_textures_are_disjoint_and_look_different():
    bank = texture_bank()
    train = {layer for layers in bank.layers["train"].values() for layer in layers}
    test = {layer for layers in bank.layers["test"].values() for layer in layers}
    train |= set(range(*CLOTH_LAYERS["train"]))
    test |= set(range(*CLOTH_LAYERS["test"]))
    assert not train & test
    images = bank.images[:, ::8, ::8].astype(float)
    for layer in test:
        nearest = min(np.abs(images[layer] - images[other]).mean() for other in train)
        assert nearest > 1.0, layer


def test_postures_and_pairs_are_disjoint():
    names = {s: {t.name for t in TEMPLATES if t.split == s} for s in ("train", "test")}
    assert not names["train"] & names["test"]
    assert not set(PAIRS["train"]) & set(PAIRS["test"])
    random = np.random.default_rng(0)
    for split, own in names.items():
        assert {sample_pose(random, split)[0].name for _ in range(300)} == own


def test_looks_take_prints_of_their_own_split():
    random = np.random.default_rng(1)
    for split, (first, last) in CLOTH_LAYERS.items():
        for _ in range(50):
            look = sample_look(random, split, female=True, years=30.0)
            materials = [look.top.material, look.bottom.material, look.hat_material]
            assert all(first <= material.layer < last for material in materials)
