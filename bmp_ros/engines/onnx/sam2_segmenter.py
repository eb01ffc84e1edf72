# SPDX-License-Identifier: Apache-2.0
"""``OnnxSam2Segmenter``: an exported SAM 2.1 or SAM-pose2seg at work on a frame's people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bmp_ros.engines.onnx.graph import Graph
from bmp_ros.engines.point_prompts import check_prompts
from bmp_ros.engines.sam2_image import masks_of_size, points_to_input, sam2_input
from bmp_ros.loop.masks import remove_holes_and_sprinkles
from bmp_ros.loop.protocols import Segments

if TYPE_CHECKING:
    from bmp_ros.loop.frame import Frame

EMBEDDING = ("embedding", "fine_4", "fine_8")
"""Outputs of the encoder that the decoder reads; they stay on the device."""


class OnnxSam2Segmenter:
    """Segments people from point prompts. Implements ``Segmenter``."""

    def __init__(
        self,
        graphs: dict[str, Graph],
        device: str,
        *,
        max_hole_area: int = 10,
        max_sprinkle_area: int = 50,
    ) -> None:
        """Put the graphs of a network (``load_network``) to work.

        max_hole_area, max_sprinkle_area: holes and sprinkles up to this many cells of the logits
        are removed; 0 = off.
        """
        self._encoder, self._decoder = graphs["encoder"], graphs["decoder"]
        self.device = device
        self._side: int = self._encoder.card.facts.image_size
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
        embedding = frame.cached((self, "embedding"), lambda: self._embedding(frame))
        found = self._decoder.run(
            {
                **embedding,
                "points": points_to_input(points, frame.width, frame.height, self._side),
                "labels": labels.astype(np.int64),
            }
        )
        logits = remove_holes_and_sprinkles(found["logits"], **self._areas)
        return Segments(masks_of_size(logits, frame.height, frame.width), found["scores"])

    def _embedding(self, frame: Frame) -> dict[str, Any]:
        return self._encoder.run({"image": sam2_input(frame.image, self._side)}, EMBEDDING)
