# SPDX-License-Identifier: Apache-2.0
"""Colours of cloth, skin and hair. Train and test never share a colour of cloth."""

from __future__ import annotations

import numpy as np

TRAIN_CLOTH = (
    "101014", "1b2233", "23304f", "2e4a7d", "5b7fb0", "a9c1dd", "e8e8e6", "f6f4ee", "b8b8b8",
    "7d7f83", "4a4c50", "2b2c2f", "6d1f24", "a32d2f", "d1453b", "e98a7a", "f2c5bd", "c96a1f",
    "e8a13a", "f3d06b", "efe6c4", "c4b18c", "8f7a55", "5e4a34", "3b2d22", "20402c", "3f6b3d",
    "7fa364", "b9cf9d", "1f5d5f", "4aa3a0", "a7d8d4", "3c2a5e", "73589e", "b9a3d3", "b3427e",
    "e07fae", "f4d3e0", "d4e35a", "ff6a13",
)  # fmt: skip
TEST_CLOTH = (
    "17181c", "1a2a44", "37598f", "7798c4", "c9d6e6", "efefec", "a3a4a6", "63656a", "36383c",
    "84282c", "bd3c36", "e0695a", "d77f33", "efb752", "f7e3a1", "d6c7a6", "a58f69", "4c3a28",
    "2c5237", "5c8750", "9dbb81", "2f7f80", "7cc0bc", "54407c", "9680ba", "cb5c97", "ecaecb",
    "bfd13c", "1d4d40", "8b4513",
)  # fmt: skip
SKIN = (
    "f3d9c8", "eec4aa", "e3ae8d", "d59a76", "c4835c", "a9694a", "8a5138", "6b3d2a", "4e2b1f",
    "3a2018", "e8c09d", "f6ddd2", "b97a50",
)  # fmt: skip
HAIR = (
    "0d0b0a", "15110f", "231812", "3a2618", "55361f", "7a4f2b", "a5713c", "c99a5b", "dcbf87",
    "8a3d1e", "8f8d8a", "c8c6c2", "efeeea", "5a5856",
)  # fmt: skip
DYED_HAIR = ("7a2f8f", "c0392b", "2e86c1", "e377a8", "3fae6a")
LEATHER = (
    "0f0e0d",
    "2a1d15",
    "4f3422",
    "7b5230",
    "b98a5a",
    "f2f2ef",
    "9b9b9b",
    "22304a",
    "b3261e",
)
SURFACES = (
    "d9d4c8", "c9c2b0", "efece4", "b9c4c9", "8fa3ad", "9aa88f", "c7a78a", "8c6f54", "5d4a3a",
    "a0522d", "70757a", "3f4347", "e2d3b5", "b04a3a", "34506b", "6a7f5a", "d9b44a", "f5f5f2",
)  # fmt: skip


def rgb(code: str) -> np.ndarray:
    """(3,) linear RGB in 0..1 of an sRGB hex code."""
    srgb = np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) / 255.0
    return srgb**2.2


def cloth_colors(split: str) -> tuple[str, ...]:
    """Hex codes of the cloth that ``split`` ("train" or "test") may wear."""
    return TEST_CLOTH if split == "test" else TRAIN_CLOTH


def pick(
    random: np.random.Generator, codes: tuple[str, ...], spread: float, *, favour: float = 1.0
) -> tuple[float, float, float]:
    """One colour of ``codes``, brightness and hue varied by about ``spread`` (relative).

    favour: above 1 prefers the first codes; cloth starts with the neutral colours.
    """
    color = rgb(codes[int(len(codes) * random.random() ** favour)])
    color = color * np.exp(random.normal(0, spread)) * np.exp(random.normal(0, spread / 3, 3))
    red, green, blue = (float(value) for value in np.clip(color, 0.003, 0.95))
    return red, green, blue
