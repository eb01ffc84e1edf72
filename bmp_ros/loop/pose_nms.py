# SPDX-License-Identifier: Apache-2.0
"""Object keypoint similarity and the suppression of poses found twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bmp_ros.loop.skeletons import COCO_SIGMAS


def object_keypoint_similarity(
    reference_xy: np.ndarray,
    reference_scores: np.ndarray,
    candidate_xy: np.ndarray,
    area: float,
    score_threshold: float,
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> float:
    """Similarity of two poses in [0, 1]; NaN when the reference has no confident keypoint.

    The mean of exp(-d^2 / (2 area (2 sigma)^2)) over the reference's keypoints with a score above
    ``score_threshold`` (COCO keypoint evaluation, cocodataset.org).

    reference_xy, candidate_xy: (K, 2) pixels. reference_scores: (K,). area: of the reference's
    box, square pixels.
    """
    keypoints = np.stack([reference_xy, candidate_xy])
    scores = np.stack([reference_scores, reference_scores])
    matrix = pairwise_similarity(keypoints, scores, np.full(2, area), score_threshold, sigmas)
    return float(matrix[0, 1])


def pairwise_similarity(
    keypoints: np.ndarray,
    scores: np.ndarray,
    areas: np.ndarray,
    score_threshold: float,
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> np.ndarray:
    """Similarity of every pose (row, the reference) with every pose (column): (N, N) float64.

    keypoints: (N, K, 2) pixels. scores: (N, K). areas: (N,) square pixels. The matrix is not
    symmetric, since area and confident keypoints are the reference's. Rows of references without
    a confident keypoint are NaN.
    """
    keypoints = np.asarray(keypoints, np.float64)
    if keypoints.shape[1:] != (len(sigmas), 2):
        raise ValueError(
            f"keypoints must have shape (N, {len(sigmas)}, 2), one joint per sigma, "
            f"got {keypoints.shape}"
        )
    confident = np.asarray(scores) > score_threshold
    distances = ((keypoints[:, None] - keypoints[None, :]) ** 2).sum(axis=-1)
    # The tiny constant (as in COCO's own code) keeps a box without area from dividing by zero.
    spread = 2 * (2 * np.asarray(sigmas)) ** 2
    tolerance = spread * (np.asarray(areas, np.float64)[:, None, None] + np.spacing(1))
    similarity = np.exp(-distances / tolerance)
    counts = confident.sum(axis=1)[:, None]
    total = np.einsum("ijk,ik->ij", similarity, confident.astype(np.float64))
    return np.divide(total, counts, out=np.full_like(total, np.nan), where=counts > 0)


def pose_nms(
    keypoints: np.ndarray,
    scores: np.ndarray,
    boxes: np.ndarray,
    *,
    confidence_threshold: float,
    oks_threshold: float,
    sigmas: Sequence[float] = COCO_SIGMAS,
    ranks: np.ndarray | None = None,
) -> np.ndarray:
    """Keep one of every group of poses that describe the same person.

    keypoints: (N, K, 2) pixels. scores: (N, K). boxes: (N, 4) xyxy pixels, whose width times
    height is the area in the similarity. sigmas: (K,) of the joints. Greedy: of the most similar
    pair above ``oks_threshold`` the pose with fewer confident keypoints goes, on a tie the one
    with the lower mean score, then the later one; it takes no further part. ranks: (N,), compared
    before all of this: of the pair, the pose of the lower rank goes. Returns the kept indices (n,)
    int64, ascending; poses without a keypoint above ``confidence_threshold`` are dropped.
    """
    scores = np.asarray(scores)
    boxes = np.asarray(boxes, np.float64)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)
    confident = (scores > confidence_threshold).sum(axis=1)
    means = scores.mean(axis=1)
    ranks = np.zeros(len(scores)) if ranks is None else np.asarray(ranks)
    similarity = pairwise_similarity(keypoints, scores, areas, confidence_threshold, sigmas)
    alive = confident > 0
    similarity[~alive, :] = similarity[:, ~alive] = -np.inf
    np.fill_diagonal(similarity, -np.inf)
    while similarity.size:
        first, second = divmod(int(similarity.argmax()), len(similarity))
        if not similarity[first, second] > oks_threshold:
            break
        # Worth of a pose in order of importance; the earlier one is worth more on a full tie.
        removed = min(
            first, second, key=lambda row: (ranks[row], confident[row], means[row], -row)
        )
        alive[removed] = False
        similarity[removed, :] = similarity[:, removed] = -np.inf
    return np.flatnonzero(alive)
