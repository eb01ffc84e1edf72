# SPDX-License-Identifier: Apache-2.0
"""What a frame costs, counted: calls of the engines, masks decoded, memory asked for."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from scripted import Actor, assert_same_people, grey_image, rectangle_mask, stage

import bmp_ros.loop
from bmp_ros.loop.protocols import Segments
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.loop.trace import DISCARDED, IterationTrace

H, W = 120, 200
IMAGE = grey_image(H, W)
LEFT = Actor((10, 10, 60, 110))
RIGHT = Actor((120, 10, 180, 110), score=0.8)
MIDDLE = Actor((70, 10, 110, 110), score=0.7)
FEW = np.where(np.arange(17) < 3, 0.9, 0.1)


def test_one_embedding_per_frame_and_one_for_the_next() -> None:
    play = stage([LEFT], [RIGHT], [], [LEFT], [RIGHT], iterations=3)
    play.loop(IMAGE)
    assert len(play.segmenter.points) == 2 and play.segmenter.embeddings == 1
    play.loop(IMAGE)
    assert play.segmenter.embeddings == 2


def test_one_pose_call_per_iteration_and_one_decoder_call_per_number_of_points() -> None:
    first = [LEFT, RIGHT, Actor(MIDDLE.box, score=0.7, keypoint_scores=FEW)]
    late = [Actor((30, 40, 100, 119)), Actor((100, 40, 170, 119))]
    play = stage(first, late, box_nms_iou=0.9)
    assert len(play.loop(IMAGE)) == 5
    assert [len(boxes) for boxes in play.pose_estimator.boxes] == [3, 2]
    shapes = [points.shape[:2] for points in play.segmenter.points]
    assert shapes == [(1, 1), (2, 6), (2, 6)], "FEW leaves one point: the best of the face"


def test_masks_are_decoded_once_and_only_for_survivors() -> None:
    covered = Actor((12, 10, 62, 110), score=0.5)
    unsure = Actor((150, 10, 190, 110), score=0.2)
    play = stage([covered, unsure, RIGHT, LEFT], [])
    play.loop(IMAGE)
    assert play.detector.decoded == [[3, 2]], "best first, nothing for an empty second look"


def test_every_engine_but_the_detector_sees_the_frame_itself() -> None:
    play = stage([LEFT], [RIGHT])
    play.loop(IMAGE)
    frames = [*play.pose_estimator.frames, *play.segmenter.frames, play.detector.frames[0]]
    assert len(frames) == 5 and len(set(map(id, frames))) == 1
    assert frames[0].image is IMAGE
    assert play.detector.frames[1].image is not IMAGE


def test_second_look_only_if_it_can_change_anything() -> None:
    def looks(*acts: list[Actor], **settings: Any) -> int:
        play = stage(*acts, **settings)
        _, report = play.loop.run(IMAGE)
        assert report.iterations == len(play.detector.frames)
        return len(play.detector.frames)

    nothing = np.zeros((H, W), np.bool_)
    assert looks([LEFT]) == 2
    assert looks([]) == 1, "nobody found: the same picture again"
    assert looks([Actor(LEFT.box, segment=nothing)]) == 1, "no pixel to paint out"
    assert looks([LEFT, RIGHT], max_people=2) == 1, "no room for anybody else"
    assert looks([LEFT], [], [RIGHT], iterations=3) == 2, "the third would be the second again"
    assert looks([LEFT], [Actor(LEFT.box, keypoint_scores=0.5)], [RIGHT], iterations=3) == 2
    assert looks([LEFT], iterations=1) == 1


def test_trace_shows_every_stage_and_finds_the_same_people() -> None:
    acts = [[LEFT, RIGHT], [Actor((30, 40, 100, 119))]]
    plain, traced = stage(*acts), stage(*acts)
    people, trace = plain.loop(IMAGE), traced.loop.trace(IMAGE)
    assert_same_people(trace.people, people)
    assert trace.report.iterations == 2 and trace.report.stage_ms["total"] > 0
    assert [item.iteration for item in trace.iterations] == [1, 2]
    for item in trace.iterations:
        assert all(value is not None for value in vars(item).values())
    first, second = trace.iterations
    assert first.image is IMAGE and not (second.image == IMAGE).all()
    assert [len(item.detected or ()) for item in trace.iterations] == [2, 1]
    assert [len(item.people or ()) for item in trace.iterations] == [2, 3]
    assert first.prompts is not None and first.prompts[0].points.shape == (2, 6, 2)


def test_trace_of_given_boxes() -> None:
    trace = stage([LEFT]).loop.trace(IMAGE, np.array([LEFT.box]))
    (only,) = trace.iterations
    assert only.image is IMAGE and only.detections is None and only.people is not None


def test_plain_call_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the plain call made a trace")

    monkeypatch.setattr(IterationTrace, "__init__", refuse)
    play = stage([LEFT])
    assert len(play.loop(IMAGE)) == 1
    assert vars(DISCARDED) == {}
    held = [value for value in vars(play.loop).values() if isinstance(value, np.ndarray)]
    assert held == [], "the loop keeps no array between frames"
    with pytest.raises(AssertionError, match="made a trace"):
        play.loop.trace(IMAGE)


def test_every_stage_is_timed() -> None:
    play = stage([LEFT], [RIGHT])
    _, report = play.loop.run(IMAGE)
    stages = {
        "paint_out", "detect", "box_nms", "pose", "pose_nms", "prompts", "segment",
        "exclusive_masks", "total",
    }  # fmt: skip
    assert set(report.stage_ms) == stages
    times = report.stage_ms
    assert 0 < sum(times.values()) - times["total"] <= times["total"]


def bytes_asked_for(run: Callable[[], object]) -> int:
    """Bytes that bmp_ros.loop allocates in ``run``, freed ones included.

    Adds up, line by line of the package, by how much the memory in use rose above where it stood
    before the line; what is freed in the same line is counted all the same.
    """
    folder = str(Path(bmp_ros.loop.__file__).parent)
    total = level = 0

    def account(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal total, level
        if frame.f_code.co_filename.startswith(folder):
            now, peak = tracemalloc.get_traced_memory()
            total += max(0, peak - level)
            tracemalloc.reset_peak()
            level = now
            return account
        return None

    before = sys.gettrace()
    gc.collect()
    tracemalloc.start()
    sys.settrace(account)
    try:
        run()
    finally:
        sys.settrace(before)
        total += max(0, tracemalloc.get_traced_memory()[1] - level)
        tracemalloc.stop()
    return total


def crowd(count: int) -> list[Actor]:
    step = 1000 // count
    return [
        Actor((i * step, 10, i * step + step - 2, 590), score=0.9 - 0.01 * i) for i in range(count)
    ]


def asked_for_by_crowd(count: int) -> float:
    """In units of the image's number of pixels; the engines' own answers are made before."""
    height, width = 600, 1000
    actors = crowd(count)
    play = stage(actors, [])
    masks = np.stack([rectangle_mask(height, width, actor.box) for actor in actors])
    scores = np.full(count, 0.9, np.float32)
    loop, image = play.loop, grey_image(height, width)

    class Ready:
        def segment(self, *_: Any) -> Segments:
            return Segments(masks, scores)

    class Detector:
        def detect(self, frame: Any, *, score_threshold: float) -> Any:
            said = play.detector.detect(frame, score_threshold=score_threshold)
            return type(said)(said.boxes, said.scores, lambda rows: masks[: len(rows)])

    loop.segmenter, loop.detector = Ready(), Detector()
    assert len(loop(image)) == count
    play.detector.frames.clear()
    return bytes_asked_for(lambda: loop(image)) / (height * width)


def test_no_copy_of_the_image_per_person() -> None:
    few, many = asked_for_by_crowd(2), asked_for_by_crowd(12)
    per_person = (many - few) / 10
    # The exclusive mask of each person is one byte per pixel; a copy of the image would be three,
    # a float mask four or eight.
    assert 0.9 < per_person < 1.5
    # One painted copy (3 bytes), its mask, the label map (2 bytes).
    assert few - 2 * per_person < 10


def test_counting_of_bytes_sees_what_is_freed_at_once() -> None:
    def copies(times: int) -> Callable[[], object]:
        # `len(COCO_17)` stands for any line of the package between two allocations.
        return lambda: [
            (len(COCO_17), np.ones(100_000, np.uint8), len(COCO_17)) for _ in range(times)
        ]

    assert 450_000 < bytes_asked_for(copies(5)) < 1_000_000
