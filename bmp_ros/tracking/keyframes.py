# SPDX-License-Identifier: Apache-2.0
"""``Keyframes``: run the detector on every Nth image only, and on others where it is needed.

Between keyframes the tracker says where everybody should be. Pose network and segmenter look
there, and boxes move with what they find. On keyframes the loop looks for more people only if
somebody is missing whom the tracker expects, and it looks more closely where that one should be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from bmp_ros.fields import CheckedSettings, bool_field, number_field
from bmp_ros.loop.bmp_loop import BMPLoop
from bmp_ros.loop.box_nms import box_iou
from bmp_ros.loop.masks import exclusive_masks
from bmp_ros.loop.people import People
from bmp_ros.loop.pose_nms import pairwise_similarity
from bmp_ros.loop.protocols import Detections
from bmp_ros.loop.trace import RunReport
from bmp_ros.tracking.association import JOINT_SCORE
from bmp_ros.tracking.continuity import thumbnail
from bmp_ros.tracking.matching import is_cut_off
from bmp_ros.tracking.motion import check_homography, displacement, move_boxes
from bmp_ros.tracking.tracker import PersonTracker, TrackReport
from bmp_ros.tracking.tracks import State

LONGEST_S = 0.6
"""Seconds after which the detector looks again, however slow the images come."""
STEP_S = 0.12
"""Seconds between two images in which people may move too far for the tracker to say where to."""
FULL_S, MOST_CUT = 0.6, 8
"""Seconds, and detections in a row, after which all iterations look for people, whoever is there:
somebody whom nobody expects may be seen behind another in a later one only."""
HIDDEN_S = 0.4
"""Seconds for which a later iteration looks for somebody who was seen before."""
NEW_S = 0.3
"""Seconds for which the detector looks again at somebody who has no id yet."""
LOST_S = 0.5
"""Seconds for which the detector looks for somebody who was lost, and did not leave the image."""
MEETING_IOU = 0.7
"""IoU of the boxes of two people whom the pose network could take for one another."""
POSE_FALL, MASK_FALL = 0.75, 0.75
"""Share of its score in the image before below which a pose or a mask is in doubt."""
LIKE_ANOTHER = 0.6
"""OKS from which two people have one pose: both boxes show the same person."""
BORDER_CHANGE = 18.0
"""Grey levels that a part of the border changes by when somebody comes in."""
LEAST_JOINTS = 4
"""Sure joints that a box needs to follow them."""
FOLLOW, MARGIN = 0.6, 0.09
"""Weight of a box that moves with its joints, against a box around the joints, which is larger by
the margin (of its height) on every side. Chosen, as all limits here, on the tuning clips."""


@dataclass(frozen=True)
class KeyframeSettings(CheckedSettings):
    """On which images the detector runs while people are tracked."""

    detection_interval: int = number_field(
        1, low=1, high=30, integer=True, text="run the detector on every Nth image, and on those "
        "where a person may be new, lost or mistaken for another; in between, poses and masks are "
        "estimated where the tracker expects people. Needs tracking; 1: on every image",
    )  # fmt: skip
    refine_between: bool = bool_field(
        True, text="whether the segmenter refines masks between detections, too; else they move "
        "with the people",
    )  # fmt: skip


@dataclass
class _Keyframe:
    """What the last image told. people: with ids. border: see `_border`. stamp_s: of that image.
    since: images after the last detection. detected_s, arrived_s: stamp and time of arrival of the
    image of that detection."""

    people: People
    border: np.ndarray
    stamp_s: float
    since: int
    detected_s: float
    arrived_s: float | None

    def is_over(self, stamp_s: float, arrival_s: float | None) -> bool:
        """Whether an image comes too long after the detection, or before the last image."""
        late = stamp_s - self.detected_s > LONGEST_S or stamp_s - self.stamp_s > STEP_S
        if stamp_s == self.stamp_s and arrival_s is not None and self.arrived_s is not None:
            late |= arrival_s - self.arrived_s > LONGEST_S  # stamps may stand still
        return late or stamp_s < self.stamp_s


class Keyframes:
    """Finds the people of one camera's images, with the detector where that is needed.

    For every image `find`, `PersonTracker.update`, then `remember`. Not for several threads.
    """

    def __init__(self, settings: KeyframeSettings | None = None) -> None:
        self.settings = settings or KeyframeSettings()
        self.rests = 0
        """Images on which the detector did not run."""
        self._last: _Keyframe | None = None
        self._fresh = True
        self._detected = True
        self._arrival_s: float | None = None
        self._full_s, self._cut = -np.inf, 0

    def reset(self) -> None:
        """Detect on the next image: what is known is of other images."""
        self._last, self._fresh = None, True

    def find(
        self,
        loop: BMPLoop,
        tracker: PersonTracker,
        image: np.ndarray,
        stamp_s: float,
        *,
        arrival_s: float | None = None,
        known: Detections | None = None,
        ego_motion: np.ndarray | None = None,
    ) -> tuple[People, RunReport]:
        """The people in a BGR uint8 image (H, W, 3), and the report of the loop.

        stamp_s, arrival_s, ego_motion: as for `PersonTracker.update`, which comes next. known:
        boxes of another program, which take the detector's place, and count as its work.
        ``report.iterations`` is 0 where people are taken from the image before.
        """
        self._detected, self._arrival_s = False, arrival_s
        between = self.settings.detection_interval > 1 and self._last is not None
        behind = loop.settings.behind_threshold is not None and not self._fresh
        tracks = expected = there = None
        if known is None and (between or behind):
            tracks = tracker.expect(stamp_s, arrival_s, ego_motion)
        if between and tracks is not None:
            expected = self._expected(tracks, tracker, image, stamp_s, arrival_s, ego_motion)
        spent: dict[str, float] = {}
        if expected is not None:
            people, report = self._look(loop, image, expected)
            if people is not None:
                report.iterations = 0
                self.rests += 1
                return people, report
            spent = report.stage_ms
        self._detected = True
        if between and tracks is not None:
            there = self._there(tracks, tracker, image, stamp_s)
        if there is None:
            self._full_s, self._cut = stamp_s, 0
        people, report = loop.run(
            image, known, expected=there, tracked=None if tracks is None else tracks.boxes
        )
        for stage, milliseconds in spent.items():  # of the look that was not believed
            report.stage_ms[stage] = report.stage_ms.get(stage, 0.0) + milliseconds
        return people, report

    def remember(self, tracked: People, image: np.ndarray, stamp_s: float) -> None:
        """Take over the people of `find` with the ids of the tracker.

        After a `reset` since `find`, people whom the detector has not seen are not taken over.
        """
        last, self._fresh = self._last, False
        if self.settings.detection_interval <= 1:
            self._last = None
        elif self._detected:
            self._last = _Keyframe(tracked, _border(image), stamp_s, 0, stamp_s, self._arrival_s)
        elif last is not None:
            self._last = replace(
                last, people=tracked, border=_border(image), stamp_s=stamp_s, since=last.since + 1
            )

    def _there(
        self, tracks: TrackReport, tracker: PersonTracker, image: np.ndarray, stamp_s: float
    ) -> np.ndarray | None:
        """(M, 4) boxes of all who should be found in this image; None: look for everybody.

        Who has been hidden for a while would be looked for in vain in most images.
        """
        recent = 0 <= stamp_s - self._full_s <= FULL_S
        if not recent or self._cut >= MOST_CUT or tracker.has_newcomers(NEW_S):
            return None
        self._cut += 1
        sought = (tracks.state == State.CONFIRMED) | (tracks.unseen < HIDDEN_S)
        return tracks.boxes[sought & ~_has_left(tracks, image.shape[1])]

    def _expected(
        self,
        tracks: TrackReport,
        tracker: PersonTracker,
        image: np.ndarray,
        stamp_s: float,
        arrival_s: float | None,
        ego_motion: np.ndarray | None,
    ) -> People | None:
        """Everybody where they should be in this image, best detector score first.

        None: the detector is to look, as it is on time; nobody is known, or somebody is new or was
        lost; people meet; the border of the image shows something new.
        """
        last = self._last
        if last is None or not len(last.people):
            return None
        if last.since + 1 >= self.settings.detection_interval or last.is_over(stamp_s, arrival_s):
            return None
        if last.people.image_size != image.shape[:2] or tracker.has_newcomers(NEW_S):
            return None
        lost = (tracks.state == State.LOST) & (tracks.unseen < LOST_S)
        if (lost & ~_has_left(tracks, image.shape[1])).any():
            return None
        people = _moved(last.people, tracks.ids, tracks.boxes, ego_motion)
        if not len(people) or _meet(people.boxes) or _somebody_enters(last, image, people.boxes):
            return None
        return people

    def _look(
        self, loop: BMPLoop, image: np.ndarray, expected: People
    ) -> tuple[People | None, RunReport]:
        """Poses and masks of the expected people; None where one of them is in doubt."""
        has_masks = expected.has_mask.any()  # else no network is to be told that they are empty
        known = Detections(
            expected.boxes, expected.scores,
            (lambda rows: expected.masks[rows]) if has_masks else None,
        )  # fmt: skip
        people, report = loop.run(image, known, refine=self.settings.refine_between)
        if len(people) != len(expected) or not _believable(people, expected):
            return None, report
        if not self.settings.refine_between:
            steps = _steps(people, expected)
            raw, sure = _shifted(people.masks, people.mask_rectangles, steps), expected.mask_scores
            masks = exclusive_masks(raw, sure)  # two may have moved onto each other
            people = replace(people, masks=masks, raw_masks=raw, mask_scores=sure)
        boxes = _follow(people, expected)
        return replace(people, boxes=boxes, iterations=expected.iterations), report


def _moved(
    people: People, ids: np.ndarray, boxes: np.ndarray, ego_motion: np.ndarray | None
) -> People:
    """People where ``boxes`` (T, 4) of the tracks ``ids`` (T,) say; others stay in their place, or
    move with the camera.

    Best detector score first; nobody who is outside of the image.
    """
    rows = {track: row for row, track in enumerate(ids.tolist())}
    places = people.boxes.astype(np.float64)
    if ego_motion is not None:
        places = move_boxes(check_homography(ego_motion), places)
    for person, track in enumerate(people.track_ids.tolist()):
        if track in rows:
            places[person] = boxes[rows[track]]
    height, width = people.image_size
    shift = (places[:, :2] + places[:, 2:] - people.boxes[:, :2] - people.boxes[:, 2:]) / 2
    places = np.clip(places, 0, [width, height, width, height]).astype(np.float32)
    inside = (places[:, 2:] - places[:, :2] >= 2).all(axis=1)
    order = np.argsort(-people.scores, kind="stable")
    order = order[inside[order]]
    kept = people[order]
    masks = _shifted(kept.masks, people.mask_rectangles[order], shift[order])
    return replace(
        kept,
        boxes=places[order],
        keypoints=(kept.keypoints + shift[order, None]).astype(np.float32),
        masks=masks,
        raw_masks=masks,
    )


def _shifted(masks: np.ndarray, rectangles: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Masks (N, H, W), whose pixels lie in ``rectangles`` (N, 4) x y width height, each moved by
    its step (x, y) of ``steps`` (N, 2), rounded to pixels."""
    moved = np.zeros(masks.shape, np.bool_)
    height, width = masks.shape[1:]
    whole = np.rint(steps).astype(int).tolist()
    for mask, target, rectangle, (dx, dy) in zip(
        masks, moved, rectangles.tolist(), whole, strict=True
    ):
        x, y, w, h = (int(side) for side in rectangle)
        x0, y0 = max(x, -dx), max(y, -dy)
        x1, y1 = min(x + w, width - max(dx, 0)), min(y + h, height - max(dy, 0))
        if x0 < x1 and y0 < y1:
            target[y0 + dy : y1 + dy, x0 + dx : x1 + dx] = mask[y0:y1, x0:x1]
    return moved


