# SPDX-License-Identifier: Apache-2.0
"""``CameraInput``: the subscriptions of one camera, matched to who publishes there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from bmp_ros.ros import qos
from bmp_ros.ros.settings import CameraSettings

_SUFFIX = "/compressed"
_REMIND_S = 30.0


class CameraInput:
    """Listens to one camera from `open` to `close`; all on the executor's thread.

    on_message(serialised): called for each image; nothing is decoded before somebody wants it.
    message_type: Image or CompressedImage. topic: resolved, remappings included.
    camera_info: the last calibration that came, or None.
    """

    def __init__(
        self, node: LifecycleNode, settings: CameraSettings, on_message: Callable[[bytes], None]
    ) -> None:
        self._node = node
        self._settings = settings
        self._on_message = on_message
        compressed = settings.image_transport == "compressed"
        self.message_type: type = CompressedImage if compressed else Image
        # As image_transport does it: the suffix comes after the remapping of the base topic.
        base = node.resolve_topic_name(settings.image_topic.removesuffix(_SUFFIX))
        exact = node.resolve_topic_name(settings.image_topic)
        self.topic = base + _SUFFIX if compressed else exact
        self._info_topic = settings.camera_info_topic or f"{base.rpartition('/')[0]}/camera_info"
        self.camera_info: CameraInfo | None = None
        self._image_subscription: Any = None
        self._info_subscription: Any = None
        self._reliability = ReliabilityPolicy.RELIABLE
        self._last = self._reminded = time.monotonic()

    @property
    def source(self) -> str:
        """What is listened to, in words."""
        reliability = self._reliability.name.lower().replace("_", " ")
        return f"{self.topic} ({self.message_type.__name__}, {reliability})"

    @property
    def silent_s(self) -> float:
        """Seconds since the last image, or since `open`."""
        return time.monotonic() - self._last

    def open(self) -> None:
        self._last = self._reminded = time.monotonic()
        self._subscribe(self._wanted_reliability())
        self._info_subscription = self._node.create_subscription(
            CameraInfo,
            self._info_topic,
            self._keep_info,
            qos.profile(ReliabilityPolicy.BEST_EFFORT),
        )

    def close(self) -> None:
        for subscription in (self._image_subscription, self._info_subscription):
            if subscription is not None:
                self._node.destroy_subscription(subscription)
        self._image_subscription = self._info_subscription = None

    def follow_publishers(self) -> None:
        """Subscribe anew when the publishers' reliability asks for it."""
        wanted = self._wanted_reliability()
        if wanted != self._reliability:
            self._node.get_logger().info(
                f"{self.topic}: subscribing {wanted.name.lower()}, as its publishers offer"
            )
            self._node.destroy_subscription(self._image_subscription)
            self._subscribe(wanted)

    def remark_silence(self, timeout_s: float) -> str | None:
        """Say what to do when there was no image for ``timeout_s``; once, then every 30 s."""
        now = time.monotonic()
        if now - self._last < timeout_s or now - self._reminded < (
            _REMIND_S if self._reminded > self._last else timeout_s
        ):
            return None
        self._reminded = now
        count = self._node.count_publishers(self.topic)
        publishers = f"{count} publisher{'s' * (count != 1)}"
        return (
            f"no image for {now - self._last:.0f} s on {self.source}, which has {publishers}. "
            f"{self._topics_there_are()}; set image_topic and image_transport"
        )

    def _topics_there_are(self) -> str:
        topics = self._node.get_topic_names_and_types()
        ours = self._node.get_fully_qualified_name()
        found = []
        for kind in ("Image", "CompressedImage"):
            names = [
                name
                for name, types in topics
                if f"sensor_msgs/msg/{kind}" in types and self._is_published(name, ours)
            ]
            found.append(f"{kind} topics there are: {', '.join(names) or 'none'}")
        return "; ".join(found)

    def _is_published(self, topic: str, ours: str) -> bool:
        """Whether somebody else publishes the topic; our own debug images are no camera."""
        return any(
            f"{info.node_namespace.rstrip('/')}/{info.node_name}" != ours
            for info in self._node.get_publishers_info_by_topic(topic)
        )

    def _wanted_reliability(self) -> ReliabilityPolicy:
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        offered = [info.qos_profile.reliability for info in publishers]
        return qos.reliability_for(self._settings.image_qos, offered)

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        self._reliability = reliability
        self._image_subscription = self._node.create_subscription(
            self.message_type, self.topic, self._arrive, qos.profile(reliability), raw=True
        )

    def _arrive(self, serialised: bytes) -> None:
        self._last = time.monotonic()
        self._on_message(serialised)

    def _keep_info(self, info: CameraInfo) -> None:
        self.camera_info = info
