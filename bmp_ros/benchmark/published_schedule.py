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

from bmp_ros.loop.bmp_loop import BMPLoop
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
from bmp_ros.loop.settings import LoopSettings
from bmp_ros.loop.skeletons import Skeleton
from bmp_ros.loop.trace import RunReport

_MAX_PER_IMAGE = 40


class PublishedLoop:
    """The stages of our loop in the published order, and its own exclusive masks."""

    def __init__(
        self,
        detector: Detector,
        pose_estimator: PoseEstimator,
        segmenter: Segmenter | None,
        settings: LoopSettings,
    ) -> None:
        self._loop = BMPLoop(detector, pose_estimator, segmenter, settings)

    def run(self, image: np.ndarray) -> tuple[People, RunReport]:
        """Find all people in a BGR uint8 image (H, W, 3); see `BMPLoop.run`."""
        run = self._loop.begin(image)
        people = run.no_people()
        with run.timed("total"):
            for iteration in range(1, run.settings.iterations + 1):
                run.begin(iteration)
                found = run.detect(people)
                if not len(found):
                    break
                found = run.estimate_poses(found)
                people, found = run.suppress(people, found)
                if not len(found):
                    break
                run.frame = Frame(run.frame.image.copy())  # without what SAM made of the image
                found = run.segment(found, others=people)
                with run.timed("exclusive_masks"):
                    people = _with_float_products(People.concatenate([people, found]))
        return people, run.report


def _with_float_products(people: People) -> People:
    """Exclusive masks as the argmax of the products of all masks and scores."""
    weighted = people.raw_masks * people.mask_scores[:, None, None].astype(np.float64)
    owner = weighted.argmax(axis=0)
    covered = people.raw_masks.any(axis=0)
    masks = np.stack([covered & (owner == row) for row in range(len(people))])
    return replace(people, masks=masks)


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
