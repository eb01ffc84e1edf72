# SPDX-License-Identifier: Apache-2.0
"""Networks that say what a test wrote down: the only thing about the node that is not real."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bmp_ros.loop import BMPLoop
from bmp_ros.loop.protocols import Detections, Poses, Segments
from bmp_ros.loop.skeletons import COCO_17

LIMIT_S = float(os.environ.get("BMP_TEST_LIMIT_S", "180"))


@dataclass
class ScriptedNetworks:
    """Detector, pose estimator and segmenter in one: ``people`` boxes side by side in any frame.

    gate: inference waits for it. before: called with each frame, in the worker's thread, before
    the detector answers (it may raise). images: shapes of all frames. nan: rows whose keypoints
    are NaN. device: what the node reports. in_work: set while a frame is in the networks.
    """

    people: int = 2
    gate: threading.Event = field(default_factory=threading.Event)
    in_work: threading.Event = field(default_factory=threading.Event)
    before: Callable[[np.ndarray], None] | None = None
    nan: frozenset[int] = frozenset()
    images: list[tuple[int, ...]] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    device: str = "scripted"
    skeleton = COCO_17

    def __post_init__(self) -> None:
        self.gate.set()

    def detect(self, frame: Any, *, score_threshold: float) -> Detections:
        self.images.append(frame.image.shape)
        self.thresholds.append(score_threshold)
        self.in_work.set()
        assert self.gate.wait(LIMIT_S), "nobody opened the gate"
        self.in_work.clear()
        if self.before is not None:
            self.before(frame.image)
        boxes = self.boxes(frame.height, frame.width)
        return Detections(boxes, np.linspace(0.9, 0.8, len(boxes), dtype=np.float32))

    def boxes(self, height: int, width: int) -> np.ndarray:
        left = (np.arange(self.people) + 0.1) * width / max(self.people, 1)
        right = (np.arange(self.people) + 0.9) * width / max(self.people, 1)
        top, bottom = np.full(self.people, 0.1 * height), np.full(self.people, 0.9 * height)
        return np.stack([left, top, right, bottom], axis=1).astype(np.float32)

    def estimate(self, frame: Any, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        unit = np.stack([np.linspace(0.2, 0.8, 17), np.linspace(0.1, 0.9, 17)], axis=1)
        size = boxes[:, None, 2:] - boxes[:, None, :2]
        keypoints = (boxes[:, None, :2] + unit * size).astype(np.float32)
        for row in self.nan & set(range(len(boxes))):
            keypoints[row] = np.nan
        return Poses(keypoints, np.full((len(boxes), 17), 0.9, np.float32))

    def segment(
        self,
        frame: Any,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        masks = np.zeros((len(points), frame.height, frame.width), np.bool_)
        for mask, own in zip(masks, points, strict=True):
            (x1, y1), (x2, y2) = own.min(axis=0).astype(int), own.max(axis=0).astype(int) + 1
            mask[max(y1, 0) : y2, max(x1, 0) : x2] = True
        return Segments(masks, np.full(len(points), 0.7, np.float32))

    def build_loop(self, preset: str, device: str, **options: Any) -> BMPLoop:
        """Takes the place of `bmp_ros.engines.build_loop`."""
        return BMPLoop(self, self, self)
