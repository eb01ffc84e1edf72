# SPDX-License-Identifier: Apache-2.0
"""Training samples of the published top-down pose networks: one person a sample, as a crop.

Augmentation follows MMPose's top-down recipes (half bodies, shifted, scaled and turned boxes,
mirror images) and the published order: the background is dimmed in the whole image first.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from bmp_ros.engines.crops import BOX_PADDING, RGB_MEAN, RGB_STD, crop_geometry
from bmp_ros.training.images import TrainingImage
from bmp_ros.training.mask_background import MaskBackground, dimmed

Size = tuple[int, int]

UNKNOWN, HIDDEN, VISIBLE, ABSENT = 0, 1, 2, 3
"""What is known of a joint: nothing; it is in the crop, hidden or in view; it is not there."""

HALF_BODY_PADDING = 1.5
LEAST_LABELLED, LEAST_UPPER, LEAST_LOWER = 9, 2, 3
"""Labelled joints of a person of whom half may be shown, and of the halves."""
UPPER_SHARE = 0.7
"""Of the halves, those above the hips, where both have joints enough."""
LOWER_JOINTS = ("hip", "knee", "ankle")


@dataclass(frozen=True)
class Augmentation:
    """How the box of a person varies. Of the published networks, unless a recipe says otherwise.

    shift: largest move, in parts of the box; shift_prob: how often. scale: smallest and largest
    factor. rotate: largest turn in degrees; rotate_prob: how often. half_body_prob: how often only
    the upper or the lower half is shown. flip_prob: how often the crop is mirrored. Moves, factors
    and turns are of normal distributions, cut at one standard deviation, as MMPose draws them.
    """

    shift: float = 0.16
    shift_prob: float = 0.3
    scale: tuple[float, float] = (0.5, 1.5)
    rotate: float = 80.0
    rotate_prob: float = 0.6
    half_body_prob: float = 0.3
    flip_prob: float = 0.5


@dataclass(frozen=True)
class Grid:
    """How joints lie on the heatmaps: sizes as (width, height) and a convention of
    `bmp_ros.engines.crops`. sigma: of the peaks, in cells. rounded: a peak's centre is the centre
    of a cell, as in HRNet's code. cut: the peaks end after three sigma."""

    input_size: Size
    size: Size
    convention: str = "udp"
    sigma: float = 2.0
    rounded: bool = False
    cut: bool = True

    def cells(self, joints: np.ndarray) -> np.ndarray:
        """(K, 2) crop pixels -> (K, 2) cells."""
        crop, grid = np.array(self.input_size, float), np.array(self.size, float)
        if self.convention == "corners":
            return np.asarray(joints * (grid / crop))
        if self.convention == "udp":
            return np.asarray(joints * ((grid - 1) / (crop - 1)))
        step = (crop[0] - 1) / (grid[0] - 1)
        return np.asarray((joints - ((crop - 1) - step * (grid - 1)) / 2) / step)


@dataclass(frozen=True)
class PersonSample:
    """crop: (3, h, w) float32, normalised RGB. cells: (K, 2) float32 places on the heatmap.

    known: (K,) int64, of each joint `UNKNOWN`, `HIDDEN`, `VISIBLE` or `ABSENT`.
    """

    crop: np.ndarray
    cells: np.ndarray
    known: np.ndarray


def person_sample(
    random: np.random.Generator,
    labelled: TrainingImage,
    row: int,
    grid: Grid,
    background: MaskBackground | None = None,
    augmentation: Augmentation | None = None,
) -> PersonSample:
    """The crop of one person of ``labelled`` and where its joints are.

    background: None for networks that are not conditioned on masks. augmentation: None shows the
    person as at work, with the true mask.
    """
    image, mask = labelled.image, labelled.masks[row]
    if background is not None and labelled.masked[row]:
        if augmentation is None:
            image = dimmed(image, mask, background.dim) if mask.any() else image
        else:
            legacy = np.random.RandomState(int(random.integers(2**32)))
            image = background.apply(image, mask, legacy)
    joints, seen = labelled.keypoints[row].astype(float), labelled.visibility[row]
    box = labelled.boxes[row] if labelled.given_boxes is None else labelled.given_boxes[row]
    box = np.asarray(box, np.float64)
    angle, mirrored = 0.0, False
    if augmentation is not None:
        mirrored = random.random() < augmentation.flip_prob
        if random.random() < augmentation.half_body_prob:
            box = half_body(random, box, joints, seen, labelled.skeleton.names)
        box, angle = varied(random, box, augmentation, grid.input_size)
    matrix = crop_geometry(box[None], grid.input_size, grid.convention).image_to_crop[0]
    matrix = _turned(matrix, box, angle)
    if mirrored:
        matrix[0] = -matrix[0]
        matrix[0, 2] += grid.input_size[0] - 1
    crop = cv2.warpAffine(image, matrix, grid.input_size, flags=cv2.INTER_LINEAR)
    values = (crop[..., ::-1].astype(np.float32) - RGB_MEAN) / RGB_STD
    joints = joints @ matrix[:, :2].T + matrix[:, 2]
    if mirrored:
        order = labelled.skeleton.flip_indices
        joints, seen = joints[order], seen[order]
    inside = ((joints >= 0) & (joints <= np.array(grid.input_size) - 1)).all(axis=1)
    known = np.where(seen > 0, np.where(inside, seen, ABSENT), UNKNOWN)
    if labelled.joints_complete[row]:
        known[seen == 0] = ABSENT
    return PersonSample(
        np.ascontiguousarray(values.transpose(2, 0, 1)),
        grid.cells(joints).astype(np.float32),
        known.astype(np.int64),
    )


