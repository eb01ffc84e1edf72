# SPDX-License-Identifier: Apache-2.0
"""Our loop against the published order of work, alternating in one run on the same networks."""

from __future__ import annotations

from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from bmp_ros.benchmark.published_dimming import FullImageDimmingEstimator
from bmp_ros.benchmark.published_schedule import (
    FullSizeMasksDetector,
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
from bmp_ros.engines.torch.heatmap_estimator import HeatmapEstimator
from bmp_ros.loop.bmp_loop import BMPLoop


def competitors(loop: BMPLoop, scene: Scene) -> tuple[Schedule, Schedule]:
    """Our schedule and the published one around the engines of ``loop``.

    Raises ValueError when the pose estimator is not native or there is no segmenter: the published
    order of work is that of ViTs and SAM.
    """
    estimator = loop.pose_estimator
    if not isinstance(estimator, HeatmapEstimator) or loop.segmenter is None:
        raise ValueError(
            "the published schedule needs a preset with a vit_pose estimator and a segmenter, "
            "such as bmp_d3 or bmp_v2"
        )
    ours = BMPLoop(
        ScriptedDetector(loop.detector, scene),
        ScriptedPoseEstimator(estimator, scene),
        ScriptedSegmenter(loop.segmenter, scene),
        loop.settings,
    )
    published = PublishedLoop(
        ScriptedDetector(FullSizeMasksDetector(loop.detector), scene),
        ScriptedPoseEstimator(FullImageDimmingEstimator(estimator), scene),
        OneByOneSegmenter(ScriptedSegmenter(loop.segmenter, scene)),
        loop.settings,
    )
    return Schedule("ours", ours.run), Schedule("published", published.run)


def measure(loop: BMPLoop, scene: Scene, frames: int, warm_up: int) -> dict[str, Any]:
    """Run both schedules in turn and return everything that `bmp bench` prints and writes.

    ``gflop``: floating-point operations of the networks in one frame, in units of 10^9 (a
    multiplication with its addition counts as two).
    """
    ours, published = competitors(loop, scene)
    gflop = {}
    for schedule in (ours, published):
        with FlopCounterMode(display=False) as counter:
            schedule.run(scene.image)
        gflop[schedule.name] = counter.get_total_flops() / 1e9
    result = alternate(ours, published, scene, frames, warm_up - 1)  # counting warmed it up
    for name, operations in gflop.items():
        result[name]["gflop"] = operations
    result["arithmetic_bound"] = gflop["published"] / gflop["ours"]
    return result
