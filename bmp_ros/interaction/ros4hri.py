# SPDX-License-Identifier: Apache-2.0
"""People as ROS4HRI (REP-155) wants them: ids, regions and skeletons in shares of the image."""

from __future__ import annotations

import secrets
import string

import numpy as np

from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import Skeleton

_DIGITS = string.digits + string.ascii_lowercase
_NECK = ("left_shoulder", "right_shoulder")
SKELETON_2D = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
    "left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "left_eye", "right_eye", "left_ear", "right_ear",
)  # fmt: skip
"""Joints of hri_msgs/Skeleton2D, in its order. Its comment cites OpenPose's COCO model, which has
the right eye and ear before the left; its constants, which count, have the left ones first."""


def run_nonce() -> str:
    """Three letters and digits at random, so that ids of two runs differ."""
    return "".join(secrets.choice(_DIGITS) for _ in range(3))


def body_id(nonce: str, track_id: int) -> str:
    """Id of the body with a track id: ``b``, the run's nonce, the track id to the base of 36.

    It begins with a letter, since it becomes a part of names of topics and frames, and is never
    reused, since track ids are not. Raises ValueError for somebody who is not tracked.
    """
    if track_id < 0:
        raise ValueError(f"track_id is {track_id}: people who are not tracked have no body id")
    digits = ""
    while track_id or not digits:
        track_id, digit = divmod(track_id, 36)
        digits = _DIGITS[digit] + digits
    return f"b{nonce}{digits}"


def normalised_boxes(people: People) -> np.ndarray:
    """(N, 4) float64 xmin, ymin, xmax, ymax in [0, 1] of the image's width and height.

    Pixel centres lie at integers, so the image reaches from -0.5 to width - 0.5.
    """
    height, width = people.image_size
    boxes = (people.boxes.astype(np.float64) + 0.5) / [width, height, width, height]
    return np.asarray(np.clip(boxes, 0.0, 1.0))


def skeletons_2d(
    keypoints: np.ndarray, scores: np.ndarray, skeleton: Skeleton, image_size: tuple[int, int]
) -> np.ndarray:
    """(N, 18, 3) x, y in [0, 1] and c of the joints of `SKELETON_2D`, by their names.

    keypoints: (N, K, 2) pixels, scores: (N, K). The neck is the middle of the shoulders, with the
    lower of their scores. Joints outside of the image are moved to its border, with c = 0, as are
    joints that the skeleton does not have.
    """
    height, width = image_size
    count = len(keypoints)
    found = np.zeros((count, len(SKELETON_2D), 3))
    values = np.concatenate([keypoints, scores[..., None]], axis=2).astype(np.float64)
    shoulders = skeleton.indices(*_NECK)
    for row, name in enumerate(SKELETON_2D):
        if name in skeleton.names:
            found[:, row] = values[:, skeleton.names.index(name)]
        elif name == "neck" and shoulders is not None:
            both = values[:, list(shoulders)]
            found[:, row, :2] = both[..., :2].mean(axis=1)
            found[:, row, 2] = both[..., 2].min(axis=1)
        else:
            found[:, row] = [-0.5, -0.5, 0.0]
    shares = (found[..., :2] + 0.5) / [width, height]
    inside = ((shares >= 0) & (shares <= 1)).all(axis=2)
    found[..., :2] = np.clip(np.nan_to_num(shares), 0.0, 1.0)
    found[..., 2] = np.where(inside, np.clip(found[..., 2], 0.0, 1.0), 0.0)
    return found


def cropped(image: np.ndarray, people: People, row: int, *, remove_background: bool) -> np.ndarray:
    """The part of ``image`` (H, W, 3) in the box of one person; a copy, at least 1x1.

    remove_background: what is not in the person's mask is black.
    """
    height, width = people.image_size
    x1, y1, x2, y2 = people.boxes[row].tolist()
    left, top = min(max(int(x1), 0), width - 1), min(max(int(y1), 0), height - 1)
    right = min(max(int(np.ceil(x2)), left + 1), width)
    bottom = min(max(int(np.ceil(y2)), top + 1), height)
    part = image[top:bottom, left:right]
    if not remove_background:
        return part.copy()
    return np.where(people.masks[row, top:bottom, left:right, None], part, 0)
