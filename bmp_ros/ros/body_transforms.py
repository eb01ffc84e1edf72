# SPDX-License-Identifier: Apache-2.0
"""tf frames ``body_<id>`` of tracked people, and of their joints below them."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Header

from bmp_ros.interaction.body_frames import BodyFrames, quaternions
from bmp_ros.ros.compatibility import how_to_install
from bmp_ros.ros.executor_tasks import ExecutorTasks
from bmp_ros.ros.image_messages import stamp_ns

_QOS = QoSProfile(depth=100)  # reliable, volatile: as tf2_ros broadcasts
_NO_TURN = (0.0, 0.0, 0.0, 1.0)
_EARLY = 0.1
"""Share of a period by which an image may come early: at 30 Hz a rate of 10 takes every third."""


class BodyTransforms:
    """The publisher on ``/tf``, made when a rate is first given, of all cameras of a node.

    Every method but `close` is for the worker.
    """

    def __init__(self, node: Node, tasks: ExecutorTasks) -> None:
        self._node = node
        self._tasks = tasks
        self._lock = threading.Lock()
        self._publisher: Any = None
        self._asked = False
        self._last_ns: dict[str, int] = {}
        self._messages = TransformMessages()

    def wanted(self, rate: float) -> bool:
        """Whether frames are to be computed: with a rate (Hz, 0: none) and a subscriber.

        Raises ImportError, whose message says what to install, where tf2_msgs is missing.
        """
        if rate <= 0:
            if self._asked:
                self._asked = False
                self._tasks(self.close)
            return False
        if not self._asked:
            try:
                import tf2_msgs.msg  # noqa: F401
            except ImportError as error:
                raise ImportError(
                    f"body_frames_rate is {rate:g}, but tf2_msgs cannot be imported ({error}): "
                    f"{how_to_install('tf2_msgs')}, or set it to 0"
                ) from error
            self._asked = True
            self._tasks(self._open)
        with self._lock:
            return self._publisher is not None and self._publisher.get_subscription_count() > 0

    def publish(
        self, camera: str, header: Header, names: Sequence[str | None], frames: BodyFrames,
        rate: float,
    ) -> None:  # fmt: skip
        """Publish frames of the people with names, if it is time; header: stamp and parent frame.

        names: ids of N people, None where there is none. Images without a stamp are left out: tf
        takes 0 for the latest time there is, and knows none before.
        """
        stamp = stamp_ns(header.stamp)
        last = self._last_ns.get(camera)
        since = None if last is None else stamp - last
        if stamp <= 0 or (since is not None and 0 <= since < (1 - _EARLY) * 1e9 / rate):
            return
        message = self._messages.make(header, names, frames)
        self._last_ns[camera] = stamp
        with self._lock:
            if self._publisher is not None and message.transforms:
                self._publisher.publish(message)

    def close(self) -> None:
        """Take the publisher down; on the executor's thread."""
        with self._lock:
            publisher, self._publisher = self._publisher, None
        self._asked = False
        if publisher is not None:
            self._node.destroy_publisher(publisher)

    def _open(self) -> None:
        from tf2_msgs.msg import TFMessage

        if self._asked and self._publisher is None:
            publisher = self._node.create_publisher(TFMessage, "/tf", _QOS)
            with self._lock:
                self._publisher = publisher


class TransformMessages:
    """Makes TFMessages of objects that are used again: making them anew costs several times more.

    A message is valid until the next one is made.
    """

    def __init__(self) -> None:
        self._pool: list[TransformStamped] = []

    def make(self, header: Header, names: Sequence[str | None], frames: BodyFrames) -> Any:
        """TFMessage of known frames: bodies in the frame of ``header``, links in bodies."""
        from tf2_msgs.msg import TFMessage

        count = 0
        turns = quaternions(frames.rotations).tolist()
        origins = frames.origins.tolist()
        links = {link: places.tolist() for link, places in frames.links.items()}
        for row, name in enumerate(names):
            if name is None or not frames.known[row]:
                continue
            body = f"body_{name}"
            self._fill(count, header, body, origins[row], turns[row])
            count += 1
            own = Header(stamp=header.stamp, frame_id=body)
            for link, places in links.items():
                if math.isfinite(places[row][0]):
                    self._fill(count, own, f"{link}_{name}", places[row], _NO_TURN)
                    count += 1
        return TFMessage(transforms=self._pool[:count])

    def _fill(
        self, number: int, header: Header, child: str, place: Sequence[float],
        turn: Sequence[float],
    ) -> None:  # fmt: skip
        if number == len(self._pool):
            self._pool.append(TransformStamped())
        message = self._pool[number]
        message.header, message.child_frame_id = header, child
        shift, rotation = message.transform.translation, message.transform.rotation
        shift.x, shift.y, shift.z = place
        rotation.x, rotation.y, rotation.z, rotation.w = turn
