# SPDX-License-Identifier: Apache-2.0
"""Two orders of work on the same engines, timed in turn in one run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from bmp_ros.benchmark.scripted import Scene
from bmp_ros.loop.people import People
from bmp_ros.loop.trace import RunReport
from bmp_ros.machine import machine


@dataclass
class Schedule:
    """One of the two competitors and what was measured of it.

    process: its ``run`` of one image. stage_ms: per frame, wall milliseconds by stage.
    """

    name: str
    process: Callable[[np.ndarray], tuple[People, RunReport]]
    people: int = 0
    stage_ms: list[dict[str, float]] = field(default_factory=list)

    def run(self, image: np.ndarray) -> None:
        people, report = self.process(image)
        self.people = len(people)
        self.stage_ms.append(report.stage_ms)

    def medians(self) -> dict[str, float]:
        """Median milliseconds of each stage, ``total`` last."""
        stages = [stage for stage in self.stage_ms[0] if stage != "total"]
        return {
            stage: median(frame.get(stage, 0.0) for frame in self.stage_ms)
            for stage in [*stages, "total"]
        }


def alternate(
    ours: Schedule, published: Schedule, scene: Scene, frames: int, warm_up: int
) -> dict[str, Any]:
    """Run both in turn, so that what else the machine does meets both; return the figures."""
    for schedule in (ours, published):
        for _ in range(warm_up):
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
        "ours": {"median_ms": ours_ms},
        "published": {"median_ms": published_ms},
        "ratio": published_ms["total"] / ours_ms["total"],
    }
