# SPDX-License-Identifier: Apache-2.0
"""``People``: the struct of arrays that flows through the loop and out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import SupportsIndex

import numpy as np

from bmp_ros.loop.masks import mask_rectangles
from bmp_ros.loop.skeletons import COCO_17, Skeleton


@dataclass(frozen=True, eq=False, repr=False)
class People:
    """N people in one image, one row each in every array; K keypoints; the image is H x W.

    boxes: (N, 4) float32, xyxy pixels, inside the image.
    scores: (N,) float32 in [0, 1], the detector's.
    pose_scores: (N,) float32, mean of the scores of COCO's 17 keypoints, of all in a
        skeleton that does not begin with these.
    mask_scores: (N,) float32, the segmenter's estimate of the mask's IoU; 0 for a mask that is
        still the detector's.
    keypoints: (N, K, 2) float32, x y pixels; may lie outside of the image.
    keypoint_scores: (N, K) float32.
    visibility, presence: (N, K) float32 in [0, 1], NaN where the model has no such output.
    masks: (N, H, W) bool, exclusive: no pixel belongs to two people.
    raw_masks: (N, H, W) bool, as segmented, overlaps included.
    has_mask: (N,) bool, False where neither detector nor segmenter gave a mask; both masks are
        empty there.
    iterations: (N,) int32, the loop's iteration (from 1) in which the person was found.
    track_ids: (N,) int32, -1 = not tracked.
    skeleton: names and edges of the K keypoints.

    Immutable in its fields. ``people[i]``, ``people[2:5]``, ``people[[3, 1]]`` and
    ``people[people.scores > 0.5]`` all give ``People``.
    """

    boxes: np.ndarray
    scores: np.ndarray
    pose_scores: np.ndarray
    mask_scores: np.ndarray
    keypoints: np.ndarray
    keypoint_scores: np.ndarray
    visibility: np.ndarray
    presence: np.ndarray
    masks: np.ndarray
    raw_masks: np.ndarray
    has_mask: np.ndarray
    iterations: np.ndarray
    track_ids: np.ndarray
    skeleton: Skeleton = COCO_17

    def __post_init__(self) -> None:
        count = len(self.boxes)
        joints = len(self.skeleton)
        height, width = self.masks.shape[1:] if self.masks.ndim == 3 else (-1, -1)
        per_joint = (count, joints)
        mask_shape = (count, height, width)
        layout: dict[str, tuple[tuple[int, ...], type]] = {
            "boxes": ((count, 4), np.float32),
            "scores": ((count,), np.float32),
            "pose_scores": ((count,), np.float32),
            "mask_scores": ((count,), np.float32),
            "keypoints": ((count, joints, 2), np.float32),
            "keypoint_scores": (per_joint, np.float32),
            "visibility": (per_joint, np.float32),
            "presence": (per_joint, np.float32),
            "masks": (mask_shape, np.bool_),
            "raw_masks": (mask_shape, np.bool_),
            "has_mask": ((count,), np.bool_),
            "iterations": ((count,), np.int32),
            "track_ids": ((count,), np.int32),
        }
        for name, (shape, dtype) in layout.items():
            value = getattr(self, name)
            if value.shape != shape or value.dtype != dtype:
                raise ValueError(
                    f"People.{name} must have shape {shape} and dtype {np.dtype(dtype)} for "
                    f"{count} people with {joints} keypoints ({self.skeleton.name}), got shape "
                    f"{value.shape} and dtype {value.dtype}"
                )

    @classmethod
    def empty(cls, height: int, width: int, skeleton: Skeleton = COCO_17) -> People:
        """No people in an image of ``height`` x ``width`` pixels."""
        return cls.from_boxes(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), height, width, skeleton
        )

    @classmethod
    def from_boxes(
        cls,
        boxes: np.ndarray,
        scores: np.ndarray,
        height: int,
        width: int,
        skeleton: Skeleton = COCO_17,
        *,
        masks: np.ndarray | None = None,
        iteration: int = 1,
    ) -> People:
        """People of whom only boxes (N, 4), scores (N,) and perhaps masks (N, H, W) are known.

        Keypoints and all other scores are 0, visibility and presence NaN. Without masks, those of
        the result are empty and take no memory.
        """
        count, joints = len(boxes), len(skeleton)
        has_mask = np.full(count, masks is not None)
        if masks is None:
            masks = np.broadcast_to(np.False_, (count, height, width))
        unknown = np.full((count, joints), np.nan, np.float32)
        return cls(
            boxes=np.asarray(boxes, np.float32),
            scores=np.asarray(scores, np.float32),
            pose_scores=np.zeros(count, np.float32),
            mask_scores=np.zeros(count, np.float32),
            keypoints=np.zeros((count, joints, 2), np.float32),
            keypoint_scores=np.zeros((count, joints), np.float32),
            visibility=unknown,
            presence=unknown,
            masks=masks,
            raw_masks=masks,
            has_mask=has_mask,
            iterations=np.full(count, iteration, np.int32),
            track_ids=np.full(count, -1, np.int32),
            skeleton=skeleton,
        )

    @staticmethod
    def concatenate(parts: Sequence[People]) -> People:
        """Put people of the same image and skeleton one below the other, in the given order."""
        if not parts:
            raise ValueError("People.concatenate needs at least one part; use People.empty")
        first = parts[0]
        for part in parts[1:]:
            if part.skeleton != first.skeleton or part.image_size != first.image_size:
                raise ValueError(
                    f"cannot concatenate {part} with {first}: image size and skeleton must agree"
                )
        parts = [part for part in parts if len(part)] or [first]
        if len(parts) == 1:
            return parts[0]
        arrays = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in _ARRAY_NAMES
            if name != "masks"
        }
        # The arrays of masks are by far the largest ones: what is shared stays shared.
        shared = all(part.masks is part.raw_masks for part in parts)
        masks = [part.masks for part in parts]
        arrays["masks"] = arrays["raw_masks"] if shared else np.concatenate(masks)
        return People(**arrays, skeleton=first.skeleton)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return int(self.masks.shape[1]), int(self.masks.shape[2])

    @cached_property
    def mask_rectangles(self) -> np.ndarray:
        """(N, 4) int32 x, y, width, height around each of ``masks``; computed once."""
        return mask_rectangles(self.masks)

    def __len__(self) -> int:
        return len(self.boxes)

    def keypoint_rows(self) -> np.ndarray:
        """(N, K, 5): x, y, score, visibility and presence of every keypoint, as messages have."""
        parts = (self.keypoint_scores, self.visibility, self.presence)
        return np.concatenate([self.keypoints, *(part[..., None] for part in parts)], axis=-1)

    def __getitem__(self, rows: SupportsIndex | slice | Sequence[int] | np.ndarray) -> People:
        """Select people by index, slice, list of indices or bool mask (N,)."""
        if isinstance(rows, SupportsIndex) and not isinstance(rows, np.ndarray):
            index = int(rows)
            if not -len(self) <= index < len(self):
                raise IndexError(f"person {index} of {len(self)}")
            rows = slice(index, index + 1 or None)
        elif not isinstance(rows, slice):
            rows = np.asarray(rows)
            if rows.size == 0 and rows.dtype != np.bool_:
                rows = rows.astype(np.int64)
        arrays = {name: getattr(self, name)[rows] for name in _ARRAY_NAMES if name != "masks"}
        shared = self.masks is self.raw_masks
        arrays["masks"] = arrays["raw_masks"] if shared else self.masks[rows]
        return People(**arrays, skeleton=self.skeleton)

    def __iter__(self) -> Iterator[People]:
        """One ``People`` of a single row after the other."""
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        height, width = self.image_size
        found = ", ".join(
            f"{count} in iteration {iteration}"
            for iteration, count in zip(
                *np.unique(self.iterations, return_counts=True), strict=True
            )
        )
        return (
            f"People({len(self)} in {width}x{height}, {self.skeleton.name}"
            f"{': ' + found if found else ''})"
        )


_ARRAY_NAMES = tuple(field.name for field in fields(People) if field.name != "skeleton")
