# SPDX-License-Identifier: Apache-2.0
"""How much two networks agree that should do the same, measured by what they find in images.

Cosines of outputs say little of a quantised network: a grid of boxes is nearly parallel to any
other one, and a heatmap may keep its shape and lose its maximum. So each network is given what the
loop gave to the first one, and people, joints and masks are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bmp_ros.loop.bmp_loop import BMPLoop
from bmp_ros.loop.box_nms import box_iou
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.pose_nms import object_keypoint_similarity
from bmp_ros.loop.protocols import Detections, Detector, PoseEstimator, Poses, Segmenter, Segments
from bmp_ros.loop.skeletons import Skeleton

SAME_PERSON = 0.5
"""IoU of two boxes from which on they are of one person."""


@dataclass(frozen=True)
class Measure:
    """what: is compared. value: in [0, 1]. count: people that it is the mean of."""

    what: str
    value: float
    count: int

    def __str__(self) -> str:
        return f"{self.what} {self.value:.3f} (of {self.count} people)"


@dataclass
class Calls:
    """What a loop asked its networks: their arguments, call by call."""

    detect: list[tuple[Frame, float]] = field(default_factory=list)
    estimate: list[tuple[Frame, np.ndarray, np.ndarray | None]] = field(default_factory=list)
    segment: list[tuple[Frame, np.ndarray, np.ndarray, np.ndarray | None]] = field(
        default_factory=list
    )
    confidence_threshold: float = 0.0


def recorded_loop(loop: BMPLoop) -> tuple[BMPLoop, Calls]:
    """A loop over the same networks, and the calls that it will make."""
    calls = Calls(confidence_threshold=loop.settings.confidence_threshold)
    recorded = BMPLoop(
        _Detector(loop.detector, calls),
        _PoseEstimator(loop.pose_estimator, calls),
        None if loop.segmenter is None else _Segmenter(loop.segmenter, calls),
        replace(loop.settings),
    )
    return recorded, calls


class _Detector:
    def __init__(self, detector: Detector, calls: Calls) -> None:
        self._detector, self._calls = detector, calls

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        self._calls.detect.append((frame, score_threshold))
        return self._detector.detect(frame, score_threshold=score_threshold)


class _PoseEstimator:
    def __init__(self, estimator: PoseEstimator, calls: Calls) -> None:
        self._estimator, self._calls = estimator, calls

    @property
    def skeleton(self) -> Skeleton:
        return self._estimator.skeleton

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        self._calls.estimate.append((frame, boxes, masks))
        return self._estimator.estimate(frame, boxes, masks)


class _Segmenter:
    def __init__(self, segmenter: Segmenter, calls: Calls) -> None:
        self._segmenter, self._calls = segmenter, calls

    def segment(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        self._calls.segment.append((frame, points, labels, masks))
        return self._segmenter.segment(frame, points, labels, masks)


def agreement(role: str, first: Any, second: Any, calls: Calls) -> list[Measure]:
    """Compare two engines of one role on what the loop asked the first one."""
    compare: dict[str, Callable[[Any, Any, Calls], list[Measure]]] = {
        "detector": _detectors, "pose_estimator": _pose_estimators, "segmenter": _segmenters,
    }  # fmt: skip
    return compare[role](first, second, calls)


def _detectors(first: Detector, second: Detector, calls: Calls) -> list[Measure]:
    """People of either above the threshold whom the other finds above half of it, and the IoU of
    the masks of people whom both find."""
    known: list[bool] = []
    overlaps: list[float] = []
    for frame, threshold in calls.detect:
        ours, theirs = (
            each.detect(frame, score_threshold=threshold / 2) for each in (first, second)
        )
        iou = box_iou(ours.boxes, theirs.boxes)
        for scores, matrix in ((ours.scores, iou), (theirs.scores, iou.T)):
            best = matrix.max(axis=1, initial=0.0)
            known += (best >= SAME_PERSON)[scores > threshold].tolist()
        rows = np.flatnonzero((ours.scores > threshold) & (iou.max(axis=1, initial=0.0) >= 0.5))
        if ours.masks is not None and theirs.masks is not None and len(rows):
            masks = ours.masks(rows), theirs.masks(iou[rows].argmax(axis=1))
            overlaps += _mask_iou(*masks).tolist()
    measures = [_mean("people found", known)]
    return [*measures, _mean("mask IoU", overlaps)] if overlaps else measures


def _pose_estimators(first: PoseEstimator, second: PoseEstimator, calls: Calls) -> list[Measure]:
    """OKS of the second's keypoints with those of the first that count as found."""
    similar: list[float] = []
    for frame, boxes, masks in calls.estimate:
        ours, theirs = (each.estimate(frame, boxes, masks) for each in (first, second))
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        for row, area in enumerate(areas):
            similarity = object_keypoint_similarity(
                ours.keypoints[row], ours.scores[row], theirs.keypoints[row], float(area),
                calls.confidence_threshold, first.skeleton.sigmas,
            )  # fmt: skip
            if np.isfinite(similarity):
                similar.append(similarity)
    return [_mean("OKS", similar)]


def _segmenters(first: Segmenter, second: Segmenter, calls: Calls) -> list[Measure]:
    overlaps: list[float] = []
    for given in calls.segment:
        masks = [each.segment(*given).masks for each in (first, second)]
        overlaps += _mask_iou(*masks).tolist()
    return [_mean("mask IoU", overlaps)]


def _mask_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of masks (N, H, W) row by row; 1 for two empty ones."""
    both = (first & second).sum(axis=(1, 2), dtype=np.float64)
    either = (first | second).sum(axis=(1, 2), dtype=np.float64)
    return np.divide(both, either, out=np.ones_like(both), where=either > 0)


def _mean(what: str, values: list[Any]) -> Measure:
    return Measure(what, float(np.mean(values)) if values else 0.0, len(values))
