# SPDX-License-Identifier: Apache-2.0
"""Several threads in one loop, and settings that change while a frame is on its way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import numpy as np
from scripted import Actor, grey_image, stage

from bmp_ros.loop import BMPLoop, Frame, LoopSettings
from bmp_ros.loop.protocols import Detections, Poses, Segments
from bmp_ros.loop.skeletons import COCO_17

H, W = 120, 200


class Meeting:
    """Networks in which two frames meet before each goes on; they say what the image says.

    The first pixel is the number of people, the second how many of them have NaN for a pose.
    """

    skeleton = COCO_17

    def __init__(self) -> None:
        self.barrier = Barrier(2)

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        self.barrier.wait(60)
        left = 30.0 * np.arange(frame.image[0, 0, 0])
        boxes = np.stack([left, left * 0, left + 25, left * 0 + 100], axis=1)
        return Detections(boxes, 0.9 - left / 1000)

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        self.barrier.wait(60)
        inside = np.linspace(0.1, 0.9, 17)[:, None] * (boxes[:, None, 2:] - boxes[:, None, :2])
        keypoints = boxes[:, None, :2] + inside
        keypoints[: frame.image[0, 1, 0]] = np.nan
        return Poses(keypoints, np.full((len(boxes), 17), 0.9))

    def segment(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        self.barrier.wait(60)
        found = np.zeros((len(points), frame.height, frame.width), np.bool_)
        found[:, ::2] = True
        return Segments(found, np.full(len(points), 0.5))


def image_of(people: int, broken: int) -> np.ndarray:
    image = grey_image(H, W)
    image[0, :2, 0] = people, broken
    return image


def test_two_threads_in_one_loop_get_each_their_own_people_and_report() -> None:
    networks = Meeting()
    loop = BMPLoop(networks, networks, networks, LoopSettings(iterations=1))
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(loop.run, image_of(*told)) for told in ((5, 1), (3, 2))]
        (five, of_five), (three, of_three) = (each.result(120) for each in both)
    assert five.boxes[:, 0].tolist() == [30, 60, 90, 120] and of_five.not_finite == 1
    assert three.boxes[:, 0].tolist() == [60] and of_three.not_finite == 2
    stages = {"detect", "box_nms", "pose", "pose_nms", "prompts", "segment", "exclusive_masks"}
    for report in (of_five, of_three):
        assert set(report.stage_ms) == stages | {"total"}
        assert sum(report.stage_ms.values()) <= 2 * report.stage_ms["total"], "of one frame only"


def test_traces_of_two_threads_do_not_mix() -> None:
    networks = Meeting()
    loop = BMPLoop(networks, networks, networks, LoopSettings(iterations=1))
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(loop.trace, image_of(*told)) for told in ((5, 0), (2, 0))]
        traces = [each.result(120) for each in both]
    for trace, people in zip(traces, (5, 2), strict=True):
        (step,) = trace.iterations
        assert step.detected is not None and step.segmented is not None
        assert len(step.detected) == len(step.segmented) == len(trace.people) == people


def test_a_frame_keeps_the_settings_with_which_it_began() -> None:
    late = Actor((120, 10, 180, 110), score=0.8)
    play = stage([Actor((10, 10, 60, 110))], [late])
    estimate, loop = play.pose_estimator.estimate, play.loop

    def change(*arguments: object) -> Poses:
        loop.settings = replace(loop.settings, iterations=1)
        return estimate(*arguments)  # type: ignore[arg-type]

    play.pose_estimator.estimate = change  # type: ignore[method-assign]
    assert loop(grey_image(H, W)).iterations.tolist() == [1, 2]
    play.detector.frames.clear()
    assert loop(grey_image(H, W)).iterations.tolist() == [1]
