# SPDX-License-Identifier: Apache-2.0
"""What depth adds to one image: find the depth image of its stamp, lift people, publish."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from bmp_ros.depth.people_3d import People3D, lift_people
from bmp_ros.depth.people_free import depth_without_people
from bmp_ros.loop.people import People
from bmp_ros.ros.depth_input import DepthInput, NoDepthError
from bmp_ros.ros.depth_messages import camera_model, depth_image
from bmp_ros.ros.image_messages import ImageError, ReceivedImage
from bmp_ros.ros.settings import RunSettings
from bmp_ros.ros.target_frame import TargetFrame


@dataclass(frozen=True)
class Lifted:
    """People of one image in space.

    header: frame and stamp of ``people``. optical: the same people in the camera's optical frame.
    depth: the depth image that was used, ``message`` is the message it came in.
    """

    header: Header
    people: People3D
    optical: People3D
    depth: np.ndarray
    message: ReceivedImage | Image
    milliseconds: float


def lift(
    header: Header,
    people: People,
    depth_input: DepthInput,
    camera_info: CameraInfo | None,
    target_frame: TargetFrame | None,
    run: RunSettings,
    complain: Callable[[str], None],
) -> Lifted | None:
    """Lift the people of one image; None, after telling ``complain`` why, when that cannot be.

    camera_info: of the image. Never raises for what messages or tf hold.
    """
    start = time.perf_counter()
    try:
        message = depth_input.nearest(header.stamp, run.depth_max_age)
        depth = depth_image(message)
        if camera_info is None:
            raise NoDepthError("no camera_info has come: depth cannot become metres")
        info = depth_input.camera_info
        # Of another size, the calibration is not that of these depth images.
        fits = info is not None and (info.height, info.width) == depth.shape
        optical = lift_people(
            people,
            depth,
            camera_model(camera_info),
            depth_camera=camera_model(info) if info is not None and fits else None,
            joint_inset=run.joint_inset,
        )
        found_header, found = header, optical
        if target_frame is not None:
            found_header, found = target_frame.transform(header, optical)
    except (NoDepthError, ImageError, ValueError) as error:
        complain(str(error))
        return None
    elapsed = (time.perf_counter() - start) * 1e3
    return Lifted(found_header, found, optical, depth, message, elapsed)


def people_free_depth(lifted: Lifted, people: People, margin: int) -> np.ndarray:
    """The depth image of ``lifted`` in which everybody is unknown, see `depth_without_people`."""
    return depth_without_people(lifted.depth, people.masks, margin)
