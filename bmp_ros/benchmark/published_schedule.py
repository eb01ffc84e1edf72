# SPDX-License-Identifier: Apache-2.0
"""The order of work of the published BBoxMaskPose, with our engines: the baseline of `bmp bench`.

The networks are the very same objects; what differs is how often and in which portions they are
asked, and the work on the host around them, restated from what the published code does:

* the image is embedded again in every iteration, and every person's prompt decoded on its own;
* all instances that the detector kept (up to 40) get a full-size mask;
* every person's background is dimmed in a copy of the whole image, from a mask that went through
  polygons, and the mirrored crops pass the network on their own, all channels decoded one person
  after the other (`published_dimming`, for ViTs; other estimators are asked person by person);
* masks are made exclusive by an argmax over scores times masks of all people.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bmp_ros.loop.bmp_loop import BMPLoop, Record
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.people import People
from bmp_ros.loop.protocols import (
    Detections,
    Detector,
    PoseEstimator,
    Poses,
    Segmenter,
    Segments,
)
from bmp_ros.loop.skeletons import Skeleton
from bmp_ros.loop.trace import StageTimer

_MAX_PER_IMAGE = 40


class PublishedLoop(BMPLoop):
    """The loop with a fresh embedding per iteration and float products for exclusive masks."""

    def _segment(
        self, frame: Frame, found: People, others: People, timer: StageTimer, record: Record
    ) -> People:
        return super()._segment(Frame(frame.image.copy()), found, others, timer, record)

    def _accept(self, people: People, found: People, timer: StageTimer) -> People:
        everyone = super()._accept(people, found, timer)
        with timer("exclusive_masks"):
            weighted = everyone.raw_masks * everyone.mask_scores[:, None, None].astype(np.float64)
            owner = weighted.argmax(axis=0)
            covered = everyone.raw_masks.any(axis=0)
            masks = np.stack([covered & (owner == row) for row in range(len(everyone))])
            return replace(everyone, masks=masks)

    def _share_pixels(self, people: People, timer: StageTimer) -> People:
        return people


class FullSizeMasksDetector:
    """Decodes all instances to full size, whoever is asked for."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        found = self._detector.detect(frame, score_threshold=score_threshold)
        if found.masks is None:
            return found
        decoded = found.masks(np.arange(min(len(found.scores), _MAX_PER_IMAGE)))
        return Detections(found.boxes, found.scores, lambda indices: decoded[indices])


class OneByOneSegmenter:
    """One decoder call per person."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def segment(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        answers = []
        for row in range(len(points)):
            one = slice(row, row + 1)
            own = None if masks is None else masks[one]
            answers.append(self._segmenter.segment(frame, points[one], labels[one], own))
        return Segments(
            np.concatenate([answer.masks for answer in answers]),
            np.concatenate([answer.scores for answer in answers]),
        )


class OneByOneEstimator:
    """One call per person."""

    def __init__(self, estimator: PoseEstimator) -> None:
        self._estimator = estimator

    @property
    def skeleton(self) -> Skeleton:
        return self._estimator.skeleton

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        answers = [
            self._estimator.estimate(
                frame, boxes[row : row + 1], None if masks is None else masks[row : row + 1]
            )
            for row in range(len(boxes))
        ]

        def joined(name: str) -> np.ndarray | None:
            parts = [getattr(answer, name) for answer in answers]
            return None if parts[0] is None else np.concatenate(parts)

        keypoints, scores = joined("keypoints"), joined("scores")
        assert keypoints is not None and scores is not None
        return Poses(keypoints, scores, joined("visibility"), joined("presence"))
