# SPDX-License-Identifier: Apache-2.0
"""``TargetFrame``: points of the camera's optical frame in another frame of tf, at their stamp."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time
from std_msgs.msg import Header

from bmp_ros.depth.people_3d import People3D
from bmp_ros.ros.compatibility import how_to_install
from bmp_ros.ros.depth_input import NoDepthError


class TargetFrame:
    """Listens to tf on behalf of one frame. Raises NoDepthError where tf2_ros is missing."""

    def __init__(self, node: LifecycleNode, frame: str) -> None:
        try:
            import tf2_ros
        except ImportError as error:
            raise NoDepthError(
                f"target_frame is {frame!r}, but tf2_ros cannot be imported ({error}): "
                f"{how_to_install('tf2_ros_py')}, or leave target_frame empty",
                "no tf2",
            ) from error
        self.frame = frame
        self._errors = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener: Any = tf2_ros.TransformListener(self._buffer, node)

    def close(self) -> None:
        self._listener.unregister()

    def transform(self, header: Header, people: People3D) -> tuple[Header, People3D]:
        """Move people from the frame of ``header`` into this one.

        Distances stay those from the camera. Raises NoDepthError when tf has no transform at
        the header's stamp; it does not wait for one.
        """
        if header.stamp.sec < 0:
            raise NoDepthError(
                f"the image is stamped {header.stamp.sec} s, and tf knows no time before 0; "
                "leave target_frame empty",
                "negative stamp",
            )
        try:
            found = self._buffer.lookup_transform(
                self.frame, header.frame_id, Time.from_msg(header.stamp)
            )
        except self._errors as error:
            raise NoDepthError(
                f"no transform from {header.frame_id!r} to target_frame {self.frame!r} at the "
                f"image's stamp: {error}; publish it, or leave target_frame empty",
                "no transform",
            ) from error
        rotation, shift = rigid_motion(found.transform)
        if not (np.isfinite(rotation).all() and np.isfinite(shift).all()):
            raise NoDepthError(
                f"the transform from {header.frame_id!r} to target_frame {self.frame!r} is no "
                f"rigid motion: {found.transform}",
                "no rigid motion",
            )
        moved = replace(
            people,
            keypoints=(people.keypoints @ rotation.T + shift).astype(np.float32),
            centroids=(people.centroids @ rotation.T + shift).astype(np.float32),
        )
        return Header(stamp=header.stamp, frame_id=self.frame), moved


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
