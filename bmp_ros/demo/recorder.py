# SPDX-License-Identifier: Apache-2.0
"""``Recorder``: listens to a camera and to ``bmp_node``, and matches them by stamp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import Image

from bmp_ros.demo.camera_node import STATUS as CAMERA_STATUS
from bmp_ros.demo.camera_node import TRUTH_DEPTH
from bmp_ros.ros.image_messages import bgr_image
from bmp_ros.ros.interfaces import PersonArray

_DONE = (
    "frames processed", "frames replaced by newer ones", "frames discarded", "frames refused",
    "frames failed",
)  # fmt: skip
_DEPTH = 50


class DiagnosticsListener:
    """Subscribes ``node`` to /diagnostics and keeps the last of each.

    node, engines, camera: values by key, of the node called ``node_name``, of its networks, of the
    camera; empty before the first. stamp_ns: of ``node``.
    problem: why the node cannot configure, else empty.
    camera_name: which of the node's cameras, and of the processes that play one; empty: there is
    one only.
    """

    def __init__(self, node: Node, node_name: str, camera_name: str = "") -> None:
        self.node: Mapping[str, str] = {}
        self.engines: Mapping[str, str] = {}
        self.camera: Mapping[str, str] = {}
        self.problem = ""
        self.stamp_ns = 0
        self._node_name = node_name
        self._camera_name = camera_name
        node.create_subscription(DiagnosticArray, "/diagnostics", self._keep, _DEPTH)

    @property
    def sent(self) -> int:
        """Images that the camera has sent."""
        return int(self.camera.get("frames sent", 0))

    @property
    def camera_rate(self) -> float:
        """Images per second that the camera has sent."""
        return float(self.camera.get("frames per second", 0.0))

    @property
    def camera_is_over(self) -> bool:
        return self.camera.get("over") == "yes"

    @property
    def received(self) -> int:
        """Images that the node has received."""
        return int(self.node.get("frames received", 0))

    @property
    def processed(self) -> int:
        """Results that the node has published."""
        return int(self.node.get("frames processed", 0))

    @property
    def nothing_at_work(self) -> bool:
        """Whether the node is done with all that it has received."""
        return bool(self.node) and self.received == sum(int(self.node[key]) for key in _DONE)

    def stages(self, percentile: int = 50) -> dict[str, float]:
        """Milliseconds of each stage; ``percentile`` (50 or 95) of the last 100 frames."""
        ending = f" p{percentile} (ms)"
        return {
            key.removesuffix(ending): float(value)
            for key, value in self.node.items()
            if key.endswith(ending) and not key.startswith("age")
        }

    def _keep(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if status.name == CAMERA_STATUS:
                if values.get("namespace") == f"/{self._camera_name}" or not self._camera_name:
                    self.camera = values
            elif status.name == f"{self._node_name}: engines":
                self.problem = status.message if status.level == DiagnosticStatus.ERROR else ""
                self.engines = values
            elif status.name.startswith(f"{self._node_name}: {self._camera_name}"):
                self.node = values
                self.stamp_ns = Time.from_msg(message.header.stamp).nanoseconds


_ARRIVED_NS = 3 * 10**9
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]


@dataclass(frozen=True)
class Result:
    """What the node said about one image.

    stamp_ns: of the image. age_ms: of the image when the result was received.
    truth: of the image, None where it is unknown. jpeg: the image, None if it was lost.
    """

    stamp_ns: int
    age_ms: float
    people: PersonArray
    truth: PersonArray | None
    jpeg: bytes | None

    @property
    def image(self) -> np.ndarray | None:
        """The image, BGR uint8 (H, W, 3)."""
        if self.jpeg is None:
            return None
        return cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)


class Recorder(Node):
    """Keeps what was said about every image, and the image; of images without a result nothing.

    images: how many were received. first_stamp, last_stamp: of the first and the newest of them,
    nanoseconds.
    diagnostics: of the node and of the camera.
    """

    def __init__(
        self, *, image_topic: str, namespace: str, node_name: str, **options: Any
    ) -> None:
        super().__init__("recorder", **options)
        self.images = 0
        self.first_stamp = self.last_stamp = 0
        self._people: dict[int, tuple[float, PersonArray]] = {}
        self._truth: dict[int, PersonArray] = {}
        self._waiting: dict[int, Image] = {}
        self._jpegs: dict[int, bytes] = {}
        base = image_topic.rpartition("/")[0]
        many = QoSProfile(depth=TRUTH_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(PersonArray, f"{base}/ground_truth", self._keep_truth, many)
        self.create_subscription(Image, image_topic, self._keep_image, QoSProfile(depth=5))
        self.create_subscription(PersonArray, f"{namespace}/poses", self._keep_result, many)
        self.diagnostics = DiagnosticsListener(self, node_name)

    @property
    def count(self) -> int:
        """How many results there are."""
        return len(self._people)

    def results(self) -> list[Result]:
        """What was said, in the order of its arrival."""
        return [
            Result(stamp, age_ms, people, self._truth.get(stamp), self._jpegs.get(stamp))
            for stamp, (age_ms, people) in self._people.items()
        ]

    @property
    def everything_is_answered(self) -> bool:
        """Whether the node says that nothing is at work, after the last image."""
        said = self.diagnostics
        if not said.nothing_at_work or said.processed < self.count:
            return False
        if self.last_stamp in self._people:
            return True
        # Diagnostics come once a second; these were made after the last image had arrived.
        return said.stamp_ns > self.last_stamp + _ARRIVED_NS

    def _keep_truth(self, message: PersonArray) -> None:
        self._truth[_stamp(message)] = message

    def _keep_image(self, message: Image) -> None:
        self.images += 1
        self.last_stamp = _stamp(message)
        self.first_stamp = self.first_stamp or self.last_stamp
        self._waiting[self.last_stamp] = message
        self._compress()

    def _keep_result(self, message: PersonArray) -> None:
        stamp = _stamp(message)
        age_ms = (self.get_clock().now().nanoseconds - stamp) / 1e6
        # When it ends, the node clears displays with an empty array for the last image.
        self._people.setdefault(stamp, (age_ms, message))
        self._compress()

    def _compress(self) -> None:
        """Keep images that have a result, forget those that will have none.

        Either may come first: topics overtake each other.
        """
        for stamp in self._people.keys() & self._waiting.keys():
            _, jpeg = cv2.imencode(".jpg", bgr_image(self._waiting.pop(stamp)), _JPEG)
            self._jpegs[stamp] = bytes(jpeg)
        # Results come in the order of their images.
        newest = max(self._people, default=0)
        for stamp in [other for other in self._waiting if other < newest]:
            del self._waiting[stamp]


def _stamp(message: Any) -> int:
    return int(Time.from_msg(message.header.stamp).nanoseconds)
