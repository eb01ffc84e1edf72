# SPDX-License-Identifier: Apache-2.0
"""``ImageSubscription``: images, subscribed as their publishers offer.

A reliable subscription to a best-effort publisher receives nothing. A best-effort subscription
receives what the transport does not lose, which with large images may be next to nothing. A
volatile one misses what was published once, before it was there. So the subscription has to match
the publishers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from rclpy.exceptions import NameValidationException
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from bmp_ros.depth.calibration import COMPRESSED_SUFFIX
from bmp_ros.ros.compatibility import RCLError, no_event_messages
from bmp_ros.ros.image_messages import LEAST_BYTES
from bmp_ros.ros.settings import CameraSettings
from bmp_ros.ros.topic_advice import publishers_of_others, silence_advice

DEPTH = 5
"""Messages that the transport may keep: with 1, a reliable 720p stream loses a third of them."""

_REMIND_S = 30.0
_RELIABLE, _BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
_LATCHED, _VOLATILE = DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE


class ImageSubscription:
    """Subscribes from `open` to `close`; all on the executor's thread.

    kind: type of the messages on ``topic``, which is a resolved name. wanted_qos: see
    `reliability_for`. on_message(serialised): called for each image, which is not decoded here.
    reliability, durability: of the subscription.
    """

    def __init__(
        self,
        node: LifecycleNode,
        kind: type,
        topic: str,
        *,
        on_message: Callable[[bytes], None],
        wanted_qos: str = "auto",
    ) -> None:
        self.kind = kind
        self.topic = topic
        self.reliability = _RELIABLE
        self.durability = _VOLATILE
        self._node = node
        self._wanted_qos = wanted_qos
        self._on_message = on_message
        self._images: Any = None
        self._last = self._reminded = time.monotonic()
        self._was_silent = False

    @property
    def source(self) -> str:
        """What is listened to, in words."""
        reliability = self.reliability.name.lower().replace("_", " ")
        latched = ", transient local" if self.durability == _LATCHED else ""
        return f"{self.topic} ({self.kind.__name__}, {reliability}{latched})"

    @property
    def silent_s(self) -> float:
        """Seconds since the last image, or since `open`."""
        return time.monotonic() - self._last

    def open(self) -> None:
        """Subscribe. Raises ValueError if the node uses the topic with another type."""
        self._was_silent = False
        self._last = self._reminded = time.monotonic()
        self._subscribe(*self._fitting(self._offered()))

    def close(self) -> None:
        if self._images is not None:
            self._node.destroy_subscription(self._images)
            self._images = None

    def follow_publishers(self) -> None:
        """Subscribe anew when what the publishers offer asks for it, or when it failed before.

        Raises ValueError as `open` does: it is tried again at the next call.
        """
        offered = self._offered()
        fitting = self._fitting(offered)
        if self._images is None:
            self._subscribe(*fitting)
        elif fitting != (self.reliability, self.durability):
            if offered:
                name = ", ".join(each.name.lower().replace("_", " ") for each in fitting)
                self._node.get_logger().info(
                    f"{self.topic}: subscribing {name}, as its publishers offer"
                )
            self.close()
            self._subscribe(*fitting)

    def change_kind(self, kind: type) -> None:
        """Close, and take messages of another type from the next `follow_publishers` on.

        Raises ValueError, and goes on as before, if the node uses the topic with a third type or
        with this subscription's type elsewhere.
        """
        refuse_other_type(self._node, self.topic, kind, besides=self._images)
        self.close()
        self.kind = kind

    def _offered(self) -> list[QoSProfile]:
        """Of each publisher there is."""
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        return [info.qos_profile for info in publishers]

    def _fitting(self, offered: list[QoSProfile]) -> tuple[ReliabilityPolicy, DurabilityPolicy]:
        """What to subscribe with; who is gone may come back as latched as it was."""
        latched = all(each.durability == _LATCHED for each in offered)
        durability = (_LATCHED if latched else _VOLATILE) if offered else self.durability
        reliability = reliability_for(self._wanted_qos, [each.reliability for each in offered])
        return reliability, durability

    def remark_silence(self, timeout_s: float) -> str | None:
        """Say what to do when there was no image for ``timeout_s``; once, then every 30 s."""
        now = time.monotonic()
        if now - self._last < timeout_s or now - self._reminded < (
            _REMIND_S if self._reminded > self._last else timeout_s
        ):
            return None
        self._reminded = now
        self._was_silent = True
        advice = silence_advice(
            self.topic,
            self.kind.__name__,
            best_effort=self.reliability == _BEST_EFFORT,
            publishers=publishers_of_others(self._node, self.topic),
        )
        return f"no image for {now - self._last:.0f} s on {self.source}: {advice}"

    def _subscribe(self, reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> None:
        refuse_other_type(self._node, self.topic, self.kind)
        self.reliability, self.durability = reliability, durability
        profile = QoSProfile(depth=DEPTH, reliability=reliability, durability=durability)
        self._images = self._node.create_subscription(
            self.kind, self.topic, self._receive, profile, raw=True,
            event_callbacks=no_event_messages(),
        )  # fmt: skip

    def _receive(self, serialised: bytes) -> None:
        if len(serialised) < LEAST_BYTES:  # no message of a type with a header, whoever sent it
            return
        self._last = time.monotonic()
        if self._was_silent:
            self._was_silent = False
            self._node.get_logger().info(f"{self.topic}: images arrive now")
        self._on_message(serialised)


def camera_subscription(
    node: LifecycleNode, settings: CameraSettings, on_message: Callable[[bytes], None]
) -> ImageSubscription:
    """The subscription to a camera's images. Raises ValueError for invalid topic names."""
    compressed = settings.image_transport == "compressed"
    # As image_transport does it: the suffix comes after the remapping of the base topic.
    base = resolved(node, settings.image_topic.removesuffix(COMPRESSED_SUFFIX))
    exact = resolved(node, settings.image_topic)
    return ImageSubscription(
        node,
        CompressedImage if compressed else Image,
        base + COMPRESSED_SUFFIX if compressed else exact,
        on_message=on_message,
        wanted_qos=settings.image_qos,
    )


