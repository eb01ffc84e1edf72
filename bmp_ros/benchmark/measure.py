# SPDX-License-Identifier: Apache-2.0
"""Our loop against the published order of work, alternating in one run on the same networks."""

from __future__ import annotations

from typing import Any

from bmp_ros.benchmark.published_dimming import FullImageDimmingEstimator
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
    score_thresholds,
)
from bmp_ros.engines.pose_decoding import DECODINGS
from bmp_ros.engines.top_down_pose import TopDownPoseEstimator
from bmp_ros.loop.bmp_loop import BMPLoop


def competitors(
    loop: BMPLoop, scene: Scene, published_loop: BMPLoop | None = None
) -> tuple[Schedule, Schedule]:
    """Our schedule around the engines of ``loop``, the published one around the same ones.

    published_loop: the engines of the published one, where they are others.
    Raises ValueError when a detector finds no person in the scene.
    """
    other = published_loop or loop
    estimator = other.pose_estimator
    published_estimator = (
        FullImageDimmingEstimator(estimator)
        if isinstance(estimator, TopDownPoseEstimator) and estimator.decoding is DECODINGS["udp"]
        else OneByOneEstimator(estimator)
    )
    thresholds = score_thresholds(loop.detector, scene)
    ours = BMPLoop(
        ScriptedDetector(loop.detector, scene, thresholds),
        ScriptedPoseEstimator(loop.pose_estimator, scene),
        None if loop.segmenter is None else ScriptedSegmenter(loop.segmenter, scene),
        loop.settings,
    )
    if other is not loop:
        thresholds = score_thresholds(other.detector, scene)
    published = PublishedLoop(
        ScriptedDetector(FullSizeMasksDetector(other.detector), scene, thresholds),
        ScriptedPoseEstimator(published_estimator, scene),
        None
        if other.segmenter is None
        else OneByOneSegmenter(ScriptedSegmenter(other.segmenter, scene)),
        other.settings,
    )
    return Schedule("ours", ours.run), Schedule("published", published.run)


def measure(
    loop: BMPLoop,
    scene: Scene,
    frames: int,
    warm_up: int,
    *,
    count: bool,
    published_loop: BMPLoop | None = None,
) -> dict[str, Any]:
    """Run both schedules in turn and return everything that `bmp bench` prints and writes.

    count: for networks in PyTorch. ``gflop``: floating-point operations of the networks in one
    frame, in units of 10^9 (a multiplication with its addition counts as two). published_loop: see
    `competitors`.
    """
    ours, published = competitors(loop, scene, published_loop)
    gflop = {each.name: _gflop(each, scene) for each in (ours, published)} if count else {}
    result = alternate(ours, published, scene, frames, warm_up - 1 if count else warm_up)
    for name, operations in gflop.items():
        result[name]["gflop"] = operations
    if gflop:
        result["arithmetic_bound"] = gflop["published"] / gflop["ours"]
    return result


def _gflop(schedule: Schedule, scene: Scene) -> float:
    """Operations of one frame, which warms the schedule up, too."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        schedule.run(scene.image)
    return counter.get_total_flops() / 1e9
