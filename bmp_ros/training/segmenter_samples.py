# SPDX-License-Identifier: Apache-2.0
"""Training samples of the segmenter: prompts as the loop gives them, good, noisy and wrong."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from bmp_ros.engines.crops import RGB_MEAN, RGB_STD
from bmp_ros.loop.prompts import select_prompts
from bmp_ros.training.cut_outs import CutOuts
from bmp_ros.training.images import (
    TrainingImage,
    ViewRange,
    fitted_view,
    random_view,
    recolour,
)
from bmp_ros.training.rough_masks import rough_mask

MASK_STRIDE = 4
POSITIVE, NEGATIVE = 6, 3
"""Most prompts of each kind; rows are padded with label -1."""


POSED_SHARE = 0.75
"""Of the people with keypoints of a pose network, those who are prompted with them."""

DETECTED_SHARE = 0.9
"""Of the people with a detection, those who are prompted with its mask; the others with a damaged
true one."""
MASKLESS_SHARE = 0.1
"""Of all people, those who are prompted with points alone."""
AT_WORK_THRESHOLD = 0.2
"""Visibility and confidence of the joints that prompt, as the tiny presets say."""


@dataclass(frozen=True)
class SegmenterSample:
    """canvas: (3, h, w) float32 normalised RGB. points: (G, 9, 2) float32 canvas pixels.

    labels: (G, 9) int64: 1, 0, -1. first: (G, h/4, w/4) float32 covered shares of the mask
    prompts, all 0 without one. masks: the same of the true masks.
    """

    canvas: np.ndarray
    points: np.ndarray
    labels: np.ndarray
    first: np.ndarray
    masks: np.ndarray


def segmenter_sample(
    random: np.random.Generator,
    labelled: TrainingImage,
    size: tuple[int, int],
    *,
    augment: bool = True,
    most: int = 5,
    cut_outs: CutOuts | None = None,
) -> SegmenterSample:
    """Prompts and masks of up to ``most`` people of an image on a canvas (width, height).

    Only people whose mask is known. cut_outs: people to paste first, None for none; always where
    there would be nobody to learn from. Without ``augment``, for validation, those whom networks
    found are prompted as at work.
    """
    if augment:
        view = random_view(random, labelled, size, ViewRange(zoom=(0.7, 2.2)))
        if cut_outs is not None:
            view = cut_outs.crowd(random, view, always=not view.masked.any())
        image = recolour(random, view.image, rendered=view.rendered)
    else:
        view = fitted_view(labelled, size)
        image = view.image
    rows = np.flatnonzero(view.masked)
    if augment:
        rows = random.permutation(rows)
    elif view.detected:
        rows = np.array([row for row in rows if at_work(view, row) is not None], np.intp)
    rows = rows[:most]
    grid = (size[0] // MASK_STRIDE, size[1] // MASK_STRIDE)
    points = np.zeros((len(rows), POSITIVE + NEGATIVE, 2), np.float32)
    labels = np.full((len(rows), POSITIVE + NEGATIVE), -1, np.int64)
    masks = np.empty((len(rows), grid[1], grid[0]), np.float32)
    first = np.zeros_like(masks)
    for sample, row in enumerate(rows):
        masks[sample] = _shares(view.masks[row], grid)
        seen = None if augment else at_work(view, int(row))
        if seen is not None:
            guess, on = seen
            off = np.empty((0, 2), np.float32)
        else:
            guess = mask_prompt(random, view, int(row))
            on = positive_prompts(random, view, int(row))
            off = negative_prompts(random, view, int(row))
        if guess is not None:
            first[sample] = _shares(guess, grid)
        points[sample, : len(on)], labels[sample, : len(on)] = on, 1
        points[sample, POSITIVE : POSITIVE + len(off)] = off
        labels[sample, POSITIVE : POSITIVE + len(off)] = 0
    canvas = (image[..., ::-1].astype(np.float32) - RGB_MEAN) / RGB_STD
    canvas = np.ascontiguousarray(canvas.transpose(2, 0, 1))
    return SegmenterSample(canvas, points, labels, first, masks)


def at_work(view: TrainingImage, row: int) -> tuple[np.ndarray | None, np.ndarray] | None:
    """First mask (H, W) bool and points (P, 2) that the loop would prompt with; None for a person
    whom no detector found, or whose joints are all too uncertain to prompt with."""
    detected = view.detected[row] if view.detected else None
    if detected is None or detected.keypoints is None:
        return None
    joints, scores = detected.keypoints[:, :2], detected.keypoints[:, 2]
    if not (scores > AT_WORK_THRESHOLD).any():
        return None
    order = select_prompts(
        joints, scores, scores, method="distance+confidence",
        visibility_threshold=AT_WORK_THRESHOLD, box=detected.box, limit=POSITIVE,
    )  # fmt: skip
    return detected.mask, joints[order]


def mask_prompt(random: np.random.Generator, view: TrainingImage, row: int) -> np.ndarray | None:
    """A first mask (H, W) bool: the detector's, or where it found nobody a damaged true one; at
    times none, as with detectors that have no masks."""
    if random.random() < MASKLESS_SHARE:
        return None
    detected = view.detected[row] if view.detected else None
    if detected is not None and random.random() < DETECTED_SHARE:
        return detected.mask
    return rough_mask(random, view.masks[row], np.delete(view.masks, row, axis=0))


def _shares(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    pixels = np.ascontiguousarray(mask).view(np.uint8) * np.uint8(255)
    shares = cv2.resize(pixels, grid, interpolation=cv2.INTER_AREA).astype(np.float32)
    return shares / np.float32(255)


def positive_prompts(random: np.random.Generator, view: TrainingImage, row: int) -> np.ndarray:
    """(P, 2) points, 1 <= P <= 6: a pose network's own joints, chosen as the loop does, or the
    true ones with errors, a few hidden ones among them."""
    mask = view.masks[row]
    size = np.sqrt(mask.sum())
    detected = view.detected[row] if view.detected else None
    if detected is not None and detected.keypoints is not None and random.random() < POSED_SHARE:
        joints, scores = detected.keypoints[:, :2], detected.keypoints[:, 2]
        order = select_prompts(
            joints, scores, scores, method="distance+confidence",
            visibility_threshold=random.uniform(0.1, 0.35), box=detected.box,
            limit=POSITIVE if random.random() < 0.7 else int(random.integers(1, POSITIVE + 1)),
        )  # fmt: skip
        if len(order):
            return joints[order] + random.normal(0, 0.01 * size, (len(order), 2)).astype(
                np.float32
            )
    places = view.keypoints[row]
    visible = random.permutation(np.flatnonzero(view.visibility[row] == 2))
    hidden = random.permutation(np.flatnonzero(view.visibility[row] == 1))
    count = int(random.integers(1, POSITIVE + 1)) if random.random() < 0.4 else POSITIVE
    wrong = int(random.random() < 0.2) + int(random.random() < 0.1)
    chosen = [places[joint] for joint in visible[:count]]
    for joint in hidden[:wrong]:
        # A hidden joint is on whoever is in front: the loop prompts with those as well.
        if len(chosen) < count or not len(visible):
            chosen.append(places[joint])
        else:
            chosen[int(random.integers(len(chosen)))] = places[joint]
    if not chosen:
        y, x = np.nonzero(mask)
        some = random.integers(len(x), size=min(count, 3))
        chosen = list(np.stack([x[some], y[some]], axis=1))
    points = np.array(chosen[:POSITIVE], np.float32)
    points += random.normal(0, 0.03 * size, points.shape)
    if random.random() < 0.1:
        points[random.integers(len(points))] += random.normal(0, 0.25 * size, 2)
    return points


def negative_prompts(random: np.random.Generator, view: TrainingImage, row: int) -> np.ndarray:
    """(P, 2) points on other people, 0 <= P <= 3; mostly none, as in the presets."""
    others = np.delete(np.arange(len(view)), row)
    if not len(others) or random.random() < 0.7:
        return np.empty((0, 2), np.float32)
    joints = view.keypoints[others][view.visibility[others] == 2]
    if not len(joints):
        return np.empty((0, 2), np.float32)
    y, x = np.nonzero(view.masks[row])
    distance = np.linalg.norm(joints - [x.mean(), y.mean()], axis=1)
    nearest = np.argsort(distance)[: int(random.integers(1, NEGATIVE + 1))]
    return np.asarray(joints[nearest], np.float32)
