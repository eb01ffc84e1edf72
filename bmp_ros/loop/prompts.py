# SPDX-License-Identifier: Apache-2.0
"""Which keypoints of a pose are handed to the segmenter as point prompts, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from math import dist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bmp_ros.loop.box_nms import box_iou

if TYPE_CHECKING:
    from bmp_ros.loop.people import People
    from bmp_ros.loop.settings import LoopSettings

PROMPT_METHODS = ("distance+confidence", "k_most_visible", "distance", "closest")

_FACE = (0, 1, 2)  # of COCO's joints, see `Skeleton.face`
_CONFIDENT_QUANTILE = 0.8
_ISOLATION_WEIGHT = 3.0


class PromptGroup(NamedTuple):
    """People with equally many prompt points: one decoder call.

    people: (G,) int64, their rows. points: (G, P, 2) float32 pixels. labels: (G, P) int32, 1 on
    the person, 0 not.
    """

    people: np.ndarray
    points: np.ndarray
    labels: np.ndarray


def choose_prompts(found: People, others: People, settings: LoopSettings) -> list[PromptGroup]:
    """Choose the prompt points of each person in ``found``; ``others`` were accepted before.

    A person without any keypoint that is both visible and confident is in no group.
    """
    everyone = np.concatenate([found.boxes, others.boxes])
    overlap = box_iou(found.boxes, everyone)
    np.fill_diagonal(overlap, 0.0)
    crowd_iou = np.inf if settings.crowd_iou is None else settings.crowd_iou
    limits = np.where(
        overlap.max(axis=1) > crowd_iou, settings.num_positive_crowded, settings.num_positive
    )
    joints = np.s_[:, found.skeleton.main_joints]
    face = found.skeleton.face
    keypoints = np.concatenate([found.keypoints[joints], others.keypoints[joints]])
    scores = np.concatenate([found.keypoint_scores[joints], others.keypoint_scores[joints]])
    visibility = np.concatenate([found.visibility[joints], others.visibility[joints]])
    visibility = np.where(np.isnan(visibility), scores, visibility)
    certain = (visibility > settings.visibility_threshold) & (
        scores > settings.confidence_threshold
    )
    points, labels = [], []
    for row in range(len(found)):
        positive = negative = np.zeros((0, 2), np.float32)
        if certain[row].any():
            order = select_prompts(
                keypoints[row], scores[row], visibility[row],
                method=settings.prompt_method,
                visibility_threshold=settings.visibility_threshold,
                box=found.boxes[row],
                limit=limits[row],
                face=face,
            )  # fmt: skip
            positive = keypoints[row, order]
            if settings.num_negative:
                negative = nearest_negatives(
                    np.delete(keypoints, row, axis=0), np.delete(visibility, row, axis=0),
                    found.boxes[row],
                    count=settings.num_negative, threshold=settings.visibility_threshold,
                )  # fmt: skip
        points.append(np.concatenate([positive, negative]))
        labels.append(np.repeat([1, 0], [len(positive), len(negative)]))
    return group_prompts(points, labels)


def select_prompts(
    keypoints: np.ndarray,
    scores: np.ndarray,
    visibility: np.ndarray,
    *,
    method: str,
    visibility_threshold: float,
    box: np.ndarray | None = None,
    limit: int | None = None,
    face: Sequence[int] = _FACE,
) -> np.ndarray:
    """Return the indices of the keypoints to prompt with, in the order of their use.

    keypoints: (K, 2) pixels. face: which of them are nose and eyes. scores, visibility: (K,);
    where a model has no visibility, pass its scores. Candidates are the keypoints with visibility
    >= ``visibility_threshold``. ``box`` (4,) xyxy gives the centre for ``distance`` and
    ``closest``, else the mean of the candidates does. Returns the first ``limit`` (default: all),
    (n,) int64.

    * ``distance+confidence``: the most confident first, then always the one farthest from those
      taken, among the candidates within the top fifth of the scores.
    * ``k_most_visible``: by visibility, descending.
    * ``distance``: by distance from the centre plus three times that from the nearest other
      candidate, descending.
    * ``closest``: by distance from the centre, ascending.

    All but ``k_most_visible`` use just the most visible one of nose and eyes. All orders are
    stable: on equal values the lower keypoint index comes first.
    """
    if method not in PROMPT_METHODS:
        raise ValueError(
            f"prompt method {method!r} is unknown; known: {', '.join(PROMPT_METHODS)}"
        )
    keypoints = np.asarray(keypoints, np.float32)
    candidate = np.asarray(visibility) >= visibility_threshold
    if method != "k_most_visible" and face:
        among = list(face)
        candidate[among] &= np.arange(len(among)) == np.asarray(visibility)[among].argmax()
    indices = np.flatnonzero(candidate)
    if len(indices) == 0:
        return indices
    points = keypoints[indices]
    if method == "k_most_visible":
        order = np.argsort(-np.asarray(visibility)[indices], kind="stable")
    elif method == "distance+confidence":
        order = _spread_over_confident(points, np.asarray(scores)[indices], limit)
    else:
        centre = points.mean(axis=0) if box is None else (box[:2] + box[2:]) / 2
        from_centre = np.linalg.norm(points - centre, axis=1)
        if method == "closest":
            order = np.argsort(from_centre, kind="stable")
        else:
            isolation = _ISOLATION_WEIGHT * _nearest_other(points)
            order = np.argsort(-(from_centre + isolation), kind="stable")
    return indices[order[:limit]]


def _spread_over_confident(
    points: np.ndarray, scores: np.ndarray, limit: int | None
) -> np.ndarray:
    """Farthest-point order over the confident: the rule of ``distance+confidence``."""
    by_score = np.argsort(-scores, kind="stable")
    # Plain lists: for a dozen points they are several times faster than arrays.
    places = points[by_score].tolist()
    remaining = scores[by_score].tolist()

    def to_taken(row: int) -> float:
        return min(dist(places[row], places[taken]) for taken in order)

    order = [0]
    while len(order) < min(len(places), limit or len(places)):
        remaining[order[-1]] = -1.0  # taken, but still in the quantile: part of the published rule
        threshold = _quantile(sorted(remaining), _CONFIDENT_QUANTILE)
        confident = [
            row for row, score in enumerate(remaining) if score >= threshold and row not in order
        ]
        # Scores below -1, which no network should give, are all alike.
        untaken = confident or [row for row in range(len(places)) if row not in order]
        order.append(max(untaken, key=to_taken))  # the first one on ties
    return by_score[order]


def _quantile(ordered: list[float], quantile: float) -> float:
    """Quantile of sorted values with linear interpolation, equal to np.quantile's."""
    position = quantile * (len(ordered) - 1)
    below = int(position)
    fraction = position - below
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    if fraction >= 0.5:  # NumPy's two-sided rule, so that ties compare alike to the last bit
        return high - (high - low) * (1 - fraction)
    return low + (high - low) * fraction


