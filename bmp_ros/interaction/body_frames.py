# SPDX-License-Identifier: Apache-2.0
"""A coordinate frame for every body, from joints in space.

As in REP-155 (ROS4HRI): the origin lies between the hips, x points out of the body, y to its left,
z to its head. Frames of joints lie below it and are turned as it is: joints are points, they have
no orientation of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bmp_ros.loop.skeletons import Skeleton

JOINT_SCORE = 0.3
"""Minimum score of a joint that counts."""
LEAST_TRUNK, LEAST_WIDTH = 0.15, 0.05
"""Metres from hips to shoulders, and from left to right across: below, a frame is noise."""
_TRUNK = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
_HEAD = (("left_ear", "right_ear"), ("left_eye", "right_eye"), ("nose", "nose"))
LINKS = {
    "l_shoulder": "left_shoulder", "r_shoulder": "right_shoulder",
    "l_elbow": "left_elbow", "r_elbow": "right_elbow",
    "l_wrist": "left_wrist", "r_wrist": "right_wrist",
    "l_hip": "left_hip", "r_hip": "right_hip",
    "l_knee": "left_knee", "r_knee": "right_knee",
    "l_ankle": "left_ankle", "r_ankle": "right_ankle",
}  # fmt: skip
"""Frames of joints, by the names of ROS4HRI's links; besides there is ``head``."""


@dataclass(frozen=True)
class BodyFrames:
    """Frames of N people, float64, in the frame of the joints they were made from.

    origins: (N, 3) metres. rotations: (N, 3, 3), columns are the axes x, y, z of the body: a point
    p of the body is rotation @ p + origin. Both NaN where the trunk is not known. links: name to
    (N, 3) metres in the body's own frame, NaN where unknown.
    """

    origins: np.ndarray
    rotations: np.ndarray
    links: dict[str, np.ndarray]

    @property
    def known(self) -> np.ndarray:
        """(N,) bool."""
        return np.asarray(np.isfinite(self.origins[:, 0]))


def body_frames(keypoints: np.ndarray, scores: np.ndarray, skeleton: Skeleton) -> BodyFrames:
    """Frames of N people with joints (N, K, 3) in metres, NaN where unknown, and scores (N, K).

    z leads from the middle of the hips to that of the shoulders, y is the part at right angles to
    it of the way from the right to the left side, x completes a right-handed frame. A frame needs
    both hips and both shoulders.
    """
    joints = np.where((scores >= JOINT_SCORE)[..., None], keypoints, np.nan).astype(np.float64)
    trunk = skeleton.indices(*_TRUNK)
    count = len(joints)
    if trunk is None or not count:
        none = np.full((count, 3), np.nan)
        return BodyFrames(none, np.full((count, 3, 3), np.nan), {})
    left_shoulder, right_shoulder, left_hip, right_hip = (joints[:, index] for index in trunk)
    origins = (left_hip + right_hip) / 2
    up = (left_shoulder + right_shoulder) / 2 - origins
    across = (left_shoulder - right_shoulder + left_hip - right_hip) / 2
    height = np.linalg.norm(up, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = up / height[:, None]
        across = across - (across * z).sum(axis=1, keepdims=True) * z
        width = np.linalg.norm(across, axis=1)
        y = across / width[:, None]
        rotations = np.stack([np.cross(y, z), y, z], axis=2)
        usable = (height >= LEAST_TRUNK) & (width >= LEAST_WIDTH)
    usable &= np.isfinite(rotations).all(axis=(1, 2))
    origins = np.where(usable[:, None], origins, np.nan)
    rotations = np.where(usable[:, None, None], rotations, np.nan)
    places = {link: joints[:, skeleton.names.index(name)] for link, name in _links_of(skeleton)}
    places["head"] = _head(joints, skeleton)
    links = {
        link: np.einsum("nij,ni->nj", rotations, place - origins) for link, place in places.items()
    }
    return BodyFrames(origins, rotations, links)


def _links_of(skeleton: Skeleton) -> list[tuple[str, str]]:
    return [(link, name) for link, name in LINKS.items() if name in skeleton.names]


def _head(joints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(N, 3) middle of the ears, else of the eyes, else the nose; NaN without any."""
    found = np.full((len(joints), 3), np.nan)
    for pair in _HEAD:
        indices = skeleton.indices(*pair)
        if indices is not None:
            middle = joints[:, list(indices)].mean(axis=1)
            found = np.where(np.isfinite(found), found, middle)
    return found


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """(N, 4) unit quaternions x, y, z, w with w >= 0 of rotations (N, 3, 3); NaN of NaN.

    Shepperd's method (1978): of the four components the largest is computed first, so that none is
    divided by a number near 0.
    """
    r = np.asarray(rotations, np.float64)
    xx, yy, zz = r[:, 0, 0], r[:, 1, 1], r[:, 2, 2]
    squares = np.stack(
        [1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz, 1 + xx + yy + zz], axis=1
    )
    sx, sy, sz = r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]
    xy, xz, yz = r[:, 0, 1] + r[:, 1, 0], r[:, 0, 2] + r[:, 2, 0], r[:, 1, 2] + r[:, 2, 1]
    # Row i of `candidates` is the quaternion times four times its component i.
    candidates = np.stack(
        [
            np.stack([squares[:, 0], xy, xz, sx], axis=1),
            np.stack([xy, squares[:, 1], yz, sy], axis=1),
            np.stack([xz, yz, squares[:, 2], sz], axis=1),
            np.stack([sx, sy, sz, squares[:, 3]], axis=1),
        ],
        axis=1,
    )
    largest = np.argmax(np.nan_to_num(squares, nan=-np.inf), axis=1)
    chosen = candidates[np.arange(len(r)), largest]
    chosen = chosen / np.linalg.norm(chosen, axis=1, keepdims=True)
    return np.asarray(np.where(chosen[:, 3:] < 0, -chosen, chosen))
