# SPDX-License-Identifier: Apache-2.0
"""``Finder``: images are read, and the loop is asked who is in them; nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from bmp_ros.image_files import read_image, shown_name
from bmp_ros.loop import BMPLoop, People
from bmp_ros.loop.protocols import Detections
from bmp_ros.loop.trace import Trace
from bmp_ros.offline.ahead import ahead
from bmp_ros.offline.box_file import BoxFile
from bmp_ros.offline.sources import ImageSource, Source, VideoSource
from bmp_ros.offline.video import VideoFrames
from bmp_ros.tracking import Keyframes, PersonTracker

_NOTHING = np.zeros((0, 0, 3), np.uint8)


class NetworksFailedError(RuntimeError):
    """The networks fail on an image, such as one that is too large for their memory."""


@dataclass(frozen=True)
class Item:
    """An image on its way. number: of a video's frame, or among the images. known: boxes of
    another program; without_boxes: it says nothing of this image. problem: why it was not read."""

    source: Source
    image: np.ndarray
    seconds: float
    number: int
    known: Detections | None = None
    without_boxes: bool = False
    problem: Exception | None = None


@dataclass(frozen=True)
class Found:
    """What the loop found in an image."""

    people: People
    times_ms: Mapping[str, float]
    trace: Trace | None


@dataclass
class Finder:
    """Asks ``loop`` for the people of images and frames, with ids where there is a tracker.

    stages: keep what every stage saw and said (`Found.trace`). The others as `infer` has them.
    without_boxes: images of which ``boxes`` say nothing, as far as they were asked for.
    """

    loop: BMPLoop
    stages: bool = False
    tracker: PersonTracker | None = None
    rate: float | None = None
    keyframes: Keyframes | None = None
    boxes: BoxFile | None = None
    boxes_missing: str = "detector"
    at_once: int = 1
    without_boxes: list[str] = field(default_factory=list)
    images_read: int = 0

    def images(self, sources: Iterable[Source]) -> Iterator[Item]:
        """Read images, one after the other; one that cannot be read comes with its problem."""
        for source in sources:
            assert isinstance(source, ImageSource)
            number = self.images_read  # a file that cannot be read has its time all the same
            self.images_read += 1
            seconds = number / (self.rate or 1.0)
            try:
                image = read_image(source.path)
                yield self._item(source, image, seconds, number)
            except Exception as error:
                yield Item(source, _NOTHING, seconds, number, problem=error)

    def frames(self, source: VideoSource, video: VideoFrames) -> Iterator[Item]:
        """The frames of a video that is open."""
        for image in video:
            yield self._item(source, image, video.seconds, video.read - 1)

    def _item(self, source: Source, image: np.ndarray, seconds: float, number: int) -> Item:
        """An image with the boxes that are known of it; without them, the detector is to look."""
        if self.boxes is None or not isinstance(source.path, Path):
            return Item(source, image, seconds, number)
        height, width = image.shape[:2]
        frame = number if isinstance(source, VideoSource) else None
        known = self.boxes.of(source.path, height, width, frame)
        missing = known is None
        if known is None and self.boxes_missing == "skip":
            known = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        return Item(source, image, seconds, number, known, missing)

    def found(
        self, items: Iterator[Item], left: Callable[[], int | None]
    ) -> Generator[tuple[Item, Callable[[], Found]], None, None]:
        """Items and what the loop finds in them, no more than ``left()``, where that is a number.

        What it returns may raise what reading raised, or NetworksFailedError.
        """
        more, most = True, left()
        while more and (most is None or most > 0):
            more = False
            with closing(ahead(islice(items, most), self._find, self.at_once)) as answers:
                for item, answer in answers:
                    more = True
                    if item.without_boxes:
                        self.without_boxes.append(_image_name(item))
                    yield item, answer
            most = left()  # in portions, since an image that fails does not count

    def _find(self, item: Item) -> Found:
        """The people of an image, without ids; several threads do this at a time.

        Raises NetworksFailedError.
        """
        tracker, keyframes = self.tracker, self.keyframes
        if item.problem is not None:
            raise item.problem
        try:
            if self.stages:
                trace = self.loop.trace(item.image, item.known)
                return Found(trace.people, trace.report.stage_ms, trace)
            if tracker is None or keyframes is None or self.boxes is not None:
                # Several images are looked at at a time, before it is known who was in the last
                # one: nobody is expected to be hidden.
                nobody = None if tracker is None else np.zeros((0, 4))
                people, report = self.loop.run(item.image, item.known, tracked=nobody)
            else:
                people, report = keyframes.find(self.loop, tracker, item.image, item.seconds)
        except AssertionError:  # a fault of this program, not of the image
            raise
        except Exception as error:  # what networks raise depends on what runs them
            first, _, _ = str(error).strip().partition("\n")
            raise NetworksFailedError(f"{type(error).__name__}: {first[:300]}") from error
        return Found(people, report.stage_ms, None)

    def tracked(self, item: Item, found: Found) -> People:
        """The people with ids, where those are wanted: one image after the other."""
        if self.tracker is None:
            return found.people
        people = self.tracker.update(found.people, item.seconds, image=item.image)
        if self.keyframes is not None:
            self.keyframes.remember(people, item.image, item.seconds)
        return people

    @contextmanager
    def tracked_apart(self) -> Iterator[None]:
        """Know nobody at first, and in the end those whom the images before a video showed."""
        tracker, keyframes = self.tracker, self.keyframes
        if tracker is None:
            yield
            return
        before = tracker.save()
        tracker.reset()
        if keyframes is not None:
            keyframes.reset()
        try:
            yield
        finally:
            tracker.restore(before)
            if keyframes is not None:
                keyframes.reset()

    def notes(self, left_out: bool) -> list[str]:
        """Notes on images without boxes, and, where ``left_out``, on boxes without images."""
        if self.boxes is None:
            return []
        name, missing, notes = shown_name(self.boxes.path), self.without_boxes, []
        if missing:
            what = "nobody was looked for" if self.boxes_missing == "skip" else "the detector ran"
            notes.append(
                f"{name} has no boxes of {len(missing)} images (first {missing[0]}): {what} there"
            )
        left = self.boxes.not_asked_for() if left_out else []
        if left:
            notes.append(
                f"{name} has boxes of {len(left)} images that are not among the sources (first "
                f"{left[0]}): left out"
            )
        if self.boxes.other_classes:
            notes.append(
                f"{name} has {self.boxes.other_classes} entries of other classes than person: "
                "left out"
            )
        return notes


def _image_name(item: Item) -> str:
    name, video = item.source.name, isinstance(item.source, VideoSource)
    return f"{name}, frame {item.number}" if video else name
