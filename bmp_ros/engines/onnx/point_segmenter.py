# SPDX-License-Identifier: Apache-2.0
"""``OnnxPointSegmenter``: the exported point-prompted segmenter at work on a frame's people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bmp_ros.engines.onnx.graph import Graph
from bmp_ros.engines.point_canvas import (
    masks_on_image,
    masks_to_canvas,
    point_letterbox,
    points_to_canvas,
    segmenter_input,
)
from bmp_ros.engines.point_prompts import check_masks, check_prompts
from bmp_ros.loop.masks import remove_holes_and_sprinkles
from bmp_ros.loop.protocols import Segments

if TYPE_CHECKING:
    from bmp_ros.engines.letterbox import Letterbox
    from bmp_ros.loop.frame import Frame

FEATURES = ("fine", "middle", "keys")
"""Outputs of the encoder that the decoder reads; they stay on the device."""


class OnnxPointSegmenter:
    """Segments people from prompts. Implements ``Segmenter``, with mask prompts."""

    def __init__(
        self,
        graphs: dict[str, Graph],
        device: str,
        *,
        max_hole_area: int = 2,
        max_sprinkle_area: int = 6,
    ) -> None:
        """Put the graphs of a network (``load_network``) to work.

        max_hole_area, max_sprinkle_area: holes and sprinkles up to this many cells of the logits
        are removed; 0 = off.
        """
        self._encoder, self._decoder = graphs["encoder"], graphs["decoder"]
        self.device = device
        self._side: int = self._encoder.card.facts.side
        self._areas = {"max_hole_area": max_hole_area, "max_sprinkle_area": max_sprinkle_area}

    def segment(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        """Segment G people, each from P points, in one decoder call; see ``Segmenter.segment``.

        Raises ValueError for other shapes, dtypes or labels and for points that are not finite.
        """
        check_prompts(points, labels)
        check_masks(masks, len(points), frame)
        letterbox = point_letterbox(frame.height, frame.width, self._side)
        features = frame.cached((self, "features"), lambda: self._features(frame, letterbox))
        found = self._decoder.run(
            {
                **features,
                "points": points_to_canvas(points, letterbox),
                "labels": labels.astype(np.int64),
                "masks": masks_to_canvas(masks, len(points), letterbox),
            }
        )
        logits = remove_holes_and_sprinkles(found["logits"], **self._areas)
        return Segments(masks_on_image(logits, letterbox), found["scores"])

    def _features(self, frame: Frame, letterbox: Letterbox) -> dict[str, Any]:
        return self._encoder.run({"canvas": segmenter_input(frame.image, letterbox)}, FEATURES)
