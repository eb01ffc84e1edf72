# SPDX-License-Identifier: Apache-2.0
"""RTMDet-Ins at work: boxes, and masks of the people who are asked for.

A network is two graphs, in PyTorch or in ONNX files: ``boxes`` answers for every location of the
canvas, ``masks`` for the locations of the people who are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bmp_ros.engines import options
from bmp_ros.engines.box_selection import select_people
from bmp_ros.engines.dynamic_masks import mask_logits, masks_on_image
from bmp_ros.engines.letterbox import (
    BGR_MEAN,
    BGR_STD,
    Letterbox,
    canvas_size,
    detector_input,
    grid_priors,
    mask_resampling,
)
from bmp_ros.engines.registry import Engine, Runtime
from bmp_ros.fields import size_field
from bmp_ros.loop.protocols import Detections

if TYPE_CHECKING:
    from bmp_ros.loop.frame import Frame
    from bmp_ros.networks.rtmdet_ins import RTMDetIns

FEATURES = ("features_8", "features_16", "features_32")
"""Outputs of the first graph that the second one reads; they stay on the device."""


_EXACT = ("rtm_cls", "rtm_reg", "rtm_kernel", "projection")
"""Last layers, which compute in fp32 (`bmp_ros.networks.rtmdet_ins.OutputConv`)."""


@dataclass(frozen=True)
class RTMDetInsOptions:
    """Native RTMDet-Ins (boxes and instance masks)."""

    weights: str = options.weights()
    input_size: int | tuple[int, int] = size_field(
        640, low=32, high=2048, multiple=32, text="canvas in pixels: a side, or [width, height]"
    )
    nms_iou: float = options.nms_iou()


class RTMDetInsDetector:
    """Finds people with RTMDet-Ins. Implements ``Detector``."""

    candidates = 1000
    """Locations, best first, that go on to the NMS."""
    max_people = 100
    """Limit after it."""

    def __init__(
        self,
        graphs: Mapping[str, Any],
        input_size: int | tuple[int, int],
        device: str = "cpu",
        *,
        nms_iou: float = 0.6,
    ) -> None:
        """Put the graphs ``boxes`` and ``masks`` of a network to work.

        input_size: (width, height) of the canvas, or the side of a square one; multiples of 32.
        nms_iou: greatest IoU of two people.
        """
        self.graphs = graphs
        self.device = device
        self.canvas = canvas_size(input_size)
        self._priors = grid_priors(self.canvas)
        self._nms_iou = nms_iou

    @classmethod
    def from_network(
        cls,
        network: RTMDetIns,
        *,
        input_size: int | tuple[int, int] = 640,
        nms_iou: float = 0.6,
        device: str = "cpu",
        precision: str = "fp32",
        compile: bool = False,
    ) -> RTMDetInsDetector:
        """Run a network in PyTorch; works on a copy of it prepared for inference.

        precision: fp32, fp16 (GPU only) or bf16; boxes, scores and masks are computed in float32
        from the network's last layers on.
        """
        import torch

        from bmp_ros.engines.torch_graph import TorchGraph
        from bmp_ros.engines.torch_networks import torch_dtype
        from bmp_ros.networks.rtmdet_ins import prepare_for_inference

        prepared = prepare_for_inference(network, torch_dtype(precision, device)).to(device)
        if device != "cpu":
            prepared.to(memory_format=torch.channels_last)
        functions = graph_functions(prepared, canvas_size(input_size))
        decode = _whole_masks(functions["masks"][0], canvas_size(input_size), device)
        functions["masks"] = decode, ("masks",)
        graphs = {
            part: TorchGraph(
                prepared,
                function,
                outputs,
                device,
                compile=compile and part == "boxes",
                whole=True,
                people=("locations",) if part == "masks" else (),
            )
            for part, (function, outputs) in functions.items()
        }
        return cls(graphs, input_size, device, nms_iou=nms_iou)

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        """Return people with score > ``score_threshold``, best first, at most ``max_people``.

        Also returned, last: candidates whose score or box is not finite, as NaN, for the caller
        to drop and count.
        """
        letterbox = Letterbox.fit(frame.height, frame.width, self.canvas)
        canvas = letterbox.apply(frame.image)
        if not self.graphs["boxes"].whole:
            canvas = detector_input(canvas)
        found = self.graphs["boxes"].run({"canvas": canvas}, FEATURES)
        locations = _best(found["scores"], score_threshold, self.candidates)
        boxes, scores, chosen = select_people(
            self._on_canvas(found["boxes"][locations]),
            found["scores"][locations],
            letterbox,
            score_threshold=score_threshold,
            nms_iou=self._nms_iou,
            max_people=self.max_people,
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
        corner = np.array(self.canvas * 2, np.float32)
        clipped: np.ndarray = np.where(np.isfinite(boxes), np.clip(boxes, 0, corner), np.nan)
        return clipped.astype(np.float32)

    def _decode_masks(
        self, features: dict[str, Any], locations: np.ndarray, letterbox: Letterbox
    ) -> np.ndarray:
        """Masks (n, H, W) bool of the people found at ``locations`` (n,)."""
        if not len(locations):
            return np.empty((0, letterbox.image_height, letterbox.image_width), np.bool_)
        inputs = {**features, "locations": locations.astype(np.int64)}
        rows, columns = mask_resampling(letterbox)
        if self.graphs["masks"].whole:
            masks: np.ndarray = self.graphs["masks"].run(
                {**inputs, "rows": rows, "columns": columns}
            )["masks"]
            return masks
        found = self.graphs["masks"].run(inputs)
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


def graph_functions(network: RTMDetIns, canvas: tuple[int, int]) -> dict[str, Any]:
    """The two graphs of a prepared network as functions of named tensors, with output names.

    boxes: normalised canvas (1, 3, h, w) float32, or canvas (h, w, 3) uint8 BGR -> boxes (P, 4)
    xyxy on the canvas, scores (P,), three feature maps. masks: these and locations (n,) int64 ->
    prototypes (8, h/8, w/8), kernels (n, 169).
    """
    import torch

    head = network.bbox_head
    first = next(network.parameters())
    centres = torch.from_numpy(grid_priors(canvas)[:, :2]).to(first.device)
    mean, std = (
        torch.tensor(of_bgr).view(1, 3, 1, 1).to(first.device) for of_bgr in (BGR_MEAN, BGR_STD)
    )

    def boxes(canvas: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if not canvas.dtype.is_floating_point:
            canvas = (canvas.permute(2, 0, 1)[None].float() - mean) / std
        features = network.features(canvas.to(first.dtype))
        logits, distances = head.boxes(features)
        low, high = distances[0].float().split(2, dim=1)
        corners = torch.cat([centres - low, centres + high], dim=1)
        return corners, logits[0, :, 0].float().sigmoid(), *features

    def masks(
        features_8: torch.Tensor,
        features_16: torch.Tensor,
        features_32: torch.Tensor,
        locations: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        features = (features_8, features_16, features_32)
        return head.mask_head(features)[0], head.kernels_at(features, locations)

    return {
        "boxes": (boxes, ("boxes", "scores", *FEATURES)),
        "masks": (masks, ("prototypes", "kernels")),
    }


def _whole_masks(answer: Any, canvas: tuple[int, int], device: str) -> Any:
    """The graph ``masks`` with what follows it: masks (n, H, W) bool instead of its answer.

    rows, columns: of `mask_resampling`.
    """
    import torch

    from bmp_ros.networks.rtmdet_ins import mask_logits

    priors = torch.from_numpy(grid_priors(canvas)).to(device)

    def masks(
        rows: torch.Tensor, columns: torch.Tensor, locations: torch.Tensor, **features: Any
    ) -> torch.Tensor:
        prototypes, kernels = answer(locations=locations, **features)
        used = prototypes[:, : rows.shape[1], : columns.shape[1]]
        logits = mask_logits(used, kernels, priors[locations])
        return rows @ (logits @ columns.T) > 0

    return masks


def _build(settings: RTMDetInsOptions, weights: Any, runtime: Runtime) -> RTMDetInsDetector:
    from bmp_ros.engines.torch_networks import state_dict_of
    from bmp_ros.networks.rtmdet_ins import RTMDetIns

    return RTMDetInsDetector.from_network(
        RTMDetIns.from_state_dict(state_dict_of(weights)),
        input_size=settings.input_size,
        nms_iou=settings.nms_iou,
        device=runtime.device,
        precision=runtime.precision,
        compile=runtime.compile,
    )


def _random_weights(settings: RTMDetInsOptions) -> Mapping[str, Any]:
    """Random weights that find some dozens of "people" in any image.

    Fresh ones answer the same everywhere, and their boxes have no area. Here the last layers are
    adjusted to what they see: logits spread by 1.5 about -4.6, half boxes of 3 cells. Norms keep
    all values in the range of fp16, as trained ones do.
    """
    from torch import Tensor, nn

    from bmp_ros.engines.torch_networks import calibrate_norms, size_by_name, spread_convolutions
    from bmp_ros.networks.rtmdet_ins import PUBLISHED_SIZES, RTMDetIns, RTMDetInsSize

    size = size_by_name(settings.weights, r"rtmdet-ins-(tiny|s|m|l|x)\b")
    classes = 80  # of COCO
    network = RTMDetIns(RTMDetInsSize.scaled(*PUBLISHED_SIZES[size]), classes).requires_grad_(
        False
    )
    spread_convolutions(network)

    def adjust(layer: nn.Module, _: Any, output: Tensor, mean: float, spread: float) -> None:
        factor = spread / output.std()
        layer.weight.mul_(factor)
        layer.bias.copy_(mean - factor * (output.mean() - layer.bias))

    head = network.bbox_head
    for layers, mean, spread in ((head.rtm_cls, -4.6, 1.5), (head.rtm_reg, 3.0, 0.5)):
        for layer in layers:
            layer.register_forward_hook(partial(adjust, mean=mean, spread=spread))
    calibrate_norms(network, -2, 2)
    return network.state_dict()


def export_source(settings: RTMDetInsOptions, state_dict: Mapping[str, Any]) -> Any:
    """Return what is exported of a detector; raises what `RTMDetIns.from_state_dict` raises."""
    import torch

    from bmp_ros.engines.export.source import (
        Call,
        GraphSource,
        NetworkSource,
        sample_image,
        weights_hash,
    )
    from bmp_ros.engines.onnx.card import RTMDetInsFacts
    from bmp_ros.networks.rtmdet_ins import RTMDetIns, prepare_for_inference

    canvas = canvas_size(settings.input_size)
    facts = RTMDetInsFacts(input_size=canvas)
    network = prepare_for_inference(RTMDetIns.from_state_dict(state_dict), torch.float32)
    parts = graph_functions(network, canvas)
    modules = {part: Call(network, function) for part, (function, _) in parts.items()}
    sample = sample_image()
    letterbox = Letterbox.fit(len(sample), sample.shape[1], canvas)
    image = torch.from_numpy(detector_input(letterbox.apply(sample)))
    with torch.inference_mode():
        _, _, *features = modules["boxes"](image)
    maps = {name: value.clone() for name, value in zip(FEATURES, features, strict=True)}
    spread = torch.linspace(0, len(grid_priors(canvas)) - 1, 29).long()  # all levels and borders
    samples = [{**maps, "locations": chosen} for chosen in (spread, spread[5:6])]
    people = {0: "people"}
    graphs = [
        GraphSource(
            "boxes", modules["boxes"], parts["boxes"][1], [{"canvas": image}], exact=_EXACT
        ),
        GraphSource(
            "masks", modules["masks"], parts["masks"][1], samples,
            {"locations": people, "kernels": people}, exact=_EXACT,
        ),
    ]  # fmt: skip
    used = {"nms_iou": settings.nms_iou}
    return NetworkSource("rtmdet_ins", facts, graphs, used, weights_hash(state_dict, facts))


ENGINE = Engine(
    "rtmdet_ins",
    "detector",
    RTMDetInsOptions,
    _build,
    runtime="torch",
    precisions=("fp32", "fp16", "bf16"),
    compiles=True,
    random_weights=_random_weights,
    export=export_source,
)
