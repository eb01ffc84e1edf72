# SPDX-License-Identifier: Apache-2.0
"""NumPy to messages: depth images, people in space. `depth.depth_messages` reads."""

from __future__ import annotations

import sys

import numpy as np
from geometry_msgs.msg import Point, Vector3
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from bmp_ros.depth.people_3d import People3D
from bmp_ros.loop.people import People
from bmp_ros.ros.compatibility import array_of_bytes
from bmp_ros.ros.image_messages import ReceivedImage
from bmp_ros.ros.interfaces import Keypoint3D, Person3D, PersonArray3D
from bmp_ros.ros.person_messages import skeleton_message


def depth_message(like: Image | ReceivedImage | CompressedImage, depth: np.ndarray) -> Image:
    """A depth image with header and encoding of ``like``, never compressed; one copy."""
    depth = np.ascontiguousarray(depth)
    if isinstance(like, CompressedImage):
        encoding = "32FC1" if depth.dtype.kind == "f" else "16UC1"
    else:
        encoding = like.encoding
    message = Image(header=like.header, encoding=encoding)
    message.height, message.width = depth.shape
    message.step = depth.strides[0]
    message.is_bigendian = int(sys.byteorder == "big")
    message.data = array_of_bytes(depth.view(np.uint8))
    return message


def person_array_3d(
    header: Header,
    people: People,
    found: People3D,
    ages: np.ndarray | None = None,
    velocities: np.ndarray | None = None,
) -> PersonArray3D:
    """Make the message of all people in space, in the frame that ``header`` names.

    ages: (N,) seconds of their tracks; velocities: (N, 3) metres per second in that frame; NaN
    where unknown, None: for everybody.
    """
    unknown = np.full((len(people), 3), np.nan)
    values = np.concatenate([found.keypoints, people.keypoint_scores[..., None]], axis=2).tolist()
    rows = zip(
        people.track_ids.tolist(),
        (unknown[:, 0] if ages is None else ages).tolist(),
        values,
        found.spread.tolist(),
        found.centroids.astype(float).tolist(),
        found.distances.tolist(),
        (unknown if velocities is None else velocities).tolist(),
        strict=True,
    )
    return PersonArray3D(
        header=header,
        skeleton=skeleton_message(people.skeleton),
        people=[
            Person3D(
                track_id=track,
                track_age=age,
                index=index,
                keypoints=[
                    Keypoint3D(x=x, y=y, z=z, score=score, spread=spread)
                    for (x, y, z, score), spread in zip(keypoints, spreads, strict=True)
                ],
                centroid=Point(x=cx, y=cy, z=cz),
                distance=distance,
                velocity=Vector3(x=vx, y=vy, z=vz),
            )
            for index, (
                track, age, keypoints, spreads, (cx, cy, cz), distance, (vx, vy, vz),
            ) in enumerate(rows)
        ],
    )  # fmt: skip
