# SPDX-License-Identifier: Apache-2.0
"""``BMPLoop``: detect, estimate poses, segment, paint out, and detect again.

Purkrabek & Matas, "Detection, Pose Estimation and Segmentation for Multiple Bodies: Closing the
Virtuous Circle", ICCV 2025 (arXiv 2412.01562), and its second version (arXiv 2601.15200). The
method is `find_people`; docs/deviations.md says where it differs from the published code and why.
"""

from __future__ import annotations

import numpy as np

from bmp_ros.loop.frame import Frame
from bmp_ros.loop.people import People
from bmp_ros.loop.protocols import Detections, Detector, PoseEstimator, Segmenter
from bmp_ros.loop.run import Run
from bmp_ros.loop.settings import LoopSettings
from bmp_ros.loop.skeletons import check_skeleton
from bmp_ros.loop.trace import RunReport, Trace

Boxes = np.ndarray | Detections
"""Of people who are known already: (N, 4) xyxy pixels, or what another program has found."""


def find_people(run: Run) -> People:
    """The method: all people in the frame of ``run``, in as many iterations as set."""
    people = run.no_people()
    for iteration in range(1, run.settings.iterations + 1):
        if iteration > 1 and run.is_complete(people):
            break
        step = run.begin(iteration)
        step.detected = found = run.detect(people)
        if not len(found):
            break
        step.posed = found = run.estimate_poses(found)
        people, found = run.suppress(people, found)
        step.survivors = found
        if not len(found):
            break
        step.segmented = found = run.segment(found, others=people)
        # Masks are raw here, which is the same to paint out.
        step.people = people = People.concatenate([people, found])
    return run.share_pixels(people)


def complete_people(run: Run, boxes: Boxes) -> People:
    """Poses and masks of the people in given boxes (N, 4): one iteration, no suppression."""
    step = run.begin(1)
    if isinstance(boxes, Detections):
        people = run.found_elsewhere(boxes)
    else:
        people = run.given(boxes)
    step.detected = people
    if len(people):
        step.posed = step.survivors = people = run.estimate_poses(people)
    if len(people):
        step.segmented = step.people = people = run.segment(people, others=run.no_people())
    return run.share_pixels(people)


class BMPLoop:
    """The BBoxMaskPose loop over three engines. Several threads may call one loop.

    detector, pose_estimator, segmenter: see `bmp_ros.loop.protocols`. Without a segmenter the
    detector's masks are the result, with mask score 0.
    settings: thresholds and rules. A new value may be assigned at any time; a frame that has begun
    keeps the old one.
    """

    def __init__(
        self,
        detector: Detector,
        pose_estimator: PoseEstimator,
        segmenter: Segmenter | None,
        settings: LoopSettings | None = None,
    ) -> None:
        check_skeleton(pose_estimator.skeleton)
        self.detector = detector
        self.pose_estimator = pose_estimator
        self.segmenter = segmenter
        self.settings = settings if settings is not None else LoopSettings()

    def __call__(self, image: np.ndarray, boxes: Boxes | None = None) -> People:
        """Find all people in a BGR uint8 image (H, W, 3).

        boxes: (N, 4) xyxy pixels of people who are known already. They take the detector's place:
        one iteration, no suppression, row i of the result belongs to box i (unless a network
        returns NaN for it). As `Detections`, of another program, they come with scores and perhaps
        masks; the threshold and ``max_people`` count then, and boxes without area are left out.

        Returns People, those found in the first iteration first, by descending detector score.
        Raises ValueError for any other kind of image or box, and for a network that returns arrays
        of the wrong shape.
        """
        return self.run(image, boxes)[0]

    def run(
        self,
        image: np.ndarray,
        boxes: Boxes | None = None,
        *,
        refine: bool = True,
        expected: np.ndarray | None = None,
        tracked: np.ndarray | None = None,
    ) -> tuple[People, RunReport]:
        """Do as ``loop(image)`` does; return stage timings and counts as well.

        refine: False leaves the segmenter out: masks are those of the detector, or of ``boxes``.
        expected: (M, 4) xyxy pixels where people should be. When they are all found, no further
        iteration looks for others. None, or nobody: not known.
        tracked: (T, 4) xyxy pixels where everybody should be whom a tracker knows, hidden or not;
        ``behind_threshold`` then counts only where one of them is missing. None: nobody tracks.
        """
        run = self.begin(image)
        run.expected, run.tracked = expected, tracked
        if not refine:
            run.segmenter = None
        return _finish(run, boxes), run.report

    def trace(self, image: np.ndarray, boxes: Boxes | None = None) -> Trace:
        """Do as ``loop(image)`` does; return what every stage of every iteration saw and said.

        For debug images and tests; the plain call keeps none of it.
        """
        run = self.begin(image)
        run.steps = []
        people = _finish(run, boxes)
        return Trace(run.steps, people, run.report)

    def begin(self, image: np.ndarray) -> Run:
        """A run of one image (H, W, 3) with the networks and settings of now, nothing done yet."""
        return Run(Frame(image), self.detector, self.pose_estimator, self.segmenter, self.settings)


def _finish(run: Run, boxes: Boxes | None) -> People:
    with run.timed("total"):
        return find_people(run) if boxes is None else complete_people(run, boxes)
