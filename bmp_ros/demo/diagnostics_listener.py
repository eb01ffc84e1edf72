# SPDX-License-Identifier: Apache-2.0
"""What ``bmp_node`` and the camera of the demo say about themselves, as others hear it."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.time import Time

from bmp_ros.demo.camera_node import STATUS as CAMERA_STATUS

_DONE = (
    "frames processed", "frames replaced by newer ones", "frames discarded", "frames refused",
    "frames failed",
)  # fmt: skip
_DEPTH = 50


class DiagnosticsListener:
    """Subscribes ``node`` to /diagnostics and keeps the last of each.

    node, engines, camera: values by key, of the node called ``node_name`` with one camera, of its
    networks, of the camera; empty before the first. stamp_ns: of ``node``.
    problem: why the node cannot configure, else empty.
    """

    def __init__(self, node: Node, node_name: str) -> None:
        self.node: Mapping[str, str] = {}
        self.engines: Mapping[str, str] = {}
        self.camera: Mapping[str, str] = {}
        self.problem = ""
        self.stamp_ns = 0
        self._node_name = node_name
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
                self.camera = values
            elif status.name == f"{self._node_name}: engines":
                self.problem = status.message if status.level == DiagnosticStatus.ERROR else ""
                self.engines = values
            elif status.name.startswith(f"{self._node_name}: "):
                self.node = values
                self.stamp_ns = Time.from_msg(message.header.stamp).nanoseconds
