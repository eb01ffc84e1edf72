# SPDX-License-Identifier: Apache-2.0
"""Captioned images as an animated GIF of limited size, through Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from bmp_ros.offline.stages import Stage, captioned

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 5_000_000
_LEAST_WIDTH, _MOST_WIDTH = 480, 960
_SMALLEST = 32
_SECONDS, _LAST_SECONDS = 1.5, 4.0
_COUNTED, _FAR_COUNTED, _FAR_SHARE = 16_000, 8_000, 0.05


def write_gif(path: Path, stages: Sequence[Stage], max_bytes: int = MAX_BYTES) -> None:
    """Write one frame per stage, caption below the image, smaller until ``max_bytes`` hold it.

    Raises ModuleNotFoundError without Pillow, ValueError when not even tiny images fit.
    """
    import_pillow()
    width = min(max(stages[0][1].shape[1], _LEAST_WIDTH), _MOST_WIDTH)
    while True:
        encoded = _encode(stages, width)
        if len(encoded) <= max_bytes:
            path.write_bytes(encoded)
            return
        if width <= _SMALLEST:
            raise ValueError(f"{len(stages)} images do not fit into {max_bytes} bytes; allow more")
        shrink = min(0.9, 0.95 * (max_bytes / len(encoded)) ** 0.5)
        width = max(_SMALLEST, int(width * shrink))


def import_pillow() -> None:
    """Raises ModuleNotFoundError that names what to install, when Pillow is missing."""
    try:
        import PIL.Image  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"GIFs need Pillow: `pip install -r requirements/evaluate.txt` ({error})"
        ) from error


def vivid_palette(image: np.ndarray, colors: int) -> Image:
    """An image of Pillow whose palette has ``colors`` colours for RGB uint8 (H, W, 3).

    Pillow divides the colours by area, and thin lines in the colours of people get none: here
    a third of the pixels that it counts are of those farthest from the middle of all.
    """
    import PIL.Image

    pixels = image.reshape(-1, 3)
    middle = np.median(pixels[:: max(1, len(pixels) // _COUNTED)], axis=0)
    distance = np.abs(pixels - middle.astype(np.float32)).sum(axis=1)
    far = pixels[distance >= np.quantile(distance, 1 - _FAR_SHARE)]
    counted = [
        each[np.linspace(0, len(each) - 1, number).astype(int)]
        for each, number in ((pixels, _COUNTED), (far, _FAR_COUNTED))
    ]
    return PIL.Image.fromarray(np.concatenate(counted)[None]).quantize(colors)


def _encode(stages: Sequence[Stage], width: int) -> bytes:
    import PIL.Image

    frames = []
    for caption, image in stages:
        rgb = cv2.cvtColor(captioned(caption, image, width), cv2.COLOR_BGR2RGB)
        # No dithering: its noise doubles the size.
        palette = vivid_palette(rgb, 256)
        frames.append(
            PIL.Image.fromarray(rgb).quantize(palette=palette, dither=PIL.Image.Dither.NONE)
        )
    seconds = [_SECONDS] * (len(frames) - 1) + [_LAST_SECONDS]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], loop=0, optimize=True,
        duration=[round(1000 * value) for value in seconds],
    )  # fmt: skip
    return buffer.getvalue()
