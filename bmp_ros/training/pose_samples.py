# SPDX-License-Identifier: Apache-2.0
"""Training samples of the pose network: crops with a dimmed background, and their heatmaps."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from bmp_ros.engines.crops import RGB_MEAN, RGB_STD, crop_geometry
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.networks.conv_pose import PEAK_SIGMA
from bmp_ros.training.cut_outs import CutOuts
from bmp_ros.training.images import TrainingImage, recolour
from bmp_ros.training.rough_masks import rough_mask

BACKGROUND_FACTOR = 0.5
"""Brightness left to the background, as presets must say: darker than MaskPose's 0.75, since a
small network needs a plain hint."""


LEAST_VISIBLE = 5
"""Visible joints of a person that is trained on."""
LEAST_HEIGHT = 28.0
"""Pixels of a person in a photograph; smaller ones are labelled by guessing."""

DETECTED_SHARE = 0.7
"""Of the people with a detection, those who are shown as the detector saw them."""


@dataclass(frozen=True)
class PoseSamples:
    """crops: (n, 3, h, w) float32 normalised. heatmaps, weights: (n, 17, h/4, w/4), (n, 17)."""

    crops: np.ndarray
    heatmaps: np.ndarray
    weights: np.ndarray


def pose_samples(
    random: np.random.Generator,
    labelled: TrainingImage,
    input_size: tuple[int, int],
    heatmap_size: tuple[int, int],
    *,
    augment: bool = True,
    most: int = 6,
    cut_outs: CutOuts | None = None,
) -> PoseSamples:
    """Samples of up to ``most`` people of an image, sizes as (width, height).

    cut_outs: people to paste first, None for none.
    """
    if augment and cut_outs is not None:
        labelled = cut_outs.crowd(random, labelled)
    boxes = labelled.boxes
    rows = np.flatnonzero(labelled.joints_complete | (labelled.visibility > 0).any(axis=1))
    if augment:
        # A limb between others says little; whole people teach a small network more per crop.
        enough = (labelled.visibility == 2).sum(axis=1) >= LEAST_VISIBLE
        large = labelled.joints_complete | (boxes[:, 3] - boxes[:, 1] >= LEAST_HEIGHT)
        rows = random.permutation(np.flatnonzero(enough & large))
    rows = rows[:most]
    crops = np.empty((len(rows), input_size[1], input_size[0], 3), np.float32)
    heatmaps = np.zeros((len(rows), len(COCO_17), heatmap_size[1], heatmap_size[0]), np.float32)
    weights = np.zeros((len(rows), len(COCO_17)), np.float32)
    for sample, row in enumerate(rows):
        detected = labelled.detected[row] if labelled.detected else None
        if augment and random.random() > DETECTED_SHARE:
            detected = None
        box = boxes[row] if detected is None else detected.box
        if augment:
            box = _jittered(
                random, np.asarray(box, np.float32), 0.05 if detected is None else 0.03
            )
        matrix = crop_geometry(np.asarray(box, np.float32)[None], input_size).image_to_crop[0]
        mirrored = augment and random.random() < 0.5
        if augment:
            matrix = _turned(random, matrix, input_size, mirrored)
        # What lies outside of the crop need not be touched: masks and damage of its surroundings.
        window, local = _window(matrix, input_size, labelled.image.shape)
        crop = cv2.warpAffine(labelled.image[window], local, input_size, flags=cv2.INTER_LINEAR)
        if augment:
            crop = recolour(random, crop, rendered=bool(labelled.joints_complete[row]))
        mask = labelled.masks[row][window] if detected is None else detected.mask[window]
        if augment and detected is None and random.random() < 0.8:
            others = np.delete(labelled.masks, row, axis=0)[:, window[0], window[1]]
            mask = rough_mask(random, mask, others)
        known = not (augment and random.random() < 0.15) and bool(mask.any())
        values = crop[..., ::-1].astype(np.float32)
        if known:
            pixels = np.ascontiguousarray(mask).view(np.uint8) * 255
            person = cv2.warpAffine(pixels, local, input_size).astype(np.float32)
            values *= (BACKGROUND_FACTOR + (1 - BACKGROUND_FACTOR) / 255 * person)[..., None]
        if augment and random.random() < 0.2:
            _cover(random, values)
        crops[sample] = (values - RGB_MEAN) / RGB_STD
        joints = labelled.keypoints[row] @ matrix[:, :2].T + matrix[:, 2]
        seen = labelled.visibility[row]
        if mirrored:
            joints, seen = joints[COCO_17.flip_indices], seen[COCO_17.flip_indices]
        heatmaps[sample], weights[sample] = joint_heatmaps(joints, seen, input_size, heatmap_size)
        if not labelled.joints_complete[row]:
            weights[sample, seen == 0] = 0  # nobody labelled them
    return PoseSamples(np.ascontiguousarray(crops.transpose(0, 3, 1, 2)), heatmaps, weights)


def joint_heatmaps(
    joints: np.ndarray,
    visibility: np.ndarray,
    input_size: tuple[int, int],
    heatmap_size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian peaks (17, h, w) float32 and weights (17,) for joints (17, 2) in crop pixels.

    A joint outside of the crop, or of the image, has an empty map: its score shall be low.
    Hidden joints are guesses and count less. UDP: centres of first and last pixels coincide.
    """
    width, height = heatmap_size
    scale = (np.array(heatmap_size) - 1) / (np.array(input_size) - 1)
    cells = joints * scale
    x = np.exp(-((np.arange(width) - cells[:, :1]) ** 2) / (2 * PEAK_SIGMA**2))
    y = np.exp(-((np.arange(height) - cells[:, 1:]) ** 2) / (2 * PEAK_SIGMA**2))
    inside = ((cells > -0.5) & (cells < np.array(heatmap_size) - 0.5)).all(axis=1)
    there = inside & (visibility > 0)
    maps = (y[:, :, None] * x[:, None, :] * there[:, None, None]).astype(np.float32)
    weights = np.where(there & (visibility == 2), 1.0, 0.6)
    return maps, weights.astype(np.float32)


