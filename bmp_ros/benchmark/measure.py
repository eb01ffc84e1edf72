# SPDX-License-Identifier: Apache-2.0
"""Our loop against the published order of work, alternating in one run on the same networks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from bmp_ros.benchmark.machine import machine
from bmp_ros.benchmark.published_schedule import (
    FullImageDimmingEstimator,
    FullSizeMasksDetector,
    OneByOneSegmenter,
    PublishedLoop,
)
from bmp_ros.benchmark.scripted import (
    Scene,
    ScriptedDetector,
    ScriptedPoseEstimator,
    ScriptedSegmenter,
)
from bmp_ros.engines.torch.vit_pose_estimator import VitPoseEstimator
from bmp_ros.loop.bmp_loop import BMPLoop


@dataclass
class Schedule:
    """One of the two competitors and what was measured of it.

    stage_ms: per frame, wall milliseconds by stage. gflop: floating-point operations of the
    networks in one frame, in units of 10^9 (a multiplication with its addition counts as two).
    """

    name: str
    loop: BMPLoop
    people: int = 0
    gflop: float = 0.0
    stage_ms: list[dict[str, float]] = field(default_factory=list)

    def run(self, image: np.ndarray) -> None:
        self.people = len(self.loop(image))
        self.stage_ms.append(dict(self.loop.report.stage_ms))

    def medians(self) -> dict[str, float]:
        """Median milliseconds of each stage, ``total`` last."""
        stages = [stage for stage in self.stage_ms[0] if stage != "total"]
        return {
            stage: median(frame.get(stage, 0.0) for frame in self.stage_ms)
            for stage in [*stages, "total"]
        }


def competitors(loop: BMPLoop, scene: Scene) -> tuple[Schedule, Schedule]:
    """Our schedule and the published one around the engines of ``loop``.

    Raises ValueError when the pose estimator is not native or there is no segmenter: the published
    order of work is that of ViTs and SAM.
    """
    estimator = loop.pose_estimator
    if not isinstance(estimator, VitPoseEstimator) or loop.segmenter is None:
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
    return Schedule("ours", ours), Schedule("published", published)


def measure(loop: BMPLoop, scene: Scene, frames: int, warm_up: int) -> dict[str, Any]:
    """Run both schedules in turn and return everything that `bmp bench` prints and writes."""
    ours, published = competitors(loop, scene)
    for schedule in (ours, published):
        with FlopCounterMode(display=False) as counter:
            schedule.run(scene.image)
        schedule.gflop = counter.get_total_flops() / 1e9
        for _ in range(warm_up - 1):
            schedule.run(scene.image)
        schedule.stage_ms.clear()
    for _ in range(frames):
        ours.run(scene.image)
        published.run(scene.image)
    ours_ms, published_ms = ours.medians(), published.medians()
    return {
        "machine": machine(),
        "input": {
            "width": scene.image.shape[1],
            "height": scene.image.shape[0],
            "people": [ours.people, published.people],
            "found_in_second_iteration": int(scene.later.sum()),
            "sha256": hashlib.sha256(scene.image.tobytes()).hexdigest(),
        },
        "frames": frames,
        "ours": {"median_ms": ours_ms, "gflop": ours.gflop},
        "published": {"median_ms": published_ms, "gflop": published.gflop},
        "ratio": published_ms["total"] / ours_ms["total"],
        "arithmetic_bound": published.gflop / ours.gflop,
    }
