# SPDX-License-Identifier: Apache-2.0
"""What depth adds to one image: find the depth image of its stamp, lift people, publish."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from bmp_ros.depth.calibration import Calibration, CalibrationError
from bmp_ros.depth.calibration import depth_camera as depth_camera_of
from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.depth.depth_grid import says_nothing
from bmp_ros.depth.depth_messages import depth_image, why_unregistered
from bmp_ros.depth.people_3d import People3D, lift_people
from bmp_ros.depth.people_free import depth_without_people
from bmp_ros.loop.people import People
from bmp_ros.ros.depth_input import DepthInput, NoDepthError
from bmp_ros.ros.image_messages import ImageError, ReceivedImage, stamp_ns
from bmp_ros.ros.settings import RunSettings
from bmp_ros.ros.target_frame import RigidMotion, TargetFrame, moved


@dataclass(frozen=True)
class Lifted:
    """People of one image in space.

    header: frame and stamp of ``people``. motion: from the camera's optical frame to that one,
    None where they are the same. depth: the depth image that was used, ``message`` is the message
    it came in. camera, depth_camera: calibrations of both, None where depth shows what the image
    shows. silence: why the depth image says nothing about people, empty when it does. doubt: why
    it may not be registered to the image, empty when nothing speaks against it.
    """

    header: Header
    people: People3D
    motion: RigidMotion | None
    depth: np.ndarray
    message: ReceivedImage | Image | CompressedImage
    camera: CameraModel
    depth_camera: CameraModel | None
    silence: str
    doubt: str
    milliseconds: float

    def optical(self, people: People3D) -> People3D:
        """``people`` of the frame of ``header`` in the camera's optical frame."""
        return people if self.motion is None else moved(people, self.motion, back=True)


def lift(
    header: Header,
    people: People,
    depth_input: DepthInput,
    calibration: Calibration,
    target_frame: TargetFrame | None,
    run: RunSettings,
) -> Lifted:
    """Lift the people of one image; calibration: of the image.

    Raises NoDepthError, and nothing else for what messages, calibrations or tf hold.
    """
    start = time.perf_counter()
    try:
        message = depth_input.nearest(stamp_ns(header.stamp), run.depth_max_age)
        depth = depth_image(message)
        camera = calibration.fitting(people.image_size, "the image")
        depth_camera = depth_camera_of(
            depth_input.calibration, calibration, depth.shape, people.image_size
        )
        found = lift_people(
            people, depth, camera, depth_camera=depth_camera, joint_inset=run.joint_inset
        )
        silence = says_nothing(depth)
    except CalibrationError as error:
        raise NoDepthError(str(error), error.kind) from error
    except ImageError as error:
        raise NoDepthError(f"{depth_input.topic}: {error}", "not an image") from error
    except ValueError as error:
        raise NoDepthError(f"{depth_input.topic}: {error}", "not usable") from error
    found_header, motion = header, None
    if target_frame is not None:
        motion = target_frame.motion(header)
        found_header = Header(stamp=header.stamp, frame_id=target_frame.frame)
        found = moved(found, motion)
    elapsed = (time.perf_counter() - start) * 1e3
    if silence:
        silence = f"the depth image on {depth_input.topic}: {silence}"
    doubt = why_unregistered(header.frame_id, message.header.frame_id)
    if doubt:
        doubt = f"the depth images on {depth_input.topic}: {doubt}"
    return Lifted(
        found_header, found, motion, depth, message, camera, depth_camera, silence, doubt, elapsed
    )


def people_free_depth(lifted: Lifted, people: People, margin: int) -> np.ndarray:
    """The depth image of ``lifted``, unknown where people are, see `depth_without_people`."""
    return depth_without_people(
        lifted.depth, people.masks, margin, camera=lifted.camera, depth_camera=lifted.depth_camera
    )
