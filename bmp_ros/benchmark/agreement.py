# SPDX-License-Identifier: Apache-2.0
"""How near a number format comes to another one: the same questions, the answers compared."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from bmp_ros.benchmark.scripted import Scene
from bmp_ros.loop.bmp_loop import BMPLoop
from bmp_ros.loop.frame import Frame

Results = dict[str, Any]


def answers(loop: BMPLoop, scene: Scene, thresholds: tuple[float, float]) -> Results:
    """What the networks say to the same questions, without the script."""
    frame = Frame(scene.image)
    found = loop.detector.detect(frame, score_threshold=thresholds[0])
    rows = np.arange(min(len(found.scores), len(scene.boxes)))
    poses = loop.pose_estimator.estimate(frame, scene.boxes, scene.masks)
    points = scene.keypoints[:, 5:11].astype(np.float32)
    labels = np.ones(points.shape[:2], np.int32)
    segmenter: Any = loop.segmenter
    logits, _ = segmenter.decode(frame, points, labels)
    return {
        "boxes": found.boxes,
        "detector_masks": None if found.masks is None else found.masks(rows),
        "keypoints": poses.keypoints,
        "keypoint_scores": poses.scores,
        "logits": logits,
        "masks": segmenter.segment(frame, points, labels).masks,
    }


def agreement(exact: Results, other: Results) -> Results:
    """How far the answers of one number format are from those in fp32.

    Untrained networks have no clear peaks and outlines, so that a rounding error moves more here
    than in trained ones: see `tiny` for those.
    """
    boxes = min(len(exact["boxes"]), len(other["boxes"]))
    distance = np.linalg.norm(exact["keypoints"] - other["keypoints"], axis=-1)
    first = exact["detector_masks"], other["detector_masks"]
    masks = [] if first[0] is None else mask_ious(*first)
    return {
        "people": [len(exact["boxes"]), len(other["boxes"])],
        "box_px_max": float(
            np.abs(exact["boxes"][:boxes] - other["boxes"][:boxes]).max(initial=0)
        ),
        "detector_mask_iou": spread(masks, low=True),
        "keypoint_px": spread(distance.ravel().tolist()),
        "mask_iou": spread(mask_ious(exact["masks"], other["masks"]), low=True),
        "logit_cosine": cosine(exact["logits"], other["logits"]),
        "score_max": float(np.abs(exact["keypoint_scores"] - other["keypoint_scores"]).max()),
    }


def mask_ious(one: np.ndarray, other: np.ndarray) -> list[float]:
    """IoU of each pair of masks; two empty ones agree."""
    pairs = zip(one, other, strict=False)
    return [float((a & b).sum() / union) if (union := (a | b).sum()) else 1.0 for a, b in pairs]


def spread(values: list[float], *, low: bool = False) -> Results:
    """Mean, median and the percentile that hurts: 1 of what should be high, 99 of what low."""
    if not values:
        return {}
    tail = ("p1", 1) if low else ("p99", 99)
    return {
        "mean": round(float(np.mean(values)), 5),
        "median": round(float(np.median(values)), 5),
        tail[0]: round(float(np.percentile(values, tail[1])), 5),
    }


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return round(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-300)), 7)


def compare_people(images: list[np.ndarray], exact: BMPLoop, other: BMPLoop) -> Results:
    """People that two loops find in the same images: numbers, and those whose boxes agree."""
    counts, distances, ious, milliseconds = [], [], [], []
    for image in images:
        (one, _), (two, report) = exact.run(image), other.run(image)
        counts.append((len(one), len(two)))
        milliseconds.append(report.stage_ms["total"])
        for row, box in enumerate(one.boxes):
            if not len(two):
                break
            nearest = int(np.abs(two.boxes - box).sum(axis=1).argmin())
            if np.abs(two.boxes[nearest] - box).max() > 0.2 * (box[3] - box[1]):
                continue
            gaps = np.linalg.norm(one.keypoints[row] - two.keypoints[nearest], axis=-1)
            distances += gaps[one.keypoint_scores[row] > 0.2].tolist()
            ious += mask_ious(one.masks[row : row + 1], two.masks[nearest : nearest + 1])
    return {
        "images": len(images),
        "people": [sum(a for a, _ in counts), sum(b for _, b in counts)],
        "images_with_another_number": sum(a != b for a, b in counts),
        "compared": len(ious),
        "keypoint_px": spread(distances),
        "mask_iou": spread(ious, low=True),
        "median_ms": round(statistics.median(milliseconds[1:] or milliseconds), 3),
    }
