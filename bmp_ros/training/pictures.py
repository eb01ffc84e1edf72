# SPDX-License-Identifier: Apache-2.0
"""Labelled pictures for training: read from a folder, seen through random views, recoloured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from bmp_ros.engines.letterbox import PADDING_VALUE
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.synthetic.dataset import mask_from_run_lengths
from bmp_ros.synthetic.ground_truth import mask_box

HELD_OUT = 25
"""One picture in so many is for validation."""


@dataclass(frozen=True)
class Picture:
    """N people and their answers.

    image: (H, W, 3) uint8 BGR. masks: (N, H, W) bool. keypoints: (N, 17, 2) float32, x y with
    pixel centres at integers. visibility: (N, 17), COCO's 0, 1, 2; 0 also means "place unknown".
    """

    image: np.ndarray
    masks: np.ndarray
    keypoints: np.ndarray
    visibility: np.ndarray

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) float32 xyxy, the edges of the masks (pixel i covers [i, i + 1))."""
        return np.array([mask_box(mask) for mask in self.masks], np.float32).reshape(-1, 4)

    def only(self, rows: np.ndarray | Sequence[int]) -> Picture:
        """The same picture with some of its people."""
        rows = np.asarray(rows, np.intp)
        return replace(
            self,
            masks=self.masks[rows],
            keypoints=self.keypoints[rows],
            visibility=self.visibility[rows],
        )


class PictureFolder:
    """A folder written by `bmp_ros.synthetic.dataset`; ``validation`` chooses the held-out part.

    Raises FileNotFoundError naming the command that fills the folder when it has no labels.
    """

    def __init__(self, folder: Path, *, validation: bool = False) -> None:
        files = sorted((folder / "labels").glob("*.json"))
        self._folder = folder
        self._files = [
            file for number, file in enumerate(files) if (number % HELD_OUT == 0) == validation
        ]
        if not self._files:
            raise FileNotFoundError(
                f"{folder} has no labels/*.json; render pictures with "
                "`python -m bmp_ros.synthetic.dataset --split train --count 3000 --output "
                f"{folder}`"
            )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> Picture:
        label = json.loads(self._files[number].read_text(encoding="utf-8"))
        path = self._folder / "images" / label["image"]["file_name"]
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise OSError(f"{path} cannot be read; delete its label and render it again")
        people = label["annotations"]
        joints = np.array([person["keypoints"] for person in people], np.float32)
        joints = joints.reshape(-1, len(COCO_17), 3)
        masks = [mask_from_run_lengths(person["segmentation"]) for person in people]
        return Picture(
            image,
            np.array(masks, bool).reshape(-1, *image.shape[:2]),
            joints[..., :2],
            joints[..., 2].astype(np.int64),
        )


@dataclass(frozen=True)
class ViewRange:
    """What random views may do. zoom: factors beside the scale that fits the picture into the
    canvas. turn: degrees to either side."""

    zoom: tuple[float, float] = (0.6, 1.8)
    turn: float = 8.0
    flip: bool = True


def random_view(
    random: np.random.Generator, picture: Picture, size: tuple[int, int], limits: ViewRange
) -> Picture:
    """Show the picture on a canvas of ``size`` (width, height): zoomed, moved, turned, mirrored.

    Zoomed out, it lies anywhere on the padding; zoomed in, any part of it fills the canvas.
    """
    height, width = picture.image.shape[:2]
    fit = min(size[0] / width, size[1] / height)
    scale = fit * np.exp(random.uniform(*np.log(limits.zoom)))
    angle = np.radians(random.uniform(-limits.turn, limits.turn))
    slack = np.array(size) - scale * np.array([width, height])
    centre = np.array(size) / 2 + random.uniform(-0.5, 0.5, 2) * slack
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if limits.flip and random.random() < 0.5:
        turn[:, 0] *= -1
    # In coordinates with pixel centres at integers, as OpenCV's.
    middle = (np.array([width, height]) - 1) / 2
    matrix = np.column_stack([turn, centre - 0.5 - turn @ middle])
    return warp(picture, matrix, size)


def fitted_view(picture: Picture, size: tuple[int, int]) -> Picture:
    """Show the whole picture in the upper left of the canvas, as the engines do."""
    height, width = picture.image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    shift = scale / 2 - 0.5  # edges onto edges, not centres onto centres
    return warp(picture, np.array([[scale, 0, shift], [0, scale, shift]]), size)


def warp(
    picture: Picture, matrix: np.ndarray, size: tuple[int, int], least_pixels: int = 12
) -> Picture:
    """Map picture, masks and keypoints by ``matrix`` (2, 3) onto a canvas of ``size``.

    A matrix that mirrors swaps left and right joints. People of whom fewer than ``least_pixels``
    are left go; joints outside of the canvas keep their place and get visibility 0.
    """
    # Area sampling when shrinking, like any camera or resize with antialiasing: first blur.
    shrink = 1 / np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    image = picture.image
    if shrink > 1.5:
        image = cv2.GaussianBlur(image, (0, 0), 0.35 * shrink)
    image = cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
        borderValue=(PADDING_VALUE,) * 3,
    )  # fmt: skip
    masks = np.empty((len(picture), size[1], size[0]), bool)
    for row, mask in enumerate(picture.masks):
        masks[row] = cv2.warpAffine(mask.view(np.uint8) * 255, matrix, size) > 127
    keypoints = picture.keypoints @ matrix[:, :2].T.astype(np.float32)
    keypoints = keypoints + matrix[:, 2].astype(np.float32)
    visibility = picture.visibility
    if np.linalg.det(matrix[:, :2]) < 0:
        order = COCO_17.flip_indices
        keypoints, visibility = keypoints[:, order], visibility[:, order]
    inside = ((keypoints >= -0.5) & (keypoints < np.array(size) - 0.5)).all(axis=2)
    visibility = np.where(inside, visibility, 0)
    warped = Picture(image, masks, keypoints, visibility)
    return warped.only(np.flatnonzero(masks.sum(axis=(1, 2)) >= least_pixels))


def recolour(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Change exposure, contrast, tint and saturation; now and then blur, noise or grey."""
    values = image.astype(np.float32)
    if random.random() < 0.8:
        gain = np.exp(random.normal(0, 0.2)) * np.exp(random.normal(0, 0.07, 3))
        values = (values - 110) * np.exp(random.normal(0, 0.18)) + 110
        values = values * gain.astype(np.float32) + np.float32(random.normal(0, 8))
        grey = values.mean(axis=2, keepdims=True)
        values = grey + (values - grey) * np.float32(np.clip(random.normal(1, 0.3), 0, 2))
    if random.random() < 0.08:
        values = np.repeat(values.mean(axis=2, keepdims=True), 3, axis=2)
    if random.random() < 0.1:
        values = cv2.GaussianBlur(values, (0, 0), random.uniform(0.4, 1.2))
    if random.random() < 0.2:
        noise = random.standard_normal(values.shape, dtype=np.float32)
        values = values + noise * np.float32(random.uniform(2, 12))
    return np.clip(values, 0, 255).astype(np.uint8)
