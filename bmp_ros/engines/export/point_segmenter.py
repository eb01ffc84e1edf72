# SPDX-License-Identifier: Apache-2.0
"""The small segmenter as two graphs: encoder, once per frame; decoder, for all prompts at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bmp_ros.engines.export.source import (
    GraphSource,
    NetworkSource,
    sample_picture,
    sample_prompts,
    weights_hash,
)
from bmp_ros.engines.onnx.card import PointSegmenterFacts
from bmp_ros.engines.onnx.point_segmenter import FEATURES
from bmp_ros.engines.point_canvas import point_letterbox, points_to_canvas, segmenter_input
from bmp_ros.networks.point_segmenter import CANVAS, PointSegmenter

if TYPE_CHECKING:
    from bmp_ros.engines.point_segmenter import PointSegmenterOptions


def point_segmenter_source(
    settings: PointSegmenterOptions, state_dict: Mapping[str, Tensor]
) -> NetworkSource:
    """Return what is exported of a segmenter; raises what `PointSegmenter` raises."""
    facts = PointSegmenterFacts(side=CANVAS)
    network = PointSegmenter.from_state_dict(state_dict)
    pictures = [sample_picture(), sample_picture(360, 640)]
    letterboxes = [point_letterbox(len(p), p.shape[1], CANVAS) for p in pictures]
    images = [
        torch.from_numpy(segmenter_input(picture, letterbox))
        for picture, letterbox in zip(pictures, letterboxes, strict=True)
    ]
    encoder = Encoder(network)
    samples = []
    for image, letterbox, people, points in zip(
        (*images, images[0]), (*letterboxes, letterboxes[0]), (3, 5, 1), (4, 9, 1), strict=True
    ):
        with torch.inference_mode():
            features = encoder(image)
        maps = {name: value.clone() for name, value in zip(FEATURES, features, strict=True)}
        prompts = sample_prompts(people, points, letterbox.image_width, letterbox.image_height)
        on_canvas = points_to_canvas(prompts[0], letterbox)
        cells = maps[FEATURES[0]].shape[-2:]
        masks = torch.zeros(people, *cells)
        masks[1:, cells[0] // 4 : cells[0] // 2, cells[1] // 4 : cells[1] // 2] = 1  # first: none
        samples.append(
            {
                **maps,
                "points": torch.from_numpy(on_canvas),
                "labels": prompts[1],
                "masks": masks,
            }
        )
    rows = {2: "height_4", 3: "width_4"}
    eighth = {2: "height_8", 3: "width_8"}
    maps_axes = dict(zip(FEATURES, (rows, eighth, eighth), strict=True))
    prompt_axes = {0: "people", 1: "points"}
    mask_axes = {0: "people", 1: "height_4", 2: "width_4"}
    return NetworkSource(
        "point_segmenter",
        facts,
        [
            GraphSource(
                "encoder",
                encoder,
                FEATURES,
                [{"canvas": image} for image in images],
                {"canvas": {2: "height", 3: "width"}, **maps_axes},
            ),
            GraphSource(
                "decoder",
                Decoder(network),
                ("logits", "scores"),
                samples,
                {
                    **maps_axes,
                    "points": prompt_axes,
                    "labels": prompt_axes,
                    "masks": mask_axes,
                    "logits": mask_axes,
                    "scores": {0: "people"},
                },
            ),
        ],
        {"max_hole_area": settings.max_hole_area, "max_sprinkle_area": settings.max_sprinkle_area},
        weights_hash(state_dict, facts),
    )


class Encoder(nn.Module):
    """`PointSegmenter.encode` as a module."""

    def __init__(self, network: PointSegmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, canvas: Tensor) -> tuple[Tensor, ...]:
        return self.network.encode(canvas)


class Decoder(nn.Module):
    """`PointSegmenter.decode` as a module."""

    def __init__(self, network: PointSegmenter) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        fine: Tensor,
        middle: Tensor,
        keys: Tensor,
        points: Tensor,
        labels: Tensor,
        masks: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return self.network.decode((fine, middle, keys), points, labels, masks)
