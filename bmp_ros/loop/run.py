# SPDX-License-Identifier: Apache-2.0
"""``Run``: one frame on its way through the loop, with the stages that it passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from bmp_ros.loop.answers import (
    boxes_and_scores,
    checked_poses,
    checked_segments,
    detected_masks,
)
from bmp_ros.loop.box_nms import box_iou, box_nms
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.masks import exclusive_masks, mask_rectangles, paint_out
from bmp_ros.loop.people import People
from bmp_ros.loop.pose_nms import pose_nms
from bmp_ros.loop.prompts import PromptGroup, choose_prompts
from bmp_ros.loop.protocols import Detections, Detector, PoseEstimator, Segmenter
from bmp_ros.loop.settings import LoopSettings
from bmp_ros.loop.trace import DISCARDED, IterationTrace, RunReport

BESIDE = (0.02, 0.75)
"""IoU with the nearest person's box of a box that may be somebody else's, whom that one hides."""

FOUND = 0.5
"""IoU of a person's box and the one that is expected, from which on it is them."""

ROUGHLY = 0.4
"""The same for somebody of whom a part is hidden."""


@dataclass
class Run:
    """One frame, the networks and settings as they are at its start, and what becomes of it.

    Every call of the loop makes its own, so several threads may share a loop. The stages are
    methods; `bmp_ros.loop.bmp_loop.find_people` puts them in order. steps: what the stages of each
    iteration saw and said; None (the default): not kept. boxes_seen, scores_seen: of the last
    detection, before suppression. expected, tracked: see `BMPLoop.run`.
    """

    frame: Frame
    detector: Detector
    pose_estimator: PoseEstimator
    segmenter: Segmenter | None
    settings: LoopSettings
    report: RunReport = field(default_factory=RunReport)
    steps: list[IterationTrace] | None = None
    step: IterationTrace = DISCARDED
    boxes_seen: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores_seen: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    expected: np.ndarray | None = None
    tracked: np.ndarray | None = None

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent in the block to the report."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = (time.perf_counter() - start) * 1e3
            stage_ms = self.report.stage_ms
            stage_ms[stage] = stage_ms.get(stage, 0.0) + elapsed

    def begin(self, iteration: int) -> IterationTrace:
        """Count an iteration; return where its results are recorded."""
        self.report.iterations = iteration
        if self.steps is not None:
            self.step = IterationTrace(iteration)
            self.steps.append(self.step)
        return self.step

    def no_people(self) -> People:
        return People.empty(self.frame.height, self.frame.width, self.pose_estimator.skeleton)

    def is_complete(self, people: People) -> bool:
        """Whether another iteration cannot add a person.

        Without people to paint out, the detector would see the same image and say the same again.
        """
        nothing_to_paint = not any(mask.any() for mask in people.masks)
        full = len(people) >= self.settings.max_people
        if nothing_to_paint or full or self.all_expected_are_found(people):
            return True
        return not self.somebody_may_be_hidden(people)

    def all_expected_are_found(self, people: People) -> bool:
        """Whether each of the ``expected`` boxes is that of another one of ``people``."""
        if self.expected is None or not 0 < len(self.expected) <= len(people):
            return False
        overlap = box_iou(self.expected, people.boxes)
        found = overlap.max(axis=1) >= FOUND
        return bool(found.all()) and len(set(overlap.argmax(axis=1).tolist())) == len(overlap)

    def somebody_may_be_hidden(self, people: People) -> bool:
        """Whether the last detection saw a box that may be of somebody whom a person hides.

        It overlaps one of ``people``, but is not theirs, and its score is at least
        ``look_again_score``, below the threshold perhaps: painting out the person in front raises
        it. Always, where that setting is None.
        """
        least = self.settings.look_again_score
        if least is None:
            return True
        boxes = self.boxes_seen[self.scores_seen >= least]
        nearest = box_iou(boxes, people.boxes).max(axis=1, initial=0.0)
        return bool(((nearest > BESIDE[0]) & (nearest < BESIDE[1])).any())

    def detect(self, people: People) -> People:
        """Find people in the frame without those who were found already; best first."""
        settings, frame = self.settings, self.frame
        if len(people):
            with self.timed("paint_out"):
                frame = Frame(paint_out(frame.image, people.masks))
        with self.timed("detect"):
            detections = self.detector.detect(frame, score_threshold=self._wanted(people))
        with self.timed("box_nms"):
            boxes, scores, rows = self._candidates(detections, frame, people)
            rows = rows[box_nms(boxes[rows], scores[rows], settings.box_nms_iou)]
            rows = rows[: settings.max_people - len(people)]
        return self._detected(detections, boxes, scores, rows, frame)

    def _candidates(
        self, detections: Detections, frame: Frame, people: People
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes clipped to the frame, scores, and the rows that may be people.

        people: whom earlier iterations have found.
        """
        self.step.image, self.step.detections = frame.image, detections
        boxes, scores = boxes_and_scores(detections, self.detector)
        finite = self._finite(boxes, scores)
        boxes = np.clip(boxes, 0, np.tile([frame.width, frame.height], 2))
        solid = np.flatnonzero(finite & (boxes[:, 2:] > boxes[:, :2]).all(axis=1))
        self.boxes_seen, self.scores_seen = boxes[solid], scores[solid]
        return boxes, scores, solid[self._likely(boxes[solid], scores[solid], people)]

    def threshold(self) -> float:
        """Detector score that a person must exceed in this iteration."""
        later = self.settings.later_threshold
        if later is None or self.report.iterations <= 1:
            return self.settings.detection_threshold
        return max(later, self.settings.detection_threshold)

    def _wanted(self, people: People) -> float:
        """Score from which the detector's boxes are of use. people: who were found before."""
        settings, wanted = self.settings, [self.threshold()]
        if settings.look_again_score is not None:
            wanted.append(settings.look_again_score)
        if settings.behind_threshold is not None and self._sure(people).any():
            wanted.append(settings.behind_threshold)
        return min(wanted)

    def _likely(self, boxes: np.ndarray, scores: np.ndarray, people: People) -> np.ndarray:
        """(N,) bool: whose score exceeds the threshold, or ``behind_threshold`` where that counts.

        boxes: (N, 4), finite. Box NMS of an earlier iteration let nobody through who overlaps a
        found person so much. What is still seen there when that person is painted out is more
        likely somebody than another box of its score.
        """
        likely, sure = scores > self.threshold(), self._sure(people)
        least = self.settings.behind_threshold
        if least is not None and sure.any():
            overlap = box_iou(boxes, people.boxes[sure]).max(axis=1, initial=0.0)
            behind = (scores > least) & (overlap > self.settings.box_nms_iou)
            likely |= behind & self._of_the_missing(boxes, people)
        return likely

    def _of_the_missing(self, boxes: np.ndarray, people: People) -> np.ndarray:
        """(N,) bool: which boxes may be of somebody ``tracked`` who is none of ``people``; all
        where nobody tracks.

        What is left of a painted person looks like somebody in each image of a video; somebody who
        is hidden was there before.
        """
        if self.tracked is None:
            return np.ones(len(boxes), np.bool_)
        missing = self.tracked[~_matched(self.tracked, people.boxes)]
        near: np.ndarray = box_iou(boxes, missing).max(axis=1, initial=0.0) >= ROUGHLY
        return near

    def _sure(self, people: People) -> np.ndarray:
        """(N,) bool: behind whom ``behind_threshold`` counts."""
        sure: np.ndarray = people.scores >= self.settings.behind_score
        return sure

    def _detected(
        self,
        detections: Detections,
        boxes: np.ndarray,
        scores: np.ndarray,
        rows: np.ndarray,
        frame: Frame,
    ) -> People:
        """The people in the chosen rows, with the detections' masks where it has some."""
        with self.timed("detect"):
            masks = detected_masks(detections, rows, self.detector, frame)
        return People.from_boxes(
            boxes[rows], scores[rows], frame.height, frame.width, self.pose_estimator.skeleton,
            masks=masks, iteration=self.report.iterations,
        )  # fmt: skip

    def found_elsewhere(self, detections: Detections) -> People:
        """People whom another program has found, best first; nobody is suppressed.

        Boxes that are not finite, or have no area inside the frame, are left out, as are scores
        that do not exceed the threshold and whoever is more than ``max_people``.
        """
        boxes, scores, rows = self._candidates(detections, self.frame, self.no_people())
        rows = rows[np.argsort(-scores[rows], kind="stable")][: self.settings.max_people]
        return self._detected(detections, boxes, scores, rows, self.frame)

    def given(self, boxes: np.ndarray) -> People:
        """People in the boxes (N, 4) that the caller knows: score 1, no masks."""
        given, frame = np.asarray(boxes, np.float32), self.frame
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
        self.step.image = frame.image
        scores, skeleton = np.ones(len(given), np.float32), self.pose_estimator.skeleton
        return People.from_boxes(clipped, scores, frame.height, frame.width, skeleton)

    def estimate_poses(self, found: People) -> People:
        """Estimate all poses in one call, each conditioned on the detector's mask."""
        with self.timed("pose"):
            poses = self.pose_estimator.estimate(self.frame, found.boxes, _masks_or_none(found))
        poses = checked_poses(poses, len(found), found.skeleton, self.pose_estimator)
        unknown = found.visibility
        with np.errstate(invalid="ignore"):  # whoever has infinite scores is dropped below
            pose_scores = poses.scores[:, found.skeleton.main_joints].mean(axis=1)
        found = replace(
            found,
            keypoints=poses.keypoints,
            keypoint_scores=poses.scores,
            pose_scores=pose_scores,
            visibility=unknown if poses.visibility is None else poses.visibility,
            presence=unknown if poses.presence is None else poses.presence,
        )
        known = [array for array in (poses.visibility, poses.presence) if array is not None]
        return self._only_finite(found, poses.keypoints, poses.scores, *known)

    def suppress(self, people: People, found: People) -> tuple[People, People]:
        """Drop poses that describe the same person: (accepted who stay, found who survive)."""
        settings = self.settings
        with self.timed("pose_nms"):
            keypoints, scores, boxes, box_scores, iterations = (
                np.concatenate([getattr(people, name), getattr(found, name)])
                for name in ("keypoints", "keypoint_scores", "boxes", "scores", "iterations")
            )
            joints = found.skeleton.main_joints
            scores = scores[:, joints]
            stays = np.zeros(len(boxes), np.bool_)
            stays[
                pose_nms(
                    keypoints[:, joints], scores, boxes,
                    confidence_threshold=settings.confidence_threshold,
                    oks_threshold=settings.oks_threshold,
                    sigmas=found.skeleton.sigmas[joints],
                    ranks=box_scores if settings.pose_nms_keeps == "score" else None,
                )
            ] = True  # fmt: skip
            if settings.keep_poseless == "first":
                poseless = ~(scores > settings.confidence_threshold).any(axis=1)
                stays |= poseless & (iterations == 1)
            old, new = stays[: len(people)], stays[len(people) :]
            found = found if new.all() else found[new]
            if len(found) and not old.all():
                people = people[old]
        return people, found

    def segment(self, found: People, others: People) -> People:
        """Replace the detector's masks by the segmenter's, one call per number of points.

        others: accepted before. A person without a prompt keeps the detector's mask and mask
        score 0.
        """
        if self.segmenter is None:
            return found
        with self.timed("prompts"):
            groups = choose_prompts(found, others, self.settings)
        self.step.prompts = groups
        if not groups:
            return found
        with self.timed("segment"):
            masks, mask_scores = self._decode(self.segmenter, found, groups)
        has_mask = found.has_mask.copy()
        has_mask[np.concatenate([group.people for group in groups])] = True
        found = replace(
            found, masks=masks, raw_masks=masks, mask_scores=mask_scores, has_mask=has_mask
        )
        return self._only_finite(found, mask_scores)

    def _decode(
        self, segmenter: Segmenter, found: People, groups: list[PromptGroup]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks (N, H, W) and scores (N,) of all people, one call of the segmenter per group."""
        first = _masks_or_none(found)
        segments = []
        for group in groups:
            own = first
            if first is not None and len(group.people) < len(found):
                own = first[group.people]
            answer = segmenter.segment(self.frame, group.points, group.labels, own)
            segments.append(checked_segments(answer, len(group.people), self.frame, segmenter))
        if len(groups) == 1 and len(groups[0].people) == len(found):
            return segments[0].masks, segments[0].scores
        masks, mask_scores = found.raw_masks.copy(), found.mask_scores.copy()
        for group, answer in zip(groups, segments, strict=True):
            masks[group.people] = answer.masks
            mask_scores[group.people] = answer.scores
        return masks, mask_scores

    def share_pixels(self, people: People) -> People:
        """Give every pixel to one person; with ``boxes_from_masks`` the boxes follow.

        Done once, in the end, from the raw masks of those who are still there: a person suppressed
        in a later iteration takes no pixel from the neighbours.
        """
        with self.timed("exclusive_masks"):
            weight = people.scores**self.settings.box_score_weight
            masks = exclusive_masks(people.raw_masks, people.mask_scores * weight)
            people = replace(people, masks=masks)
        if not self.settings.boxes_from_masks or not len(people):
            return people
        rectangles = mask_rectangles(people.masks).astype(np.float32)
        corners = np.concatenate(
            [rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]], axis=1
        )
        has_pixels = rectangles[:, 2:3] > 0
        return replace(people, boxes=np.where(has_pixels, corners, people.boxes))

    def _only_finite(self, found: People, *arrays: np.ndarray) -> People:
        finite = self._finite(*arrays)
        return found if finite.all() else found[finite]

    def _finite(self, *arrays: np.ndarray) -> np.ndarray:
        """(N,) bool: rows where every number is finite; the others are counted in the report."""
        finite = np.ones(len(arrays[0]), np.bool_)
        for array in arrays:
            finite &= np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        self.report.not_finite += int((~finite).sum())
        return finite


def _masks_or_none(found: People) -> np.ndarray | None:
    """The detector's masks (N, H, W), or None where it has none."""
    return found.raw_masks if found.has_mask.any() else None


def _matched(places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M,) bool: which of the places (M, 4) one of the boxes (N, 4) is in, another box for each;
    the closest pairs first."""
    overlap = box_iou(places, boxes)
    matched = np.zeros(len(places), np.bool_)
    while overlap.size and overlap.max() >= ROUGHLY:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        matched[row] = True
        overlap[row], overlap[:, column] = -1.0, -1.0
    return matched
