# SPDX-License-Identifier: Apache-2.0
"""bmp_node as a process whose networks know the demo clip by heart.

They recognise a frame by its pixels and say what is true of it. What a recorder then scores below
1 is its own fault: a wrong stamp, half a pixel, a mask that does not survive the message.
``MISS`` in the environment: they find nobody.
"""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from typing import Any

import numpy as np

from bmp_ros.evaluation.clip_truth import LEAST_AREA
from bmp_ros.loop import BMPLoop
from bmp_ros.loop.protocols import Detections, Poses
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.ros.bmp_node import main
from bmp_ros.synthetic.clip_file import open_clip
from bmp_ros.synthetic.ground_truth import PeopleTruth

# One look, and nobody is taken for somebody else.
SETTINGS = ("iterations:=1", "box_nms_iou:=1.0", "oks_threshold:=1.0")


class ClipByHeart:
    skeleton = COCO_17
    device = "scripted"

    def __init__(self) -> None:
        clip = open_clip()
        self._clip = clip
        self._numbers = {frame.image.tobytes(): frame.number for frame in clip}

    def detect(self, frame: Any, *, score_threshold: float) -> Detections:
        people = self._truth(frame)
        scores = np.full(len(people.boxes), 0.9, np.float32)
        return Detections(people.boxes, scores, lambda indices: people.masks[indices])

    def estimate(self, frame: Any, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        people = self._truth(frame)
        if not len(people):  # the warm-up asks about a box on a grey picture
            return Poses(
                np.zeros((len(boxes), 17, 2), np.float32), np.zeros((len(boxes), 17), np.float32)
            )
        rows = [int(np.abs(people.boxes - box).sum(axis=1).argmin()) for box in boxes]
        keypoints = people.keypoints[rows] - 0.5
        return Poses(keypoints.astype(np.float32), np.full((len(rows), 17), 0.9, np.float32))

    def _truth(self, frame: Any) -> PeopleTruth:
        number = self._numbers.get(frame.image.tobytes())
        people = self._clip.people(number or 0)
        # A pose of whom next to nothing is to be seen counts as false, right as it is.
        known = people.masks.sum(axis=(1, 2)) >= LEAST_AREA
        if number is None or os.environ.get("MISS"):
            known[:] = False
        return PeopleTruth(
            **{item.name: getattr(people, item.name)[known] for item in fields(people)}
        )


def build_loop(preset: str, device: str, **options: Any) -> BMPLoop:
    engines = ClipByHeart()
    return BMPLoop(engines, engines, None)


if __name__ == "__main__":
    given = [*sys.argv, "--ros-args", *(word for text in SETTINGS for word in ("-p", text))]
    sys.exit(main(given, build_loop=build_loop))
