# SPDX-License-Identifier: Apache-2.0
"""RTMDet-Ins as two graphs: boxes and scores of every location; masks of the people chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from bmp_ros.engines.dynamic_masks import KERNEL_PARAMETERS
from bmp_ros.engines.export.source import GraphSource, NetworkSource, sample_picture, weights_hash
from bmp_ros.engines.letterbox import (
    STRIDES,
    Letterbox,
    canvas_size,
    detector_input,
    grid_priors,
)
from bmp_ros.engines.onnx.card import RTMDetInsFacts
from bmp_ros.engines.onnx.rtmdet_ins_detector import FEATURES
from bmp_ros.engines.torch.rtmdet_ins_detector import prepare_for_inference
from bmp_ros.networks.rtmdet_ins import RTMDetIns, RTMDetInsHead

if TYPE_CHECKING:
    from bmp_ros.engines.rtmdet_ins import RTMDetInsOptions


def rtmdet_ins_source(
    settings: RTMDetInsOptions, state_dict: Mapping[str, Tensor]
) -> NetworkSource:
    """Return what is exported of a detector; raises what `RTMDetIns.from_state_dict` raises."""
    canvas = canvas_size(settings.input_size)
    facts = RTMDetInsFacts(input_size=canvas)
    network = prepare_for_inference(RTMDetIns.from_state_dict(state_dict), torch.float32)
    boxes = Boxes(network, canvas)
    picture = sample_picture()
    letterbox = Letterbox.fit(len(picture), picture.shape[1], canvas)
    image = torch.from_numpy(detector_input(letterbox.apply(picture)))
    with torch.inference_mode():
        _, _, *features = boxes(image)
    maps = {name: value.clone() for name, value in zip(FEATURES, features, strict=True)}
    locations = len(grid_priors(canvas))
    spread = torch.linspace(0, locations - 1, 29).long()  # all levels and borders
    return NetworkSource(
        "rtmdet_ins",
        facts,
        [
            GraphSource("boxes", boxes, ("boxes", "scores", *FEATURES), [{"canvas": image}]),
            GraphSource(
                "masks",
                Masks(network.bbox_head, canvas),
                ("prototypes", "kernels"),
                [{**maps, "locations": chosen} for chosen in (spread, spread[5:6])],
                {"locations": {0: "people"}, "kernels": {0: "people"}},
            ),
        ],
        {"nms_iou": settings.nms_iou},
        weights_hash(state_dict, facts),
    )


class Boxes(nn.Module):
    """Normalised canvas (1, 3, h, w) -> boxes (P, 4) xyxy, scores (P,), three feature maps."""

    def __init__(self, network: RTMDetIns, canvas: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("centres", torch.from_numpy(grid_priors(canvas)[:, :2]))

    def forward(self, canvas: Tensor) -> tuple[Tensor, ...]:
        features = self.network.features(canvas)
        logits, distances = self.network.bbox_head.boxes(features)
        low, high = distances[0].split(2, dim=1)
        boxes = torch.cat([self.centres - low, self.centres + high], dim=1)
        return boxes, logits[0, :, 0].sigmoid(), *features


class Masks(nn.Module):
    """Feature maps and locations (n,) int64 -> prototypes (8, h/8, w/8), kernels (n, 169).

    Does what `RTMDetInsHead.kernels_at` does, for a number of people that the graph need not know:
    every level answers for everybody, on the small patch that its towers see, and the answer of
    the person's own level is kept.
    """

    def __init__(self, head: RTMDetInsHead, canvas: tuple[int, int]) -> None:
        super().__init__()
        self.head = head
        self.sizes = [(canvas[1] // stride, canvas[0] // stride) for stride in STRIDES]

    def forward(
        self, fine: Tensor, middle: Tensor, coarse: Tensor, locations: Tensor
    ) -> tuple[Tensor, Tensor]:
        features = (fine, middle, coarse)
        kernels = torch.zeros(1, KERNEL_PARAMETERS)
        first = 0
        for level, (height, width) in enumerate(self.sizes):
            cells = locations - first
            here = (cells >= 0) & (cells < height * width)
            answers = self._kernels(level, features[level][0], cells.clamp(0, height * width - 1))
            kernels = torch.where(here[:, None], answers, kernels)
            first += height * width
        return self.head.mask_head(features)[0], kernels

    def _kernels(self, level: int, x: Tensor, cells: Tensor) -> Tensor:
        """x: (C, h, w). cells: (n,), row by row -> (n, 169)."""
        height, width = self.sizes[level]
        tower = cast(nn.Sequential, self.head.kernel_convs[level])
        radius = len(tower)  # of the patch: each 3x3 convolution sees one cell further
        side = 2 * radius + 1
        reach = torch.arange(-radius, radius + 1)
        rows = torch.div(cells, width, rounding_mode="floor")[:, None] + reach
        columns = (cells % width)[:, None] + reach
        inside_rows = ((rows >= 0) & (rows < height)).float()
        inside_columns = ((columns >= 0) & (columns < width)).float()
        inside = inside_rows[:, None, :, None] * inside_columns[:, None, None, :]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        places = (rows[:, :, None] * width + columns[:, None, :]).flatten()
        patches = x.flatten(1).index_select(1, places)  # (C, n * side * side)
        patches = patches.unflatten(1, (-1, side, side)).transpose(0, 1)
        for layer in tower:
            # Cells beyond the map: the padding of the convolutions, zero before every layer.
            patches = layer(patches * inside)[:, :, 1:-1, 1:-1]
            inside = inside[:, :, 1:-1, 1:-1]
        kernels: Tensor = self.head.rtm_kernel[level](patches)
        return kernels.flatten(1)
