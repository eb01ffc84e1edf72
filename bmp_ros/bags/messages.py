# SPDX-License-Identifier: Apache-2.0
"""Messages of a bag to images, and people to messages, by the library ``rosbags``: no ROS.

The definitions of ``bmp_msgs`` are the files that ROS builds, so a bag says what the node would
have published (``bmp_ros/ros/person_messages.py`` makes the same message of ROS's own classes).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from bmp_ros.compressed_images import decode_compressed
from bmp_ros.depth.people_3d import People3D
from bmp_ros.loop.masks import encode_runs
from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import Skeleton
from bmp_ros.pixels import ImageError, RawImage, decode_raw
from bmp_ros.resources import message_files

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
PERSON_ARRAY = "bmp_msgs/msg/PersonArray"
PERSON_ARRAY_3D = "bmp_msgs/msg/PersonArray3D"
INSTALL = "recordings need the library rosbags: `pip install -r requirements/bags.txt`"


class BagError(ValueError):
    """A bag cannot be read, or not as asked; the message names it and says what to do."""


def import_rosbags(module: str) -> ModuleType:
    """Import a module of rosbags. Raises ModuleNotFoundError that says what to install."""
    from importlib import import_module

    try:
        return import_module(f"rosbags.{module}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{INSTALL} ({error})", name="rosbags") from error


@cache
def type_store() -> Any:
    """ROS 2's common messages (Jazzy) and those of bmp_msgs, as rosbags knows types.

    One for the process, not to be changed: what it generates for a type takes a tenth of a second.
    """
    typesys = import_rosbags("typesys")
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for file in message_files():
        name = f"bmp_msgs/msg/{file.stem}"
        types |= typesys.get_types_from_msg(file.read_text(encoding="utf-8"), name)
    store.register(types)
    return store


@dataclass(frozen=True)
class BagImage:
    """header: of the message. image: (H, W, 3) uint8 BGR. damage: what was broken in its file.
    bits: significant bits per sample, see `pixels.to_8_bits`."""

    header: Any
    image: np.ndarray
    damage: str
    bits: int

    @property
    def stamp_ns(self) -> int:
        """Of the header, nanoseconds; may be negative."""
        return stamp_ns(self.header)


def stamp_ns(header: Any) -> int:
    """Of a message's header, nanoseconds; may be negative."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


def stamp_ns_of(data: bytes) -> int:
    """The stamp, in nanoseconds, of a serialised message that begins with a header.

    CDR: 4 bytes that tell the byte order (the lowest bit of the second one set: little endian),
    then seconds (int32) and nanoseconds (uint32). Raises ImageError for fewer bytes.
    """
    try:
        order = "<" if data[1] & 1 else ">"
        seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, 4)
    except (struct.error, IndexError) as error:
        raise ImageError(f"{len(data)} bytes are no message with a header") from error
    return int(seconds) * 10**9 + int(nanoseconds)


def read_message(data: bytes, kind: str, store: Any) -> Any:
    """Deserialise a message. Raises ImageError for bytes that are none of that type."""
    try:
        return store.deserialize_cdr(data, kind)
    except Exception as error:  # whatever damaged lengths lead to in the generated code
        raise ImageError(
            f"{len(data)} bytes are no {kind}: {type(error).__name__}: {error}"
        ) from error


def read_image(data: bytes, kind: str, store: Any, least_bits: int = 8) -> BagImage:
    """Decode a serialised `IMAGE` or `COMPRESSED`. least_bits: see `pixels.to_8_bits`.

    Raises ImageError for what is no whole image, or one in an encoding that is not converted.
    """
    message = read_message(data, kind, store)
    if kind == COMPRESSED:
        pixels = decode_compressed(message.data.tobytes(), message.format, least_bits)
    else:
        pixels = decode_raw(
            RawImage(
                message.encoding, message.width, message.height, message.step,
                bool(message.is_bigendian), message.data.tobytes(),
            ),
            least_bits,
        )  # fmt: skip
    return BagImage(message.header, pixels.image, pixels.damage, pixels.bits)


