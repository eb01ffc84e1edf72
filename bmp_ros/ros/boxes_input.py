# SPDX-License-Identifier: Apache-2.0
"""``BoxesInput``: people's boxes of another node, in the place of the detector.

Messages are ``bmp_msgs/PersonArray`` or ``vision_msgs/Detection2DArray``, told apart by what is
published. They stay serialised until the image that they belong to is processed.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.serialization import deserialize_message

from bmp_ros.loop.masks import paste_runs
from bmp_ros.loop.protocols import Detections
from bmp_ros.received_people import MAX_PEOPLE, check_size
from bmp_ros.ros.box_pairing import BoxPairing, Pair
from bmp_ros.ros.compatibility import how_to_install, steady_clock
from bmp_ros.ros.image_messages import stamp_ns, stamp_of
from bmp_ros.ros.image_subscription import ImageSubscription, resolved
from bmp_ros.ros.interfaces import PersonArray
from bmp_ros.ros.person_messages import detections_available
from bmp_ros.ros.settings import CameraSettings

MAX_BYTES = 1 << 24
"""Of a message of boxes: one about 1000 people with masks has about 4 MB. Reading a message takes
up to a hundred times its size."""
MAX_WAITING_BYTES = 1 << 28
"""Of all messages of boxes that wait: 256 MiB, which are 64 of 4 MB."""
_LARGEST_SHARE, _LEAST_SIDE = 1.5, 8
"""Corners of boxes in shares of the image; in an image with a side of so many pixels."""
_LEAST_SEEN = 0.1  # share of a box that has to be in the image
_LARGEST_SCORE = 1.001  # of 1 in less than single precision
_LOOK_S = 0.02  # how often images that have waited long enough are looked for
_DETECTIONS = "vision_msgs/msg/Detection2DArray"


class BoxesError(Exception):
    """Why boxes cannot be used. kind: one word for reasons of a kind."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class ReceivedBoxes(NamedTuple):
    """A serialised message of boxes and its type; ``serialised`` None: none came in time."""

    serialised: bytes | None
    kind: type
    topic: str


class BoxesInput:
    """Pairs the images of one camera with boxes, from `open` to `close`.

    on_pair(image, boxes, passed_over): called on the executor's thread for every image that is to
    be processed: as it was given to `image`, with its boxes or with none (`ReceivedBoxes`).
    skip: whether images without boxes are left out instead. on_skipped(count): of these.
    has_people: whether any box of this type has been a person's; the worker assigns it.
    Raises ValueError for an invalid name of the topic.
    """

    def __init__(
        self,
        node: LifecycleNode,
        settings: CameraSettings,
        on_pair: Callable[[Any, ReceivedBoxes, int], None],
        on_skipped: Callable[[int], None],
    ) -> None:
        self._node = node
        self.topic = resolved(node, settings.boxes_topic)
        self.skip = settings.boxes_missing == "skip"
        self.box_class = settings.boxes_class
        self.wait_s = settings.boxes_wait
        self.has_people = False
        self._on_pair, self._on_skipped = on_pair, on_skipped
        self._lock = threading.Lock()  # around the pairing: time jumps are seen by the worker
        self._pairing: BoxPairing[Any, bytes] = BoxPairing(
            settings.boxes_slop, settings.boxes_wait, MAX_WAITING_BYTES
        )
        self._kind: type = PersonArray
        self._subscription = ImageSubscription(node, self._kind, self.topic, on_message=self._keep)
        self._timer: Any = None

    def open(self) -> None:
        self._subscription.open()
        self._timer = self._node.create_timer(_LOOK_S, self._look, clock=steady_clock())

    def close(self) -> None:
        self._subscription.close()
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def follow_publishers(self) -> None:
        """Subscribe anew when the publishers' reliability, or the type they send, asks for it."""
        types = {p.topic_type for p in self._node.get_publishers_info_by_topic(self.topic)}
        if types == {_DETECTIONS} and self._kind is PersonArray and not detections_available():
            self._node.get_logger().warning(
                f"{self.topic} has the type {_DETECTIONS}, which cannot be imported here: "
                f"{how_to_install('vision_msgs')}",
                once=True,
            )
        elif types == {_DETECTIONS} and self._kind is PersonArray:
            from vision_msgs.msg import Detection2DArray

            self._take(Detection2DArray)
        elif types == {"bmp_msgs/msg/PersonArray"} and self._kind is not PersonArray:
            self._take(PersonArray)
        self._subscription.follow_publishers()

    def image(self, serialised: bytes, image: Any) -> None:
        """Take an image that came; it is handed on with its boxes, or when it has waited."""
        stamp = stamp_ns(stamp_of(serialised))
        if stamp == 0:  # it belongs to no boxes
            self._hand_on(Pair(image, None))
            return
        with self._lock:
            pair = self._pairing.add_image(stamp, image, time.monotonic())
        self._hand_on(pair)

    def missing_text(self) -> str:
        """Why an image has no boxes, in words."""
        text = f"no boxes for an image on {self.topic} within {self.wait_s:g} s (boxes_wait)"
        if not self._node.count_publishers(self.topic):
            return f"{text}: it has no publisher; set boxes_topic"
        return f"{text}: boxes need the stamp of their image, or one within boxes_slop of it"

    def forget_images(self) -> int:
        """Drop the images that wait; return how many did."""
        with self._lock:
            return self._pairing.forget_images()

    def drop_newer(self, stamp_ns: int) -> None:
        """Forget boxes with newer stamps than this one, after stamps have jumped back."""
        with self._lock:
            self._pairing.drop_newer_boxes(stamp_ns)

    def _take(self, kind: type) -> None:
        """Go on with another type of messages, at the next look at the publishers."""
        self._subscription.change_kind(kind)
        self._kind, self.has_people = kind, False
        with self._lock:
            self._pairing.forget_boxes()  # they are of the other type

    def _keep(self, serialised: bytes) -> None:
        with self._lock:
            pair = self._pairing.add_boxes(stamp_ns(stamp_of(serialised)), serialised)
        self._hand_on(pair)

    def _look(self) -> None:
        with self._lock:
            pair = self._pairing.overdue(time.monotonic())
        self._hand_on(pair)

    def _hand_on(self, pair: Pair | None) -> None:
        if pair is None:
            return
        if pair.boxes is None and self.skip:
            self._on_skipped(pair.passed_over + 1)
            return
        boxes = ReceivedBoxes(pair.boxes, self._kind, self.topic)
        self._on_pair(pair.image, boxes, pair.passed_over)


