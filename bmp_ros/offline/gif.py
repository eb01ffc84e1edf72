# SPDX-License-Identifier: Apache-2.0
"""Captioned images as an animated GIF of limited size, through Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2

from bmp_ros.offline.stages import Stage, captioned

MAX_BYTES = 5_000_000
_LEAST_WIDTH, _MOST_WIDTH = 480, 960
_SMALLEST = 32
_SECONDS, _LAST_SECONDS = 1.5, 4.0


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
            "GIFs are written by Pillow, which is not installed; install it with "
            "pip install -r requirements/evaluate.txt"
        ) from error


def _encode(stages: Sequence[Stage], width: int) -> bytes:
    from PIL import Image

    frames = []
    for caption, image in stages:
        rgb = cv2.cvtColor(captioned(caption, image, width), cv2.COLOR_BGR2RGB)
        # No dithering: its noise doubles the size.
        frames.append(Image.fromarray(rgb).quantize(256, dither=Image.Dither.NONE))
    seconds = [_SECONDS] * (len(frames) - 1) + [_LAST_SECONDS]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], loop=0, optimize=True,
        duration=[round(1000 * value) for value in seconds],
    )  # fmt: skip
    return buffer.getvalue()
