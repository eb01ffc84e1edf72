# SPDX-License-Identifier: Apache-2.0
"""``draw_people``: masks, skeletons and boxes on a copy of the image."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from bmp_ros.loop.frame import check_image
from bmp_ros.loop.masks import mask_rectangles
from bmp_ros.loop.people import People

Color = tuple[int, int, int]

_GOLDEN_RATIO = 0.618034
_MASK_OPACITY = 0.45
_DARK: Color = (32, 32, 32)
_LIGHT: Color = (255, 255, 255)
_GREY: Color = (190, 190, 190)
_DARK_LETTERS_FROM = 118.0
"""Luma above which dark letters have the higher contrast (WCAG 2) on a person's colour."""


def person_color(number: int) -> Color:
    """Return a strong BGR colour; neighbours in number are far from each other in hue."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + number * _GOLDEN_RATIO) % 1.0, 0.75, 1.0)
    return round(255 * blue), round(255 * green), round(255 * red)


def letters_on(color: Color) -> Color:
    """Dark or white, what can be read on a person's colour. Luma: ITU-R BT.601."""
    blue, green, red = color
    luma = 0.114 * blue + 0.587 * green + 0.299 * red
    return _DARK if luma > _DARK_LETTERS_FROM else _LIGHT


def person_colors(track_ids: np.ndarray) -> list[Color]:
    """A BGR colour for everybody in one image, from their track ids (N,).

    One colour per id, whoever else is in the image; by row where nobody has an id. Among people
    with ids, somebody without one (-1) is grey.
    """
    if (track_ids < 0).all():
        return [person_color(row) for row in range(len(track_ids))]
    return [_GREY if track < 0 else person_color(track) for track in track_ids.tolist()]


def draw_people(
    image: np.ndarray,
    people: People,
    *,
    boxes: bool = True,
    masks: bool = True,
    keypoints: bool = True,
    score_threshold: float = 0.3,
) -> np.ndarray:
    """Draw all people on a copy of a BGR uint8 image (H, W, 3), the best scored on top.

    Colours are those of `person_colors`. Each box has the track's id, where there is one, and the
    score at its top. Keypoints of a score up to ``score_threshold``, and the edges to them, are
    left out. Raises ValueError when the people are of an image of another size.
    """
    if check_image(image).shape[:2] != people.image_size:
        raise ValueError(f"the image is {image.shape[1]}x{image.shape[0]} pixels, but {people}")
    drawn = image.copy()
    colors = person_colors(people.track_ids)
    if masks:
        _draw_masks(drawn, people, colors)
    unit = max(1, round(min(image.shape[:2]) / 360))
    for row in reversed(range(len(people))):
        if boxes:
            x1, y1, x2, y2 = (round(value) for value in people.boxes[row].tolist())
            cv2.rectangle(drawn, (x1, y1), (x2, y2), colors[row], unit, cv2.LINE_AA)
        if keypoints:
            found = people.keypoint_scores[row] > score_threshold
            _draw_skeleton(
                drawn, people.keypoints[row], found, people.skeleton.edges, colors[row], unit
            )
    if boxes:
        _draw_labels(drawn, people, colors, unit)
    return drawn


def _draw_masks(drawn: np.ndarray, people: People, colors: list[Color]) -> None:
    """Tint the pixels and trace the outline of every mask; only its rectangle is touched."""
    for mask, rectangle, color in zip(
        people.masks, mask_rectangles(people.masks).tolist(), colors, strict=True
    ):
        x, y, width, height = rectangle
        if width == 0:
            continue
        window = drawn[y : y + height, x : x + width]
        inside = mask[y : y + height, x : x + width].view(np.uint8)
        paint = np.full_like(window, color)
        tinted = cv2.addWeighted(window, 1 - _MASK_OPACITY, paint, _MASK_OPACITY, 0)
        cv2.copyTo(tinted, inside, window)
        outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(drawn, outlines, -1, color, 1, cv2.LINE_AA, offset=(x, y))


def _draw_labels(drawn: np.ndarray, people: People, colors: list[Color], unit: int) -> None:
    """Write id and score at the top of every box, none over another one."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.35 * unit
    taken: list[tuple[int, int, int, int]] = []
    for row, (track, score) in enumerate(
        zip(people.track_ids.tolist(), people.scores.tolist(), strict=True)
    ):
        text = f"{score:.2f}" if track < 0 else f"{track}: {score:.2f}"
        (width, height), _ = cv2.getTextSize(text, font, size, 1)
        width, height = width + 4, height + 4 * unit
        left, top = (round(value) for value in people.boxes[row, :2].tolist())
        left = max(min(left, drawn.shape[1] - width), 0)
        left, top = _free_place(left, max(top - height, 0), width, height, taken)
        taken.append((left, top, width, height))
        cv2.rectangle(drawn, (left, top), (left + width, top + height), colors[row], -1)
        base = (left + 2, top + height - 2 * unit)
        cv2.putText(drawn, text, base, font, size, letters_on(colors[row]), 1, cv2.LINE_AA)


def _free_place(
    left: int, top: int, width: int, height: int, taken: list[tuple[int, int, int, int]]
) -> tuple[int, int]:
    """The place itself, or the one below all rectangles (x, y, width, height) in its way."""
    for x, y, w, h in sorted(taken, key=lambda each: each[1]):
        if x < left + width and left < x + w and y <= top + height and top <= y + h:
            top = y + h + 1
    return left, top


def _draw_skeleton(
    drawn: np.ndarray,
    keypoints: np.ndarray,
    found: np.ndarray,
    edges: tuple[tuple[int, int], ...],
    color: Color,
    unit: int,
) -> None:
    # Far outside of the image OpenCV's fixed-point coordinates overflow.
    limit = 4 * max(drawn.shape)
    points = np.clip(np.rint(keypoints), -limit, limit).astype(int).tolist()
    limbs = [(points[a], points[b]) for a, b in edges if found[a] and found[b]]
    # All dark rims first, so that crossing limbs do not cut each other.
    for line_color, thickness in ((_DARK, 2 * unit + 2), (color, 2 * unit)):
        for start, end in limbs:
            cv2.line(drawn, start, end, line_color, thickness, cv2.LINE_AA)
    for point, seen in zip(points, found, strict=True):
        if seen:
            cv2.circle(drawn, point, unit + 2, _DARK, -1, cv2.LINE_AA)
            cv2.circle(drawn, point, unit + 1, _LIGHT, -1, cv2.LINE_AA)
