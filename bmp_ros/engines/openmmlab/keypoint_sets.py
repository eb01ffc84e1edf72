# SPDX-License-Identifier: Apache-2.0
"""From a data set's keypoint names to our skeletons: COCO's joints first, where it has them all.

The dictionaries read here are MMPose's parsed ``dataset_meta`` (``parse_pose_metainfo``), as found
in a config or in a checkpoint; nothing of MMPose is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmp_ros.loop.skeletons import COCO_17, COCO_SIGMAS, SKELETONS, Skeleton, skeleton_of_size


@dataclass(frozen=True)
class KeypointSet:
    """How the output channels of one network become the keypoints of a skeleton.

    skeleton: K joints, the first 17 are COCO's if the set has them all. channels: (K,) int64, the
    network's channel of each joint. flip_indices: one int per channel, the channel of its mirror
    image.
    """

    skeleton: Skeleton
    channels: np.ndarray
    flip_indices: list[int]


def keypoint_set(
    channel_count: int,
    config_meta: Mapping[str, Any] | None,
    checkpoint_meta: Mapping[str, Any] | None,
) -> KeypointSet:
    """Return the keypoint set of a network with ``channel_count`` channels.

    Names come from the config, flip indices from the checkpoint (it knows what it was trained
    with); either stands in for the other where that one is missing, incomplete or of another
    length. With neither, 17, 21 and 23 channels are the known skeletons in their own order.
    Raises ValueError when the names are unknown.
    """
    named = [m for m in (config_meta, checkpoint_meta) if _is_complete(m, channel_count)]
    if not named:
        skeleton = skeleton_of_size(channel_count)
        return KeypointSet(skeleton, np.arange(channel_count), skeleton.flip_indices.tolist())
    names_from, flips_from = named[0], named[-1]
    assert names_from is not None and flips_from is not None
    flip_indices = [int(i) for i in flips_from["flip_indices"]]
    names = [str(names_from["keypoint_id2name"][i]) for i in range(channel_count)]
    # COCO's joints first, if all are there; a set without them keeps its own order.
    coco = [names.index(name) for name in COCO_17.names if name in names]
    if len(coco) < len(COCO_17):
        coco = []
    channels = np.array(coco + [i for i in range(channel_count) if i not in set(coco)])
    return KeypointSet(_skeleton(names_from, channels, flip_indices), channels, flip_indices)


def _is_complete(meta: Mapping[str, Any] | None, count: int) -> bool:
    """Whether ``meta`` names ``count`` different joints and mirrors each onto one of them."""
    if not meta:
        return False
    names = meta.get("keypoint_id2name") or {}
    flips = [int(i) for i in meta.get("flip_indices") or ()]
    return (
        len(names) == count
        and set(names) == set(range(count))
        and len(set(names.values())) == count
        and sorted(flips) == list(range(count))
        and all(flips[flips[i]] == i for i in range(count))
    )


def _skeleton(meta: Mapping[str, Any], channels: np.ndarray, flips: list[int]) -> Skeleton:
    """The known skeleton with these names in this order, else one made from ``meta``."""
    names = tuple(str(meta["keypoint_id2name"][int(channel)]) for channel in channels)
    for known in SKELETONS.values():
        if known.names == names:
            return known
    joint_of = {int(channel): joint for joint, channel in enumerate(channels)}
    edges = tuple((joint_of[int(a)], joint_of[int(b)]) for a, b in meta.get("skeleton_links", ()))
    pairs = tuple(
        (joint_of[i], joint_of[flips[i]])
        for i in channels.tolist()
        if joint_of[i] < joint_of[flips[i]]
    )
    return Skeleton(str(meta["dataset_name"]), names, edges, pairs, _sigmas(meta, channels))


def _sigmas(meta: Mapping[str, Any], channels: np.ndarray) -> tuple[float, ...]:
    """COCO's sigmas for its joints where the set begins with them, else those of ``meta``."""
    own = np.asarray(meta["sigmas"], dtype=np.float64)
    names = [str(meta["keypoint_id2name"][int(channel)]) for channel in channels]
    known = COCO_SIGMAS if tuple(names[: len(COCO_17)]) == COCO_17.names else ()
    return (*known, *(float(own[channel]) for channel in channels[len(known) :]))
