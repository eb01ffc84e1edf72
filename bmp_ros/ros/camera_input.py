# SPDX-License-Identifier: Apache-2.0
"""``CameraInput``: the images of one camera, and what to say when none come."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from bmp_ros.ros.image_subscription import ImageSubscription, resolved
from bmp_ros.ros.settings import CameraSettings

_SUFFIX = "/compressed"
_REMIND_S = 30.0
_RELIABLE, _BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


class CameraInput:
    """Listens to one camera from `open` to `close`; all on the executor's thread.

    on_message(serialised): called for each image; nothing is decoded before somebody wants it.
    message_type: Image or CompressedImage. topic: resolved, remappings included.
    """

    def __init__(
        self, node: LifecycleNode, settings: CameraSettings, on_message: Callable[[bytes], None]
    ) -> None:
        self._node = node
        self._on_message = on_message
        compressed = settings.image_transport == "compressed"
        self.message_type: type = CompressedImage if compressed else Image
        # As image_transport does it: the suffix comes after the remapping of the base topic.
        base = resolved(node, settings.image_topic.removesuffix(_SUFFIX))
        exact = resolved(node, settings.image_topic)
        self.topic = base + _SUFFIX if compressed else exact
        self._subscription = ImageSubscription(
            node,
            self.message_type,
            self.topic,
            info_topic=settings.camera_info_topic,
            beside=base,
            wanted=settings.image_qos,
            on_message=self._arrive,
        )
        self._last = self._reminded = time.monotonic()

    @property
    def camera_info(self) -> CameraInfo | None:
        """The last calibration that came."""
        return self._subscription.camera_info

    @property
    def source(self) -> str:
        """What is listened to, in words."""
        reliability = self._subscription.reliability.name.lower().replace("_", " ")
        return f"{self.topic} ({self.message_type.__name__}, {reliability})"

    @property
    def silent_s(self) -> float:
        """Seconds since the last image, or since `open`."""
        return time.monotonic() - self._last

    def open(self) -> None:
        self._last = self._reminded = time.monotonic()
        self._subscription.open()

    def close(self) -> None:
        self._subscription.close()

    def follow_publishers(self) -> None:
        """Subscribe anew when the publishers' reliability asks for it."""
        self._subscription.follow_publishers()

    def remark_silence(self, timeout_s: float) -> str | None:
        """Say what to do when there was no image for ``timeout_s``; once, then every 30 s."""
        now = time.monotonic()
        if now - self._last < timeout_s or now - self._reminded < (
            _REMIND_S if self._reminded > self._last else timeout_s
        ):
            return None
        self._reminded = now
        silence = f"no image for {now - self._last:.0f} s on {self.source}, which has"
        offered = self._subscription.offered()
        if self._subscription.reliability == _RELIABLE and _BEST_EFFORT in offered:
            return (
                f"{silence} publishers that offer best effort only: a reliable subscription gets "
                "nothing from them; set image_qos to auto"
            )
        publishers = f"{len(offered)} publisher{'s' * (len(offered) != 1)}"
        if _BEST_EFFORT in offered:
            publishers += " (Fast DDS may lose large best-effort images: see config/fastdds.xml)"
        return (
            f"{silence} {publishers}. {self._topics_there_are()}; set image_topic and "
            "image_transport"
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

    def _arrive(self, serialised: bytes) -> None:
        self._last = time.monotonic()
        self._on_message(serialised)
