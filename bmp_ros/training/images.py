# SPDX-License-Identifier: Apache-2.0
"""Labelled images for training: read from a folder, seen through random views, recoloured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from bmp_ros.engines.letterbox import PADDING_VALUE
from bmp_ros.image_files import read_annotated_image
from bmp_ros.loop.masks import mask_from_run_lengths
from bmp_ros.loop.skeletons import COCO_17, Skeleton
from bmp_ros.synthetic.ground_truth import mask_box
from bmp_ros.training.detections import Detected, read_detections
from bmp_ros.training.warping import (
    box_areas,
    clipped_boxes,
    moved_boxes,
    pixel_counts,
    warp_mask,
)

HELD_OUT = 25
"""One image in so many is for validation."""

LEAST_SIDE = 4.0
"""Pixels of a canvas that the shorter side of a box needs, of a person without a mask."""
LEAST_SHARE = 0.25
"""Of such a person, what must be on the canvas; of others the mask tells whether they are seen."""


def no_boxes() -> np.ndarray:
    """(0, 4) float32."""
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class TrainingImage:
    """N people and their answers.

    image: (H, W, 3) uint8 BGR. masks: (N, H, W) bool. keypoints: (N, K, 2) float32, x y with
    pixel centres at integers. visibility: (N, K), COCO's 0, 1, 2; 0 also means "place unknown".
    detected: N detections that fit the people (None: missed), or empty when nobody looked.
    has_mask: (N,) bool, None for all. Others have an empty mask, and ``given_boxes``.
    given_boxes: (N, 4) float32 xyxy as annotated, None where everybody has a mask.
    ignore: (M, 4) float32 xyxy, regions with people whom nobody labelled.
    all_joints: (N,) bool, None for all: a joint of visibility 0 is not in the image; otherwise
    nobody labelled it. skeleton: whose K joints these are.
    """

    image: np.ndarray
    masks: np.ndarray
    keypoints: np.ndarray
    visibility: np.ndarray
    detected: Sequence[Detected | None] = ()
    has_mask: np.ndarray | None = None
    given_boxes: np.ndarray | None = None
    ignore: np.ndarray = field(default_factory=no_boxes)
    all_joints: np.ndarray | None = None
    skeleton: Skeleton = COCO_17

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def masked(self) -> np.ndarray:
        """(N,) bool: whose mask is known."""
        return np.ones(len(self), bool) if self.has_mask is None else self.has_mask

    @property
    def joints_complete(self) -> np.ndarray:
        """(N,) bool: whose joints of visibility 0 are known not to be in the image."""
        return np.ones(len(self), bool) if self.all_joints is None else self.all_joints

    @property
    def rendered(self) -> bool:
        """Whether everything is known about everybody, as no photograph tells it."""
        return bool(self.masked.all() and self.joints_complete.all())

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) float32 xyxy, the edges of the masks (pixel i covers [i, i + 1)); the annotated
        box of those without one."""
        boxes = np.zeros((len(self), 4), np.float32)
        for row, known in enumerate(self.masked):
            if known:
                boxes[row] = mask_box(self.masks[row])
            else:
                assert self.given_boxes is not None
                boxes[row] = self.given_boxes[row]
        return boxes

    def only(self, rows: np.ndarray | Sequence[int]) -> TrainingImage:
        """The same image with some of its people."""
        rows = np.asarray(rows, np.intp)
        return replace(
            self,
            masks=self.masks[rows],
            keypoints=self.keypoints[rows],
            visibility=self.visibility[rows],
            detected=[self.detected[row] for row in rows] if self.detected else (),
            has_mask=None if self.has_mask is None else self.has_mask[rows],
            given_boxes=None if self.given_boxes is None else self.given_boxes[rows],
            all_joints=None if self.all_joints is None else self.all_joints[rows],
        )


class TrainingFolder:
    """A folder written by `bmp_ros.synthetic.dataset`; ``validation`` chooses the held-out part.

    with_detections: read those of `bmp_ros.training.detections` too, where they are.

    Raises FileNotFoundError naming the command that fills the folder when it has no labels.
    """

    def __init__(
        self, folder: Path, *, validation: bool = False, with_detections: bool = False
    ) -> None:
        files = sorted((folder / "labels").glob("*.json"))
        self._folder = folder
        self.with_detections = with_detections
        self._files = [
            file for number, file in enumerate(files) if (number % HELD_OUT == 0) == validation
        ]
        if not self._files:
            raise FileNotFoundError(
                f"{folder} has no labels/*.json; render images with "
                "`python -m bmp_ros.synthetic.dataset --split train --count 3000 --output "
                f"{folder}`"
            )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> TrainingImage:
        label = json.loads(self._files[number].read_text(encoding="utf-8"))
        listed = label["image"]
        path = self._folder / "images" / listed["file_name"]
        try:
            image = read_annotated_image(path, listed.get("width"), listed.get("height"))
        except (OSError, ValueError) as error:
            raise OSError(
                f"{error}; delete the label {self._files[number].name} and render it again"
            ) from error
        people = label["annotations"]
        joints = np.array([person["keypoints"] for person in people], np.float32)
        joints = joints.reshape(-1, len(COCO_17), 3)
        masks = [mask_from_run_lengths(person["segmentation"]) for person in people]
        seen = self._folder / "detections" / self._files[number].name
        return TrainingImage(
            image,
            np.array(masks, bool).reshape(-1, *image.shape[:2]),
            joints[..., :2],
            joints[..., 2].astype(np.int64),
            read_detections(seen) if self.with_detections and seen.is_file() else (),
        )


