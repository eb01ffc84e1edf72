# SPDX-License-Identifier: Apache-2.0
"""SAM 2.1 as two graphs: encoder, once per frame; prompt encoder and mask decoder together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from unittest.mock import patch

import torch
from torch import Tensor, nn

from bmp_ros.engines.export.source import (
    GraphSource,
    NetworkSource,
    sample_picture,
    sample_prompts,
    weights_hash,
)
from bmp_ros.engines.onnx.card import Sam2Facts
from bmp_ros.engines.onnx.sam2_segmenter import EMBEDDING
from bmp_ros.engines.sam2_image import points_to_input, sam2_input
from bmp_ros.networks.sam2 import Sam2Embedding, Sam2Network

if TYPE_CHECKING:
    from bmp_ros.engines.sam2 import Sam2Options


def sam2_source(settings: Sam2Options, state_dict: Mapping[str, Tensor]) -> NetworkSource:
    """Return what is exported of a published file; raises what `Sam2Network` raises."""
    return network_source(Sam2Network.from_state_dict(state_dict), settings)


def network_source(network: Sam2Network, settings: Sam2Options) -> NetworkSource:
    """Return what is exported of a network of any size."""
    side = network.image_size
    facts = Sam2Facts(image_size=side, dynamic_multimask=settings.dynamic_multimask)
    picture = sample_picture()
    height, width = picture.shape[:2]
    image = torch.from_numpy(sam2_input(picture, side))
    encoder = Encoder(network)
    with torch.inference_mode():
        features = encoder(image)
    maps = {name: value.clone() for name, value in zip(EMBEDDING, features, strict=True)}
    samples = []
    for people, count in ((3, 4), (1, 1), (5, 7)):
        points, labels = sample_prompts(people, count, width, height)
        on_input = torch.from_numpy(points_to_input(points, width, height, side))
        samples.append({**maps, "points": on_input, "labels": labels})
    prompt_axes = {0: "people", 1: "points"}
    return NetworkSource(
        "sam2",
        facts,
        [
            GraphSource("encoder", encoder, EMBEDDING, [{"image": image}]),
            GraphSource(
                "decoder",
                Decoder(network, settings.dynamic_multimask),
                ("logits", "scores"),
                samples,
                {
                    "points": prompt_axes,
                    "labels": prompt_axes,
                    "logits": {0: "people"},
                    "scores": {0: "people"},
                },
            ),
        ],
        {"max_hole_area": settings.max_hole_area, "max_sprinkle_area": settings.max_sprinkle_area},
        weights_hash(network.state_dict(), facts),
    )


class Encoder(nn.Module):
    """`Sam2Network.embed` as a module."""

    def __init__(self, network: Sam2Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embedding = self.network.embed(image)
        return embedding.image, *embedding.fine


class Decoder(nn.Module):
    """`Sam2Network.decode` as a module."""

    def __init__(self, network: Sam2Network, dynamic_multimask: bool) -> None:
        super().__init__()
        self.network = network
        self.dynamic_multimask = dynamic_multimask

    def forward(
        self, embedding: Tensor, fine_4: Tensor, fine_8: Tensor, points: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        # sam2 repeats the image for every person with a function whose trace holds their number.
        with patch.object(torch, "repeat_interleave", _expanded):
            return self.network.decode(
                Sam2Embedding(embedding, [fine_4, fine_8]),
                points,
                labels,
                dynamic_multimask=self.dynamic_multimask,
            )


def _expanded(x: Tensor, repeats: int, dim: int) -> Tensor:
    """Do what ``torch.repeat_interleave`` does for a tensor of length 1 along ``dim`` 0."""
    if dim != 0 or x.shape[0] != 1:
        raise ValueError(f"expected length 1 along dimension 0, got {x.shape}, dimension {dim}")
    return x.expand(repeats, *x.shape[1:])
