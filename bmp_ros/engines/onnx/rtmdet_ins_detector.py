# SPDX-License-Identifier: Apache-2.0
"""``OnnxDetector``: people, boxes and lazily decoded masks with an exported RTMDet-Ins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bmp_ros.engines.box_selection import select_people
from bmp_ros.engines.dynamic_masks import mask_logits, masks_on_image
from bmp_ros.engines.letterbox import (
    Letterbox,
    canvas_size,
    detector_input,
    grid_priors,
    mask_resampling,
)
from bmp_ros.engines.onnx.graph import load_network
from bmp_ros.engines.onnx.target import Target
from bmp_ros.loop.protocols import Detections

if TYPE_CHECKING:
    from bmp_ros.loop.frame import Frame

FEATURES = ("features_8", "features_16", "features_32")
"""Outputs of the first graph that the second one, for masks, reads; they stay on the device."""


class OnnxDetector:
    """Finds people with RTMDet-Ins. Implements ``Detector``."""

    def __init__(
        self,
        path: Path,
        target: Target,
        *,
        nms_iou: float = 0.6,
        candidates: int = 1000,
        max_people: int = 100,
    ) -> None:
        """Load the graphs of ``path``; raises what `load_network` raises.

        nms_iou: greatest IoU of two people. candidates: locations, best first, that go on to the
        NMS. max_people: limit after it.
        """
        graphs = load_network(path, "detector", target)
        self.device = target.device
        self._boxes, self._masks = graphs["boxes"], graphs["masks"]
        self._canvas = canvas_size(self._boxes.card.facts.input_size)
        self._priors = grid_priors(self._canvas)
        self._nms_iou = nms_iou
        self._candidates = candidates
        self._max_people = max_people

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        """Return people with score > ``score_threshold``, best first, at most ``max_people``.

        Also returned, last: candidates whose score or box is not finite, as NaN, for the caller
        to drop and count.
        """
        letterbox = Letterbox.fit(frame.height, frame.width, self._canvas)
        found = self._boxes.run({"canvas": detector_input(letterbox.apply(frame.image))}, FEATURES)
        locations = _best(found["scores"], score_threshold, self._candidates)
        boxes, scores, chosen = select_people(
            self._on_canvas(found["boxes"][locations]),
            found["scores"][locations],
            letterbox,
            score_threshold=score_threshold,
            nms_iou=self._nms_iou,
            max_people=self._max_people,
        )
        locations = locations[chosen]
        features = {name: found[name] for name in FEATURES}

        def masks(indices: np.ndarray) -> np.ndarray:
            return self._decode_masks(features, locations[indices], letterbox)

        return Detections(boxes, scores, masks)

    def _on_canvas(self, boxes: np.ndarray) -> np.ndarray:
        """Clip boxes (N, 4) to the canvas; those that are not finite become NaN.

        Clipping would turn an overflow into a plausible box along the border of the canvas.
        """
        corner = np.array(self._canvas * 2, np.float32)
        clipped: np.ndarray = np.where(np.isfinite(boxes), np.clip(boxes, 0, corner), np.nan)
        return clipped.astype(np.float32)

    def _decode_masks(
        self, features: dict[str, Any], locations: np.ndarray, letterbox: Letterbox
    ) -> np.ndarray:
        """Masks (n, H, W) bool of the people found at ``locations`` (n,)."""
        if not len(locations):
            return np.empty((0, letterbox.image_height, letterbox.image_width), np.bool_)
        found = self._masks.run({**features, "locations": locations.astype(np.int64)})
        rows, columns = mask_resampling(letterbox)
        prototypes = found["prototypes"][:, : rows.shape[1], : columns.shape[1]]
        logits = mask_logits(prototypes, found["kernels"], self._priors[locations])
        return masks_on_image(logits, rows, columns)


def _best(scores: np.ndarray, threshold: float, most: int) -> np.ndarray:
    """Rows of the scores (P,) above the threshold, at most ``most``: the best; NaN ranks first."""
    rows = np.flatnonzero(~(scores <= threshold))
    if len(rows) > most:
        ranks = np.where(np.isnan(scores[rows]), -np.inf, -scores[rows])
        rows = rows[np.argsort(ranks, kind="stable")[:most]]
    return rows
