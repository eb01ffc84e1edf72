# SPDX-License-Identifier: Apache-2.0
"""``BMPLoop``: detect, estimate poses, segment, paint out, and detect again.

Purkrabek & Matas, "Detection, Pose Estimation and Segmentation for Multiple Bodies: Closing the
Virtuous Circle", ICCV 2025 (arXiv 2412.01562), and its second version (arXiv 2601.15200). The
method is `BMPLoop._run`; docs/deviations.md says where it differs from the published code and why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bmp_ros.loop.box_nms import box_nms
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.masks import exclusive_masks, mask_rectangles, paint_out
from bmp_ros.loop.people import People
from bmp_ros.loop.pose_nms import pose_nms
from bmp_ros.loop.prompts import PromptGroup, choose_prompts
from bmp_ros.loop.protocols import Detector, PoseEstimator, Segmenter
from bmp_ros.loop.settings import LoopSettings
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.loop.trace import RunReport, StageTimer, Trace

_COCO_JOINTS = len(COCO_17)

Record = Callable[..., None]


class BMPLoop:
    """The BBoxMaskPose loop over three engines.

    detector, pose_estimator, segmenter: see `bmp_ros.loop.protocols`. Without a segmenter the
    detector's masks are the result, with mask score 0.
    settings: thresholds and rules. A new value may be assigned between two frames.
    report: stage timings and counts of the last frame.
    """

    def __init__(
        self,
        detector: Detector,
        pose_estimator: PoseEstimator,
        segmenter: Segmenter | None,
        settings: LoopSettings | None = None,
    ) -> None:
        skeleton = pose_estimator.skeleton
        if skeleton.names[:_COCO_JOINTS] != COCO_17.names:
            raise ValueError(
                f"the first {_COCO_JOINTS} keypoints must be COCO's, but skeleton "
                f"{skeleton.name!r} begins with {', '.join(skeleton.names[:3])} …"
            )
        self.detector = detector
        self.pose_estimator = pose_estimator
        self.segmenter = segmenter
        self.settings = settings if settings is not None else LoopSettings()
        self.report = RunReport()

    def __call__(self, image: np.ndarray, boxes: np.ndarray | None = None) -> People:
        """Find everybody in a BGR uint8 image (H, W, 3).

        boxes: (N, 4) xyxy pixels of people who are known already. They take the detector's place:
        one iteration, no suppression, row i of the result belongs to box i (unless a network
        returns NaN for it).

        Returns People, those found in the first iteration first, by descending detector score.
        Raises ValueError for any other kind of image or box.
        """
        return self._run(Frame(image), boxes, _ignore)

    def trace(self, image: np.ndarray, boxes: np.ndarray | None = None) -> Trace:
        """Run as ``loop(image)`` does and return what every stage of every iteration saw and said.

        For debug images and tests; the plain call keeps none of it.
        """
        trace = Trace()
        trace.people = self._run(Frame(image), boxes, trace.record)
        trace.report = self.report
        return trace

    def _run(self, frame: Frame, boxes: np.ndarray | None, record: Record) -> People:
        self.report = report = RunReport()
        timer = StageTimer(report)
        people = People.empty(frame.height, frame.width, self.pose_estimator.skeleton)
        with timer("total"):
            for iteration in range(1, (self.settings.iterations if boxes is None else 1) + 1):
                if iteration > 1 and self._complete(people):
                    break
                report.iterations = iteration
                if boxes is None:
                    found = self._detect(frame, people, iteration, timer, record)
                else:
                    found = self._given(frame, boxes, record)
                if not len(found):
                    break
                found = self._estimate_poses(frame, found, timer, record)
                if boxes is None:
                    people, found = self._suppress(people, found, timer)
                record(survivors=found)
                if not len(found):
                    break
                found = self._segment(frame, found, people, timer, record)
                people = self._accept(people, found, timer)
                record(people=people)
            return self._finish(self._share_pixels(people, timer))

    def _complete(self, people: People) -> bool:
        """Whether another iteration cannot add anybody.

        With nobody to paint out, the detector would see the same picture and say the same again.
        """
        nobody_to_paint = not any(mask.any() for mask in people.masks)
        return nobody_to_paint or len(people) >= self.settings.max_people

    def _detect(
        self, frame: Frame, people: People, iteration: int, timer: StageTimer, record: Record
    ) -> People:
        """Find people in the frame without those who were found already; best first."""
        settings = self.settings
        if len(people):
            with timer("paint_out"):
                frame = Frame(paint_out(frame.image, people.masks))
        with timer("detect"):
            detections = self.detector.detect(frame, score_threshold=settings.detection_threshold)
        record(new_iteration=True, iteration=iteration, image=frame.image, detections=detections)
        with timer("box_nms"):
            boxes = np.asarray(detections.boxes, np.float32).reshape(-1, 4)
            scores = np.asarray(detections.scores, np.float32)
            finite = self._finite(boxes, scores)
            boxes = np.clip(boxes, 0, np.tile([frame.width, frame.height], 2))
            solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            rows = np.flatnonzero(finite & solid & (scores > settings.detection_threshold))
            rows = rows[box_nms(boxes[rows], scores[rows], settings.box_nms_iou)]
            rows = rows[: settings.max_people - len(people)]
        with timer("detect"):
            masks = detections.masks(rows) if detections.masks is not None and len(rows) else None
        found = People.of_boxes(
            boxes[rows], scores[rows], frame.height, frame.width, people.skeleton,
            masks=masks, iteration=iteration,
        )  # fmt: skip
        record(detected=found)
        return found

    def _given(self, frame: Frame, boxes: np.ndarray, record: Record) -> People:
        """People in the boxes that the caller knows, score 1, no masks."""
        given = np.asarray(boxes, np.float32)
        if given.ndim != 2 or given.shape[1] != 4 or not np.isfinite(given).all():
            raise ValueError(
                f"boxes must be finite and of shape (N, 4) xyxy, got {given.tolist()}"
            )
        if len(given) > self.settings.max_people:
            raise ValueError(
                f"got {len(given)} boxes, max_people is {self.settings.max_people}; raise it or "
                "pass fewer boxes"
            )
        clipped = np.clip(given, 0, np.tile([frame.width, frame.height], 2)).astype(np.float32)
        for index, (x1, y1, x2, y2) in enumerate(clipped):
            if x2 <= x1 or y2 <= y1:
                raise ValueError(
                    f"box {index} {given[index].tolist()} (xyxy) has no area inside the image of "
                    f"{frame.width}x{frame.height} pixels"
                )
        skeleton = self.pose_estimator.skeleton
        found = People.of_boxes(
            clipped, np.ones(len(given), np.float32), frame.height, frame.width, skeleton
        )
        record(image=frame.image, detected=found)
        return found

    def _estimate_poses(
        self, frame: Frame, found: People, timer: StageTimer, record: Record
    ) -> People:
        """Estimate all poses in one call, each conditioned on the detector's mask."""
        with timer("pose"):
            poses = self.pose_estimator.estimate(frame, found.boxes, _given_masks(found))
        unknown = found.visibility
        scores = np.asarray(poses.scores, np.float32)
        with np.errstate(invalid="ignore"):  # whoever has infinite scores is dropped below
            pose_scores = scores[:, :_COCO_JOINTS].mean(axis=1)
        found = replace(
            found,
            keypoints=np.asarray(poses.keypoints, np.float32),
            keypoint_scores=scores,
            pose_scores=pose_scores,
            visibility=unknown if poses.visibility is None else poses.visibility,
            presence=unknown if poses.presence is None else poses.presence,
        )
        known = [found.keypoints, found.keypoint_scores]
        known += [array for array in (poses.visibility, poses.presence) if array is not None]
        finite = self._finite(*known)
        found = found if finite.all() else found[finite]
        record(posed=found)
        return found

    def _suppress(self, people: People, found: People, timer: StageTimer) -> tuple[People, People]:
        """Drop poses that describe the same person: (accepted who stay, found who survive)."""
        settings = self.settings
        with timer("pose_nms"):
            keypoints, scores, boxes, iteration = (
                np.concatenate([getattr(people, name), getattr(found, name)])
                for name in ("keypoints", "keypoint_scores", "boxes", "iteration")
            )
            scores = scores[:, :_COCO_JOINTS]
            stays = np.zeros(len(boxes), np.bool_)
            stays[
                pose_nms(
                    keypoints[:, :_COCO_JOINTS], scores, boxes,
                    confidence_threshold=settings.confidence_threshold,
                    oks_threshold=settings.oks_threshold,
                )
            ] = True  # fmt: skip
            if settings.keep_poseless == "first":
                poseless = ~(scores > settings.confidence_threshold).any(axis=1)
                stays |= poseless & (iteration == 1)
            old, new = stays[: len(people)], stays[len(people) :]
            found = found if new.all() else found[new]
            if len(found) and not old.all():
                people = people[old]
        return people, found

    def _segment(
        self, frame: Frame, found: People, others: People, timer: StageTimer, record: Record
    ) -> People:
        """Replace the detector's masks by the segmenter's, one call per number of points.

        A person without a prompt keeps the detector's mask and mask score 0.
        """
        if self.segmenter is None:
            record(segmented=found)
            return found
        with timer("prompts"):
            groups = choose_prompts(found, others, self.settings)
        record(prompts=groups)
        if not groups:
            record(segmented=found)
            return found
        with timer("segment"):
            masks, mask_scores = self._decode(frame, found, groups)
        has_mask = found.has_mask.copy()
        has_mask[np.concatenate([group.people for group in groups])] = True
        found = replace(
            found, masks=masks, raw_masks=masks, mask_scores=mask_scores, has_mask=has_mask
        )
        finite = self._finite(mask_scores)
        found = found if finite.all() else found[finite]
        record(segmented=found)
        return found

    def _decode(
        self, frame: Frame, found: People, groups: list[PromptGroup]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks (N, H, W) and scores (N,) of everybody, one call of the segmenter per group."""
        assert self.segmenter is not None
        first = _given_masks(found)
        segments = []
        for group in groups:
            own = first
            if first is not None and len(group.people) < len(found):
                own = first[group.people]
            segments.append(self.segmenter.segment(frame, group.points, group.labels, own))
        if len(groups) == 1 and len(groups[0].people) == len(found):
            return segments[0].masks, np.asarray(segments[0].scores, np.float32)
        masks, mask_scores = found.raw_masks.copy(), found.mask_scores.copy()
        for group, answer in zip(groups, segments, strict=True):
            masks[group.people] = answer.masks
            mask_scores[group.people] = answer.scores
        return masks, mask_scores

    def _accept(self, people: People, found: People, timer: StageTimer) -> People:
        """Everybody accepted so far. Their masks are raw, which is the same to paint out."""
        with timer("exclusive_masks"):
            return People.concatenate([people, found])

    def _share_pixels(self, people: People, timer: StageTimer) -> People:
        """Give every pixel to one person.

        Done once, in the end, from the raw masks of those who are still there: somebody suppressed
        in a later iteration takes no pixel from the neighbours.
        """
        with timer("exclusive_masks"):
            return replace(people, masks=exclusive_masks(people.raw_masks, people.mask_scores))

    def _finish(self, people: People) -> People:
        if not self.settings.boxes_from_masks or not len(people):
            return people
        rectangles = mask_rectangles(people.masks).astype(np.float32)
        corners = np.concatenate(
            [rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]], axis=1
        )
        has_pixels = rectangles[:, 2:3] > 0
        return replace(people, boxes=np.where(has_pixels, corners, people.boxes))

    def _finite(self, *arrays: np.ndarray) -> np.ndarray:
        """(N,) bool: rows where every number is finite; the others are counted in the report."""
        finite = np.ones(len(arrays[0]), np.bool_)
        for array in arrays:
            finite &= np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        self.report.not_finite += int((~finite).sum())
        return finite


def _given_masks(found: People) -> np.ndarray | None:
    """The detector's masks (N, H, W), or None where it has none."""
    return found.raw_masks if found.has_mask.any() else None


def _ignore(**_: Any) -> None:
    """The plain call records nothing."""