@dataclass(frozen=True)
class ViewRange:
    """What random views may do. zoom: factors beside the scale that fits the image into the
    canvas. turn: degrees to either side."""

    zoom: tuple[float, float] = (0.6, 1.8)
    turn: float = 8.0
    flip: bool = True


MOSAIC_VIEW = ViewRange(zoom=(0.9, 1.8), turn=5.0)
"""Of the four parts; a part is half as large as the canvas."""


def random_view(
    random: np.random.Generator, labelled: TrainingImage, size: tuple[int, int], limits: ViewRange
) -> TrainingImage:
    """Show the image on a canvas of ``size`` (width, height): zoomed, moved, turned, mirrored.

    Zoomed out, it lies anywhere on the padding; zoomed in, any part of it fills the canvas.
    """
    height, width = labelled.image.shape[:2]
    fit = min(size[0] / width, size[1] / height)
    scale = fit * np.exp(random.uniform(*np.log(limits.zoom)))
    angle = np.radians(random.uniform(-limits.turn, limits.turn))
    if not labelled.masked.all():
        angle = 0.0  # nobody knows what box a turned person has
    slack = np.array(size) - scale * np.array([width, height])
    centre = np.array(size) / 2 + random.uniform(-0.5, 0.5, 2) * slack
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if limits.flip and random.random() < 0.5:
        turn[:, 0] *= -1
    # In coordinates with pixel centres at integers, as OpenCV's.
    middle = (np.array([width, height]) - 1) / 2
    matrix = np.column_stack([turn, centre - 0.5 - turn @ middle])
    return warp(labelled, matrix, size)


def mosaic(
    random: np.random.Generator, images: Sequence[TrainingImage], size: tuple[int, int]
) -> TrainingImage:
    """Four images side by side on one canvas: more people, and smaller ones, per step.

    As in Bochkovskiy et al., "YOLOv4" (2020).
    """
    x, y = (int(side * random.uniform(0.35, 0.65)) for side in size)
    places = [(0, 0, x, y), (x, 0, size[0], y), (0, y, x, size[1]), (x, y, *size)]
    parts = []
    for labelled, (left, top, right, bottom) in zip(images, places, strict=True):
        view = random_view(random, labelled, (right - left, bottom - top), MOSAIC_VIEW)
        parts.append(_placed(view, left, top, size))
    image = np.empty((size[1], size[0], 3), np.uint8)
    for part, (left, top, right, bottom) in zip(parts, places, strict=True):
        image[top:bottom, left:right] = part.image
    return TrainingImage(
        image,
        np.concatenate([part.masks for part in parts]),
        np.concatenate([part.keypoints for part in parts]),
        np.concatenate([part.visibility for part in parts]),
        (),
        np.concatenate([part.masked for part in parts]),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.ignore for part in parts]),
        np.concatenate([part.joints_complete for part in parts]),
        parts[0].skeleton,
    )


def _placed(view: TrainingImage, left: int, top: int, size: tuple[int, int]) -> TrainingImage:
    """The labels of ``view`` on a canvas of ``size`` on which it begins at (left, top)."""
    height, width = view.image.shape[:2]
    masks = np.zeros((len(view), size[1], size[0]), bool)
    masks[:, top : top + height, left : left + width] = view.masks
    corner = np.array([left, top], np.float32)
    boxes = None if view.given_boxes is None else view.given_boxes + np.tile(corner, 2)
    return replace(
        view, masks=masks, keypoints=view.keypoints + corner, given_boxes=boxes,
        ignore=view.ignore + np.tile(corner, 2),
    )  # fmt: skip


def fitted_view(labelled: TrainingImage, size: tuple[int, int]) -> TrainingImage:
    """Show the whole image in the upper left of the canvas, as the engines do."""
    height, width = labelled.image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    shift = scale / 2 - 0.5  # edges onto edges, not centres onto centres
    return warp(labelled, np.array([[scale, 0, shift], [0, scale, shift]]), size)