def _window(
    matrix: np.ndarray, size: tuple[int, int], shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], np.ndarray]:
    """The rows and columns of the image that the crop shows, and the matrix from these pixels."""
    corners = np.array([[0, 0], [size[0], 0], [0, size[1]], size], float)
    inverse = cv2.invertAffineTransform(matrix)
    places = corners @ inverse[:, :2].T + inverse[:, 2]
    limits = np.array(shape[1::-1])
    low = np.clip(np.floor(places.min(axis=0)).astype(int) - 2, 0, limits - 1)
    high = np.clip(np.ceil(places.max(axis=0)).astype(int) + 3, low + 1, limits)
    local = matrix.copy()
    local[:, 2] += matrix[:, :2] @ low
    return (slice(low[1], high[1]), slice(low[0], high[0])), local


def _jittered(random: np.random.Generator, box: np.ndarray, strength: float) -> np.ndarray:
    """A detector's box: sides off by some percent, now and then one side far in."""
    size = np.tile(box[2:] - box[:2], 2)
    jitter = random.normal(0, strength, 4)
    if random.random() < 0.15:
        side = int(random.integers(4))
        jitter[side] += (1 if side < 2 else -1) * random.uniform(0.1, 0.4)
    jittered: np.ndarray = box + (jitter * size).astype(np.float32)
    return jittered


def _turned(
    random: np.random.Generator, matrix: np.ndarray, size: tuple[int, int], mirrored: bool
) -> np.ndarray:
    """``matrix`` (2, 3), then a turn, zoom, shift and mirroring about the middle of the crop."""
    angle = np.radians(random.normal(0, 12)) if random.random() < 0.5 else 0.0
    zoom = np.exp(random.normal(0, 0.12))
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        turn[:, 0] *= -1
    middle = (np.array(size) - 1) / 2
    shift = random.normal(0, 0.03, 2) * size
    turned: np.ndarray = turn @ matrix
    turned[:, 2] += middle - turn @ middle + shift
    return turned


def _cover(random: np.random.Generator, values: np.ndarray) -> None:
    """Hide a part of the crop behind a rectangle of one colour, or of zero as painted people."""
    height, width = values.shape[:2]
    w, h = random.uniform(0.1, 0.4, 2) * (width, height)
    x, y = random.uniform(0, width - w), random.uniform(0, height - h)
    colour = random.uniform(0, 255, 3) if random.random() < 0.6 else np.zeros(3)
    values[int(y) : int(y + h), int(x) : int(x + w)] = colour
