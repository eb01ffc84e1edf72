# SPDX-License-Identifier: Apache-2.0
"""``CalibrationInput``: how camera_info is subscribed."""

from __future__ import annotations

from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from bmp_ros.depth.calibration import Calibration
from bmp_ros.ros.compatibility import no_event_messages
from bmp_ros.ros.image_subscription import refuse_other_type, resolved
from bmp_ros.ros.topic_advice import published_topics

_LATCHED, _VOLATILE = DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE


class CalibrationInput(Calibration):
    """Listens to the calibration of one camera from `open` to `close`.

    topic: of camera_info, to be resolved; the rest as in `Calibration`. Raises ValueError for an
    invalid name of a topic.
    """

    def __init__(
        self, node: LifecycleNode, topic: str, *, rectified: bool, parameter: str
    ) -> None:
        super().__init__(
            resolved(node, topic),
            rectified=rectified,
            parameter=parameter,
            deserialise=lambda data: deserialize_message(data, CameraInfo),
        )
        self._node = node
        self._subscriptions: dict[tuple[Any, Any], Any] = {}

    def open(self) -> None:
        """Subscribe. Raises ValueError if the node uses the topic with another type."""
        self.follow_publishers()

    def close(self) -> None:
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def follow_publishers(self) -> None:
        """Subscribe as the publishers offer: one who is latched, and one who is not, are heard.

        A volatile subscription never gets what a latched publisher sent before, and a latched one
        gets nothing from a volatile publisher.
        """
        offered = [
            info.qos_profile for info in self._node.get_publishers_info_by_topic(self.topic)
        ]
        latched = [profile for profile in offered if profile.durability == _LATCHED]
        wanted = set()
        if len(latched) < len(offered) or not offered:
            wanted.add((_VOLATILE, ReliabilityPolicy.BEST_EFFORT))
        if latched:
            reliable = all(p.reliability == ReliabilityPolicy.RELIABLE for p in latched)
            wanted.add((_LATCHED, ReliabilityPolicy.RELIABLE if reliable else
                        ReliabilityPolicy.BEST_EFFORT))  # fmt: skip
        if not offered and self._subscriptions:
            return  # who is gone may come back as it was
        for key in set(self._subscriptions) - wanted:
            self._node.destroy_subscription(self._subscriptions.pop(key))
        for durability, reliability in wanted - set(self._subscriptions):
            refuse_other_type(self._node, self.topic, CameraInfo)
            self._subscriptions[durability, reliability] = self._node.create_subscription(
                CameraInfo,
                self.topic,
                self.keep,
                QoSProfile(depth=5, durability=durability, reliability=reliability),
                raw=True,
                event_callbacks=no_event_messages(),
            )

    def _missing(self) -> str:
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        others = sorted({p.topic_type for p in publishers} - {"sensor_msgs/msg/CameraInfo"})
        text = f"no calibration has come on {self.topic}"
        if others:
            return f"{text}, which is of type {', '.join(others)}; set {self.parameter}"
        if not publishers:
            there = published_topics(self._node, "CameraInfo", self.parameter)
            return f"{text}, which has no publisher. {there}"
        kinds = [
            ", ".join(
                policy.name.lower().replace("_", " ")
                for policy in (p.qos_profile.reliability, p.qos_profile.durability)
            )
            for p in publishers
        ]
        return (
            f"{text}, which has {len(kinds)} publisher{'s' * (len(kinds) != 1)} "
            f"({'; '.join(kinds)}): they have sent nothing since this node listens. Who sends a "
            "calibration once has to offer it transient local"
        )
