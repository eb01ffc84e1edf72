# SPDX-License-Identifier: Apache-2.0
"""``DepthInput``: the depth images of one camera, kept for a second and found by stamp.

They wait as they came, not deserialised: of all the depth images only the one that belongs to a
processed image is ever looked into. Images never wait for depth.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import ReliabilityPolicy
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image

from bmp_ros.depth.calibration import DEPTH_SUFFIX, info_beside, is_rectified
from bmp_ros.ros.calibration import CalibrationInput
from bmp_ros.ros.image_messages import (
    ReceivedImage,
    read_image,
    read_message,
    stamp_ns,
    stamp_of,
)
from bmp_ros.ros.image_subscription import (
    ImageSubscription,
    resolved,
)
from bmp_ros.ros.settings import CameraSettings
from bmp_ros.ros.topic_advice import profile_advice, published_topics
from bmp_ros.stamp_buffer import StampBuffer

MAX_CACHED_BYTES = 1 << 29
"""Of all that wait: 512 MiB, more than 40 of 1920x1080 in 32FC1."""
CACHED = 40
"""Depth images that wait: more than a second at 30 Hz, so that slow networks find theirs."""
FROZEN = 3
"""Depth images in a row with one stamp, from which on none can be assigned to an image."""
FOREIGN_NS = 3600 * 10**9
"""Stamps that are further apart were not given by the same clock."""
_COMPRESSED = "sensor_msgs/msg/CompressedImage"


class NoDepthError(Exception):
    """Why there is no depth, and what to do about it. kind: one word for reasons of a kind."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class DepthInput:
    """Listens to the depth images of one camera from `open` to `close`.

    `nearest` may be called from any thread, the rest on the executor's. topic: resolved.
    calibration: of the depth images. Raises ValueError for invalid names of topics.
    """

    def __init__(self, node: LifecycleNode, settings: CameraSettings) -> None:
        self._node = node
        self.topic = resolved(node, settings.depth_topic)
        self.calibration = CalibrationInput(
            node,
            settings.depth_camera_info_topic or info_beside(self.topic),
            rectified=is_rectified(settings.depth_rectified, self.topic),
            parameter="depth_camera_info_topic",
        )
        self._lock = threading.Lock()  # around all below but the subscription
        self._images: StampBuffer[bytes] = StampBuffer(CACHED, most_bytes=MAX_CACHED_BYTES)
        self._kind: type = CompressedImage if self.topic.endswith(DEPTH_SUFFIX) else Image
        self._last_stamp: int | None = None
        self._in_a_row = 0
        self._arrivals: deque[float] = deque(maxlen=CACHED)
        self._subscription = ImageSubscription(node, self._kind, self.topic, on_message=self._keep)

    def open(self) -> None:
        self._subscription.open()
        self.calibration.open()

    def close(self) -> None:
        self._subscription.close()
        self.calibration.close()

    def follow_publishers(self) -> None:
        """Subscribe anew when the publishers' reliability, or the type they send, asks for it."""
        self.calibration.follow_publishers()
        types = self._published_types()
        kind = {Image: CompressedImage, CompressedImage: Image}[self._kind]
        if types == {f"sensor_msgs/msg/{kind.__name__}"}:
            self._subscription.change_kind(kind)
            with self._lock:
                self._kind = kind
                self._images.clear()
                self._last_stamp, self._in_a_row = None, 0
        self._subscription.follow_publishers()

    def nearest(self, wanted_ns: int, max_age_s: float) -> ReceivedImage | Image | CompressedImage:
        """The depth image whose stamp is nearest, the newest arrival of equally near ones.

        wanted_ns: stamp of the image. max_age_s: seconds that the two may be apart, to either
        side. Raises NoDepthError if none is near enough, or its stamps say nothing, and ImageError
        for a message that is no whole image.
        """
        with self._lock:
            kind, last, in_a_row = self._kind, self._last_stamp, self._in_a_row
            found = self._images.nearest(wanted_ns)
        if last is None:
            raise NoDepthError(self._missing(), "missing")
        near = found is not None and abs(found[0] - wanted_ns) <= max_age_s * 1e9
        if last == 0 and not near:
            raise NoDepthError(
                f"the depth images on {self.topic} are stamped 0 and cannot be "
                "assigned to images; their driver has to stamp them",
                "stamped 0",
            )
        if in_a_row >= FROZEN and last != 0:
            raise NoDepthError(
                f"the last {in_a_row} depth images on {self.topic} have the same stamp, "
                f"{last / 1e9:.9f}, and cannot be assigned to images; their driver has to stamp "
                "each",
                "same stamps",
            )
        if found is None or not near:
            raise NoDepthError(self._too_far(wanted_ns, found, max_age_s), "too far")
        if kind is Image:
            return read_image(found[1])
        message: CompressedImage = read_message(found[1], kind)
        return message

    def drop_newer(self, stamp_ns: int) -> None:
        """Forget depth images with newer stamps than this one, after stamps have jumped back."""
        with self._lock:
            self._images.drop_newer(stamp_ns)

    def clear(self) -> None:
        """Forget all depth images."""
        with self._lock:
            self._images.clear()

    def _keep(self, serialised: bytes) -> None:
        stamp = stamp_ns(stamp_of(serialised))
        with self._lock:
            self._arrivals.append(time.monotonic())
            if stamp == self._last_stamp:
                self._in_a_row += 1
            else:
                if self._last_stamp is not None and self._in_a_row >= FROZEN:
                    # The clock that stood goes on: none of these has a time of its own.
                    self._images.drop_stamp(self._last_stamp)
                self._in_a_row = 1
            self._last_stamp = stamp
            if stamp != 0:
                self._images.put(stamp, serialised)

    def _published_types(self) -> set[str]:
        return {p.topic_type for p in self._node.get_publishers_info_by_topic(self.topic)}

    def _missing(self) -> str:
        """Why no depth image has come: what there is on this topic, and what elsewhere."""
        text = f"no depth image has come on {self.topic}"
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        types = {p.topic_type for p in publishers}
        known = {f"sensor_msgs/msg/{kind}" for kind in ("Image", "CompressedImage")}
        if types - known:
            return (
                f"{text}, which is of type {', '.join(sorted(types - known))}; depth images are "
                "sensor_msgs/msg/Image; set depth_topic"
            )
        if publishers:
            return f"{text}, which has {_count(len(publishers))}{self._transport_advice()}"
        compressed = self.topic + DEPTH_SUFFIX
        if self._node.get_publishers_info_by_topic(compressed):
            return (
                f"{text}, which has no publisher, but {compressed} has: set depth_topic to it, "
                "or let the driver publish raw images"
            )
        there = published_topics(self._node, "Image", "depth_topic")
        return f"{text}, which has no publisher. {there}"

    def _too_far(self, wanted_ns: int, found: tuple[int, bytes] | None, max_age_s: float) -> str:
        if found is None:
            return f"no depth image is kept of {self.topic} since the stamps jumped back"
        apart_ns = abs(found[0] - wanted_ns)
        text = f"the nearest depth image on {self.topic} is "
        if wanted_ns == 0:
            return f"the image is stamped 0, the depth images on {self.topic} are not"
        if apart_ns > FOREIGN_NS:
            return (
                f"{text}{apart_ns / 1e9:.0f} s away from the image: the two are stamped by "
                "different clocks"
            )
        with self._lock:
            recent = [at for at in self._arrivals if at > time.monotonic() - 2.0]
        return (
            f"{text}{apart_ns / 1e6:.0f} ms {'after' if found[0] > wanted_ns else 'before'} the "
            f"image, depth_max_age allows {max_age_s * 1e3:.0f} ms; {len(recent)} depth images "
            f"have come in the last 2 s{self._transport_advice()}"
        )

    def _transport_advice(self) -> str:
        """What to say about large images that get lost, where that can be the cause."""
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        best_effort = any(
            p.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for p in publishers
        )
        if not best_effort or "fastrtps" not in get_rmw_implementation_identifier():
            return ""
        return (
            ". Its publisher offers best effort: where it sends more than arrive, Fast DDS loses "
            f"large images: {profile_advice()}"
        )


def _count(number: int) -> str:
    return f"{number} publisher{'s' * (number != 1)}"
