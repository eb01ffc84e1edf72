# SPDX-License-Identifier: Apache-2.0
"""YOLOv5 at work: boxes of people, without masks. One graph, in PyTorch or in an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bmp_ros.engines import options
from bmp_ros.engines.letterbox import canvas_size
from bmp_ros.engines.registry import Engine, Runtime
from bmp_ros.engines.yolov5_boxes import CentredLetterbox, decode, network_input, select_boxes
from bmp_ros.fields import bool_field, choice_field, number_field, size_field, str_field
from bmp_ros.loop.protocols import Detections

if TYPE_CHECKING:
    from bmp_ros.loop.frame import Frame
    from bmp_ros.networks.yolov5 import YOLOv5

MAPS = ("map_8", "map_16", "map_32")
"""Outputs of the graph: the raw maps of three levels."""

CROWDHUMAN = ("person", "head")
"""Classes of a network with two that does not name them."""


@dataclass(frozen=True)
class YOLOv5Options:
    """YOLOv5 of releases 4.0 and 5.0 (boxes)."""

    weights: str = options.weights()
    input_size: int | tuple[int, int] = size_field(
        640, low=32, high=2048, multiple=32,
        text="largest canvas in pixels: a side, or [width, height]",
    )  # fmt: skip
    canvas: str = choice_field(
        "minimal", choices=("minimal", "full"), text="minimal: cut down to the multiples of 32 "
        "that hold the image; full: input_size, whatever the image's shape",
    )  # fmt: skip
    enlarge: bool = bool_field(True, text="scale images up that are smaller than the canvas")
    nms_iou: float = number_field(0.5, low=0.0, high=1.0, text="IoU of the network's own box NMS")
    box_class: str = str_field(
        "person",
        text="class of the boxes to use, by its name in the file (person, head) or number",
    )


class YOLOv5Detector:
    """Finds people with YOLOv5. Implements ``Detector``."""

    max_people = 300
    """Limit after the NMS."""

    def __init__(
        self,
        graph: Any,
        anchors: np.ndarray,
        input_size: int | tuple[int, int],
        device: str = "cpu",
        *,
        label: int = 0,
        canvas: str = "minimal",
        enlarge: bool = True,
        nms_iou: float = 0.5,
    ) -> None:
        """Put a graph with the outputs `MAPS` to work.

        anchors: (3, 3, 2), level, anchor, width and height in canvas pixels. input_size: (width,
        height) of the largest canvas, or the side of a square one; multiples of 32. label: index
        of the class that counts. canvas, enlarge: see `YOLOv5Options`. nms_iou: greatest IoU of
        two people.
        """
        self.graphs = {"maps": graph}
        self.device = device
        self._anchors = anchors
        self.canvas = canvas_size(input_size)
        self._label = label
        self._how = {"minimal": canvas == "minimal", "enlarge": enlarge}
        self._nms_iou = nms_iou

    @classmethod
    def from_network(
        cls,
        network: YOLOv5,
        input_size: int | tuple[int, int] = 640,
        device: str = "cpu",
        *,
        precision: str = "fp32",
        compile: bool = False,
        **how: Any,
    ) -> YOLOv5Detector:
        """Run a network in PyTorch; works on a copy of it prepared for inference.

        precision: fp32, fp16 (GPU only) or bf16; the last layers compute in float32. how: further
        arguments of the constructor.
        """
        import torch

        from bmp_ros.engines.torch_graph import TorchGraph
        from bmp_ros.engines.torch_networks import torch_dtype
        from bmp_ros.networks.yolov5 import prepare_for_inference

        prepared = prepare_for_inference(network, torch_dtype(precision, device)).to(device)
        if device != "cpu":
            prepared.to(memory_format=torch.channels_last)
        graph = TorchGraph(prepared, graph_function(prepared), MAPS, device, compile=compile)
        return cls(graph, network.anchor_sizes.numpy(), input_size, device, **how)

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        """Return people with score > ``score_threshold``, best first, at most ``max_people``.

        Also returned, last: predictions that are not finite, as NaN, for the caller to drop and
        count.
        """
        letterbox = CentredLetterbox.fit((frame.width, frame.height), self.canvas, **self._how)
        canvas = network_input(letterbox.apply(frame.image))
        found = self.graphs["maps"].run({"canvas": canvas})
        rows = select_boxes(
            decode([found[name] for name in MAPS], self._anchors, score_threshold),
            score_threshold=score_threshold,
            nms_iou=self._nms_iou,
            classes=[self._label],
            most=self.max_people,
        )
        boxes, scores = letterbox.boxes_to_image(rows[:, :4]), rows[:, 4]
        empty = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)  # it lies on the padding alone
        return Detections(boxes[~empty], scores[~empty])


def graph_function(network: YOLOv5) -> Any:
    """The graph of a prepared network: canvas (1, 3, h, w) in [0, 1], RGB -> `MAPS`."""
    import torch

    first = next(network.parameters())

    def maps(canvas: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = network(canvas.to(first.dtype))
        return found

    return maps


def anchor_sizes(text: str) -> np.ndarray:
    """The anchors (3, 3, 2) of an exported file's card. Raises ValueError if they are no 18."""
    sizes = np.array(text.split(), np.float32)
    if sizes.size != 18:
        raise ValueError(f"anchors {text!r}: needs width and height of three at three levels")
    return sizes.reshape(3, 3, 2)