def _nearest_other(points: np.ndarray) -> np.ndarray:
    """(n,) distance of every point to the nearest other one; 0 when it is alone."""
    if len(points) == 1:
        return np.zeros(1)
    distances = np.linalg.norm(points[:, None] - points[None, :], axis=-1)
    np.fill_diagonal(distances, np.inf)
    return distances.min(axis=1)


def nearest_negatives(
    keypoints: np.ndarray, scores: np.ndarray, box: np.ndarray, *, count: int, threshold: float
) -> np.ndarray:
    """Return the ``count`` confident keypoints of other people closest to the centre of ``box``.

    keypoints: (M, K, 2) of the others. scores: (M, K), visibility where the model has it;
    candidates have a score >= ``threshold``. box: (4,) xyxy. Returns (n, 2) float32, n <= count.
    """
    points = np.asarray(keypoints, np.float32)[np.asarray(scores) >= threshold]
    centre = (box[:2] + box[2:]) / 2
    order = np.argsort(np.linalg.norm(points - centre, axis=1), kind="stable")
    return points[order[:count]]


def group_prompts(points: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> list[PromptGroup]:
    """Collect people with the same number of points into one decoder call each.

    points: one (P_i, 2) per person. labels: one (P_i,) per person. People without a point are in
    no group. Padding to one size would save calls but change the masks: SAM's padding tokens take
    part in its attention. Groups come by ascending number of points.
    """
    counts = np.array([len(own) for own in points], np.int64)
    groups = []
    for count in np.unique(counts[counts > 0]):
        people = np.flatnonzero(counts == count)
        groups.append(
            PromptGroup(
                people,
                np.stack([np.asarray(points[row], np.float32) for row in people]),
                np.stack([np.asarray(labels[row], np.int32) for row in people]),
            )
        )
    return groups
