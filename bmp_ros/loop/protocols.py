# SPDX-License-Identifier: Apache-2.0
"""What the loop asks of its three networks: ``Detector``, ``PoseEstimator``, ``Segmenter``.

All arrays are NumPy; boxes are xyxy in pixels of the original image at every hand-over; pixel
centres lie at integers. The loop never calls an engine for zero people.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from bmp_ros.loop.frame import Frame
    from bmp_ros.loop.skeletons import Skeleton


@dataclass(frozen=True)
class Detections:
    """What a detector found: people only, in any order.

    boxes: (N, 4) float32, xyxy pixels, inside the image.
    scores: (N,) float32 in [0, 1].
    masks: ``masks(indices)`` with indices (n,) int -> (n, H, W) bool in the size of the frame, or
        None when the detector has no masks. The loop calls it at most once, for the detections
        that survived, so masks that are not needed are never decoded.
    """

    boxes: np.ndarray
    scores: np.ndarray
    masks: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True)
class Poses:
    """Keypoints of N people, row by row as asked, in the order of the estimator's skeleton.

    keypoints: (N, K, 2) float32, x y in pixels of the frame (may lie outside of it).
    scores: (N, K) float32, confidence of each location.
    visibility, presence: (N, K) float32 in [0, 1], or None when the network has no such output.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    visibility: np.ndarray | None = None
    presence: np.ndarray | None = None


@dataclass(frozen=True)
class Segments:
    """Masks of G people.

    masks: (G, H, W) bool in the size of the frame.
    scores: (G,) float32 in [0, 1], the network's own estimate of the mask's IoU.
    """

    masks: np.ndarray
    scores: np.ndarray


@runtime_checkable
class Detector(Protocol):
    """Finds people in one frame."""

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        """Return people with score > ``score_threshold``; no order is asked for."""
        ...


@runtime_checkable
class PoseEstimator(Protocol):
    """Estimates one pose per box (top-down)."""

    @property
    def skeleton(self) -> Skeleton:
        """Name, joints and edges of the K keypoints that ``estimate`` returns."""
        ...

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        """Estimate the pose in each box, conditioned on the person's mask.

        boxes: (N, 4) float32 xyxy, N >= 1. masks: (N, H, W) bool or None; a person whose mask has
        no pixel is treated as one without a mask. Estimators without conditioning ignore masks.
        """
        ...


@runtime_checkable
class Segmenter(Protocol):
    """Turns point prompts, and perhaps mask prompts, into masks (the interface of SAM)."""

    def segment(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        """Segment G people, each from P points, in one decoder call.

        points: (G, P, 2) float32, x y in pixels of the frame, P >= 1. labels: (G, P) int32,
        1 = on the person, 0 = not. masks: (G, H, W) bool, the detector's, or None where it has
        none; a mask without a pixel says nothing. Segmenters without mask prompts ignore masks.
        The embedding of the frame is computed at the first call and kept with ``frame.cached``.
        """
        ...
