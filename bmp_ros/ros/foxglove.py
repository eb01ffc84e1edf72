# SPDX-License-Identifier: Apache-2.0
"""People as ``foxglove_msgs/ImageAnnotations``, which Foxglove draws over the camera's own image.

Sharp at any zoom, and a small part of what a drawn image weighs.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from bmp_ros.drawing import Color, letters_on, person_colors
from bmp_ros.loop.people import People

_POINTS, _LINE_LOOP, _LINE_LIST = 1, 2, 4
"""PointsAnnotation.type"""
_CENTRE = 0.5
"""Pixel centres lie at integers here, there half a pixel from the image's corner."""
_MASK_OPACITY, _LINE, _JOINT, _FONT = 0.35, 2.0, 5.0, 13.0
_COARSE = 1.0
"""Pixels by which an outline may be off: it has a tenth of the corners then."""


def annotations_available() -> bool:
    """Whether foxglove_msgs can be imported."""
    return importlib.util.find_spec("foxglove_msgs") is not None


def image_annotations(
    stamp: Any, people: People, score_threshold: float, types: Any = None
) -> Any:
    """Masks as filled outlines, boxes, limbs, joints and labels; colours are `person_colors`.

    stamp: of the image. score_threshold: joints up to it, and limbs to them, are left out. types:
    the classes of the messages by their names; None: those of ROS's package foxglove_msgs.
    """
    if types is None:
        types = importlib.import_module("foxglove_msgs.msg")
    shapes = _Shapes(stamp, types)
    rows = zip(
        people.boxes.tolist(),
        person_colors(people.track_ids),
        people.track_ids.tolist(),
        people.scores.tolist(),
        people.masks,
        people.mask_rectangles.tolist(),
        strict=True,
    )
    for row, (box, color, track, score, mask, rectangle) in enumerate(rows):
        for outline in outlines(mask, rectangle):
            shapes.add(_LINE_LOOP, outline, color, 1.0, fill=_MASK_OPACITY)
        x1, y1, x2, y2 = box
        shapes.add(_LINE_LOOP, [(x1, y1), (x2, y1), (x2, y2), (x1, y2)], color, _LINE)
        points, found = people.keypoints[row], people.keypoint_scores[row] > score_threshold
        edges = [each for each in people.skeleton.edges if found[each[0]] and found[each[1]]]
        ends = points[[joint for edge in edges for joint in edge]] if edges else points[:0]
        shapes.add(_LINE_LIST, ends.tolist(), color, _LINE)
        shapes.add(_POINTS, points[found].tolist(), color, _JOINT)
        label = f"{score:.2f}" if track < 0 else f"{track}: {score:.2f}"
        shapes.label(label, (x1, y1), color)
    return types.ImageAnnotations(circles=[], points=shapes.points, texts=shapes.texts)


def outlines(mask: np.ndarray, rectangle: Sequence[int]) -> list[list[tuple[float, float]]]:
    """Outer outlines of a mask (H, W) bool, x y of its corners, a pixel coarse.

    rectangle: x, y, width, height around the mask.
    """
    x, y, width, height = rectangle
    if width == 0:
        return []
    inside = np.ascontiguousarray(mask[y : y + height, x : x + width]).view(np.uint8)
    found, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corners = [cv2.approxPolyDP(each, _COARSE, True)[:, 0] + (x, y) for each in found]
    return [[(float(u), float(v)) for u, v in each] for each in corners if len(each) >= 3]


class _Shapes:
    """Collects annotations of one image."""

    def __init__(self, stamp: Any, types: Any) -> None:
        self._stamp, self._types = stamp, types
        self.points: list[Any] = []
        self.texts: list[Any] = []

    def add(
        self, kind: int, at: Sequence[Sequence[float]], color: Color, thickness: float,
        *, fill: float = 0.0,
    ) -> None:  # fmt: skip
        if not at:
            return
        self.points.append(
            self._types.PointsAnnotation(
                timestamp=self._stamp, type=kind, points=[self._point(*each) for each in at],
                outline_color=self._color(color), outline_colors=[],
                fill_color=self._color(color, fill), thickness=thickness,
            )
        )  # fmt: skip

    def label(self, text: str, at: tuple[float, float], color: Color) -> None:
        self.texts.append(
            self._types.TextAnnotation(
                timestamp=self._stamp, position=self._point(*at), text=text, font_size=_FONT,
                text_color=self._color(letters_on(color)), background_color=self._color(color),
            )
        )  # fmt: skip

    def _point(self, x: float, y: float) -> Any:
        return self._types.Point2(x=x + _CENTRE, y=y + _CENTRE)

    def _color(self, color: Color, opacity: float = 1.0) -> Any:
        blue, green, red = color
        return self._types.Color(r=red / 255, g=green / 255, b=blue / 255, a=opacity)
