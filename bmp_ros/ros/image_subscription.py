# SPDX-License-Identifier: Apache-2.0
"""``ImageSubscription``: images and their calibration, subscribed as their publishers offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.exceptions import NameValidationException
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from bmp_ros.ros import qos
from bmp_ros.ros.compatibility import RCLError


class ImageSubscription:
    """Subscribes from `open` to `close`; all on the executor's thread.

    kind: of the messages on ``topic``. info_topic: of the calibration; empty: ``camera_info``
    beside ``beside``. wanted: as `qos.reliability_for` takes it. on_message(serialised): called
    for each image; nothing is decoded before somebody wants it.
    Raises ValueError for an ``info_topic`` that no topic can have as its name.
    reliability: subscribed with. camera_info: the last calibration that came, or None.
    """

    def __init__(
        self,
        node: LifecycleNode,
        kind: type,
        topic: str,
        *,
        info_topic: str,
        beside: str,
        wanted: str,
        on_message: Callable[[bytes], None],
    ) -> None:
        self._node = node
        self._kind = kind
        self._topic = topic
        self._info_topic = info_topic or f"{beside.rpartition('/')[0]}/camera_info"
        resolved(node, self._info_topic)
        self._wanted = wanted
        self._on_message = on_message
        self.reliability = ReliabilityPolicy.RELIABLE
        self.camera_info: CameraInfo | None = None
        self._images: Any = None
        self._calibrations: Any = None

    def open(self) -> None:
        self._subscribe(self._fitting())
        self._calibrations = self._node.create_subscription(
            CameraInfo,
            self._info_topic,
            self._keep_info,
            qos.profile(ReliabilityPolicy.BEST_EFFORT),
        )

    def close(self) -> None:
        for subscription in (self._images, self._calibrations):
            if subscription is not None:
                self._node.destroy_subscription(subscription)
        self._images = self._calibrations = None

    def follow_publishers(self) -> None:
        """Subscribe anew when the publishers' reliability asks for it."""
        fitting = self._fitting()
        if fitting != self.reliability and self._images is not None:
            self._node.get_logger().info(
                f"{self._topic}: subscribing {fitting.name.lower()}, as its publishers offer"
            )
            self._node.destroy_subscription(self._images)
            self._subscribe(fitting)

    def offered(self) -> list[ReliabilityPolicy]:
        """Reliability of each publisher there is."""
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        return [info.qos_profile.reliability for info in publishers]

    def _fitting(self) -> ReliabilityPolicy:
        return qos.reliability_for(self._wanted, self.offered())

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        self.reliability = reliability
        self._images = self._node.create_subscription(
            self._kind, self._topic, self._on_message, qos.profile(reliability), raw=True
        )

    def _keep_info(self, info: CameraInfo) -> None:
        self.camera_info = info


def resolved(node: LifecycleNode, topic: str) -> str:
    """The full name of a topic, remappings included. Raises ValueError saying what is wrong."""
    try:
        return str(node.resolve_topic_name(topic))
    except (RCLError, NameValidationException) as error:
        raise ValueError(f"{topic!r} cannot be the name of a topic: {error}") from error
