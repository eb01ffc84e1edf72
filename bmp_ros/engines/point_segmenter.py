# SPDX-License-Identifier: Apache-2.0
"""The small point-prompted segmenter at work on the people of a frame.

The longer side of the image is scaled to a given length; the canvas is padded at the right and at
the bottom to multiples of 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from bmp_ros.engines import options
from bmp_ros.engines.crops import normalised
from bmp_ros.engines.letterbox import Letterbox
from bmp_ros.engines.point_prompts import PromptedSegmenter, torch_graphs
from bmp_ros.engines.registry import Engine, Runtime

if TYPE_CHECKING:
    import torch

    from bmp_ros.loop.frame import Frame
    from bmp_ros.networks.point_segmenter import PointSegmenter

FEATURES = ("fine", "middle", "keys")
STEP = 32
"""The canvas has a multiple of so many pixels."""
CELL = 4
"""Canvas pixels per cell of the mask logits."""


@dataclass(frozen=True)
class PointSegmenterOptions:
    """Native PointSegmenter: the small segmenter that comes with the package."""

    weights: str = options.weights()
    max_hole_area: int = options.max_hole_area(2)
    max_sprinkle_area: int = options.max_sprinkle_area(6)


class PointPromptSegmenter(PromptedSegmenter):
    """Segments people from points and first masks. Implements ``Segmenter``."""

    kept = FEATURES

    def __init__(
        self,
        graphs: Mapping[str, Any],
        side: int,
        device: str = "cpu",
        *,
        max_hole_area: int = 2,
        max_sprinkle_area: int = 6,
    ) -> None:
        """Put graphs to work, see `PromptedSegmenter`.

        side: pixels that the longer side of an image is scaled to.
        """
        super().__init__(
            graphs, device, max_hole_area=max_hole_area, max_sprinkle_area=max_sprinkle_area
        )
        self._side = side

    @classmethod
    def from_network(
        cls,
        network: PointSegmenter,
        *,
        side: int | None = None,
        device: str = "cpu",
        precision: str = "fp32",
        compile: bool = False,
        **areas: int,
    ) -> PointPromptSegmenter:
        """Run a network in PyTorch, fp16 and bf16 under autocast. side: None as in training."""
        from bmp_ros.networks.point_segmenter import CANVAS

        def functions(network: PointSegmenter) -> dict[str, Any]:
            parts = graph_functions(network)
            encoder, outputs = parts["encoder"]
            return {**parts, "encoder": (_of_pixels(encoder, device), outputs)}

        graphs = torch_graphs(network, functions, device, precision, compile)
        return cls(graphs, side or CANVAS, device, **areas)

    def image_input(self, frame: Frame) -> dict[str, np.ndarray]:
        letterbox = self._letterbox(frame)
        if self.graphs["encoder"].whole:
            return {"canvas": letterbox.apply(frame.image)}
        return {"canvas": segmenter_input(frame.image, letterbox)}

    def prompt_inputs(
        self, frame: Frame, points: np.ndarray, masks: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        letterbox = self._letterbox(frame)
        return {
            "points": points_to_canvas(points, letterbox),
            "masks": masks_to_canvas(masks, len(points), letterbox),
        }

    def masks_on_image(self, logits: np.ndarray, frame: Frame) -> np.ndarray:
        return masks_on_image(logits, self._letterbox(frame))

    def _letterbox(self, frame: Frame) -> Letterbox:
        return point_letterbox(frame.height, frame.width, self._side)


def point_letterbox(image_height: int, image_width: int, side: int) -> Letterbox:
    """Return how an image lies on its canvas: its longer side is ``side`` pixels long there."""
    scaled = Letterbox.fit(image_height, image_width, side)
    width, height = (
        -(-length // STEP) * STEP for length in (scaled.resized_width, scaled.resized_height)
    )
    return replace(scaled, canvas=(width, height))


def segmenter_input(image: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """Return the image (H, W, 3) uint8 BGR as the network reads it: (1, 3, h, w) float32 RGB."""
    canvas = letterbox.apply(image)
    return normalised(canvas[None, ..., ::-1].transpose(0, 3, 1, 2).astype(np.float32, order="C"))


def points_to_canvas(points: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """Map points (..., 2) x y from image to canvas pixels; centres at integers in both; float32.

    Resizing aligns the images' borders, which lie half a pixel outside of the first centre.
    """
    return ((points + 0.5) * letterbox.scale - 0.5).astype(np.float32)


def masks_to_canvas(masks: np.ndarray | None, people: int, letterbox: Letterbox) -> np.ndarray:
    """Shrink masks (G, H, W) bool to the cells of the logits: (G, h / 4, w / 4) float32 shares.

    None stands for ``people`` masks without a pixel.
    """
    width, height = letterbox.canvas
    shares = np.zeros((people, height // CELL, width // CELL), np.float32)
    if masks is None:
        return shares
    canvas = np.zeros((height, width), np.uint8)
    inner = letterbox.resized_width, letterbox.resized_height
    for share, mask in zip(shares, masks, strict=True):
        # A cell is the mean of 16 samples; exact areas cost up to eight times as much.
        canvas[: inner[1], : inner[0]] = cv2.resize(
            mask.view(np.uint8) * np.uint8(255), inner, interpolation=cv2.INTER_LINEAR
        )
        share[:] = cv2.resize(canvas, shares.shape[:0:-1], interpolation=cv2.INTER_AREA)
    shares /= 255
    return shares


def masks_on_image(logits: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """Upsample logits (G, h / 4, w / 4) float32 of the canvas; (G, H, W) bool, where they are > 0.

    Bilinear; cells on the padding are interpolated with as the others are, and cut off.
    """
    height, width = letterbox.image_height, letterbox.image_width
    factor_x, factor_y = (CELL / scale for scale in letterbox.scale)
    masks = np.empty((len(logits), height, width), np.bool_)
    for mask, grid in zip(masks, logits, strict=True):
        # Without a target size, OpenCV uses the factors as they are instead of rounding them.
        full = cv2.resize(grid, None, fx=factor_x, fy=factor_y, interpolation=cv2.INTER_LINEAR)
        np.greater(full[:height, :width], 0, out=mask)
    return masks


def graph_functions(network: PointSegmenter) -> dict[str, Any]:
    """Encoder and decoder as functions of named tensors, with the names of their outputs."""

    def encoder(canvas: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return network.encode(canvas)

    def decoder(
        fine: torch.Tensor,
        middle: torch.Tensor,
        keys: torch.Tensor,
        points: torch.Tensor,
        labels: torch.Tensor,
        masks: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return network.decode((fine, middle, keys), points, labels, masks)

    return {"encoder": (encoder, FEATURES), "decoder": (decoder, ("logits", "scores"))}


def _of_pixels(encoder: Any, device: str) -> Any:
    """The encoder, which also takes a canvas (h, w, 3) uint8 BGR; see `segmenter_input`."""
    from bmp_ros.engines.torch_graph import RgbNormalisation, rgb_levels

    normalise = RgbNormalisation(device)

    def encode(canvas: torch.Tensor) -> Any:
        if canvas.dtype.is_floating_point:
            return encoder(canvas)
        return encoder(normalise(rgb_levels(canvas)[None]))

    return encode


def _build(settings: PointSegmenterOptions, weights: Any, runtime: Runtime) -> Any:
    from bmp_ros.engines.torch_networks import state_dict_of
    from bmp_ros.networks.point_segmenter import PointSegmenter

    return PointPromptSegmenter.from_network(
        PointSegmenter.from_state_dict(state_dict_of(weights)),
        max_hole_area=settings.max_hole_area,
        max_sprinkle_area=settings.max_sprinkle_area,
        device=runtime.device,
        precision=runtime.precision,
        compile=runtime.compile,
    )


def _random_weights(_: PointSegmenterOptions) -> Mapping[str, Any]:
    from bmp_ros.networks.point_segmenter import PointSegmenter

    return PointSegmenter().state_dict()


def export_source(settings: PointSegmenterOptions, state_dict: Mapping[str, Any]) -> Any:
    """Return what is exported of a segmenter; raises what `PointSegmenter` raises."""
    import torch

    from bmp_ros.engines.export.source import (
        Call,
        GraphSource,
        NetworkSource,
        sample_image,
        sample_prompts,
        weights_hash,
    )
    from bmp_ros.engines.onnx.card import PointSegmenterFacts
    from bmp_ros.networks.point_segmenter import CANVAS, PointSegmenter

    facts = PointSegmenterFacts(side=CANVAS)
    network = PointSegmenter.from_state_dict(state_dict)
    parts = graph_functions(network)
    encode, decode = (Call(network, parts[part][0]) for part in ("encoder", "decoder"))
    drawn = [sample_image(), sample_image(360, 640)]
    letterboxes = [point_letterbox(len(p), p.shape[1], CANVAS) for p in drawn]
    images = [
        torch.from_numpy(segmenter_input(image, letterbox))
        for image, letterbox in zip(drawn, letterboxes, strict=True)
    ]
    samples = []
    for which, people, points in ((0, 3, 4), (1, 5, 9), (0, 1, 1)):
        letterbox = letterboxes[which]
        with torch.inference_mode():
            features = encode(images[which])
        maps = {name: value.clone() for name, value in zip(FEATURES, features, strict=True)}
        xy, labels = sample_prompts(people, points, letterbox.image_width, letterbox.image_height)
        height, width = maps["fine"].shape[-2:]
        masks = torch.zeros(people, height, width)
        masks[1:, height // 4 : height // 2, width // 4 : width // 2] = 1  # the first: none
        given = {"points": torch.from_numpy(points_to_canvas(xy, letterbox)), "labels": labels}
        samples.append({**maps, **given, "masks": masks})
    eighth = {2: "height_8", 3: "width_8"}
    maps_axes = {"fine": {2: "height_4", 3: "width_4"}, "middle": eighth, "keys": eighth}
    prompt_axes = {0: "people", 1: "points"}
    mask_axes = {0: "people", 1: "height_4", 2: "width_4"}
    decoder_axes = {**maps_axes, "points": prompt_axes, "labels": prompt_axes,
                    "masks": mask_axes, "logits": mask_axes, "scores": {0: "people"}}  # fmt: skip
    canvas_axes = {"canvas": {2: "height", 3: "width"}, **maps_axes}
    canvases = [{"canvas": image} for image in images]
    graphs = [
        GraphSource("encoder", encode, FEATURES, canvases, canvas_axes),
        GraphSource("decoder", decode, parts["decoder"][1], samples, decoder_axes),
    ]
    used = {"max_hole_area": settings.max_hole_area,
            "max_sprinkle_area": settings.max_sprinkle_area}  # fmt: skip
    return NetworkSource("point_segmenter", facts, graphs, used, weights_hash(state_dict, facts))


ENGINE = Engine(
    "point_segmenter",
    "segmenter",
    PointSegmenterOptions,
    _build,
    runtime="torch",
    precisions=("fp32", "fp16", "bf16"),
    compiles=True,
    random_weights=_random_weights,
    export=export_source,
)
