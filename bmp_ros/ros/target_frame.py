# SPDX-License-Identifier: Apache-2.0
"""``TargetFrame``: people of the camera's optical frame in another frame of tf, at their stamp."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from std_msgs.msg import Header

from bmp_ros.depth.people_3d import People3D
from bmp_ros.ros.depth_input import NoDepthError
from bmp_ros.ros.transforms import NoTransformError, Transforms

RigidMotion = tuple[np.ndarray, np.ndarray]
"""Rotation (3, 3) and shift (3,) in metres: a point p comes to lie at rotation @ p + shift."""


@dataclass(frozen=True)
class TargetFrame:
    """frame: of tf, into which people are moved."""

    transforms: Transforms
    frame: str

    def motion(self, header: Header) -> RigidMotion:
        """From the frame of ``header`` to this one, at the header's stamp.

        Raises NoDepthError when tf has no transform at that stamp; it does not wait for one.
        """
        try:
            return self.transforms.rigid_motion(self.frame, header.frame_id, header.stamp)
        except NoTransformError as error:
            raise NoDepthError(
                f"{error}; publish it, or leave target_frame empty", error.kind
            ) from error


def moved(people: People3D, motion: RigidMotion, *, back: bool = False) -> People3D:
    """People in the frame to which ``motion`` leads, or ``back`` in the one from which it comes.

    Distances stay those from the camera.
    """
    rotation, shift = motion
    if back:
        rotation, shift = rotation.T, -rotation.T @ shift
    return replace(
        people,
        keypoints=(people.keypoints @ rotation.T + shift).astype(np.float32),
        centroids=(people.centroids @ rotation.T + shift).astype(np.float32),
    )
