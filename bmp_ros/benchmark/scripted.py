# SPDX-License-Identifier: Apache-2.0
"""Engines that do all of their work and then say what a script says.

Networks without trained weights find no people, and trained ones find those who are in the image.
A benchmark wants N people in every frame: each wrapper runs the real engine on the real input,
drops the answer and gives the scripted one, of the same size and on the same path.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bmp_ros.loop.frame import Frame
from bmp_ros.loop.masks import paint_out
from bmp_ros.loop.protocols import (
    Detections,
    Detector,
    PoseEstimator,
    Poses,
    Segmenter,
    Segments,
)
from bmp_ros.loop.skeletons import Skeleton

# A standing person in a unit box, x y of COCO's 17 joints.
_STANDING = np.array(
    [
        [0.50, 0.07], [0.54, 0.05], [0.46, 0.05], [0.59, 0.07], [0.41, 0.07], [0.68, 0.20],
        [0.32, 0.20], [0.78, 0.36], [0.22, 0.36], [0.82, 0.50], [0.18, 0.50], [0.62, 0.52],
        [0.38, 0.52], [0.63, 0.73], [0.37, 0.73], [0.64, 0.94], [0.36, 0.94],
    ],
    np.float32,
)  # fmt: skip
_SCORE = 0.9


@dataclass(frozen=True)
class Scene:
    """A crowd in an image: image (H, W, 3), boxes (N, 4), masks (N, H, W), keypoints (N, 17, 2).

    later: (N,) bool, people whom the detector finds in the second iteration only.
    """

    image: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    keypoints: np.ndarray
    later: np.ndarray


def crowd(people: int, width: int, height: int, *, later: int = 0, seed: int = 0) -> Scene:
    """Line up ``people`` ellipses; the last ``later`` are found later.

    Neighbours overlap where there are many, so little that no rule of the loop takes two for one.
    """
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    box_width = min(0.28 * height, width / 2, 1.3 * 0.96 * width / (people + 0.3))
    box_height = min(0.7 * height, 2.5 * box_width)
    left = np.linspace(0.02 * width, 0.98 * width - box_width, people)
    top = rng.uniform(0.05, 0.25, people) * height
    boxes = np.stack([left, top, left + box_width, top + box_height], axis=1).astype(np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    masks = np.zeros((people, height, width), np.bool_)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        across, along = (2 * x - x1 - x2) / (x2 - x1), (2 * y - y1 - y2) / (y2 - y1)
        np.less(across**2 + along**2, 1.0, out=mask)
    keypoints = boxes[:, None, :2] + _STANDING * (boxes[:, None, 2:] - boxes[:, None, :2])
    return Scene(image, boxes, masks, keypoints, np.arange(people) >= people - later)


def score_thresholds(detector: Detector, scene: Scene) -> tuple[float, float]:
    """Scores above which a detector finds as many people as the script says, by iteration.

    With them it has the candidates, the NMS and the masks of a real frame to work on, whatever
    its weights make of the image. Raises ValueError when it finds no person at any score.
    """
    first = ~scene.later
    painted_out = paint_out(scene.image, scene.masks[first])
    wanted = ((scene.image, int(first.sum())), (painted_out, int(scene.later.sum())))
    thresholds = []
    for image, people in wanted:
        if not people:
            thresholds.append(1.0)
            continue
        scores = detector.detect(Frame(image), score_threshold=0.0).scores
        scores = np.sort(scores[np.isfinite(scores)])[::-1]
        if not len(scores):
            raise ValueError(
                "the detector finds no person in the benchmark's image at any score, so masks "
                "cannot be timed; use weights that find people"
            )
        # Just below the last one who is wanted: whoever has an equal score is found as well.
        last = scores[min(people, len(scores)) - 1]
        thresholds.append(float(np.nextafter(last, np.float32(0))))
    return thresholds[0], thresholds[1]


class ScriptedDetector:
    """Runs a detector on everything, then reports the scene's people of this iteration.

    thresholds: what the detector is asked with, see `score_thresholds`.
    """

    def __init__(self, detector: Detector, scene: Scene, thresholds: tuple[float, float]) -> None:
        self._detector = detector
        self._scene = scene
        self._thresholds = thresholds

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        painted_out = frame.image is not self._scene.image
        found = self._detector.detect(frame, score_threshold=self._thresholds[painted_out])
        rows = np.flatnonzero(self._scene.later == painted_out)

        def masks(indices: np.ndarray) -> np.ndarray:
            if found.masks is not None:
                # A detector that finds too few decodes some twice.
                found.masks(np.resize(np.arange(len(found.scores)), len(indices)))
            return self._scene.masks[rows[indices]]

        return Detections(self._scene.boxes[rows], np.full(len(rows), _SCORE, np.float32), masks)


class ScriptedPoseEstimator:
    """Runs a pose estimator on the crops, then reports the scene's keypoints of these boxes."""

    def __init__(self, estimator: PoseEstimator, scene: Scene) -> None:
        self._estimator = estimator
        self._scene = scene

    @property
    def skeleton(self) -> Skeleton:
        return self._estimator.skeleton

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        poses = self._estimator.estimate(frame, boxes, masks)
        rows = _rows_of(boxes, self._scene)
        keypoints = np.zeros_like(poses.keypoints)
        keypoints[:, : len(_STANDING)] = self._scene.keypoints[rows]
        scores = np.full_like(poses.scores, _SCORE)
        known = None if poses.visibility is None else scores
        return Poses(keypoints, scores, known, known)


class ScriptedSegmenter:
    """Runs a segmenter on the prompts, then reports the mask of whom they lie on."""

    def __init__(self, segmenter: Segmenter, scene: Scene) -> None:
        self._segmenter = segmenter
        self._scene = scene

    def segment(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        self._segmenter.segment(frame, points, labels, masks)
        prompted = points[:, None, :1]  # the first point tells people apart
        distance = np.linalg.norm(self._scene.keypoints[None] - prompted, axis=-1).min(axis=-1)
        return Segments(
            self._scene.masks[distance.argmin(axis=1)], np.full(len(points), _SCORE, np.float32)
        )


def _rows_of(boxes: np.ndarray, scene: Scene) -> np.ndarray:
    """(N,) rows of the scene's people who have these boxes."""
    distance = np.abs(scene.boxes[None] - boxes[:, None]).sum(axis=-1)
    return distance.argmin(axis=1)