def reliability_for(wanted: str, offered: Iterable[ReliabilityPolicy]) -> ReliabilityPolicy:
    """Return the reliability to subscribe with.

    wanted: ``auto``, ``reliable`` or ``best_effort``. offered: that of each publisher. ``auto`` is
    reliable unless any publisher offers best effort only; so it is without publishers.
    """
    if wanted == "reliable":
        return _RELIABLE
    if wanted == "best_effort" or _BEST_EFFORT in offered:
        return _BEST_EFFORT
    return _RELIABLE


def refuse_other_type(node: LifecycleNode, topic: str, kind: type, *, besides: Any = None) -> None:
    """Raise ValueError if the node publishes a topic, or listens to it with another type.

    besides: a subscription that is about to be closed.
    The middleware would refuse a second type with an error that names no cause. What the node
    publishes itself it would answer for ever, or wait for.
    """
    remedy = (
        "image_topic, camera_info_topic, depth_topic and boxes_topic have to be different topics, "
        "and none of the node's own"
    )
    if any(each.topic_name == topic for each in node.publishers):
        raise ValueError(f"{topic} cannot be listened to: this node publishes it itself; {remedy}")
    for each in node.subscriptions:
        if each.topic_name == topic and each.msg_type is not kind and each is not besides:
            raise ValueError(
                f"{topic} cannot be listened to as {kind.__name__}: this node uses it as "
                f"{each.msg_type.__name__} already; {remedy}"
            )


def resolved(node: LifecycleNode, topic: str) -> str:
    """The full name of a topic, remappings included. Raises ValueError saying what is wrong."""
    try:
        return str(node.resolve_topic_name(topic))
    except (RCLError, NameValidationException) as error:
        reason = str(error).partition(", at /")[0]  # without the line of rcl's source
        raise ValueError(f"{topic!r} is not a valid topic name: {reason}") from error
