# SPDX-License-Identifier: Apache-2.0
"""RTMPose at work: its weights tell everything, so there is little to choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bmp_ros.engines import options
from bmp_ros.engines.top_down_pose import Training, top_down_engine


@dataclass(frozen=True)
class RTMPoseOptions:
    """RTMPose-t, s, m or l, as MMPose publishes it."""

    weights: str = options.weights()
    flip_test: bool = options.flip_test()
    extra_keypoints: bool = options.extra_keypoints()


def _rtmpose(state_dict: Mapping[str, Any], _: RTMPoseOptions) -> Any:
    from bmp_ros.networks.rtmpose import RTMPose

    return RTMPose.from_state_dict(state_dict)


def _random_weights(settings: RTMPoseOptions) -> Mapping[str, Any]:
    from bmp_ros.engines.torch_networks import size_by_name
    from bmp_ros.networks.rtmpose import RTMPose

    return RTMPose.published(size_by_name(settings.weights, r"rtmpose-(t|s|m|l)\b")).state_dict()


ENGINE = top_down_engine(
    "rtmpose",
    _rtmpose,
    RTMPoseOptions,
    random_weights=_random_weights,
    training=lambda settings: Training("simcc", "corners"),
)
