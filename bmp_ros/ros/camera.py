# SPDX-License-Identifier: Apache-2.0
"""``Camera``: one camera of the node, from its subscription to its topics."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, Image

from bmp_ros.ros.depth_input import DepthInput, NoDepthError
from bmp_ros.ros.diagnostics import CameraStatistics
from bmp_ros.ros.image_subscription import ImageSubscription, camera_subscription
from bmp_ros.ros.publishers import CameraPublishers
from bmp_ros.ros.settings import CameraSettings
from bmp_ros.ros.target_frame import TargetFrame
from bmp_ros.ros.worker import Worker

DEFAULT_NAME = "camera"
"""Name of the only camera in log and diagnostics; its topics have no prefix."""


class ReceivedMessage(NamedTuple):
    """A serialised image that waits. generation: of its camera when it was received."""

    serialised: bytes
    generation: int


class Camera:
    """name: as in the parameter ``cameras``, or `DEFAULT_NAME`. prefix: of its topics.

    publishing: held while results are published, so that nothing follows the empty array that
    `stop` publishes.
    generation: changes at every `stop`; what was received before is not published after.
    enabled: whether images are looked at. message_type: of the images that wait.
    last_stamp: of the latest image in nanoseconds, None before the first.
    depth: its depth images, None without. target_frame: where people are to be lifted into.
    """

    def __init__(self, node: LifecycleNode, name: str, worker: Worker, *, prefix: str) -> None:
        self.name = name
        self.statistics = CameraStatistics()
        self.publishers = CameraPublishers(node, prefix)
        self.publishing = threading.Lock()
        self.generation = 0
        self.enabled = True
        self.last_stamp: int | None = None
        self.images: ImageSubscription | None = None
        self.depth: DepthInput | None = None
        self.target_frame: TargetFrame | None = None
        self.message_type: type = Image
        self._node = node
        self._worker = worker

    @property
    def camera_info(self) -> CameraInfo | None:
        return self.images.camera_info if self.images is not None else None

    @property
    def source(self) -> str:
        """What is listened to, in words."""
        return self.images.source if self.images is not None else "nothing"

    @property
    def silent_s(self) -> float | None:
        """Seconds since the last image, None while none is expected."""
        return self.images.silent_s if self.images is not None and self.enabled else None

    def check_publishers(self, timeout_s: float) -> str | None:
        """Follow the publishers; return what to tell about there being no images, if anything."""
        if self.images is None:
            return None
        self.images.follow_publishers()
        if self.depth is not None:
            self.depth.follow_publishers()
        return self.images.remark_silence(timeout_s) if self.enabled else None

    def listen(self, settings: CameraSettings) -> None:
        """Subscribe; every image goes into the slot, in place of the one before."""
        self.images = camera_subscription(self._node, settings, self._receive)
        self.message_type = self.images.kind
        self.images.open()
        if settings.depth_topic:
            self._listen_to_depth(settings)

    def stop_listening(self) -> None:
        if self.images is not None:
            self.images.close()
            self.images = None
        if self.depth is not None:
            self.depth.close()
            self.depth = None
        if self.target_frame is not None:
            self.target_frame.close()
            self.target_frame = None

    def enable(self, enabled: bool) -> None:
        """Look at images from now on, or at none; displays are cleared then."""
        stops = self.enabled and not enabled
        self.enabled = enabled
        if stops:
            self.stop()

    def stop(self) -> None:
        """Forget what waits and publish that nobody is there, as the last message."""
        self.statistics.count(discarded=self._worker.clear([self]))
        with self.publishing:
            self.generation += 1
            self.publishers.publish_nobody()

    def reset(self) -> None:
        """Forget everything about images before; the next one is like the first."""
        self.last_stamp = None
        self.statistics.clear()
        if self.depth is not None:
            self.depth.clear()

    def limit_rate(self, max_rate: float) -> None:
        """Let the next image be handed out no sooner than ``max_rate`` (Hz, 0: none) allows."""
        if max_rate > 0:
            # On the machine's clock: stamps and simulated time may stand still or jump.
            self._worker.hold(self, time.monotonic() + 1.0 / max_rate)

    def _listen_to_depth(self, settings: CameraSettings) -> None:
        """What is missing for depth costs depth, never the images."""
        try:
            depth = DepthInput(self._node, settings)
            if settings.target_frame:
                self.target_frame = TargetFrame(self._node, settings.target_frame)
        except NoDepthError as error:
            self._node.get_logger().warning(f"{self.name}: {error}")
            return
        depth.open()
        self.depth = depth

    def _receive(self, serialised: bytes) -> None:
        if not self.enabled:
            self.statistics.count(received=1, discarded=1)
            return
        replaced = self._worker.put(self, ReceivedMessage(serialised, self.generation))
        self.statistics.count(received=1, replaced=int(replaced))
