# SPDX-License-Identifier: Apache-2.0
"""From the options of a preset's ``onnx`` engines to the engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bmp_ros.engines.onnx.graph import load_network
from bmp_ros.engines.onnx.point_segmenter import OnnxPointSegmenter
from bmp_ros.engines.onnx.pose_estimator import OnnxPoseEstimator
from bmp_ros.engines.onnx.rtmdet_ins_detector import OnnxDetector
from bmp_ros.engines.onnx.sam2_segmenter import OnnxSam2Segmenter
from bmp_ros.engines.onnx.target import Target

if TYPE_CHECKING:
    from bmp_ros.engines.settings import (
        OnnxDetectorSettings,
        OnnxPoseSettings,
        OnnxSegmenterSettings,
    )
    from bmp_ros.loop.protocols import Segmenter


def detector(settings: OnnxDetectorSettings, path: Path, target: Target) -> OnnxDetector:
    """Build a detector from its first file; raises what `load_network` raises."""
    return OnnxDetector(path, target, nms_iou=settings.nms_iou)


def pose_estimator(settings: OnnxPoseSettings, path: Path, target: Target) -> OnnxPoseEstimator:
    """Build a pose estimator from its file; raises what `load_network` raises."""
    return OnnxPoseEstimator(
        path, target, flip_test=settings.flip_test, extra_keypoints=settings.extra_keypoints
    )


def segmenter(settings: OnnxSegmenterSettings, path: Path, target: Target) -> Segmenter:
    """Build the segmenter that a file is the first part of; raises what `load_network` raises."""
    graphs = load_network(path, "segmenter", target)
    engines: dict[str, type] = {"point_segmenter": OnnxPointSegmenter, "sam2": OnnxSam2Segmenter}
    built: Segmenter = engines[graphs["encoder"].card.network](
        graphs,
        target.device,
        max_hole_area=settings.max_hole_area,
        max_speck_area=settings.max_speck_area,
    )
    return built
