# SPDX-License-Identifier: Apache-2.0
"""``People`` to ``bmp_msgs``, built for speed, without loss; `received_people` reads them back.

Also as ``vision_msgs/Detection2DArray``, where that package is installed.
"""

from __future__ import annotations

import importlib.util
from array import array
from functools import lru_cache
from typing import Any

import numpy as np
from std_msgs.msg import Header

from bmp_ros.loop.masks import encode_runs
from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import Skeleton
from bmp_ros.ros.interfaces import BoundingBox, Keypoint, Mask, Person, PersonArray
from bmp_ros.ros.interfaces import Skeleton as SkeletonMessage


def person_array(header: Header, people: People, ages: np.ndarray | None = None) -> PersonArray:
    """Make the message of all people in one image; masks are the exclusive ones.

    header: of the image. ages: (N,) seconds of their tracks, NaN where there is none; None: there
    are none. The cost is per Python object: 10 people with 17 keypoints take 1 ms.
    """
    height, width = people.image_size
    if ages is None:
        ages = np.full(len(people), np.nan)
    # Plain Python numbers, all at once: one by one out of NumPy they cost ten times as much.
    corners = people.boxes.tolist()
    per_keypoint = people.keypoint_rows().tolist()
    rows = zip(
        people.track_ids.tolist(),
        ages.tolist(),
        people.scores.tolist(),
        people.pose_scores.tolist(),
        people.mask_scores.tolist(),
        corners,
        per_keypoint,
        people.masks,
        people.mask_rectangles,
        strict=True,
    )
    return PersonArray(
        header=header,
        height=height,
        width=width,
        skeleton=skeleton_message(people.skeleton),
        people=[
            Person(
                track_id=track_id,
                track_age=age,
                score=score,
                pose_score=pose_score,
                mask_score=mask_score,
                bbox=BoundingBox(x=x1, y=y1, width=x2 - x1, height=y2 - y1),
                keypoints=[
                    Keypoint(x=x, y=y, score=joint, visibility=visibility, presence=presence)
                    for x, y, joint, visibility, presence in keypoints
                ],
                mask=_mask_message(mask, rectangle),
            )
            for (
                track_id, age, score, pose_score, mask_score, (x1, y1, x2, y2), keypoints, mask,
                rectangle,
            ) in rows
        ],
    )  # fmt: skip


@lru_cache(maxsize=8)
def skeleton_message(skeleton: Skeleton) -> SkeletonMessage:
    """Names and edges of a skeleton; the same message again and again, do not write to it."""
    edges = array("B", [index for edge in skeleton.edges for index in edge])
    return SkeletonMessage(name=skeleton.name, keypoint_names=list(skeleton.names), edges=edges)


def detections_available() -> bool:
    """Whether vision_msgs can be imported."""
    return importlib.util.find_spec("vision_msgs") is not None


def detection_array(header: Header, people: People) -> Any:
    """Boxes only, class ``person``; ``id`` is the track's number, empty without one."""
    from vision_msgs.msg import Detection2D, ObjectHypothesisWithPose

    array = empty_detection_array(header)
    rows = zip(
        people.boxes.tolist(), people.scores.tolist(), people.track_ids.tolist(), strict=True
    )
    for (x1, y1, x2, y2), score, track_id in rows:
        detection = Detection2D(header=header, id=str(track_id) if track_id >= 0 else "")
        detection.bbox.center.position.x = (x1 + x2) / 2
        detection.bbox.center.position.y = (y1 + y2) / 2
        detection.bbox.size_x = x2 - x1
        detection.bbox.size_y = y2 - y1
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = "person"
        hypothesis.hypothesis.score = score
        detection.results = [hypothesis]
        array.detections.append(detection)
    return array


def empty_detection_array(header: Header) -> Any:
    """What `detection_array` says of an image without people."""
    from vision_msgs.msg import Detection2DArray

    return Detection2DArray(header=header)


def _mask_message(mask: np.ndarray, rectangle: np.ndarray) -> Mask:
    x, y, width, height = rectangle.tolist()
    if width == 0:
        return Mask()
    _, runs = encode_runs(mask, (x, y, width, height))
    counts = array("I")
    counts.frombytes(np.ascontiguousarray(runs, np.uint32).data.cast("B"))
    return Mask(x_offset=x, y_offset=y, width=width, height=height, counts=counts)
