# SPDX-License-Identifier: Apache-2.0
"""``PointSegmenterEngine``: the small point-prompted segmenter on the people of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bmp_ros.engines.point_canvas import (
    masks_on_image,
    masks_to_canvas,
    point_letterbox,
    points_to_canvas,
    segmenter_input,
)
from bmp_ros.engines.point_prompts import check_masks, check_prompts
from bmp_ros.engines.torch.devices import torch_dtype
from bmp_ros.loop.masks import remove_holes_and_sprinkles
from bmp_ros.loop.protocols import Segments
from bmp_ros.networks.point_segmenter import CANVAS, PointSegmenter

if TYPE_CHECKING:
    from bmp_ros.engines.letterbox import Letterbox
    from bmp_ros.loop.frame import Frame


class PointSegmenterEngine:
    """Segments people with a `PointSegmenter`. Implements ``Segmenter``, with mask prompts."""

    def __init__(
        self,
        network: PointSegmenter,
        *,
        max_hole_area: int = 2,
        max_sprinkle_area: int = 6,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        compile: bool = False,
        side: int = CANVAS,
    ) -> None:
        """Put a network to work on one device.

        network: moved to ``device``. max_hole_area, max_sprinkle_area: holes and sprinkles up to
            this many cells of the logits (4x4 pixels of the canvas) are removed; 0 = off.
        precision: "fp32"; "fp16" and "bf16" run under autocast, "fp16" on a GPU only.
        compile: run the encoder through ``torch.compile`` (slow first frame).
        side: pixels that the longer side of an image is scaled to.

        Raises ValueError for an unknown precision, fp16 on the CPU, or a negative area.
        """
        self.device = torch.device(device)
        self._dtype = torch_dtype(precision, self.device)
        for name, area in (
            ("max_hole_area", max_hole_area),
            ("max_sprinkle_area", max_sprinkle_area),
        ):
            if area < 0:
                raise ValueError(f"{name} must be >= 0 (0 = off), got {area}")
        self._areas = {"max_hole_area": max_hole_area, "max_sprinkle_area": max_sprinkle_area}
        self._side = side
        self.network = network.eval().to(self.device)
        self._encode: Any = torch.compile(network.encode) if compile else network.encode

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, torch.Tensor], **options: Any
    ) -> PointSegmenterEngine:
        """Build network and engine. options: the constructor's keyword arguments."""
        return cls(PointSegmenter.from_state_dict(state_dict), **options)

    @torch.inference_mode()
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
        inputs = torch.from_numpy(points_to_canvas(points, letterbox)).to(self.device)
        first = torch.from_numpy(masks_to_canvas(masks, len(points), letterbox)).to(self.device)
        with self._autocast():
            logits, scores = self.network.decode(
                features,
                inputs,
                torch.from_numpy(np.array(labels, np.int64)).to(self.device),
                first,
            )
        cleaned = remove_holes_and_sprinkles(logits.float().cpu().numpy(), **self._areas)
        return Segments(masks_on_image(cleaned, letterbox), scores.float().cpu().numpy())

    def _features(self, frame: Frame, letterbox: Letterbox) -> tuple[torch.Tensor, ...]:
        canvas = torch.from_numpy(segmenter_input(frame.image, letterbox)).to(self.device)
        with self._autocast():
            features: tuple[torch.Tensor, ...] = self._encode(canvas)
        return features

    def _autocast(self) -> torch.autocast:
        reduced = self._dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self._dtype, enabled=reduced)
