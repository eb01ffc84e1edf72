# SPDX-License-Identifier: Apache-2.0
"""What the demo saw: single drawn results as PNGs, all of them as a film."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bmp_ros.demo.recorder import Result
from bmp_ros.drawing import draw_people
from bmp_ros.ros.person_messages import people_from_message
from bmp_ros.synthetic.ground_truth import box_iou

SPREAD_PICTURES = 6
GIF_MAX_BYTES = 5_000_000
_GIF_FRAMES, _GIF_WIDTH, _GIF_COLORS = 100, 480, 128
_PALETTE_FRAMES = 6


def write_pictures(folder: Path, results: Sequence[Result]) -> list[Path]:
    """Draw results as PNGs: some spread over the time, and the one of the closest two people."""
    shown = [result for result in results if result.jpeg is not None]
    if not shown:
        return []
    rows = np.linspace(0, len(shown) - 1, min(SPREAD_PICTURES, len(shown))).round().astype(int)
    names = {int(row): "spread" for row in rows}
    closest = max(range(len(shown)), key=lambda row: closeness(shown[row]))
    while closest in names and closest + 1 < len(shown):
        closest += 1  # one more picture of it, rather than another name for one
    names[closest] = "closest"
    paths = []
    for row, name in sorted(names.items()):
        seconds = (shown[row].stamp_ns - shown[0].stamp_ns) / 1e9
        paths.append(folder / f"debug_{seconds:04.1f}s_{name}.png")
        cv2.imwrite(str(paths[-1]), drawn(shown[row]))
    return paths


def closeness(result: Result) -> float:
    """Highest IoU of two boxes: of the people there are where that is known, else of those found.

    0 for fewer than two people.
    """
    people = people_from_message(result.truth or result.people)
    return float(np.triu(box_iou(people.boxes), 1).max(initial=0.0))


def write_gif(
    path: Path, results: Sequence[Result], max_bytes: int = GIF_MAX_BYTES
) -> Path | None:
    """Write what was seen at the pace at which it was: up to 100 drawn results.

    Returns None when no image of a result is known. Raises ModuleNotFoundError without Pillow.
    """
    shown = [result for result in results if result.jpeg is not None]
    if not shown:
        return None
    rows = np.linspace(0, len(shown) - 1, min(_GIF_FRAMES, len(shown))).round().astype(int)
    pictures = [drawn(shown[row]) for row in rows]
    stamps = np.array([shown[row].stamp_ns for row in rows], np.int64)
    pauses_ms = (np.diff(stamps, append=stamps[-1] + 10**9) // 10**6).tolist()
    width = min(_GIF_WIDTH, pictures[0].shape[1])
    while len(film := _encode(pictures, pauses_ms, width)) > max_bytes and width > 32:
        width = int(width * min(0.9, 0.95 * (max_bytes / len(film)) ** 0.5))
    path.write_bytes(film)
    return path


def drawn(result: Result) -> np.ndarray:
    """The image (H, W, 3) with the people that the node found on it."""
    image = result.image
    assert image is not None
    return draw_people(image, people_from_message(result.people))


def _encode(pictures: Sequence[np.ndarray], pauses_ms: list[int], width: int) -> bytes:
    """Pictures of one palette, ``width`` pixels wide. What does not change costs nothing then."""
    from PIL import Image

    height = round(pictures[0].shape[0] * width / pictures[0].shape[1])
    small = [
        cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1]
        for picture in pictures
    ]
    some = small[:: max(1, len(small) // _PALETTE_FRAMES)]
    palette = Image.fromarray(np.concatenate(some)).quantize(_GIF_COLORS)
    frames: list[Any] = [
        Image.fromarray(np.ascontiguousarray(frame)).quantize(
            palette=palette, dither=Image.Dither.NONE
        )
        for frame in small
    ]
    film = io.BytesIO()
    frames[0].save(
        film, "GIF", save_all=True, append_images=frames[1:], loop=0, duration=pauses_ms
    )
    return film.getvalue()
