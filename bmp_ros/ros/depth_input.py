# SPDX-License-Identifier: Apache-2.0
"""``DepthInput``: the depth images of one camera, kept for a second and found by stamp.

They wait as they came, not deserialised: of all the depth images only the one that belongs to a
processed image is ever looked into. Images never wait for depth.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace

from builtin_interfaces.msg import Time as Stamp
from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image

from bmp_ros.ros.compatibility import how_to_install
from bmp_ros.ros.image_messages import ReceivedImage, read_image, stamp_of
from bmp_ros.ros.image_subscription import ImageSubscription, resolved
from bmp_ros.ros.settings import CameraSettings

CACHED = 40
"""Depth images that wait: more than a second at 30 Hz, so that slow networks find theirs."""


class NoDepthError(Exception):
    """Why there is no depth, and what to do about it."""


class DepthInput:
    """Listens to the depth images of one camera from `open` to `close`.

    `nearest` may be called from any thread, the rest on the executor's. topic: resolved.
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
        self.topic = resolved(node, settings.depth_topic)
        self._filter = message_filters.SimpleFilter()
        self._cache = message_filters.Cache(self._filter, CACHED)
        self._lock = threading.Lock()  # the cache itself has none
        self._subscription = ImageSubscription(
            node,
            Image,
            self.topic,
            on_message=self._keep,
            info_topic=settings.depth_camera_info_topic,
        )

    @property
    def camera_info(self) -> CameraInfo | None:
        """The last calibration of the depth images that came."""
        return self._subscription.camera_info

    def open(self) -> None:
        self._subscription.open()

    def close(self) -> None:
        self._subscription.close()

    def follow_publishers(self) -> None:
        """Subscribe anew when the publishers' reliability asks for it."""
        self._subscription.follow_publishers()

    def nearest(self, stamp: Stamp, max_age_s: float) -> ReceivedImage | Image:
        """The depth image whose stamp is nearest. Raises NoDepthError if none is near enough.

        max_age_s: seconds that the two may be apart, to either side. Raises ImageError for a
        message that is no whole image.
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
        return read_image(apart[least].serialised)

    def clear(self) -> None:
        """Forget all depth images, when stamps go back."""
        with self._lock:
            self._cache.cache_msgs.clear()
            self._cache.cache_times.clear()

    def _keep(self, serialised: bytes) -> None:
        with self._lock:
            self._filter.signalMessage(
                SimpleNamespace(
                    header=SimpleNamespace(stamp=stamp_of(serialised)), serialised=serialised
                )
            )