def detections_of(
    boxes: ReceivedBoxes, height: int, width: int, box_class: str
) -> Detections | None:
    """The people of a message for an image of this size; None where no message came.

    Raises BoxesError for a message that cannot be read, whose boxes are not pixels of this image
    or whose scores are none.
    """
    message = _message(boxes)
    if message is None:
        return None
    if boxes.kind is PersonArray:
        found = _of_people(message, height, width, boxes.topic)
    else:
        found = _of_detections(message, box_class)
    _check_pixels(found.boxes, height, width, boxes.topic)
    _check_scores(found.scores, boxes.topic)
    return found


def why_nobody(boxes: ReceivedBoxes, box_class: str) -> str:
    """Say what boxes of a message of which none is a person's are of; empty for no boxes."""
    message = _message(boxes)
    if message is None or boxes.kind is PersonArray or not message.detections:
        return ""
    found = {best.class_id for each in message.detections if (best := _best(each)) is not None}
    classes = ", ".join(sorted(map(repr, found))) or "none"
    return (
        f"not one box on {boxes.topic} has had the class_id {box_class!r} (boxes_class) so far; "
        f"now there are {len(message.detections)}, of {classes}: set boxes_class to the name, or "
        "number, that this detector gives to people"
    )


def _message(boxes: ReceivedBoxes) -> Any:
    """The message, None where none came. Raises BoxesError for one that cannot be read."""
    if boxes.serialised is None:
        return None
    if len(boxes.serialised) > MAX_BYTES:
        raise BoxesError(
            f"a message of {len(boxes.serialised)} bytes on {boxes.topic}, at most {MAX_BYTES} "
            "are read: send fewer boxes, or boxes without masks",
            "too large",
        )
    try:
        message = deserialize_message(boxes.serialised, boxes.kind)
    except Exception as error:  # rclpy has no class of its own for what it cannot read
        raise BoxesError(
            f"{len(boxes.serialised)} bytes on {boxes.topic} are no {boxes.kind.__name__}: "
            f"{error}",
            "unreadable",
        ) from error
    count = len(message.people if boxes.kind is PersonArray else message.detections)
    if count > MAX_PEOPLE:
        raise BoxesError(
            f"{count} boxes on {boxes.topic}, at most {MAX_PEOPLE} are read: send those with the "
            "highest scores",
            "too many",
        )
    return message


