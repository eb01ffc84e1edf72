# SPDX-License-Identifier: Apache-2.0
"""Heatmap networks (ViTPose, MaskPose, PMPose, ConvPose) as one graph: crops -> heatmaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bmp_ros.engines.crops import crop_geometry, pose_inputs
from bmp_ros.engines.export.source import GraphSource, NetworkSource, sample_picture, weights_hash
from bmp_ros.engines.onnx.card import HeatmapFacts
from bmp_ros.loop.skeletons import SKELETONS, Skeleton, skeleton_of_size

if TYPE_CHECKING:
    from bmp_ros.engines.heatmap_pose import HeatmapOptions

TOWERS = ("presence", "visibility", "oks")


def heatmap_source(
    network: Any,
    settings: HeatmapOptions,
    state_dict: Mapping[str, Tensor],
    skeleton: Skeleton | None = None,
) -> NetworkSource:
    """Return what is exported of a `HeatmapNetwork`; skeleton None: the known one of its size.

    Raises ValueError for keypoints that the engine ``onnx`` does not know.
    """
    skeleton = skeleton or skeleton_of_size(network.num_keypoints)
    if skeleton.name not in SKELETONS:
        raise ValueError(
            f"the engine onnx knows the keypoint sets {', '.join(SKELETONS)}, not {skeleton.name}"
        )
    outputs = getattr(settings, "head", "heatmap")
    facts = HeatmapFacts(
        input_size=network.input_size,
        skeleton=skeleton.name,
        outputs=outputs,
        background_factor=settings.background_factor,
    )
    names = ("heatmaps", *(TOWERS if outputs == "pmpose" else ()))
    picture = sample_picture()
    boxes = np.array([[40, 30, 250, 460], [300, 100, 620, 470], [500, 20, 560, 90]], np.float32)
    crops = torch.from_numpy(pose_inputs(picture, crop_geometry(boxes, network.input_size)))
    graph = GraphSource(
        "heatmaps",
        _Outputs(network),
        names,
        [{"crops": crops[:2]}, {"crops": crops}],
        {name: {0: "people"} for name in ("crops", *names)},
    )
    options = {"flip_test": settings.flip_test, "extra_keypoints": settings.extra_keypoints}
    return NetworkSource("heatmaps", facts, [graph], options, weights_hash(state_dict, facts))


class _Outputs(nn.Module):
    """The network's outputs as a plain tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        output = self.network(crops)
        return (output,) if isinstance(output, Tensor) else tuple(output)
