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
    """Time ``loop``, with or without a segmenter, against the published order of work."""
    segmenter = None if loop.segmenter is None else ScriptedSegmenter(loop.segmenter, scene)
    ours = BMPLoop(
        ScriptedDetector(loop.detector, scene),
        ScriptedPoseEstimator(loop.pose_estimator, scene),
        segmenter,
        loop.settings,
    )
    published = PublishedLoop(
        ScriptedDetector(FullSizeMasksDetector(loop.detector), scene),
        ScriptedPoseEstimator(OneByOneEstimator(loop.pose_estimator), scene),
        None if segmenter is None else OneByOneSegmenter(segmenter),
        loop.settings,
    )
    return alternate(
        Schedule("ours", ours.run), Schedule("published", published.run), scene, frames, warm_up
    )
