# SPDX-License-Identifier: Apache-2.0
"""Engines that say what a test wrote down, count their calls and keep their arguments.

An `Actor` is one person and everything the three networks say about it. Acts are lists of actors:
the detector plays act i at its call i, and nobody when the acts are over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from dataclasses import field as attribute
from typing import Any

import numpy as np

from bmp_ros.loop import BMPLoop, Frame, LoopSettings, People
from bmp_ros.loop.protocols import Detections, Poses, Segments
from bmp_ros.loop.skeletons import COCO_17, Skeleton

Box = tuple[float, float, float, float]


def rectangle_mask(height: int, width: int, box: Box) -> np.ndarray:
    """(H, W) bool: the whole pixels of an xyxy box, which may reach out of the image."""
    x1, y1, x2, y2 = (max(0, round(value)) for value in box)
    mask = np.zeros((height, width), np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def spread_keypoints(box: Box, joints: int = 17) -> np.ndarray:
    """(K, 2) float32: joints all over a box, no two in one place, none on its border."""
    k = np.arange(joints)
    unit = np.stack([(37 * k) % 101 / 101, (53 * k) % 97 / 97], axis=1)
    corner, size = np.array(box[:2]), np.array(box[2:]) - np.array(box[:2])
    return (corner + size * (0.05 + 0.9 * unit)).astype(np.float32)


@dataclass
class Actor:
    """One person: box and score of the detector, pose, and the masks of both networks.

    keypoints, keypoint_scores and visibility default to the box filled with joints of score 0.9;
    detector_mask to the box; segment to the box; sizes are those of the frame.
    """

    box: Box
    score: float = 0.9
    keypoints: np.ndarray | None = None
    keypoint_scores: float | np.ndarray = 0.9
    visibility: float | np.ndarray | None = None
    detector_mask: np.ndarray | None = None
    segment: np.ndarray | Box | None = None
    mask_score: float = 0.8

    def pose(self, joints: int) -> np.ndarray:
        return spread_keypoints(self.box, joints) if self.keypoints is None else self.keypoints

    def found_mask(self, frame: Frame) -> np.ndarray:
        if self.detector_mask is not None:
            return self.detector_mask
        return rectangle_mask(frame.height, frame.width, self.box)

    def segmented(self, frame: Frame) -> np.ndarray:
        if isinstance(self.segment, np.ndarray):
            return self.segment
        box = self.box if self.segment is None else self.segment
        return rectangle_mask(frame.height, frame.width, box)


@dataclass
class ScriptedDetector:
    """``frames``: what it saw. ``decoded``: the indices of every request for masks."""

    acts: Sequence[Sequence[Actor]]
    has_masks: bool = True
    frames: list[Frame] = attribute(default_factory=list)
    decoded: list[list[int]] = attribute(default_factory=list)
    thresholds: list[float] = attribute(default_factory=list)

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        self.thresholds.append(score_threshold)
        act = self.acts[len(self.frames)] if len(self.frames) < len(self.acts) else ()
        self.frames.append(frame)

        def masks(indices: np.ndarray) -> np.ndarray:
            self.decoded.append([int(index) for index in indices])
            return np.stack([act[index].found_mask(frame) for index in indices])

        boxes = np.array([actor.box for actor in act], np.float32).reshape(-1, 4)
        scores = np.array([actor.score for actor in act], np.float32)
        return Detections(boxes, scores, masks if self.has_masks else None)


@dataclass
class ScriptedPoseEstimator:
    """``boxes`` and ``masks``: the arguments of every call. Knows people by their box."""

    acts: Sequence[Sequence[Actor]]
    skeleton: Skeleton = COCO_17
    frames: list[Frame] = attribute(default_factory=list)
    boxes: list[np.ndarray] = attribute(default_factory=list)
    masks: list[np.ndarray | None] = attribute(default_factory=list)

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        self.frames.append(frame)
        self.boxes.append(boxes)
        self.masks.append(masks)
        actors = {tuple(np.float32(a.box).tolist()): a for act in self.acts for a in act}
        people = [actors[tuple(box.tolist())] for box in boxes]
        joints = len(self.skeleton)
        visibility = None
        if any(actor.visibility is not None for actor in people):
            visibility = np.stack([_per_joint(actor.visibility, joints) for actor in people])
        return Poses(
            np.stack([actor.pose(joints) for actor in people]).astype(np.float32),
            np.stack([_per_joint(actor.keypoint_scores, joints) for actor in people]),
            visibility,
        )


@dataclass
class ScriptedSegmenter:
    """``points``, ``labels`` and ``masks``: the arguments of every call.

    Knows people by a prompt point. embeddings: how often the frame was "encoded".
    """

    acts: Sequence[Sequence[Actor]]
    joints: int = 17
    frames: list[Frame] = attribute(default_factory=list)
    points: list[np.ndarray] = attribute(default_factory=list)
    labels: list[np.ndarray] = attribute(default_factory=list)
    masks: list[np.ndarray | None] = attribute(default_factory=list)
    embeddings: int = 0

    def segment(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        frame.cached((id(self), "embedding"), self._embed)
        self.frames.append(frame)
        self.points.append(points)
        self.labels.append(labels)
        self.masks.append(masks)
        people = [self._whose(own[0]) for own in points]
        return Segments(
            np.stack([actor.segmented(frame) for actor in people]),
            np.array([actor.mask_score for actor in people], np.float32),
        )

    def _embed(self) -> str:
        self.embeddings += 1
        return "embedding"

    def _whose(self, point: np.ndarray) -> Actor:
        for act in self.acts:
            for actor in act:
                if (actor.pose(self.joints).astype(np.float32) == point).all(axis=1).any():
                    return actor
        raise AssertionError(f"no actor has a keypoint at {point}")


@dataclass
class Stage:
    """A `BMPLoop` and the three scripted engines that it plays with."""

    loop: BMPLoop
    detector: ScriptedDetector
    pose_estimator: ScriptedPoseEstimator
    segmenter: ScriptedSegmenter


def stage(
    *acts: Sequence[Actor],
    skeleton: Skeleton = COCO_17,
    detector_masks: bool = True,
    segmenter: bool = True,
    **settings: Any,
) -> Stage:
    """Put actors on a stage; ``settings`` are those of `LoopSettings`."""
    detector = ScriptedDetector(acts, has_masks=detector_masks)
    estimator = ScriptedPoseEstimator(acts, skeleton)
    scripted_segmenter = ScriptedSegmenter(acts, len(skeleton))
    loop = BMPLoop(
        detector, estimator, scripted_segmenter if segmenter else None, LoopSettings(**settings)
    )
    return Stage(loop, detector, estimator, scripted_segmenter)


def assert_same_people(first: People, second: People) -> None:
    """Every number and pixel is the same, NaN in the same places."""
    assert first.skeleton is second.skeleton
    for item in fields(People):
        if item.name != "skeleton":
            one, other = getattr(first, item.name), getattr(second, item.name)
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other, err_msg=item.name)


def grey_image(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 without a black pixel, so that what was painted out can be told."""
    return np.full((height, width, 3), 127, np.uint8)


def _per_joint(value: float | np.ndarray | None, joints: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(value, np.float32), (joints,)).copy()