def warp(
    labelled: TrainingImage, matrix: np.ndarray, size: tuple[int, int], least_pixels: int = 12
) -> TrainingImage:
    """Map image, masks and keypoints by ``matrix`` (2, 3) onto a canvas of ``size``.

    A matrix that mirrors swaps left and right joints. People of whom fewer than ``least_pixels``
    are left go; joints outside of the canvas keep their place and get visibility 0.
    """
    # Area sampling when shrinking, like any camera or resize with antialiasing: first blur.
    shrink = 1 / np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    image = labelled.image
    if shrink > 1.5:
        image = cv2.GaussianBlur(image, (0, 0), 0.35 * shrink)
    image = cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
        borderValue=(PADDING_VALUE,) * 3,
    )  # fmt: skip
    known = labelled.masked
    masks = np.zeros((len(labelled), size[1], size[0]), bool)
    for row in np.flatnonzero(known):
        warp_mask(labelled.masks[row], matrix, masks[row])
    keypoints = labelled.keypoints @ matrix[:, :2].T.astype(np.float32)
    keypoints = keypoints + matrix[:, 2].astype(np.float32)
    visibility = labelled.visibility
    if np.linalg.det(matrix[:, :2]) < 0:
        order = labelled.skeleton.flip_indices
        keypoints, visibility = keypoints[:, order], visibility[:, order]
    inside = ((keypoints >= -0.5) & (keypoints < np.array(size) - 0.5)).all(axis=2)
    visibility = np.where(inside, visibility, 0)
    detected = [person and person.moved(matrix, size) for person in labelled.detected]
    kept = pixel_counts(masks) >= least_pixels
    given, ignore = None, moved_boxes(labelled.ignore, matrix)
    if labelled.given_boxes is not None:
        whole = moved_boxes(labelled.given_boxes, matrix)
        given = clipped_boxes(whole, size)
        share = box_areas(given) / np.maximum(box_areas(whole), 1e-6)
        large = (given[:, 2:] - given[:, :2]).min(axis=1, initial=np.inf) >= LEAST_SIDE
        kept = np.where(known, kept, large & (share >= LEAST_SHARE))
        # What is left of the others is no background either.
        ignore = np.concatenate([ignore, whole[~known & ~kept]])
    ignore = clipped_boxes(ignore, size)
    warped = replace(
        labelled, image=image, masks=masks, keypoints=keypoints, visibility=visibility,
        detected=detected, given_boxes=given, ignore=ignore[box_areas(ignore) > 0],
    )  # fmt: skip
    return warped.only(np.flatnonzero(kept))


def recolour(
    random: np.random.Generator, image: np.ndarray, *, rendered: bool = True
) -> np.ndarray:
    """Change exposure, contrast, tint and saturation of (H, W, 3) uint8; now and then roughen the
    surfaces, blur, sharpen, add noise, compress, or take the colours away.

    Rendered surfaces are smoother than real ones: a network that never saw grain and artefacts
    takes every texture of a photograph for something new. Photographs (``rendered`` false) need
    less of it.
    """
    strength = 1.0 if rendered else 0.5
    if random.random() < 0.25 * strength:
        grain = np.float32(random.uniform(0.03, 0.18)) * fractal_noise(random, image.shape)
        image = _to_bytes(image * (1 + grain))
    # Exposure, contrast and saturation are linear in the colours: one pass for all of them.
    mix, shift = np.eye(3), np.zeros(3)
    if random.random() < 0.8:
        gain = np.exp(random.normal(0, 0.2)) * np.exp(random.normal(0, 0.09 * strength, 3))
        contrast = np.exp(random.normal(0, 0.2 * strength))
        shift = 110 * (1 - contrast) * gain + random.normal(0, 8)
        saturation = np.clip(random.normal(1, 0.3 * strength), 0, 2)
        saturate = saturation * np.eye(3) + (1 - saturation) / 3
        mix, shift = saturate * (contrast * gain), saturate @ shift
    if random.random() < 0.1:
        mix, shift = np.tile(mix.mean(axis=0), (3, 1)), np.repeat(shift.mean(), 3)
    image = cv2.transform(image, np.column_stack([mix, shift]))
    focus = random.random()
    if focus < 0.1:
        image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.4, 1.2))
    elif focus < 0.35:
        soft = cv2.GaussianBlur(image, (0, 0), random.uniform(0.7, 1.5))
        strong = random.uniform(0.3, 1.5)
        image = cv2.addWeighted(image, 1 + strong, soft, -strong, 0)
    if random.random() < 0.2 * strength:
        noise = random.standard_normal(image.shape, dtype=np.float32)
        image = _to_bytes(image + noise * np.float32(random.uniform(2, 12)))
    if random.random() < 0.15:
        quality = int(random.integers(20, 80))
        _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(code, cv2.IMREAD_COLOR)
    return image


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def fractal_noise(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W, 3) float32 of about unit deviation: noise of several sizes, mostly grey."""
    height, width = shape[:2]
    finest = int(random.integers(1, 5))
    total = np.zeros((height, width, 3), np.float32)
    power = 0.0
    for octave in range(5):
        step = finest * 2**octave
        cells = (height // step + 2, width // step + 2)
        layer = random.standard_normal((*cells, 1), dtype=np.float32)
        if random.random() < 0.25:
            layer = random.standard_normal((*cells, 3), dtype=np.float32)
        layer = cv2.resize(layer, (width, height), interpolation=cv2.INTER_LINEAR)
        weight = random.uniform(0.2, 1.0)
        total += np.float32(weight) * layer.reshape(height, width, -1)
        power += weight**2
    total /= np.float32(np.sqrt(power))
    return total
