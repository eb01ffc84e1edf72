# SPDX-License-Identifier: Apache-2.0
"""Networks of the published sizes with untrained weights: as slow as the real ones, for timing."""

from __future__ import annotations

import re
from typing import Any

import torch

from bmp_ros.engines.presets import Preset
from bmp_ros.engines.torch.heatmap_estimator import HeatmapEstimator
from bmp_ros.engines.torch.rtmdet_ins_detector import RTMDetInsDetector
from bmp_ros.engines.torch.sam2_segmenter import Sam2Segmenter
from bmp_ros.loop.bmp_loop import BMPLoop
from bmp_ros.networks.rtmdet_ins import PUBLISHED_SIZES, RTMDetIns, RTMDetInsSize
from bmp_ros.networks.sam2 import SAM2_SIZES, Sam2Network
from bmp_ros.networks.vit_pose import (
    VIT_SIZES,
    HeatmapHead,
    PMPoseHead,
    VisionTransformer,
    VitPose,
)

_SAM_SIZES = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}
_COCO_CLASSES = 80


def untrained_loop(preset: Preset, device: str, precision: str, compile: bool) -> BMPLoop:
    """Build the loop of a preset of native engines without its weights files.

    Sizes are read from the names of the weights. Raises ValueError for a name or an engine of
    which the size cannot be told.
    """
    runtime: dict[str, Any] = {"device": device, "precision": precision}
    torch.manual_seed(0)
    detector = RTMDetInsDetector(_rtmdet_ins(preset.detector), **runtime, compile=compile)
    options = preset.pose_estimator.settings
    estimator = HeatmapEstimator(
        _vit_pose(preset.pose_estimator),
        background_factor=options.background_factor,
        flip_test=options.flip_test,
        **runtime,
        compile=compile,
    )
    segmenter = None
    if preset.segmenter is not None:
        options = preset.segmenter.settings
        segmenter = Sam2Segmenter(
            _sam2(preset.segmenter),
            dynamic_multimask=options.dynamic_multimask,
            max_hole_area=options.max_hole_area,
            max_speck_area=options.max_speck_area,
            **runtime,
            compile_encoder=compile,
        )
    return BMPLoop(detector, estimator, segmenter, preset.loop)


def _size(choice: Any, engine: str, pattern: str) -> str:
    match = re.match(pattern, choice.settings.weights) if choice.engine == engine else None
    if match is None:
        raise ValueError(
            f"cannot tell the size of {choice.engine} {choice.settings.weights!r}: untrained "
            "networks stand in for the published RTMDet-Ins, ViTPose family and SAM 2.1 only"
        )
    return match.group(1)


def _rtmdet_ins(choice: Any) -> RTMDetIns:
    size = _size(choice, "rtmdet_ins", r"rtmdet-ins-(tiny|s|m|l|x)\b")
    return RTMDetIns(RTMDetInsSize.scaled(*PUBLISHED_SIZES[size]), _COCO_CLASSES).eval()


def _vit_pose(choice: Any) -> VitPose:
    size = _size(choice, "vit_pose", r"(?:maskpose|vitpose|pmpose)-(s|b|l|h)\b")
    width, depth, heads = VIT_SIZES[size]
    backbone = VisionTransformer(width, depth, 4 * width, heads, 16, (16, 12))
    if choice.settings.head == "pmpose":
        return VitPose(backbone, PMPoseHead(width, (256, 256), 23)).eval()
    return VitPose(backbone, HeatmapHead(width, (256, 256), 21)).eval()


def _sam2(choice: Any) -> Sam2Network:
    if choice.settings.weights.startswith("sam-pose2seg-b+"):
        return Sam2Network(SAM2_SIZES["b+"])
    size = _size(choice, "sam2", r"sam2\.1-hiera-(tiny|small|base-plus|large)\b")
    return Sam2Network(SAM2_SIZES[_SAM_SIZES[size]])
