# SPDX-License-Identifier: Apache-2.0
"""``EgoMotion``: how a turn of the camera moved the image, from tf and the calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from std_msgs.msg import Header

from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.ros.image_messages import stamp_ns
from bmp_ros.ros.transforms import Transforms
from bmp_ros.tracking.motion import rotation_homography


@dataclass
class EgoMotion:
    """Turns of one camera from image to image, in ``frame`` of tf, which does not turn with it.

    before: header of the previous image, None before the first. rotation: (3, 3) of the camera
    then, from its frame to ``frame``; None where tf did not know it.
    """

    transforms: Transforms
    frame: str
    before: Header | None = None
    rotation: np.ndarray | None = None

    def homography(self, header: Header, camera: CameraModel | None) -> np.ndarray | None:
        """(3, 3) from pixels of the previous image to pixels of this one, by rotation alone.

        header: of this image. camera: of it, None where there is no calibration. Returns None for
        the first image, for one of another frame or without a stamp, and where the camera is
        unknown or a fish eye. Raises NoTransformError when tf does not know how the camera was
        turned; it does not wait. Exact for what is far away, in images without distortion.
        """
        before, self.before = self.before, header
        earlier, self.rotation = self.rotation, None
        stamp = stamp_ns(header.stamp)
        if stamp == 0:  # not stamped; tf takes 0 for the latest there is
            return None
        self.rotation = now = self._rotation(header)
        if before is None or before.frame_id != header.frame_id:
            return None
        if stamp_ns(before.stamp) in (0, stamp) or camera is None or camera.is_fisheye:
            return None
        if earlier is None:  # what tf did not know then it may know now
            earlier = self._rotation(before)
        matrix = np.vstack([camera.matrix[:2], [0, 0, 1]])
        return rotation_homography(matrix, earlier.T, now.T)

    def _rotation(self, header: Header) -> np.ndarray:
        return self.transforms.rigid_motion(self.frame, header.frame_id, header.stamp)[0]