def _steps(people: People, expected: People) -> np.ndarray:
    """(N, 2) pixels by which everybody is elsewhere than expected."""
    return displacement(
        (expected.keypoints, people.keypoints),
        (expected.keypoint_scores, people.keypoint_scores),
        (expected.boxes, expected.boxes),
        JOINT_SCORE, LEAST_JOINTS,
    )  # fmt: skip


def _has_left(tracks: TrackReport, width: int) -> np.ndarray:
    """(T,) bool: tracks that were lost at the left or right border."""
    left: np.ndarray = (tracks.state == State.LOST) & is_cut_off(tracks.boxes, width)
    return left


def _meet(boxes: np.ndarray) -> bool:
    overlap = box_iou(boxes, boxes)
    np.fill_diagonal(overlap, 0.0)
    return bool((overlap > MEETING_IOU).any())


def _border(image: np.ndarray) -> np.ndarray:
    return cv2.blur(thumbnail(image), (3, 3))


def _somebody_enters(last: _Keyframe, image: np.ndarray, boxes: np.ndarray) -> bool:
    """Whether a part of the left, right or lower border changes where nobody is known, and more
    than the whole image does."""
    change = np.abs(_border(image) - last.border)
    height, width = change.shape
    ring = np.zeros(change.shape, np.bool_)
    ring[:, :2] = ring[:, -2:] = ring[-1:] = True
    scale = np.array([width / image.shape[1], height / image.shape[0]] * 2)
    for x0, y0, x1, y1 in np.rint(boxes * scale).astype(int).tolist():
        ring[max(y0 - 1, 0) : y1 + 1, max(x0 - 2, 0) : x1 + 2] = False
    return bool(ring.any() and change[ring].max() > BORDER_CHANGE + 2 * np.median(change))


