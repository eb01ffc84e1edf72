# SPDX-License-Identifier: Apache-2.0
"""``TargetFrame``: people of the camera's optical frame in another frame of tf, at their stamp."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from std_msgs.msg import Header

from bmp_ros.depth.people_3d import People3D
from bmp_ros.ros.depth_input import NoDepthError
from bmp_ros.ros.transforms import NoTransformError, Transforms


@dataclass(frozen=True)
class TargetFrame:
    """frame: of tf, into which people are moved."""

    transforms: Transforms
    frame: str

    def transform(self, header: Header, people: People3D) -> tuple[Header, People3D]:
        """Move people from the frame of ``header`` into this one.

        Distances stay those from the camera. Raises NoDepthError when tf has no transform at
        the header's stamp; it does not wait for one.
        """
        try:
            rotation, shift = self.transforms.rigid_motion(
                self.frame, header.frame_id, header.stamp
            )
        except NoTransformError as error:
            raise NoDepthError(
                f"{error}; publish it, or leave target_frame empty", error.kind
            ) from error
        moved = replace(
            people,
            keypoints=(people.keypoints @ rotation.T + shift).astype(np.float32),
            centroids=(people.centroids @ rotation.T + shift).astype(np.float32),
        )
        return Header(stamp=header.stamp, frame_id=self.frame), moved