def write_image(header: Any, image: np.ndarray, kind: str, store: Any) -> bytes:
    """Serialise a BGR image (H, W, 3) as `IMAGE` (bgr8), or as `COMPRESSED` (JPEG, quality 95)."""
    if kind == COMPRESSED:
        _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        form = "bgr8; jpeg compressed bgr8"
        message = store.types[COMPRESSED](header=header, format=form, data=jpeg.reshape(-1))
    else:
        height, width = image.shape[:2]
        message = store.types[IMAGE](
            header=header, height=height, width=width, encoding="bgr8", is_bigendian=0,
            step=3 * width, data=np.ascontiguousarray(image).reshape(-1),
        )  # fmt: skip
    return bytes(store.serialize_cdr(message, kind))


def write_people(header: Any, people: People, ages: np.ndarray, store: Any) -> bytes:
    """Serialise the people of one image as `PERSON_ARRAY`.

    header: of the image. ages: (N,) seconds of their tracks, NaN where there is none.
    """
    types = store.types
    height, width = people.image_size
    joint = types["bmp_msgs/msg/Keypoint"]
    per_keypoint = people.keypoint_rows().tolist()
    corners = people.boxes.tolist()
    persons = []
    for row, (x1, y1, x2, y2) in enumerate(corners):
        persons.append(
            types["bmp_msgs/msg/Person"](
                track_id=int(people.track_ids[row]),
                track_age=float(ages[row]),
                score=float(people.scores[row]),
                pose_score=float(people.pose_scores[row]),
                mask_score=float(people.mask_scores[row]),
                bbox=types["bmp_msgs/msg/BoundingBox"](x=x1, y=y1, width=x2 - x1, height=y2 - y1),
                keypoints=[
                    joint(x=x, y=y, score=score, visibility=visibility, presence=presence)
                    for x, y, score, visibility, presence in per_keypoint[row]
                ],
                mask=_mask(people.masks[row], people.mask_rectangles[row], types),
            )
        )
    message = types[PERSON_ARRAY](
        header=header, height=height, width=width,
        skeleton=_skeleton(people.skeleton, types), people=persons,
    )  # fmt: skip
    return bytes(store.serialize_cdr(message, PERSON_ARRAY))


def write_people_3d(
    header: Any,
    people: People,
    found: People3D,
    ages: np.ndarray,
    velocities: np.ndarray,
    store: Any,
) -> bytes:
    """Serialise the people of one image in space as `PERSON_ARRAY_3D`.

    header: of the image. ages: as for `write_people`. velocities: (N, 3) metres per second, NaN
    where unknown.
    """
    types = store.types
    joint, person = types["bmp_msgs/msg/Keypoint3D"], types["bmp_msgs/msg/Person3D"]
    point, vector = types["geometry_msgs/msg/Point"], types["geometry_msgs/msg/Vector3"]
    values = np.concatenate(
        [found.keypoints, people.keypoint_scores[..., None], found.spread[..., None]], axis=2
    ).tolist()
    persons = []
    for row, (cx, cy, cz) in enumerate(found.centroids.astype(float).tolist()):
        vx, vy, vz = velocities[row].tolist()
        persons.append(
            person(
                track_id=int(people.track_ids[row]),
                track_age=float(ages[row]),
                index=row,
                keypoints=[
                    joint(x=x, y=y, z=z, score=score, spread=spread)
                    for x, y, z, score, spread in values[row]
                ],
                centroid=point(x=cx, y=cy, z=cz),
                distance=float(found.distances[row]),
                velocity=vector(x=vx, y=vy, z=vz),
            )
        )
    message = types[PERSON_ARRAY_3D](
        header=header, skeleton=_skeleton(people.skeleton, types), people=persons
    )
    return bytes(store.serialize_cdr(message, PERSON_ARRAY_3D))


def _mask(mask: np.ndarray, rectangle: np.ndarray, types: Any) -> Any:
    x, y, width, height = rectangle.tolist()
    runs = np.zeros(0, np.uint32)
    if width == 0:
        x = y = height = 0
    else:
        runs = np.ascontiguousarray(encode_runs(mask, (x, y, width, height))[1], np.uint32)
    return types["bmp_msgs/msg/Mask"](
        x_offset=x, y_offset=y, width=width, height=height, counts=runs
    )


def _skeleton(skeleton: Skeleton, types: Any) -> Any:
    return types["bmp_msgs/msg/Skeleton"](
        name=skeleton.name,
        keypoint_names=list(skeleton.names),
        edges=np.array(skeleton.edges, np.uint8).reshape(-1),
    )
