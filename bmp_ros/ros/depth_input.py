# SPDX-License-Identifier: Apache-2.0
"""``DepthInput``: the depth images of one camera, kept for a second and found by stamp.

They wait as they came, not deserialised: of all the depth images only the one that belongs to a
processed image is ever looked into. Images never wait for depth.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from builtin_interfaces.msg import Time as Stamp
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image

from bmp_ros.ros import qos
from bmp_ros.ros.compatibility import how_to_install
from bmp_ros.ros.settings import CameraSettings

CACHED = 40
"""Depth images that wait: more than a second at 30 Hz, so that slow networks find theirs."""


class NoDepthError(Exception):
    """Why there is no depth, and what to do about it."""


@dataclass(frozen=True)
class DepthMatch:
    """A depth image and how many seconds its stamp is from the one that was asked for."""

    message: Image
    apart_s: float


class DepthInput:
    """Listens to the depth images of one camera from `open` to `close`.

    `nearest` may be called from any thread, the rest on the executor's. topic: resolved.
    camera_info: the last calibration of the depth images, or None.
    Raises NoDepthError where message_filters is not installed.
    """

    def __init__(self, node: LifecycleNode, settings: CameraSettings) -> None:
        try:
            import message_filters
        except ImportError as error:
            raise NoDepthError(
                f"depth_topic is set, but message_filters cannot be imported ({error}): "
                f"{how_to_install('message_filters')}; people are published without depth"
            ) from error
        self._node = node
        self.topic = node.resolve_topic_name(settings.depth_topic)
        beside = f"{self.topic.rpartition('/')[0]}/camera_info"
        self._info_topic = settings.depth_camera_info_topic or beside
        self.camera_info: CameraInfo | None = None
        self._filter = message_filters.SimpleFilter()
        self._cache = message_filters.Cache(self._filter, CACHED)
        self._lock = threading.Lock()  # the cache itself has none
        self._subscription: Any = None
        self._info_subscription: Any = None
        self._reliability = ReliabilityPolicy.RELIABLE

    def open(self) -> None:
        self._subscribe(self._wanted_reliability())
        self._info_subscription = self._node.create_subscription(
            CameraInfo,
            self._info_topic,
            self._keep_info,
            qos.profile(ReliabilityPolicy.BEST_EFFORT),
        )

    def close(self) -> None:
        for subscription in (self._subscription, self._info_subscription):
            if subscription is not None:
                self._node.destroy_subscription(subscription)
        self._subscription = self._info_subscription = None

    def follow_publishers(self) -> None:
        """Subscribe anew when the publishers' reliability asks for it."""
        wanted = self._wanted_reliability()
        if wanted != self._reliability and self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscribe(wanted)

    def nearest(self, stamp: Stamp, max_age_s: float) -> DepthMatch:
        """The depth image whose stamp is nearest. Raises NoDepthError if none is near enough.

        max_age_s: seconds that the two may be apart, to either side.
        """
        wanted = Time.from_msg(stamp)
        with self._lock:
            around = (
                self._cache.getElemBeforeTime(wanted),
                self._cache.getElemAfterTime(wanted),
            )
        apart = {
            abs(Time.from_msg(each.header.stamp).nanoseconds - wanted.nanoseconds) / 1e9: each
            for each in around
            if each is not None
        }
        if not apart:
            count = self._node.count_publishers(self.topic)
            raise NoDepthError(
                f"no depth image has come on {self.topic}, which has {count} "
                f"publisher{'s' * (count != 1)}; set depth_topic"
            )
        least = min(apart)
        if least > max_age_s:
            raise NoDepthError(
                f"the nearest depth image on {self.topic} is {least * 1e3:.0f} ms away from the "
                f"image, depth_max_age allows {max_age_s * 1e3:.0f} ms; is the depth camera slow, "
                "or not on the same clock?"
            )
        return DepthMatch(deserialize_message(apart[least].serialised, Image), least)

    def clear(self) -> None:
        """Forget all depth images, when stamps go back."""
        with self._lock:
            self._cache.cache_msgs.clear()
            self._cache.cache_times.clear()

    def _wanted_reliability(self) -> ReliabilityPolicy:
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        offered = [info.qos_profile.reliability for info in publishers]
        return qos.reliability_for("auto", offered)

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        self._reliability = reliability
        self._subscription = self._node.create_subscription(
            Image, self.topic, self._keep, qos.profile(reliability), raw=True
        )

    def _keep(self, serialised: bytes) -> None:
        with self._lock:
            self._filter.signalMessage(
                SimpleNamespace(
                    header=SimpleNamespace(stamp=stamp_of(serialised)), serialised=serialised
                )
            )

    def _keep_info(self, info: CameraInfo) -> None:
        self.camera_info = info


def stamp_of(serialised: bytes) -> Stamp:
    """The stamp of a serialised message that begins with a header.

    CDR: 4 bytes that tell the byte order (the lowest bit of the second one set: little endian),
    then the header's seconds (int32) and nanoseconds (uint32).
    """
    order = "<" if serialised[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", serialised, 4)
    return Stamp(sec=seconds, nanosec=nanoseconds)
