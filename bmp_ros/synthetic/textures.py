# SPDX-License-Identifier: Apache-2.0
"""Procedural textures in one array: prints for cloth, floors, walls, clutter, views, sky.

Everything is computed from fixed seeds, nothing is a photograph. Train and test use different
layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from bmp_ros.synthetic.looks import CLOTH_LAYERS

SIZE = 256
VARIANTS = {"train": 6, "test": 3}
Maker = Callable[[np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class TextureBank:
    """images: (layers, SIZE, SIZE, 3) uint8 RGB. layers: per split and kind, indices."""

    images: np.ndarray
    layers: dict[str, dict[str, tuple[int, ...]]]

    def pick(self, random: np.random.Generator, split: str, kind: str) -> int:
        """A layer of ``kind`` (e.g. "wood") that ``split`` ("train" or "test") may use."""
        choices = self.layers[split][kind]
        return int(choices[random.integers(len(choices))])


@lru_cache(maxsize=1)
def texture_bank() -> TextureBank:
    """All textures, made once per process (about a second)."""
    images = [_print(np.random.default_rng((1, i))) for i in range(CLOTH_LAYERS["test"][1])]
    layers: dict[str, dict[str, tuple[int, ...]]] = {"train": {}, "test": {}}
    for kind_number, (kind, make) in enumerate(MAKERS.items()):
        for split_number, (split, variants) in enumerate(VARIANTS.items()):
            start = len(images)
            for variant in range(variants):
                random = np.random.default_rng((2, kind_number, split_number, variant))
                images.append(np.clip(make(random) * 255, 0, 255).astype(np.uint8))
            layers[split][kind] = tuple(range(start, len(images)))
    return TextureBank(np.stack(images), layers)


def cloud(random: np.random.Generator, cells: int, octaves: int = 4) -> np.ndarray:
    """(SIZE, SIZE) in 0..1: noise of ``octaves`` scales that repeats without a seam."""
    total = np.zeros((SIZE, SIZE), np.float32)
    for octave in range(octaves):
        n = min(cells * 2**octave, SIZE)
        coarse = np.pad(random.random((n, n)), ((1, 1), (1, 1)), mode="wrap").astype(np.float32)
        step = SIZE / n
        at = (np.arange(SIZE, dtype=np.float32) + 0.5) / step + 0.5
        grid = np.meshgrid(at, at)
        total += cv2.remap(coarse, grid[0], grid[1], cv2.INTER_LINEAR) / 2**octave
    return (total - total.min()) / max(float(np.ptp(total)), 1e-6)


def _tint(random: np.random.Generator, low: float, high: float, colorful: float) -> np.ndarray:
    color = random.uniform(low, high) * np.exp(random.normal(0, colorful, 3))
    return np.clip(color, 0.02, 1.0)


def _plaster(random: np.random.Generator) -> np.ndarray:
    grain = 0.85 + 0.15 * cloud(random, int(random.choice([2, 8, 32])), 5)
    return grain[..., None] * _tint(random, 0.7, 1.0, 0.05)


def _concrete(random: np.random.Generator) -> np.ndarray:
    grain = 0.55 + 0.3 * cloud(random, 3, 6) + random.normal(0, 0.05, (SIZE, SIZE))
    return grain[..., None] * _tint(random, 0.6, 0.95, 0.06)


def _tiles(random: np.random.Generator) -> np.ndarray:
    count = int(random.choice([2, 4, 8]))
    size = SIZE // count
    tint = np.kron(1 + random.normal(0, 0.06, (count, count)), np.ones((size, size)))
    if random.random() < 0.35:
        tint *= np.kron(np.indices((count, count)).sum(0) % 2 * 0.6 + 0.4, np.ones((size, size)))
    rows, columns = np.indices((SIZE, SIZE)) % size
    grout = (rows < 3) | (columns < 3)
    image = (
        (0.8 + 0.2 * cloud(random, 8))[..., None] * tint[..., None] * _tint(random, 0.5, 1.0, 0.1)
    )
    image[grout] = _tint(random, 0.2, 0.7, 0.03)
    return image


def _bricks(random: np.random.Generator) -> np.ndarray:
    rows, columns = np.indices((SIZE, SIZE))
    high, wide = 32, 64
    row = rows // high
    shifted = (columns + (row % 2) * wide // 2) % SIZE
    tint = 1 + random.normal(0, 0.15, (SIZE // high, SIZE // wide))
    image = tint[row, shifted // wide][..., None] * _tint(random, 0.35, 0.8, 0.2)
    image = image * (0.75 + 0.4 * cloud(random, 16))[..., None]
    image[(rows % high < 4) | (shifted % wide < 4)] = _tint(random, 0.4, 0.8, 0.02)
    return image


def _wood(random: np.random.Generator) -> np.ndarray:
    planks = int(random.choice([4, 8]))
    wide = SIZE // planks
    streaks = cv2.resize(random.random((SIZE, 12)).astype(np.float32), (SIZE, SIZE)).T
    tint = np.repeat(1 + random.normal(0, 0.13, planks), wide)[None, :]
    base = _tint(random, 0.35, 0.75, 0.05) * np.array([1.15, 0.9, 0.62])
    image = (0.65 + 0.35 * streaks)[..., None].transpose(1, 0, 2) * tint[..., None] * base
    image[:, np.arange(SIZE) % wide < 2] *= 0.45
    return image


def _carpet(random: np.random.Generator) -> np.ndarray:
    image = (0.75 + 0.25 * random.random((SIZE, SIZE)))[..., None] * _tint(random, 0.2, 0.7, 0.25)
    if random.random() < 0.5:
        blobs = cloud(random, int(random.choice([4, 8])), 2) > 0.55
        image[blobs] *= _tint(random, 0.5, 1.0, 0.3)
    return image


def _grass(random: np.random.Generator) -> np.ndarray:
    grain = 0.35 + 0.5 * cloud(random, 16, 5) + random.normal(0, 0.08, (SIZE, SIZE))
    return grain[..., None] * np.array([0.5, 0.72, 0.25]) * _tint(random, 0.6, 1.0, 0.12)


def _foliage(random: np.random.Generator) -> np.ndarray:
    grain = cloud(random, 12, 5) ** 1.6
    return grain[..., None] * np.array([0.42, 0.75, 0.25]) * _tint(random, 0.5, 1.0, 0.2)


def _wallpaper(random: np.random.Generator) -> np.ndarray:
    rows, columns = np.indices((SIZE, SIZE)) * (2 * np.pi / SIZE)
    a, b = random.integers(2, 12, 2)
    wave = np.sin(columns * a) + np.sin(rows * b) * random.choice([0.0, 1.0])
    share = (wave > random.uniform(-0.6, 0.6))[..., None]
    return np.where(share, _tint(random, 0.5, 1.0, 0.15), _tint(random, 0.5, 1.0, 0.15))


def _shapes(random: np.random.Generator, count: int, contrast: float) -> np.ndarray:
    """Random rectangles, discs, lines and letters over clouds: a picture of nothing."""
    image = cloud(random, 2, 5)[..., None] * _tint(random, 0.3, 1.0, 0.3)
    image = np.ascontiguousarray(image, np.float32)
    for _ in range(count):
        color = tuple(float(v) for v in _tint(random, 0.5 - contrast / 2, 0.5 + contrast / 2, 0.5))
        x, y, w, h = (int(v) for v in random.integers(0, SIZE, 4))
        kind = random.integers(5)
        if kind <= 1:
            cv2.rectangle(image, (x, y), (x + w // 3, y + h // 3), color, -1)
        elif kind == 2:
            cv2.ellipse(
                image, (x, y), (w // 5 + 1, h // 5 + 1), int(w), 0, 360, color, -1, cv2.LINE_AA
            )
        elif kind == 3:
            cv2.line(image, (x, y), (w, h), color, int(random.integers(1, 9)), cv2.LINE_AA)
        else:
            text = "".join(chr(random.integers(48, 91)) for _ in range(random.integers(1, 6)))
            # As a stencil: OpenCV 5 writes on 8 bits only.
            letters = np.zeros(image.shape[:2], np.uint8)
            font, size = int(random.integers(0, 5)), random.uniform(0.6, 3)
            cv2.putText(
                letters, text, (x // 2, y), font, size, 255, int(random.integers(1, 6)), cv2.LINE_8
            )
            image[letters > 0] = color
    return image + random.normal(0, 0.02, image.shape)


def _print(random: np.random.Generator) -> np.ndarray:
    return np.clip(_shapes(random, int(random.integers(3, 12)), 0.9) * 255, 0, 255).astype(
        np.uint8
    )


def _clutter(random: np.random.Generator) -> np.ndarray:
    return _shapes(random, int(random.integers(25, 90)), 0.9)


def _shelf(random: np.random.Generator) -> np.ndarray:
    """Rows of books and boxes."""
    image = np.full((SIZE, SIZE, 3), 0.12) * _tint(random, 0.5, 1.0, 0.2)
    rows = int(random.choice([3, 4, 5]))
    high = SIZE // rows
    for row in range(rows):
        x = 0
        while x < SIZE - 4:
            wide = int(random.integers(5, 30))
            top = int(random.uniform(0.1, 0.45) * high)
            image[row * high + top : (row + 1) * high - 5, x : x + wide - 1] = _tint(
                random, 0.05, 0.9, 0.4
            )
            x += wide + int(random.choice([0, 0, 0, 12]))
        image[(row + 1) * high - 5 : (row + 1) * high] = _tint(random, 0.3, 0.8, 0.05)
    return image * (0.9 + 0.2 * cloud(random, 32, 2))[..., None]


def _view(random: np.random.Generator) -> np.ndarray:
    """What a window shows: sky, hills, houses, trees, out of focus."""
    rows = np.linspace(0, 1, SIZE)[:, None, None]
    image = (1 - rows) * np.array([0.75, 0.85, 1.0]) + rows * np.array([0.98, 0.96, 0.92])
    image = np.repeat(image, SIZE, axis=1) * random.uniform(0.75, 1.0)
    line = 0.5 + 0.12 * cv2.resize(random.random((1, 6)).astype(np.float32), (SIZE, 1))[0]
    land = rows[..., 0] > line[None, :]
    image[land] = (cloud(random, 12)[..., None] * _tint(random, 0.3, 0.8, 0.15) * [0.8, 1, 0.6])[
        land
    ]
    for _ in range(random.integers(0, 9)):
        x, wide, top = random.integers(0, SIZE), random.integers(15, 60), random.uniform(0.25, 0.6)
        image[int(top * SIZE) :, x : x + wide] = _tint(random, 0.2, 0.9, 0.15)
    return cv2.GaussianBlur(image.astype(np.float32), (0, 0), random.uniform(0.8, 3.5))


def _sky(random: np.random.Generator) -> np.ndarray:
    rows = np.linspace(0, 1, SIZE)[:, None, None]
    blue = np.array([0.35, 0.55, 0.9]) * random.uniform(0.7, 1.1)
    image = blue * (1 - rows) + np.array([0.85, 0.9, 0.97]) * rows
    cover = np.clip((cloud(random, 3, 5) - random.uniform(0.1, 0.75)) * 3, 0, 1)[..., None]
    return image * (1 - cover) + cover * random.uniform(0.7, 1.0)


def _facade(random: np.random.Generator) -> np.ndarray:
    image = (0.85 + 0.15 * cloud(random, 8))[..., None] * _tint(random, 0.3, 0.9, 0.12)
    count = int(random.choice([3, 4, 6]))
    step = SIZE // count
    share = random.uniform(0.2, 0.4)
    for row in range(count):
        for column in range(count):
            y, x = row * step + int(share * step / 2), column * step + int(share * step / 2)
            glass = _tint(random, 0.05, 0.5, 0.1) * np.array([0.85, 0.95, 1.1])
            image[y : y + int(step * (1 - share)), x : x + int(step * (1 - share))] = glass
    return image


MAKERS: dict[str, Maker] = {
    "plaster": _plaster, "concrete": _concrete, "tiles": _tiles, "bricks": _bricks, "wood": _wood,
    "carpet": _carpet, "grass": _grass, "foliage": _foliage, "wallpaper": _wallpaper,
    "clutter": _clutter, "shelf": _shelf, "view": _view, "sky": _sky, "facade": _facade,
}  # fmt: skip