def _check_pixels(boxes: np.ndarray, height: int, width: int, topic: str) -> None:
    """Raise BoxesError for boxes (N, 4) xyxy that are no pixels of an image of this size.

    A detector's boxes may reach far beyond the image, where it guesses what is cut off.
    """
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    if not len(boxes):
        return
    if np.abs(boxes).max() <= _LARGEST_SHARE and max(height, width) >= _LEAST_SIDE:
        raise BoxesError(
            f"the boxes on {topic}, such as {_corners(boxes[0])}, are shares of the image's "
            "width and height: boxes are in pixels",
            "shares",
        )
    inside = np.clip(boxes, 0, [width, height, width, height])
    seen, whole = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (inside, boxes))
    outside = seen < _LEAST_SEEN * whole
    if outside.mean() > 0.5:
        raise BoxesError(
            f"{int(outside.sum())} of {len(boxes)} boxes on {topic}, such as "
            f"{_corners(boxes[outside][0])}, lie outside of the image of {width}x{height} pixels: "
            "they belong to another camera or are scaled",
            "outside",
        )


def _check_scores(scores: np.ndarray, topic: str) -> None:
    """Raise BoxesError for scores (N,) that all are 0 or NaN, or of which one is not 0 to 1."""
    count, scores = len(scores), scores[np.isfinite(scores)]
    if count and not scores.any():
        raise BoxesError(
            f"not one of {count} boxes on {topic} has a score: their node has to say how sure it "
            "is, from 0 to 1",
            "no scores",
        )
    wrong = scores[(scores < 0) | (scores > _LARGEST_SCORE)]
    if len(wrong):
        raise BoxesError(
            f"a box on {topic} has the score {wrong[0]:g}: scores are from 0 to 1", "scores"
        )


def _corners(box: np.ndarray) -> str:
    return "({:g}, {:g}) to ({:g}, {:g})".format(*np.round(box, 3).tolist())


def _of_people(message: PersonArray, height: int, width: int, topic: str) -> Detections:
    size = (message.height, message.width)
    if size not in ((0, 0), (height, width)):
        raise BoxesError(
            f"the boxes on {topic} are of an image of {message.width}x{message.height} pixels, "
            f"the image has {width}x{height}: they belong to another camera or are scaled",
            "foreign",
        )
    corners = [
        (box.x, box.y, box.x + box.width, box.y + box.height)
        for box in (person.bbox for person in message.people)
    ]
    scores = [person.score for person in message.people]
    boxes = np.array(corners, np.float32).reshape(-1, 4)
    found = [person.mask for person in message.people]
    if size == (0, 0) or not all(len(mask.counts) for mask in found):
        return Detections(boxes, np.array(scores, np.float32))
    try:
        check_size(len(found), height, width)
        masks = np.zeros((len(found), height, width), np.bool_)
        for target, mask in zip(masks, found, strict=True):
            rectangle = (mask.x_offset, mask.y_offset, mask.width, mask.height)
            paste_runs(target, mask.counts, rectangle)
    except ValueError as error:
        raise BoxesError(f"a mask on {topic} is damaged: {error}", "damaged") from error
    return Detections(boxes, np.array(scores, np.float32), lambda rows: masks[rows])


def _of_detections(message: Any, box_class: str) -> Detections:
    """Boxes whose best hypothesis is of the class; an empty class takes all."""
    corners, scores = [], []
    for detection in message.detections:
        best = _best(detection)
        if box_class and (best is None or best.class_id.lower() != box_class.lower()):
            continue
        centre, box = detection.bbox.center.position, detection.bbox
        # Of a box that is turned, what is around it.
        turn = box.center.theta if math.isfinite(box.center.theta) else math.nan
        across, along = abs(math.cos(turn)), abs(math.sin(turn))
        half = (
            (across * box.size_x + along * box.size_y) / 2,
            (along * box.size_x + across * box.size_y) / 2,
        )
        corners.append(
            (centre.x - half[0], centre.y - half[1], centre.x + half[0], centre.y + half[1])
        )
        scores.append(1.0 if best is None else best.score)
    return Detections(np.array(corners, np.float32).reshape(-1, 4), np.array(scores, np.float32))


def _best(detection: Any) -> Any:
    """The hypothesis with the highest score; None where there is none."""
    hypotheses = [result.hypothesis for result in detection.results]
    return max(hypotheses, key=lambda each: each.score, default=None)
