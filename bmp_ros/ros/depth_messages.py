# SPDX-License-Identifier: Apache-2.0
"""Depth between messages and NumPy: depth images, people in space."""

from __future__ import annotations

import sys

import numpy as np
from geometry_msgs.msg import Point, Vector3
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from bmp_ros.depth.compressed_depth import CompressedDepthError, decode_compressed_depth
from bmp_ros.depth.people_3d import People3D
from bmp_ros.loop.people import People
from bmp_ros.ros.compatibility import array_of_bytes
from bmp_ros.ros.image_messages import ImageError, ReceivedImage
from bmp_ros.ros.interfaces import Keypoint3D, Person3D, PersonArray3D
from bmp_ros.ros.person_messages import skeleton_message

_TYPES = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
"""Encodings of REP 118: whole millimetres, or metres."""


def depth_image(message: Image | ReceivedImage | CompressedImage) -> np.ndarray:
    """Return the depth of a message, (h, w): uint16 millimetres or float32 metres.

    A view into the message where its bytes are in this machine's order; do not write to it.
    Raises ImageError for another encoding, for sizes that do not fit and for damaged data.
    """
    if isinstance(message, CompressedImage):
        return _compressed_depth(message)
    if message.encoding not in _TYPES:
        raise ImageError(
            f"encoding {message.encoding!r} is no depth; use {', '.join(_TYPES)} (REP 118)"
        )
    kind = np.dtype(_TYPES[message.encoding])
    height, width, step = message.height, message.width, message.step
    row = width * kind.itemsize
    if height == 0 or width == 0 or step < row or step % kind.itemsize:
        raise ImageError(
            f"depth of {width}x{height} pixels in {message.encoding} with a step of {step} "
            f"bytes; a row needs at least {row}, in whole pixels"
        )
    if len(message.data) < step * (height - 1) + row:
        raise ImageError(
            f"depth of {width}x{height} pixels and step {step} has {len(message.data)} bytes, "
            f"at least {step * (height - 1) + row} are needed"
        )
    ordered = kind.newbyteorder(">" if message.is_bigendian else "<")
    buffer = memoryview(message.data).cast("B")
    view: np.ndarray = np.ndarray((height, width), ordered, buffer, strides=(step, kind.itemsize))
    return view if ordered.isnative else view.astype(kind)


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


def _compressed_depth(message: CompressedImage) -> np.ndarray:
    """Decode what compressed_depth_image_transport published.

    Its format is ``16UC1; compressedDepth png``, or rvl; older ones name no codec.
    """
    encoding, _, rest = message.format.partition(";")
    words = rest.split()
    if words[:1] != ["compressedDepth"]:
        raise ImageError(
            f"format {message.format!r} is no depth; compressed depth is "
            "'16UC1; compressedDepth png' or the like"
        )
    try:
        return decode_compressed_depth(
            memoryview(message.data), encoding.strip(), words[1] if len(words) > 1 else "png"
        )
    except CompressedDepthError as error:
        raise ImageError(f"format {message.format!r}: {error}") from error


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