def _believable(people: People, expected: People) -> bool:
    """Whether everybody still is who was expected there."""
    joints = people.skeleton.main_joints
    if (people.pose_scores < POSE_FALL * expected.pose_scores).any():
        return False
    if (people.mask_scores < MASK_FALL * expected.mask_scores).any() and people.mask_scores.any():
        return False
    sides = people.boxes[:, 2:] - people.boxes[:, :2]
    similar = pairwise_similarity(
        people.keypoints[:, joints], people.keypoint_scores[:, joints], sides.prod(axis=1),
        JOINT_SCORE, people.skeleton.sigmas[joints],
    )  # fmt: skip
    np.fill_diagonal(similar, 0.0)
    return not bool((np.nan_to_num(similar) > LIKE_ANOTHER).any())


def _follow(people: People, expected: People) -> np.ndarray:
    """(N, 4) boxes of ``people``: between the expected ones, each side moved as the outermost sure
    joints moved there, and those joints with a `MARGIN`.

    Who has few sure joints stays where they were expected.
    """
    now, before = people.keypoint_scores > JOINT_SCORE, expected.keypoint_scores > JOINT_SCORE
    both = now & before
    moved = _extent(people.keypoints, both) - _extent(expected.keypoints, both)
    heights = expected.boxes[:, 3:] - expected.boxes[:, 1:2]
    around = _extent(people.keypoints, now) + MARGIN * heights * [-1, -1, 1, 1]
    boxes = FOLLOW * (expected.boxes + moved) + (1 - FOLLOW) * around
    height, width = people.image_size
    boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
    known = (both.sum(axis=1) >= LEAST_JOINTS) & (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
    return np.where(known[:, None], boxes, expected.boxes)


def _extent(joints: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """(N, 4) xyxy around the ``sure`` (N, K) of the joints (N, K, 2); 0 where there is none."""
    low = np.where(sure[..., None], joints, np.inf).min(axis=1)
    high = np.where(sure[..., None], joints, -np.inf).max(axis=1)
    extent = np.concatenate([low, high], axis=1)
    return np.where(sure.any(axis=1)[:, None], extent, 0.0)
