# SPDX-License-Identifier: Apache-2.0
"""``Transforms``: what tf says about two frames at one time, as a rotation and a translation."""

from __future__ import annotations

from typing import Any

import numpy as np
from builtin_interfaces.msg import Time as Stamp
from rclpy.node import Node
from rclpy.time import Time


class NoTransformError(ValueError):
    """tf has no rigid motion between two frames at that time; the message says why.

    kind: what the reason has in common with others of its kind, whose words may differ.
    """

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class Transforms:
    """Listens to tf until `close`. Raises ImportError where tf2_ros is missing."""

    def __init__(self, node: Node) -> None:
        import tf2_ros

        self._errors = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener: Any = tf2_ros.TransformListener(self._buffer, node)

    def close(self) -> None:
        self._listener.unregister()

    def clear(self) -> None:
        """Forget what tf said so far, but for what holds for ever, since time jumped back.

        tf takes nothing that is older by ten seconds than what it knows: after a bag began anew it
        would take nothing until that time is reached again.
        """
        self._buffer.clear()

    def rigid_motion(
        self, target: str, source: str, stamp: Stamp
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rotation (3, 3) and translation (3,) metres from the frame ``source`` to ``target``.

        A slash before a frame's name, as in ROS 1, is left out.
        Does not wait: raises NoTransformError when tf does not know them at ``stamp`` now.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        if not source:
            raise NoTransformError(
                "the image's header has no frame_id: its driver has to name the camera's optical "
                "frame",
                "no frame",
            )
        if stamp.sec < 0:
            raise NoTransformError(
                f"the image is stamped {stamp.sec} s, and tf knows no time before 0",
                "negative stamp",
            )
        try:
            found = self._buffer.lookup_transform(target, source, Time.from_msg(stamp)).transform
        except self._errors as error:
            raise NoTransformError(
                f"no transform from {source!r} to {target!r} at the image's stamp: {error}",
                "no transform",
            ) from error
        rotation, shift = rigid_motion(found)
        if not (np.isfinite(rotation).all() and np.isfinite(shift).all()):
            raise NoTransformError(
                f"the transform from {source!r} to {target!r} is no rigid motion: {found}",
                "no rigid motion",
            )
        return rotation, shift


def rigid_motion(transform: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and translation (3,) of a geometry_msgs/Transform.

    NaN for a quaternion of no length.
    """
    q, t = transform.rotation, transform.translation
    quaternion = np.array([q.x, q.y, q.z, q.w])
    with np.errstate(all="ignore"):
        x, y, z, w = quaternion / np.linalg.norm(quaternion)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return rotation, np.array([t.x, t.y, t.z])
