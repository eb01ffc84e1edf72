# SPDX-License-Identifier: Apache-2.0
"""Heatmap networks at work: ViTPose, MaskPose, PMPose, ConvPose, and any of your own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bmp_ros.engines import options
from bmp_ros.engines.registry import Engine, Runtime
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

    load: (state dict, options) -> the network, see `HeatmapNetwork` for what it must have.
    options: a dataclass with at least the fields of `HeatmapOptions`. skeleton: the network's
    keypoints, COCO's 17 first; None: the known set of that size.
    """

    def build(settings: Any, weights: Any, runtime: Runtime) -> Any:
        from bmp_ros.engines.torch.devices import state_dict_of
        from bmp_ros.engines.torch.heatmap_estimator import HeatmapEstimator

        return HeatmapEstimator(
            load(state_dict_of(weights), settings),
            skeleton=skeleton,
            background_factor=settings.background_factor,
            flip_test=settings.flip_test,
            extra_keypoints=settings.extra_keypoints,
            device=runtime.device,
            precision=runtime.precision,
            compile=runtime.compile,
        )

    def export(settings: Any, state_dict: Mapping[str, Any]) -> Any:
        from bmp_ros.engines.export.pose import heatmap_source

        return heatmap_source(load(state_dict, settings), settings, state_dict, skeleton)

    return Engine(
        name,
        "pose_estimator",
        options,
        build,
        runtime="torch",
        precisions=("fp32", "fp16", "bf16"),
        compiles=True,
        random_weights=random_weights,
        export=export,
    )


def _vit_pose(state_dict: Mapping[str, Any], settings: VitPoseOptions) -> Any:
    from bmp_ros.networks.vit_pose import VitPose

    return VitPose.from_state_dict(state_dict, head=settings.head)


def _random_vit_pose(settings: VitPoseOptions) -> Mapping[str, Any]:
    from bmp_ros.engines.torch.devices import size_by_name
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
