# SPDX-License-Identifier: Apache-2.0
"""People cut out of labelled images and pasted into others: heavy overlap with exact masks.

As in Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance
Segmentation" (CVPR 2021), but beside and in front of people who are there already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from bmp_ros.training.coco_images import CocoImages
from bmp_ros.training.images import TrainingImage
from bmp_ros.training.warping import box_areas, pixel_counts, window_of

LEAST_HEIGHT, LEAST_AREA = 64, 1000
"""Pixels of a person that is worth cutting out."""
LARGEST_ZOOM = 1.4
"""Beyond this, a pasted person is known by being blurred."""
BESIDE_SHARE = 0.7
"""Of the pasted people, those who are put before somebody."""
MOST_COVERED = 0.35
"""Of the box of a person without a mask: what is covered further can no longer be told."""
LEAST_LEFT = 0.1
"""Of the mask of a person behind pasted ones, for it still to be looked for."""
TRIES = 4


@dataclass(frozen=True)
class CutOut:
    """pixels: (h, w, 3) uint8. mask: (h, w) bool. joints: (17, 3) x y v in these pixels."""

    pixels: np.ndarray
    mask: np.ndarray
    joints: np.ndarray
    all_joints: bool


class CutOuts:
    """Everybody in ``images`` whose mask is known and large enough.

    share: of the images, those that get somebody pasted. most: people at once.
    """

    def __init__(self, images: Sequence[CocoImages], *, share: float = 0.5, most: int = 3) -> None:
        self.share, self.most = share, most
        self._images = images
        self._people = [
            (source, number, row)
            for source, folder in enumerate(images)
            for number, entry in enumerate(folder.entries)
            for row, person in enumerate(entry.people)
            if person.mask is not None
            and person.mask.shape[0] >= LEAST_HEIGHT
            and person.mask.sum() >= LEAST_AREA
        ]

    def __len__(self) -> int:
        return len(self._people)

    def draw(self, random: np.random.Generator) -> CutOut:
        """Anybody."""
        source, number, row = self._people[int(random.integers(len(self._people)))]
        folder = self._images[source]
        person = folder.entries[number].people[row]
        assert person.mask is not None
        x, y = person.corner
        rows, columns = person.mask.shape
        pixels = folder.labelled(number).image[y : y + rows, x : x + columns]
        joints: np.ndarray = person.joints - np.array([x, y, 0], np.float32)
        return CutOut(pixels, person.mask, joints, folder.all_joints)

    def crowd(
        self, random: np.random.Generator, view: TrainingImage, *, always: bool = False
    ) -> TrainingImage:
        """``view``, or the same with up to ``most`` people pasted in, one before the other."""
        if not len(self) or (random.random() >= self.share and not always):
            return view
        for _ in range(int(random.integers(1, self.most + 1))):
            view = pasted(random, view, self.draw(random))
        return view


def pasted(random: np.random.Generator, view: TrainingImage, cut: CutOut) -> TrainingImage:
    """``view`` with the cut-out in front of everything; as it was where no place was found.

    Its people lose what is covered: mask, visible joints, and who is hardly seen any more.
    """
    size = (view.image.shape[1], view.image.shape[0])
    for _ in range(TRIES):
        matrix = _placement(random, view, cut)
        rows, columns = cut.mask.shape
        # A margin for the soft edge; the rest of the canvas need not be touched.
        window, local = window_of(matrix, (0, 0, columns, rows), size, margin=5)
        front = np.zeros(view.image.shape[:2], bool)
        inner = front[window].shape[::-1]
        if min(inner) == 0:
            continue
        mask = cv2.warpAffine(cut.mask.view(np.uint8) * np.uint8(255), local, inner)
        front[window] = mask > 127
        if np.count_nonzero(front[window]) >= 100 and not _hides_unknown(view, front):
            break
    else:
        return view
    shrink = 1 / np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    pixels = cv2.GaussianBlur(cut.pixels, (0, 0), 0.35 * shrink) if shrink > 1.5 else cut.pixels
    person = cv2.warpAffine(
        pixels, local, inner, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.float32)
    person *= np.exp(random.normal(0, 0.1, 3)).astype(np.float32)
    # A hard edge would be a hint that no photograph has.
    alpha = cv2.GaussianBlur(mask, (0, 0), random.uniform(0.5, 1.0)).astype(np.float32) / 255
    image = view.image.copy()
    behind = image[window]
    image[window] = np.clip(behind + alpha[..., None] * (person - behind), 0, 255)
    joints = cut.joints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    seen = cut.joints[:, 2].astype(np.int64)
    if np.linalg.det(matrix[:, :2]) < 0:
        mirrored = view.skeleton.flip_indices
        joints, seen = joints[mirrored], seen[mirrored]
    inside = ((joints >= -0.5) & (joints < np.array(size) - 0.5)).all(axis=1)
    covered = _covered(view, front)
    box = np.zeros((1, 4), np.float32)
    given = covered.given_boxes
    return replace(
        covered,
        image=image,
        masks=np.concatenate([covered.masks, front[None]]),
        keypoints=np.concatenate([covered.keypoints, joints[None].astype(np.float32)]),
        visibility=np.concatenate([covered.visibility, np.where(inside, seen, 0)[None]]),
        detected=[*covered.detected, None] if covered.detected else (),
        has_mask=np.append(covered.masked, True),
        given_boxes=None if given is None else np.concatenate([given, box]),
        all_joints=np.append(covered.joints_complete, cut.all_joints),
    )


def _placement(random: np.random.Generator, view: TrainingImage, cut: CutOut) -> np.ndarray:
    """A matrix (2, 3) from the cut-out to the view: before somebody, or anywhere."""
    rows, columns = cut.mask.shape
    size = np.array(view.image.shape[1::-1], float)
    if len(view) and random.random() < BESIDE_SHARE:
        left, top, right, bottom = view.boxes[int(random.integers(len(view)))].astype(float)
        height = (bottom - top) * np.exp(random.normal(0.1, 0.3))
        scale = min(height / rows, LARGEST_ZOOM)
        middle = np.array(
            [
                (left + right) / 2 + random.uniform(-0.7, 0.7) * (right - left),
                bottom + random.normal(0, 0.15) * (bottom - top) - scale * rows / 2,
            ]
        )
    else:
        height = size[1] * np.exp(random.uniform(np.log(0.15), np.log(1.1)))
        scale = min(height / rows, LARGEST_ZOOM)
        middle = random.uniform(0, 1, 2) * size
    angle = np.radians(random.normal(0, 6))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if random.random() < 0.5:
        turn[:, 0] *= -1
    return np.column_stack([turn, middle - turn @ (np.array([columns, rows]) / 2)])


def _hides_unknown(view: TrainingImage, front: np.ndarray) -> bool:
    """Whether ``front`` (H, W) covers much of somebody whose mask is not known."""
    for row in np.flatnonzero(~view.masked):
        assert view.given_boxes is not None
        box = view.given_boxes[row]
        left, top, right, bottom = np.rint(box).astype(int)
        area = max(float(box_areas(box[None])[0]), 1.0)
        if front[top:bottom, left:right].sum() > MOST_COVERED * area:
            return True
    return False


def _covered(view: TrainingImage, front: np.ndarray) -> TrainingImage:
    """The people of ``view`` behind ``front`` (H, W) bool."""
    before = pixel_counts(view.masks)
    masks = view.masks & ~front
    left = pixel_counts(masks)
    height, width = front.shape
    cells = np.rint(view.keypoints).astype(int)
    x, y = cells[..., 0].clip(0, width - 1), cells[..., 1].clip(0, height - 1)
    visibility = np.where(front[y, x] & (view.visibility == 2), 1, view.visibility)
    detected = [
        person if person is None or left[row] > 0.85 * before[row] else None
        for row, person in enumerate(view.detected)
    ]
    kept = ~view.masked | ((left >= LEAST_LEFT * before) & (left >= 12))
    return replace(view, masks=masks, visibility=visibility, detected=detected).only(
        np.flatnonzero(kept)
    )
