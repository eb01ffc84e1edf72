# SPDX-License-Identifier: Apache-2.0
"""Loops for the workers of tests: what an image shows decides what becomes of its worker."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "loop"))
from scripted import Actor, ScriptedPoseEstimator, ScriptedSegmenter

from bmp_ros.loop import BMPLoop, Frame, LoopSettings
from bmp_ros.loop.protocols import Detections

WHITE, BLACK = 255, 0
"""An image that kills its worker, and one for which the networks have no memory."""
ACTOR = Actor((4, 4, 20, 44))


class ByBrightness:
    """One person in every image, scored by its brightness."""

    def __init__(self, slow_s: float) -> None:
        self._slow_s = slow_s

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        brightness = float(frame.image.mean())
        time.sleep(self._slow_s)
        if brightness > 250:
            os.kill(os.getpid(), signal.SIGKILL)
        if brightness < 5:
            raise RuntimeError("CUDA out of memory, says the test")
        boxes = np.array([ACTOR.box], np.float32)
        return Detections(boxes, np.array([0.5 + brightness / 600], np.float32), None)


def build(device: str = "auto", *, slow_s: float = 0.0, broken: str = "") -> BMPLoop:
    if broken == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if broken:
        raise ValueError(broken)
    acts = [[ACTOR]]
    return BMPLoop(
        ByBrightness(slow_s), ScriptedPoseEstimator(acts), ScriptedSegmenter(acts),
        LoopSettings(iterations=1),
    )  # fmt: skip
