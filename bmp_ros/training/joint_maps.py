# SPDX-License-Identifier: Apache-2.0
"""Which joint of a data set is which of a network: COCO, MPII, AIC and CrowdPose on one skeleton.

The maps of the 21 and 23 joints are those of the published multi-dataset networks. A joint that a
data set does not label has no place in it, which is not the same as being out of the image: such
joints carry no loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmp_ros.loop.skeletons import COCO_17, MPII_16, MULTI_21, MULTI_23, Skeleton

_AIC_14 = (
    "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "head_top",
    "neck",
)  # fmt: skip
_CROWDPOSE_14 = (
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head_top",
    "neck",
)  # fmt: skip

DATA_SETS: dict[str, tuple[str, ...]] = {
    "coco": COCO_17.names, "mpii": MPII_16.names, "aic": _AIC_14, "crowdpose": _CROWDPOSE_14,
}  # fmt: skip
"""Joints of data sets by their names, in the order of their annotations."""

_OTHER_NAMES: dict[tuple[str, str], dict[str, str]] = {
    (MULTI_21.name, "aic"): {"neck": "thorax"},
    (MULTI_23.name, "mpii"): {
        "thorax": "thorax_mpii", "pelvis": "pelvis_mpii", "upper_neck": "neck_mpii",
        "head_top": "head_top_mpii",
    },
    (MULTI_23.name, "aic"): {"neck": "neck_aic", "head_top": "head_top_aic"},
}  # fmt: skip
"""Joints that a skeleton knows by another name; every other joint is the one of its own name."""
# CrowdPose's head and neck are defined as AIC's, from which many of its images come.
for _skeleton in (MULTI_21, MULTI_23):
    _OTHER_NAMES[_skeleton.name, "crowdpose"] = _OTHER_NAMES[_skeleton.name, "aic"]


@dataclass(frozen=True)
class JointMap:
    """Where the joints of one data set go.

    source: number of joints of an annotation. pairs: (joint of the annotation, joint of
    ``target``) for those that both have. target: the skeleton of the network.
    """

    source: int
    pairs: tuple[tuple[int, int], ...]
    target: Skeleton

    @property
    def labelled(self) -> np.ndarray:
        """(K,) bool: the joints of the skeleton that this data set labels at all."""
        known = np.zeros(len(self.target), bool)
        known[[target for _, target in self.pairs]] = True
        return known

    def __call__(self, keypoints: np.ndarray) -> np.ndarray:
        """(source, 3) x y v of an annotation -> (K, 3); 0 for joints that it does not have."""
        mapped = np.zeros((len(self.target), 3), np.float32)
        for source, target in self.pairs:
            mapped[target] = keypoints[source]
        return mapped

    def back(self, keypoints: np.ndarray) -> np.ndarray:
        """(K, 3) of the skeleton -> (source, 3) in the data set's order; 0 where there is none."""
        back = np.zeros((self.source, keypoints.shape[1]), np.float32)
        for source, target in self.pairs:
            back[source] = keypoints[target]
        return back


def category_joints(document: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the joints that a COCO file's category of people gives; None without any."""
    categories = document.get("categories") or []
    people = [item for item in categories if item.get("name") == "person"] or categories[:1]
    names = people[0].get("keypoints") if people else None
    return tuple(names) if names else None


def joint_map(given: Any, names: Sequence[str] | None, target: Skeleton) -> JointMap:
    """The map that a recipe means.

    given: a data set (a key of `DATA_SETS`); a mapping from names of the skeleton to numbers of
    the annotations' joints; None: by ``names``, which the COCO file's category gives for its
    keypoints (None: the file has none, its joints are COCO's).
    Raises ValueError that says what is wrong and what is allowed.
    """
    if given is None:
        names = tuple(COCO_17.names if names is None else names)
        if names == target.names:
            return JointMap(len(names), tuple((j, j) for j in range(len(names))), target)
        given = next((key for key, known in DATA_SETS.items() if known == names), None)
        if given is None:
            raise ValueError(
                f"the file's {len(names)} joints ({', '.join(names[:4])} …) are those of no known "
                f"data set ({', '.join(DATA_SETS)}); say joint_map: {{name of {target.name}: "
                "number of the file's joint}"
            )
    if isinstance(given, str):
        return _of_data_set(given, names, target)
    if isinstance(given, Mapping):
        return _of_mapping(given, names, target)
    raise ValueError(f"joint_map is {given!r}, allowed: {', '.join(DATA_SETS)} or a mapping")


def _of_data_set(given: str, names: Sequence[str] | None, target: Skeleton) -> JointMap:
    if given not in DATA_SETS:
        raise ValueError(f"joint_map is {given!r}, allowed: {', '.join(DATA_SETS)} or a mapping")
    joints = DATA_SETS[given]
    if names is not None and len(names) != len(joints):
        raise ValueError(
            f"joint_map is {given}, which has {len(joints)} joints, but the file's category names "
            f"{len(names)}"
        )
    other = _OTHER_NAMES.get((target.name, given), {})
    places = [(number, other.get(name, name)) for number, name in enumerate(joints)]
    pairs = [(n, target.names.index(name)) for n, name in places if name in target.names]
    if not pairs:
        raise ValueError(f"{given} and {target.name} have no joint in common")
    return JointMap(len(joints), tuple(pairs), target)


def _of_mapping(
    given: Mapping[Any, Any], names: Sequence[str] | None, target: Skeleton
) -> JointMap:
    pairs = []
    for name, number in given.items():
        if name not in target.names:
            raise ValueError(
                f"joint_map names {name!r}, which {target.name} does not have; it has "
                f"{', '.join(target.names)}"
            )
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise ValueError(f"joint_map: {name} is {number!r}, needs a number from 0")
        pairs.append((number, target.names.index(name)))
    numbers = [number for number, _ in pairs]
    twice = next((number for number in numbers if numbers.count(number) > 1), None)
    if not pairs or twice is not None:
        what = "is empty" if not pairs else f"uses joint {twice} of the file twice"
        raise ValueError(f"joint_map {what}")
    source = len(names) if names is not None else max(numbers) + 1
    if max(numbers) >= source:
        raise ValueError(
            f"joint_map uses joint {max(numbers)}, the file's category names {source}"
        )
    return JointMap(source, tuple(pairs), target)
