# SPDX-License-Identifier: Apache-2.0
"""People made unrecognisable: which pixels are covered, and with what.

A detector misses people in single frames. So a frame is covered wherever somebody was found a
short time before it or will be a short time after it: frames wait for the ones that follow.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import cv2
import numpy as np

from bmp_ros.loop.people import People

KINDS = ("bodies", "faces")
MARGIN = 0.12
"""What a body is grown by on every side, as a part of the root of its box's area."""
WINDOW_S = 0.3
"""People found within that time before and after a frame are covered in it."""
LEAST_JOINT_SCORE = 0.2
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
# Names as in definitions, too: sensor_msgs/Image, sensor_msgs/msg/Image, sensor_msgs::msg::Image.
_SHOWS_PICTURES = re.compile(
    r"\b\w+(?:/|::)(?:msg(?:/|::))?(?:\w*(?:Image|Video|Packet)|PointCloud2?)\b"
)
_COMMENT = re.compile(r"#.*")

Item = TypeVar("Item")


def shows_pictures(kind: str, definition: str | None) -> bool:
    """Whether messages of a type may hold images, video or point clouds, anywhere within.

    By the names of the type and of all types in its definition: sensor_msgs' Image,
    CompressedImage, PointCloud and PointCloud2 (which may have colours), DisparityImage of
    stereo_msgs, packets of theora, FFmpeg and Foxglove. definition: as .msg or .idl, with those of
    the nested types. A type whose definition is not known (None) may hold anything.
    """
    if definition is None:
        return True
    names = f"{kind}\n{_COMMENT.sub('', definition)}"
    return _SHOWS_PICTURES.search(names) is not None


def cover(people: People, kind: str) -> np.ndarray:
    """The pixels that hide everyone, (H, W) bool. kind: one of `KINDS`."""
    height, width = people.image_size
    covered = np.zeros((height, width), np.uint8)
    for row in range(len(people)):
        if kind == "faces":
            _cover_face(covered, people, row)
        else:
            _cover_body(covered, people, row)
    return covered.astype(np.bool_)


def _cover_body(covered: np.ndarray, people: People, row: int) -> None:
    x1, y1, x2, y2 = people.boxes[row].astype(float)
    grow = max(3, round(MARGIN * float(np.sqrt(max((x2 - x1) * (y2 - y1), 1.0)))))
    mask = people.raw_masks[row]
    if mask.any():
        _cover_face(covered, people, row)  # a mask may end at the collar
        size = 2 * grow + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        covered |= cv2.dilate(mask.astype(np.uint8), kernel)
    else:
        top_left = round(x1) - grow, round(y1) - grow
        cv2.rectangle(covered, top_left, (round(x2) + grow, round(y2) + grow), 1, -1)


def _cover_face(covered: np.ndarray, people: People, row: int) -> None:
    """A disc around the head; without any joint of it, the upper third of the box or more."""
    x1, y1, x2, y2 = people.boxes[row].astype(float)
    names = people.skeleton.names
    joints = [names.index(name) for name in _FACE if name in names]
    seen = [joint for joint in joints if people.keypoint_scores[row, joint] > LEAST_JOINT_SCORE]
    # Whatever the joints say, a head is about an eighth of a standing person, and half as wide as
    # the shoulders, all that the box of a person whom the image's edge cuts off may hold.
    radius = max(0.11 * max(y2 - y1, x2 - x1), 0.3 * (x2 - x1))
    if seen:
        points = people.keypoints[row, seen].astype(float)
        centre = points.mean(axis=0)
        radius = max(radius, 1.6 * float(np.linalg.norm(points - centre, axis=1).max()))
        cv2.circle(covered, (round(centre[0]), round(centre[1])), max(4, round(radius)), 1, -1)
    else:
        bottom = round(y1 + max((y2 - y1) / 3, 2 * radius))
        cv2.rectangle(covered, (round(x1), round(y1 - radius / 2)), (round(x2), bottom), 1, -1)


def pixelated(image: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """A copy of a BGR image (H, W, 3) with large cells where it is covered, (H, W) bool.

    A cell is a 24th of the longer side: a face of less than a quarter of the image has some
    cells only.
    """
    height, width = image.shape[:2]
    cell = max(8, max(height, width) // 24)
    small = cv2.resize(
        image, (max(1, width // cell), max(1, height // cell)), interpolation=cv2.INTER_AREA
    )
    coarse = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    result: np.ndarray = np.where(covered[..., None], coarse, image)
    return result


class WaitingFrames(Generic[Item]):
    """Frames that wait until everyone found shortly after them is known. window_ns: how long."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._waiting: deque[tuple[int, Item]] = deque()
        self._covers: deque[tuple[int, np.ndarray]] = deque()

    def add(
        self, at_ns: int, item: Item, covered: np.ndarray
    ) -> Iterator[tuple[Item, np.ndarray]]:
        """Keep one more frame; give those that waited long enough, with what covers them.

        Times do not decrease. Covers of another size than a frame's (the camera's mode changed)
        do not count for it.
        """
        self._waiting.append((at_ns, item))
        self._covers.append((at_ns, covered))
        while self._waiting and self._waiting[0][0] < at_ns - self._window_ns:
            yield self._next()

    def rest(self) -> Iterator[tuple[Item, np.ndarray]]:
        """Give all frames that still wait."""
        while self._waiting:
            yield self._next()

    def _next(self) -> tuple[Item, np.ndarray]:
        at_ns, item = self._waiting.popleft()
        while self._covers[0][0] < at_ns - self._window_ns:
            self._covers.popleft()
        own = next(covered for time_ns, covered in self._covers if time_ns >= at_ns)
        total = own.copy()
        for time_ns, covered in self._covers:
            if abs(time_ns - at_ns) <= self._window_ns and covered.shape == total.shape:
                total |= covered
        return item, total
