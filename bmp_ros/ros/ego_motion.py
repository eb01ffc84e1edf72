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
    _latest: tuple[Header, np.ndarray] | None = None

    def forget(self) -> None:
        """Let the next image be like the first."""
        self.before = self.rotation = self._latest = None

    def homography(self, header: Header, camera: CameraModel | None) -> np.ndarray | None:
        """(3, 3) from pixels of the previous image to pixels of this one, by rotation alone.

        header: of this image. camera: of it, None where there is no calibration. Returns None for
        the first image, for one of another frame or without a stamp, and where the camera is
        unknown or a fish eye. Raises NoTransformError when tf does not know how the camera was
        turned; it does not wait. Exact for what is far away, in images without distortion.
        """
        try:
            return self.foresee(header, camera)
        finally:
            self.before, self.rotation = header, self._known(header)

    def foresee(self, header: Header, camera: CameraModel | None) -> np.ndarray | None:
        """The same, of an image that may come to nothing: the previous one stays the previous one.

        tf is not asked again by `homography` with the same header for what it knew.
        """
        stamp = stamp_ns(header.stamp)
        if stamp == 0:  # not stamped; tf takes 0 for the latest there is
            return None
        now = self._known(header)
        if now is None:
            now = self._rotation(header)
            self._latest = header, now
        before = self.before
        if before is None or before.frame_id != header.frame_id:
            return None
        if stamp_ns(before.stamp) in (0, stamp) or camera is None or camera.is_fisheye:
            return None
        if self.rotation is None:  # what tf did not know then it may know now
            self.rotation = self._rotation(before)
        matrix = np.vstack([camera.matrix[:2], [0, 0, 1]])
        return rotation_homography(matrix, self.rotation.T, now.T)

    def _known(self, header: Header) -> np.ndarray | None:
        """What tf has said of this very header."""
        latest = self._latest
        return latest[1] if latest is not None and latest[0] is header else None

    def _rotation(self, header: Header) -> np.ndarray:
        return self.transforms.rigid_motion(self.frame, header.frame_id, header.stamp)[0]