def half_body(
    random: np.random.Generator,
    box: np.ndarray,
    joints: np.ndarray,
    seen: np.ndarray,
    names: tuple[str, ...],
) -> np.ndarray:
    """The box (4,) xyxy of the upper or the lower half of a person, or the whole one of a person
    with few labelled joints; the crop of it has MMPose's padding for halves."""
    labelled = seen > 0
    if labelled.sum() < LEAST_LABELLED:
        return box
    lower = np.array([name.endswith(LOWER_JOINTS) for name in names])
    above, below = np.flatnonzero(labelled & ~lower), np.flatnonzero(labelled & lower)
    upper = random.random() < UPPER_SHARE
    if len(above) < LEAST_UPPER:
        upper = False
    elif len(below) < LEAST_LOWER:
        upper = True
    chosen = above if upper else below
    if len(chosen) < (LEAST_UPPER if upper else LEAST_LOWER):
        return box
    low, high = joints[chosen].min(axis=0), joints[chosen].max(axis=0)
    half = (high - low) / 2 * (HALF_BODY_PADDING / BOX_PADDING)
    centre = (low + high) / 2
    return np.concatenate([centre - half, centre + half])


def varied(
    random: np.random.Generator, box: np.ndarray, limits: Augmentation, size: Size
) -> tuple[np.ndarray, float]:
    """A moved and scaled box (4,) xyxy, in the aspect of ``size``, and a turn in degrees."""
    centre, extent = (box[:2] + box[2:]) / 2, np.maximum(box[2:] - box[:2], 1.0)
    aspect = size[0] / size[1]
    width = max(extent[0], extent[1] * aspect)
    extent = np.array([width, width / aspect])
    if random.random() < limits.shift_prob:
        shift = np.array([_normal(random), _normal(random)])
        centre = centre + limits.shift * shift * extent * BOX_PADDING
    low, high = limits.scale
    extent = extent * ((low + high) / 2 + (high - low) / 2 * _normal(random))
    turn = limits.rotate * _normal(random) if random.random() < limits.rotate_prob else 0.0
    return np.concatenate([centre - extent / 2, centre + extent / 2]), turn


def _normal(random: np.random.Generator) -> float:
    """A standard normal number between -1 and 1."""
    while True:
        number = float(random.standard_normal())
        if abs(number) <= 1:
            return number


def _turned(matrix: np.ndarray, box: np.ndarray, degrees: float) -> np.ndarray:
    """``matrix`` (2, 3), after a turn of the image about the middle of the box."""
    if not degrees:
        return np.array(matrix)
    middle = (box[:2] + box[2:]) / 2
    turn = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), degrees, 1.0)
    turned: np.ndarray = np.array(matrix) @ np.vstack([turn, [0, 0, 1]])
    return turned


def gaussian_maps(cells: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Peaks of height 1 at ``cells`` (N, K, 2), and which of them reach the map.

    Returns (N, K, h, w) float32 and (N, K) bool.
    """
    width, height = grid.size
    centres = (cells + 0.5).floor() if grid.rounded else cells
    x = torch.arange(width, device=cells.device) - centres[..., :1]
    y = torch.arange(height, device=cells.device) - centres[..., 1:]
    reach = 3 * grid.sigma
    ends = torch.tensor(grid.size, device=cells.device)
    touches = ((centres >= -reach) & (centres < ends + reach)).all(dim=-1)
    along_x, along_y = (torch.exp(-(d**2) / (2 * grid.sigma**2)) for d in (x, y))
    if grid.cut:
        along_x = along_x * (x.abs() <= reach)
        along_y = along_y * (y.abs() <= reach)
    return along_y[..., :, None] * along_x[..., None, :], touches
