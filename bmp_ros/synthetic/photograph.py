# SPDX-License-Identifier: Apache-2.0
"""From rendered colours to what a robot's camera delivers: edges, blur, noise, colour, JPEG."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

FARTHEST_SHADE = 25.0
"""Metres beyond which nothing shades its neighbours: the sky's dome has facets."""


@dataclass(frozen=True)
class Optics:
    """Faults of one camera; constant over a clip but for the noise."""

    defocus: float
    """Standard deviation of the blur, pixels."""
    motion: tuple[float, float]
    """Length in pixels and direction in radians of the smear."""
    gain: tuple[float, float, float]
    """White balance of blue, green, red."""
    contrast: float
    vignette: float
    noise: float
    """Standard deviation of the sensor's noise, 8-bit levels, in the mid-tones."""
    jpeg_quality: int
    small: float
    """Sensor resolution relative to the image: below 1 it was enlarged."""
    occlusion_shade: float


def sample_optics(random: np.random.Generator) -> Optics:
    """Mostly mild faults, sometimes strong ones."""
    blurred = random.random() < 0.2
    return Optics(
        defocus=float(
            random.choice([0.0, 0.5, 0.9], p=[0.55, 0.3, 0.15]) * random.uniform(0.7, 1.5)
        ),
        motion=(float(random.uniform(2, 9)) if blurred else 0.0, float(random.uniform(0, np.pi))),
        gain=tuple(np.exp(random.normal(0, 0.05, 3)).tolist()),
        contrast=float(np.exp(random.normal(0.1, 0.13))),
        vignette=float(random.uniform(0, 0.3)),
        noise=float(np.exp(random.uniform(np.log(0.5), np.log(8)))),
        jpeg_quality=int(random.integers(35, 97)),
        small=float(random.choice([1.0, 0.75, 0.5], p=[0.75, 0.15, 0.1])),
        occlusion_shade=float(random.uniform(0.15, 0.55)),
    )


def photograph(
    color: np.ndarray, depth: np.ndarray, optics: Optics, random: np.random.Generator
) -> np.ndarray:
    """RGB uint8 (H, W, 3) and depth (H, W) metres to the camera's BGR uint8 (H, W, 3)."""
    image = np.ascontiguousarray(color[:, :, ::-1])
    image = smooth_edges(image, depth)
    image = image.astype(np.float32) * _ambient_shade(depth, optics.occlusion_shade)[..., None]
    height, width = depth.shape
    if optics.small < 1:
        size = (int(width * optics.small), int(height * optics.small))
        image = cv2.resize(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (width, height))
    if optics.defocus > 0:
        image = cv2.GaussianBlur(image, (0, 0), optics.defocus)
    if optics.motion[0] > 0:
        image = cv2.filter2D(image, -1, _smear(*optics.motion))
    image = (image - 105) * optics.contrast + 110
    image *= np.array(optics.gain, np.float32)
    if optics.vignette > 0:
        image *= _vignette(height, width, optics.vignette)[..., None]
    image += _grain(random, height, width) * (optics.noise * (0.6 + image * np.float32(0.003)))
    levels = np.clip(image, 0, 255).astype(np.uint8)
    packed = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, optics.jpeg_quality])[1]
    return cv2.imdecode(packed, cv2.IMREAD_COLOR)


def smooth_edges(image: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Blend the stairs at depth edges with their surroundings: a cheap antialiasing."""
    inverse = 1.0 / np.maximum(depth, 0.05)
    spread = cv2.dilate(inverse, np.ones((3, 3))) - cv2.erode(inverse, np.ones((3, 3)))
    edge = np.clip(spread / (0.05 * inverse + 1e-6) - 0.6, 0, 1)[..., None].astype(np.float32)
    soft = cv2.GaussianBlur(image, (3, 3), 0.75).astype(np.float32)
    return (image + edge * (soft - image)).astype(np.uint8)


def _ambient_shade(depth: np.ndarray, strength: float) -> np.ndarray:
    """(H, W) factors <= 1: darker in corners and where bodies, feet and floors meet.

    Screen-space ambient occlusion at half resolution. Inverse depth is linear over any plane, so
    its second differences show concave places; steps beyond about 20 % do not count, and people
    throw no halo on a distant wall.
    """
    height, width = depth.shape
    inverse = cv2.resize(1 / np.maximum(depth, 0.05), (width // 2, height // 2))
    border = 9
    padded = cv2.copyMakeBorder(inverse, *[border] * 4, cv2.BORDER_REPLICATE)
    hidden = np.zeros_like(inverse)

    def shifted(dx: int, dy: int) -> np.ndarray:
        rows = slice(border + dy, border + dy + inverse.shape[0])
        return padded[rows, border + dx : border + dx + inverse.shape[1]]

    for radius in (3, 8):
        for dx, dy in ((radius, 0), (0, radius), (radius, radius), (radius, -radius)):
            ahead, behind = shifted(dx, dy), shifted(-dx, -dy)
            hollow = (0.5 * (ahead + behind) - inverse) / inverse
            step = np.maximum(ahead, behind) / inverse - 1
            hidden += np.clip(hollow * 22, 0, 1) * np.clip(2 - step * 7, 0, 1)
    hidden *= inverse > 1 / FARTHEST_SHADE
    shade = cv2.GaussianBlur(1 - strength * np.clip(hidden / 3, 0, 1), (0, 0), 1.8)
    return cv2.resize(shade.astype(np.float32), (width, height))


@lru_cache(maxsize=1)
def _grain_sheet() -> np.ndarray:
    return np.random.default_rng(11).standard_normal((1024, 1024, 3), dtype=np.float32)


def _grain(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) normal noise: a random window of one sheet that repeats."""
    sheet = _grain_sheet()
    rows = (np.arange(height) + random.integers(1024)) % 1024
    columns = (np.arange(width) + random.integers(1024)) % 1024
    return sheet[rows][:, columns]


def _smear(length: float, angle: float) -> np.ndarray:
    size = int(np.ceil(length)) | 1
    kernel = np.zeros((size, size), np.float32)
    middle = size // 2
    step = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    start, end = (tuple(np.round(middle + sign * step).astype(int).tolist()) for sign in (-1, 1))
    cv2.line(kernel, start, end, 1.0, 1)
    return kernel / kernel.sum()


def _vignette(height: int, width: int, strength: float) -> np.ndarray:
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return (1 - strength * (x**2 + y**2) / 2).astype(np.float32)
