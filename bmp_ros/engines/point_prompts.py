# SPDX-License-Identifier: Apache-2.0
"""What every segmenter asks of the prompts it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bmp_ros.loop.frame import Frame


def check_prompts(points: np.ndarray, labels: np.ndarray) -> None:
    """Raise ValueError unless points are (G, P, 2) finite and labels (G, P) of 0 and 1."""
    if points.ndim != 3 or points.shape[2] != 2 or 0 in points.shape or points.dtype.kind != "f":
        raise ValueError(
            "points must be float32 (G, P, 2) with G >= 1 people of P >= 1 points each, got "
            f"shape {points.shape} and dtype {points.dtype}"
        )
    if labels.shape != points.shape[:2] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be int32 {points.shape[:2]}, one per point, got shape {labels.shape} "
            f"and dtype {labels.dtype}"
        )
    if not np.isfinite(points).all():
        person = int(np.argwhere(~np.isfinite(points))[0, 0])
        raise ValueError(
            f"points must be finite, got {points[person].tolist()} for person {person}; leave "
            "such people out"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(
            "labels must be 1 (on the person) or 0 (not), got "
            f"{sorted(set(labels.ravel().tolist()) - {0, 1})}"
        )


def check_masks(masks: np.ndarray | None, people: int, frame: Frame) -> None:
    """Raise ValueError unless masks are None or (people, H, W) bool in the size of the frame."""
    expected = (people, frame.height, frame.width)
    if masks is not None and (masks.shape != expected or masks.dtype != np.bool_):
        raise ValueError(
            f"masks must be bool {expected}, one per person in the size of the frame, got shape "
            f"{masks.shape} and dtype {masks.dtype}"
        )
