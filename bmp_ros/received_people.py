# SPDX-License-Identifier: Apache-2.0
"""``People`` out of a message, whichever library made its object: rclpy, or ``rosbags``."""

from __future__ import annotations

from typing import Any

import numpy as np

from bmp_ros.loop.masks import paste_runs
from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import SKELETONS, Skeleton
from bmp_ros.pixels import MAX_PIXELS

MAX_PEOPLE = 1000
"""The most that the node publishes of one image, and that is read of a message."""
MAX_MASK_BYTES = 1 << 32
"""Of the masks of one message: 50 people in an image of 67 million pixels, or 1000 in one of
1920x1080. A message of a few kilobytes may ask for any number of them."""


def people_from_message(message: Any) -> People:
    """Read a message back; raw masks are the exclusive ones, iterations are 1, ages are left out.

    Raises ValueError when counts, keypoints or edges contradict the message's own sizes, and for
    more than `MAX_PEOPLE` people, `MAX_PIXELS` pixels or `MAX_MASK_BYTES`.
    """
    check_size(len(message.people), message.height, message.width)
    skeleton = _skeleton(message.skeleton)
    count, joints = len(message.people), len(skeleton)
    masks = np.zeros((count, message.height, message.width), np.bool_)
    boxes = np.zeros((count, 4), np.float32)
    per_keypoint = np.zeros((count, joints, 5), np.float32)
    for index, person in enumerate(message.people):
        box = person.bbox
        boxes[index] = box.x, box.y, box.x + box.width, box.y + box.height
        if len(person.keypoints) != joints:
            raise ValueError(
                f"person {index} has {len(person.keypoints)} keypoints, the skeleton "
                f"{skeleton.name!r} has {joints}"
            )
        per_keypoint[index] = [
            (k.x, k.y, k.score, k.visibility, k.presence) for k in person.keypoints
        ]
        mask = person.mask
        if len(mask.counts):
            rectangle = (mask.x_offset, mask.y_offset, mask.width, mask.height)
            paste_runs(masks[index], mask.counts, rectangle)

    def scores(name: str) -> np.ndarray:
        return np.array([getattr(person, name) for person in message.people], np.float32)

    return People(
        boxes=boxes,
        scores=scores("score"),
        pose_scores=scores("pose_score"),
        mask_scores=scores("mask_score"),
        keypoints=per_keypoint[..., :2].copy(),
        keypoint_scores=per_keypoint[..., 2].copy(),
        visibility=per_keypoint[..., 3].copy(),
        presence=per_keypoint[..., 4].copy(),
        masks=masks,
        raw_masks=masks,
        has_mask=np.array([len(person.mask.counts) > 0 for person in message.people], np.bool_),
        iterations=np.ones(count, np.int32),
        track_ids=np.array([person.track_id for person in message.people], np.int32),
        skeleton=skeleton,
    )


def check_size(people: int, height: int, width: int) -> None:
    """Raise ValueError for a message about more people or pixels than are read."""
    if people > MAX_PEOPLE:
        raise ValueError(
            f"the message has {people} people, at most {MAX_PEOPLE} are read: leave out those "
            "with the lowest scores"
        )
    pixels = height * width
    if people and (pixels > MAX_PIXELS or people * pixels > MAX_MASK_BYTES):
        raise ValueError(
            f"the message has {people} people in an image of {width}x{height} pixels; at most "
            f"{MAX_PIXELS} pixels, and {MAX_MASK_BYTES} in all masks, are read: send fewer people "
            "or a smaller image"
        )


def people_in_space(message: Any) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (N, K, 3) and centroids (N, 3) of a PersonArray3D, float32 metres, NaN unknown.

    Row by row those of the PersonArray of the same stamp.
    Raises ValueError when a person has another number of keypoints than the skeleton.
    """
    joints = len(message.skeleton.keypoint_names)
    keypoints = np.full((len(message.people), joints, 3), np.nan, np.float32)
    centroids = np.full((len(message.people), 3), np.nan, np.float32)
    for index, person in enumerate(message.people):
        if len(person.keypoints) != joints:
            raise ValueError(
                f"person {index} has {len(person.keypoints)} keypoints in space, the skeleton "
                f"{message.skeleton.name!r} has {joints}"
            )
        keypoints[index] = [(k.x, k.y, k.z) for k in person.keypoints]
        place = person.centroid
        centroids[index] = place.x, place.y, place.z
    return keypoints, centroids


def _skeleton(message: Any) -> Skeleton:
    """Return the skeleton of that name, or one made of the message where it is not ours."""
    names = tuple(message.keypoint_names)
    known = SKELETONS.get(message.name)
    if known is not None and known.names == names:
        return known
    pairs = [int(index) for index in message.edges]
    edges = tuple(zip(pairs[::2], pairs[1::2], strict=True))
    return Skeleton(message.name, names, edges, (), ())
