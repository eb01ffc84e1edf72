# SPDX-License-Identifier: Apache-2.0
"""Engines of heatmap networks trained with UDP: ViTPose, MaskPose, PMPose, ConvPose, your own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bmp_ros.engines import options
from bmp_ros.engines.registry import Engine
from bmp_ros.engines.top_down_pose import top_down_engine
from bmp_ros.fields import choice_field
from bmp_ros.loop.skeletons import Skeleton


@dataclass(frozen=True)
class HeatmapOptions:
    """A top-down heatmap network."""

    weights: str = options.weights()
    background_factor: float | None = options.background_factor()
    flip_test: bool = options.flip_test()
    extra_keypoints: bool = options.extra_keypoints()


@dataclass(frozen=True)
class VitPoseOptions(HeatmapOptions):
    """Native ViTPose, MaskPose or PMPose."""

    head: str = choice_field(
        "heatmap", choices=("heatmap", "pmpose"), text="heatmap (ViTPose, MaskPose) or pmpose"
    )


def heatmap_engine(
    name: str,
    load: Callable[[Mapping[str, Any], Any], Any],
    *,
    options: type = HeatmapOptions,
    skeleton: Skeleton | None = None,
    random_weights: Callable[[Any], Mapping[str, Any]] | None = None,
) -> Engine:
    """Declare the engine of a heatmap network in PyTorch; it can be exported, too.

    load: (state dict, options) -> the network, see `top_down_pose.PoseNetwork` for what it must
    have. It takes crops (N, 3, height, width) by the convention ``udp`` and returns heatmaps
    (N, K, h, w). options: a dataclass with at least the fields of `HeatmapOptions`.
    skeleton: the network's keypoints; None: the known set of that size.
    """
    return top_down_engine(name, load, options, skeleton=skeleton, random_weights=random_weights)


def _vit_pose(state_dict: Mapping[str, Any], settings: VitPoseOptions) -> Any:
    from bmp_ros.networks.vit_pose import VitPose

    return VitPose.from_state_dict(state_dict, head=settings.head)


def _random_vit_pose(settings: VitPoseOptions) -> Mapping[str, Any]:
    from bmp_ros.engines.torch_networks import size_by_name
    from bmp_ros.networks.vit_pose import (
        VIT_SIZES,
        HeatmapHead,
        PMPoseHead,
        VisionTransformer,
        VitPose,
    )

    size = size_by_name(settings.weights, r"(?:maskpose|vitpose|pmpose)-(s|b|l|h)\b")
    width, depth, heads = VIT_SIZES[size]
    backbone = VisionTransformer(width, depth, 4 * width, heads, 16, (16, 12))
    if settings.head == "pmpose":
        return VitPose(backbone, PMPoseHead(width, (256, 256), 23)).state_dict()
    return VitPose(backbone, HeatmapHead(width, (256, 256), 21)).state_dict()


def _conv_pose(state_dict: Mapping[str, Any], _: HeatmapOptions) -> Any:
    from bmp_ros.networks.conv_pose import ConvPose

    return ConvPose.from_state_dict(state_dict)


def _random_conv_pose(_: HeatmapOptions) -> Mapping[str, Any]:
    from bmp_ros.networks.conv_pose import ConvPose

    return ConvPose().state_dict()


ENGINES = (
    heatmap_engine("vit_pose", _vit_pose, options=VitPoseOptions, random_weights=_random_vit_pose),
    heatmap_engine("conv_pose", _conv_pose, random_weights=_random_conv_pose),
)
