# SPDX-License-Identifier: Apache-2.0
"""What segmenters by prompts have in common: checks, one embedding per frame, clean masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bmp_ros.loop.masks import remove_holes_and_sprinkles
from bmp_ros.loop.protocols import Segments

if TYPE_CHECKING:
    from bmp_ros.loop.frame import Frame


class PromptedSegmenter:
    """Two graphs at work: ``encoder`` once per frame, ``decoder`` for all people of a call.

    A family says how images and prompts become inputs and logits become masks. Implements
    ``Segmenter``.
    """

    kept: tuple[str, ...]
    """Outputs of the encoder that the decoder reads; they stay on the device."""

    def __init__(
        self,
        graphs: Mapping[str, Any],
        device: str = "cpu",
        *,
        max_hole_area: int,
        max_sprinkle_area: int,
    ) -> None:
        """Put graphs to work. Holes and sprinkles up to these areas, in cells of the logits, go.

        Raises ValueError for a negative area; 0 = off.
        """
        self._areas = {"max_hole_area": max_hole_area, "max_sprinkle_area": max_sprinkle_area}
        for name, area in self._areas.items():
            if area < 0:
                raise ValueError(f"{name} must be >= 0 (0 = off), got {area}")
        self.graphs = graphs
        self.device = device

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
        logits, scores = self.decode(frame, points, labels, masks)
        if any(self._areas.values()):
            logits = remove_holes_and_sprinkles(logits, **self._areas)
        return Segments(self.masks_on_image(logits, frame), scores)

    def decode(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what the network says, before any clean-up: logits (G, h, w), scores (G,)."""
        check_prompts(points, labels)
        check_masks(masks, len(points), frame)
        embedding = frame.cached(
            (self, "embedding"),
            lambda: self.graphs["encoder"].run(self.image_input(frame), self.kept),
        )
        prompts = {**self.prompt_inputs(frame, points, masks), "labels": labels.astype(np.int64)}
        found = self.graphs["decoder"].run({**embedding, **prompts})
        return found["logits"], found["scores"]

    def image_input(self, frame: Frame) -> dict[str, np.ndarray]:
        """The encoder's input."""
        raise NotImplementedError

    def prompt_inputs(
        self, frame: Frame, points: np.ndarray, masks: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """The decoder's inputs, without labels and embedding."""
        raise NotImplementedError

    def masks_on_image(self, logits: np.ndarray, frame: Frame) -> np.ndarray:
        """Logits (G, h, w) -> masks (G, H, W) bool."""
        raise NotImplementedError


def torch_graphs(
    network: Any,
    functions_of: Callable[[Any], Mapping[str, Any]],
    device: str,
    precision: str,
    compile: bool,
    *,
    most: int | None = None,
) -> dict[str, Any]:
    """Graphs of a network in PyTorch, under autocast below fp32; ``compile`` fuses the encoder.

    functions_of: network -> part -> (function of named tensors, names of its outputs); that of the
    encoder takes pixels (h, w, 3) uint8 BGR, too. most: people that pass the decoder at once.
    """
    from bmp_ros.engines.torch_graph import TorchGraph
    from bmp_ros.engines.torch_networks import holding_weights, torch_dtype

    dtype = torch_dtype(precision, device)
    network = holding_weights(network.eval(), dtype).to(device)
    return {
        part: TorchGraph(
            network, function, outputs, device, autocast=dtype,
            compile=compile and part == "encoder", whole=part == "encoder",
            people=() if part == "encoder" else ("points", "labels", "masks"),
            most=None if part == "encoder" else most,
        )
        for part, (function, outputs) in functions_of(network).items()
    }  # fmt: skip


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
