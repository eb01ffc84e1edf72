# SPDX-License-Identifier: Apache-2.0
"""tf frames ``body_<id>`` of tracked people, and of their joints below them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Header

from bmp_ros.interaction.body_frames import BodyFrames, quaternions
from bmp_ros.ros.compatibility import how_to_install
from bmp_ros.ros.executor_tasks import ExecutorTasks
from bmp_ros.ros.image_messages import stamp_ns

_QOS = QoSProfile(depth=100)  # reliable, volatile: as tf2_ros broadcasts
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
        takes 0 for the latest time there is.
        """
        stamp = stamp_ns(header.stamp)
        last = self._last_ns.get(camera)
        since = None if last is None else stamp - last
        if stamp == 0 or (since is not None and 0 <= since < (1 - _EARLY) * 1e9 / rate):
            return
        message = transforms(header, names, frames)
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


def transforms(header: Header, names: Sequence[str | None], frames: BodyFrames) -> Any:
    """TFMessage of the frames that are known: bodies in that of ``header``, links in bodies."""
    from tf2_msgs.msg import TFMessage

    found = []
    turns = quaternions(frames.rotations).tolist()
    origins = frames.origins.tolist()
    links = {name: places.tolist() for name, places in frames.links.items()}
    for row, name in enumerate(names):
        if name is None or not frames.known[row]:
            continue
        body = f"body_{name}"
        x, y, z, w = turns[row]
        found.append(_stamped(header, body, origins[row], Quaternion(x=x, y=y, z=z, w=w)))
        own = Header(stamp=header.stamp, frame_id=body)
        found += [
            _stamped(own, f"{link}_{name}", places[row], Quaternion(w=1.0))
            for link, places in links.items()
            if np.isfinite(places[row][0])
        ]
    return TFMessage(transforms=found)


def _stamped(
    header: Header, child: str, place: Sequence[float], turn: Quaternion
) -> TransformStamped:
    x, y, z = place
    return TransformStamped(
        header=header,
        child_frame_id=child,
        transform=Transform(translation=Vector3(x=x, y=y, z=z), rotation=turn),
    )
