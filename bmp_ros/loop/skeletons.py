# SPDX-License-Identifier: Apache-2.0
"""Keypoint sets by name: joints, edges to draw, flip pairs and OKS sigmas.

The 21- and 23-joint sets are those of the published multi-dataset networks (COCO + MPII + AIC):
COCO's 17 joints in COCO's order, then others, named after the data set that defines them. Where a
set begins with COCO's joints, pose NMS, prompts and ``pose_score`` use just these
(`Skeleton.main_joints`); of any other set they use all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
    0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
"""Per-joint standard deviations of COCO's object keypoint similarity (cocodataset.org)."""

_COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
_FACE = ("nose", "left_eye", "right_eye")
_COCO_EDGES = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
    (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
_COCO_FLIP_PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))


@dataclass(frozen=True)
class Skeleton:
    """A named keypoint set of K joints.

    names: one per joint. edges: pairs of joint indices to draw. flip_pairs: left-right pairs; a
    joint in no pair maps to itself. sigmas: K standard deviations for OKS.
    """

    name: str
    names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def begins_with_coco(self) -> bool:
        """Whether the first 17 joints are COCO's, in COCO's order."""
        return self.names[: len(_COCO_NAMES)] == _COCO_NAMES

    @property
    def main_joints(self) -> slice:
        """The joints that pose NMS, prompts and ``pose_score`` use: COCO's 17, or all."""
        return slice(len(_COCO_NAMES) if self.begins_with_coco else len(self.names))

    @property
    def face(self) -> tuple[int, ...]:
        """Nose and eyes, as far as the set has them: so close together that one says it all."""
        return tuple(i for i, name in enumerate(self.names) if name in _FACE)

    def indices(self, *names: str) -> tuple[int, ...] | None:
        """Where joints are, by their names; None when one of them is missing."""
        if not set(names) <= set(self.names):
            return None
        return tuple(self.names.index(name) for name in names)

    @property
    def flip_indices(self) -> np.ndarray:
        """(K,) int64: ``keypoints[flip_indices]`` are the joints of the mirrored image."""
        indices = np.arange(len(self.names))
        for left, right in self.flip_pairs:
            indices[left], indices[right] = right, left
        return indices


COCO_17 = Skeleton("coco_17", _COCO_NAMES, _COCO_EDGES, _COCO_FLIP_PAIRS, COCO_SIGMAS)

# Names after what the channels were trained on: channel 17 saw MPII's thorax and AIC's neck,
# channel 19 the top of the head of both. (The published metainfo file has 22 names for these 21
# channels, wrong from index 19 on.)
MULTI_21 = Skeleton(
    "multi_21",
    (*_COCO_NAMES, "thorax", "upper_neck", "head_top", "pelvis"),
    (*_COCO_EDGES, (19, 18), (18, 17), (17, 20)),
    _COCO_FLIP_PAIRS,
    (*COCO_SIGMAS, 0.079, 0.079, 0.035, 0.107),
)

MULTI_23 = Skeleton(
    "multi_23",
    (
        *_COCO_NAMES,
        "thorax_mpii",
        "pelvis_mpii",
        "neck_mpii",
        "head_top_mpii",
        "neck_aic",
        "head_top_aic",
    ),  # fmt: skip
    (*_COCO_EDGES, (20, 19), (19, 17), (17, 18), (22, 21)),
    _COCO_FLIP_PAIRS,
    (*COCO_SIGMAS, 0.079, 0.107, 0.079, 0.035, 0.079, 0.035),
)

# MPII Human Pose (Andriluka et al., CVPR 2014), in its own order. MPII's score is PCKh, so it has
# no OKS sigmas: joints that COCO has too take COCO's, the others those of `MULTI_21`.
MPII_16 = Skeleton(
    "mpii_16",
    (
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis",
        "thorax", "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder",
        "left_shoulder", "left_elbow", "left_wrist",
    ),
    (
        (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (7, 12), (12, 11),
        (11, 10), (7, 13), (13, 14), (14, 15),
    ),
    ((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    (
        0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.107, 0.079, 0.079, 0.035, 0.062, 0.072, 0.079,
        0.079, 0.072, 0.062,
    ),
)  # fmt: skip

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO_17, MPII_16, MULTI_21, MULTI_23)}


def check_skeleton(skeleton: Skeleton) -> None:
    """Raise ValueError where a skeleton is not complete, naming what the loop needs of it.

    That is: at least one joint, names that differ, one positive sigma per joint (pose NMS), edges
    and flip pairs between joints that exist.
    """
    count, name = len(skeleton.names), skeleton.name
    if not count or len(set(skeleton.names)) != count:
        raise ValueError(f"skeleton {name!r} needs joints with different names")
    if len(skeleton.sigmas) != count or not all(sigma > 0 for sigma in skeleton.sigmas):
        raise ValueError(
            f"skeleton {name!r} has {count} joints and the sigmas {skeleton.sigmas}: pose NMS "
            "needs one above 0 per joint (its standard deviation in OKS)"
        )
    for what, pairs in (("edge", skeleton.edges), ("flip pair", skeleton.flip_pairs)):
        for pair in pairs:
            if len(set(pair)) != 2 or not all(0 <= index < count for index in pair):
                raise ValueError(
                    f"skeleton {name!r} has the {what} {tuple(pair)}, needs two of its {count} "
                    "joints"
                )


def skeleton_of_size(joints: int) -> Skeleton:
    """Return the skeleton with ``joints`` joints (16, 17, 21 or 23).

    Raises ValueError for any other number, naming those that are known.
    """
    for skeleton in SKELETONS.values():
        if len(skeleton) == joints:
            return skeleton
    known = ", ".join(f"{len(s)} ({s.name})" for s in SKELETONS.values())
    raise ValueError(f"no skeleton with {joints} joints; known numbers of joints: {known}")
