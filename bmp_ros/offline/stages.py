# SPDX-License-Identifier: Apache-2.0
"""What every stage of every iteration of the loop saw and said, as captioned pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from bmp_ros.drawing import draw_people
from bmp_ros.loop.people import People
from bmp_ros.loop.prompts import PromptGroup
from bmp_ros.loop.trace import IterationTrace, Trace, rows_in

_GREY, _DARK, _LIGHT = (170, 170, 170), (32, 32, 32), (240, 240, 240)
_POSITIVE, _NEGATIVE = (60, 220, 60), (60, 60, 240)  # BGR

Stage = tuple[str, np.ndarray]
"""A caption and a BGR uint8 image (H, W, 3), which does not contain it."""


def stage_pictures(image: np.ndarray, trace: Trace) -> Iterator[Stage]:
    """Draw the stages of one frame on copies of ``image`` (H, W, 3), in the order of the loop.

    Per iteration: what the detector saw (from the second on, those found are painted out), what it
    found, the poses, the prompts with their masks; then all people in the end. A person has the
    same colour everywhere.
    """
    colors: dict[tuple[int, bytes], int] = {}
    for step in trace.iterations:
        if step.image is not None:
            seen = "the image" if step.iteration == 1 else "those found are painted out"
            yield f"{step.iteration}. detector sees: {seen}", step.image
        if step.detected is not None:
            yield _detections(step, colors)
        if step.posed is not None:
            yield _poses(image, step, colors)
        if step.segmented is not None and len(step.segmented):
            yield _masks(image, step, colors)
    people = trace.people
    numbers = np.arange(len(people))
    for step in trace.iterations:
        if step.survivors is not None:
            rows = rows_in(step.survivors, people)
            mine = (people.iterations == step.iteration) & (np.array(rows, np.int64) >= 0)
            known = _colored(step.survivors, colors).track_ids
            numbers = np.where(mine, known[rows] if len(known) else numbers, numbers)
    drawn = draw_people(image, replace(people, track_ids=numbers.astype(np.int32)))
    looks = _count(trace.report.iterations, "look", "looks")
    yield f"found: {_count(len(people), 'person', 'people')} in {looks}", drawn


def _detections(step: IterationTrace, colors: dict[tuple[int, bytes], int]) -> Stage:
    """All boxes that the detector said, thin; those after NMS in colour, with its masks."""
    assert step.image is not None and step.detected is not None
    drawn = step.image.copy()
    said = 0
    if step.detections is not None:
        said = len(step.detections.boxes)
        finite = np.isfinite(step.detections.boxes).all(axis=1)
        limits = np.tile(drawn.shape[1::-1], 2)
        for x1, y1, x2, y2 in np.clip(step.detections.boxes[finite], 0, limits).astype(int):
            cv2.rectangle(drawn, (int(x1), int(y1)), (int(x2), int(y2)), _GREY, 1)
    found = _colored(step.detected, colors)
    caption = f"{step.iteration}. detector: {_count(said, 'box', 'boxes')}, {len(found)} after NMS"
    return caption, draw_people(drawn, found, keypoints=False)


def _poses(image: np.ndarray, step: IterationTrace, colors: dict[tuple[int, bytes], int]) -> Stage:
    """Those who were kept; the count says how many were dropped as duplicates."""
    assert step.posed is not None
    kept = step.posed if step.survivors is None else step.survivors
    dropped = len(step.posed) - len(kept)
    duplicates = f", {dropped} dropped as duplicates" if dropped else ""
    drawn = draw_people(image, _colored(kept, colors), masks=False)
    return f"{step.iteration}. poses: {len(kept)}{duplicates}", drawn


def _masks(image: np.ndarray, step: IterationTrace, colors: dict[tuple[int, bytes], int]) -> Stage:
    assert step.segmented is not None
    people = _colored(step.segmented, colors)
    drawn = draw_people(
        image, replace(people, masks=people.raw_masks), boxes=False, keypoints=False
    )
    _draw_prompts(drawn, step.prompts or [])
    points = sum(int(group.labels.size) for group in step.prompts or [])
    prompts = _count(points, "prompt point", "prompt points")
    return f"{step.iteration}. masks: {len(people)}, from {prompts}", drawn


def _draw_prompts(drawn: np.ndarray, groups: list[PromptGroup]) -> None:
    radius = max(2, round(min(drawn.shape[:2]) / 120))
    for group in groups:
        points, labels = group.points.reshape(-1, 2), group.labels.ravel()
        for (x, y), label in zip(np.rint(points).astype(int).tolist(), labels, strict=True):
            cv2.circle(drawn, (x, y), radius + 1, _DARK, -1, cv2.LINE_AA)
            color = _POSITIVE if label else _NEGATIVE
            cv2.circle(drawn, (x, y), radius, color, -1, cv2.LINE_AA)


def _colored(people: People, colors: dict[tuple[int, bytes], int]) -> People:
    """The same people with the colour of their box, a new one for a box not seen before."""
    numbers = [
        colors.setdefault((int(iteration), box.tobytes()), len(colors))
        for iteration, box in zip(people.iterations, people.boxes, strict=True)
    ]
    return replace(people, track_ids=np.array(numbers, np.int32))


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def captioned(caption: str, image: np.ndarray, width: int) -> np.ndarray:
    """Scale an image to ``width`` pixels and add a band with the caption (ASCII) below it.

    Tall images are scaled until they are at most twice as high as wide, and stand in the middle.
    """
    scale = min(width / image.shape[1], 2 * width / image.shape[0])
    height, inner = (max(1, round(side * scale)) for side in image.shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(image, (inner, height), interpolation=interpolation)
    left = (width - inner) // 2
    right = width - inner - left
    scaled = cv2.copyMakeBorder(scaled, 0, 0, left, right, cv2.BORDER_CONSTANT)
    font, size = cv2.FONT_HERSHEY_SIMPLEX, width / 1000
    (text_width, text_height), below = cv2.getTextSize(caption, font, size, 1)
    while text_width > 0.96 * width and size > 0.05:  # its width is not in proportion to size
        size *= 0.9
        (text_width, text_height), below = cv2.getTextSize(caption, font, size, 1)
    margin = max(4, text_height // 2)
    band = np.full((text_height + below + 2 * margin, width, 3), _DARK, np.uint8)
    origin = (round(0.02 * width), margin + text_height)
    cv2.putText(band, caption, origin, font, size, _LIGHT, 1, cv2.LINE_AA)
    return np.concatenate([scaled, band])
