# SPDX-License-Identifier: Apache-2.0
"""``BoxPairing``: images and boxes of two topics, brought together by their stamps. No ROS.

Another node finds the boxes in the same image, so they come after it, or before it where images
take longer. An image waits for a short time; boxes wait until newer ones push them out.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, TypeVar

from bmp_ros.stamp_buffer import StampBuffer

MOST_IMAGES = 16
"""Images that wait: a second at 15 Hz, 100 MB of 1080p."""
MOST_BOXES = 64

ImageType = TypeVar("ImageType")
BoxType = TypeVar("BoxType")


class Pair(NamedTuple, Generic[ImageType, BoxType]):
    """An image to go on with. boxes: None where none came in time. passed_over: images before it
    that need not be looked at any more."""

    image: ImageType
    boxes: BoxType | None
    passed_over: int = 0


class BoxPairing(Generic[ImageType, BoxType]):
    """slop_s: seconds that the stamps of an image and its boxes may be apart; 0: none. wait_s:
    how long an image waits. Times are seconds of a steady clock. most_box_bytes: of all boxes that
    wait, see `StampBuffer`. Not for several threads at once.
    """

    def __init__(self, slop_s: float, wait_s: float, most_box_bytes: int | None = None) -> None:
        self._slop_ns = int(slop_s * 1e9)
        self._wait_s = wait_s
        self._images: StampBuffer[ImageType] = StampBuffer(4 * MOST_IMAGES)
        self._boxes: StampBuffer[BoxType] = StampBuffer(MOST_BOXES, most_bytes=most_box_bytes)
        self._deadlines: deque[tuple[float, int]] = deque()  # with the stamp

    def add_image(self, stamp_ns: int, image: ImageType, now_s: float) -> Pair | None:
        """Keep an image until its boxes come; with them if they are there already."""
        found = self._boxes.nearest(stamp_ns, self._slop_ns)
        if found is None:
            self._images.put(stamp_ns, image)
            self._deadlines.append((now_s + self._wait_s, stamp_ns))
            return None
        return Pair(image, found[1], self._images.drop_older(stamp_ns))

    def add_boxes(self, stamp_ns: int, boxes: BoxType) -> Pair | None:
        """The image that boxes belong to, if it waits; the boxes are kept in any case."""
        self._boxes.put(stamp_ns, boxes)
        found = self._images.nearest(stamp_ns, self._slop_ns)
        if found is None:
            return None
        return Pair(found[1], boxes, self._images.drop_older(found[0]) - 1)

    def overdue(self, now_s: float) -> Pair | None:
        """The newest of the images that have waited long enough, without boxes.

        Where more than `MOST_IMAGES` wait, the oldest have waited long enough.
        """
        latest: tuple[int, ImageType] | None = None
        passed_over = -1
        while self._deadlines and (
            self._deadlines[0][0] <= now_s or len(self._images) > MOST_IMAGES
        ):
            _, stamp_ns = self._deadlines.popleft()
            waiting = self._images.nearest(stamp_ns, 0)
            if waiting is not None:
                latest = waiting
                passed_over += self._images.drop_stamp(stamp_ns)
        return None if latest is None else Pair(latest[1], None, passed_over)

    def forget_images(self) -> int:
        """Drop the images that wait; return how many did."""
        waiting = len(self._images)
        self._images.clear()
        self._deadlines.clear()
        return waiting

    def forget_boxes(self) -> None:
        """Drop the boxes that wait."""
        self._boxes.clear()

    def drop_newer_boxes(self, stamp_ns: int) -> None:
        """Forget boxes with newer stamps, after stamps have jumped back."""
        self._boxes.drop_newer(stamp_ns + self._slop_ns)