def class_index(wanted: str, names: Sequence[str] | None, classes: int) -> int:
    """Index of the class called ``wanted``, or of that number.

    names: of the file, or None where it has none: ``person`` is 0 then, and with two classes
    ``head`` is 1. Raises ValueError with the names there are.
    """
    if names is None:
        names = CROWDHUMAN if classes == len(CROWDHUMAN) else ("person",)
    lower = [name.lower() for name in names]
    if wanted.lower() in lower:
        return lower.index(wanted.lower())
    if wanted.isdecimal() and int(wanted) < classes:
        return int(wanted)
    raise ValueError(
        f"box_class is {wanted!r}; this network has {classes} classes: {', '.join(names)}, or a "
        f"number up to {classes - 1}"
    )


def _network(weights: Any) -> YOLOv5:
    from bmp_ros.engines.torch_networks import state_dict_of
    from bmp_ros.networks.yolov5 import YOLOv5

    state_dict = state_dict_of(weights)
    return YOLOv5.from_state_dict(state_dict, getattr(state_dict, "meta", None))


def _build(settings: YOLOv5Options, weights: Any, runtime: Runtime) -> YOLOv5Detector:
    network = _network(weights)
    return YOLOv5Detector.from_network(
        network,
        settings.input_size,
        runtime.device,
        precision=runtime.precision,
        compile=runtime.compile,
        label=class_index(settings.box_class, network.names, network.classes),
        canvas=settings.canvas,
        enlarge=settings.enlarge,
        nms_iou=settings.nms_iou,
    )


def _random_weights(settings: YOLOv5Options) -> Mapping[str, Any]:
    """Random weights that find some dozens of "people" in any image.

    The last layers are adjusted to what they see: boxes about as large as their anchors,
    objectness spread by 1.5 about a logit of -4.6, nearly everything of the first class.
    """
    import torch
    from torch import Tensor, nn

    from bmp_ros.engines.torch_networks import calibrate_norms, size_by_name, spread_convolutions
    from bmp_ros.networks.yolov5 import PUBLISHED_SIZES, YOLOv5, YOLOv5Size

    size = size_by_name(settings.weights, r"yolov5(n|s|m|l|x)\b")
    classes = len(CROWDHUMAN) if "crowdhuman" in settings.weights else 80
    network = YOLOv5(YOLOv5Size.scaled(*PUBLISHED_SIZES[size]), classes).requires_grad_(False)
    spread_convolutions(network)
    one = [(0.0, 0.5)] * 4 + [(-4.6, 1.5), (3.0, 0.5)] + [(-3.0, 0.5)] * (classes - 1)
    mean, spread = torch.tensor(one * 3).unbind(1)

    def adjust(layer: nn.Module, _: Any, output: Tensor, mean: Tensor, spread: Tensor) -> None:
        deviation, middle = torch.std_mean(output, dim=(0, 2, 3))
        factor = spread / deviation
        layer.weight.mul_(factor[:, None, None, None])
        layer.bias.copy_(mean - factor * (middle - layer.bias))

    for layer in network.model["24"].m:
        layer.register_forward_hook(partial(adjust, mean=mean, spread=spread))
    calibrate_norms(network, 0, 1)
    return network.state_dict()


def export_source(settings: YOLOv5Options, state_dict: Mapping[str, Any]) -> Any:
    """Return what is exported of a detector; raises what `YOLOv5.from_state_dict` raises."""
    import torch

    from bmp_ros.engines.export.source import (
        Call,
        GraphSource,
        NetworkSource,
        sample_image,
        weights_hash,
    )
    from bmp_ros.engines.onnx.card import YOLOv5Facts
    from bmp_ros.networks.yolov5 import prepare_for_inference

    network = _network(state_dict)
    facts = YOLOv5Facts(
        input_size=canvas_size(settings.input_size),
        canvas=settings.canvas,
        enlarge=settings.enlarge,
        label=class_index(settings.box_class, network.names, network.classes),
        anchors=" ".join(f"{side:g}" for side in network.anchor_sizes.flatten().tolist()),
    )
    prepared = prepare_for_inference(network, torch.float32)
    samples = []
    for height, width in ((480, 640), (640, 360)):
        letterbox = CentredLetterbox.fit(
            (width, height), canvas_size(settings.input_size),
            minimal=settings.canvas == "minimal", enlarge=settings.enlarge,
        )  # fmt: skip
        sample = letterbox.apply(sample_image(height, width))
        samples.append({"canvas": torch.from_numpy(network_input(sample))})
    sides = {2: "height", 3: "width"}
    dynamic = {"canvas": sides, **{name: sides for name in MAPS}}
    if settings.canvas == "full":
        samples, dynamic = samples[:1], {}
    graph = GraphSource("maps", Call(prepared, graph_function(prepared)), MAPS, samples, dynamic)
    used = {"nms_iou": settings.nms_iou}
    return NetworkSource("yolov5", facts, [graph], used, weights_hash(state_dict, facts))


ENGINE = Engine(
    "yolov5",
    "detector",
    YOLOv5Options,
    _build,
    runtime="torch",
    precisions=("fp32", "fp16", "bf16"),
    compiles=True,
    random_weights=_random_weights,
    export=export_source,
)
