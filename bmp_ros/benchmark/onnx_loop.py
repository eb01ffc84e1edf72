# SPDX-License-Identifier: Apache-2.0
"""`bmp bench` of presets that run through onnxruntime: no torch, and no count of operations."""

from __future__ import annotations

from typing import Any

from bmp_ros.benchmark.published_schedule import (
    FullSizeMasksDetector,
    OneByOneEstimator,
    OneByOneSegmenter,
    PublishedLoop,
)
from bmp_ros.benchmark.schedule import Schedule, alternate
from bmp_ros.benchmark.scripted import (
    Scene,
    ScriptedDetector,
    ScriptedPoseEstimator,
    ScriptedSegmenter,
)
from bmp_ros.loop.bmp_loop import BMPLoop


def measure_onnx(loop: BMPLoop, scene: Scene, frames: int, warm_up: int) -> dict[str, Any]:
    """Time ``loop`` against the published order of work on the same engines.

    Raises ValueError for a loop without a segmenter: the published order is that of all three.
    """
    if loop.segmenter is None:
        raise ValueError("the published schedule needs a preset with a segmenter, such as tiny")
    ours = BMPLoop(
        ScriptedDetector(loop.detector, scene),
        ScriptedPoseEstimator(loop.pose_estimator, scene),
        ScriptedSegmenter(loop.segmenter, scene),
        loop.settings,
    )
    published = PublishedLoop(
        ScriptedDetector(FullSizeMasksDetector(loop.detector), scene),
        ScriptedPoseEstimator(OneByOneEstimator(loop.pose_estimator), scene),
        OneByOneSegmenter(ScriptedSegmenter(loop.segmenter, scene)),
        loop.settings,
    )
    return alternate(
        Schedule("ours", ours), Schedule("published", published), scene, frames, warm_up
    )
