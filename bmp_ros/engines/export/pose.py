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
from bmp_ros.loop.skeletons import skeleton_of_size

if TYPE_CHECKING:
    from bmp_ros.engines.settings import ConvPoseSettings, VitPoseSettings

TOWERS = ("presence", "visibility", "oks")


def vit_pose_source(settings: VitPoseSettings, state_dict: Mapping[str, Tensor]) -> NetworkSource:
    """Return what is exported of a vision transformer; raises what `VitPose` raises."""
    from bmp_ros.networks.vit_pose import VitPose

    network = VitPose.from_state_dict(state_dict, head=settings.head)
    return heatmap_source(network, settings, state_dict, settings.head)


def conv_pose_source(
    settings: ConvPoseSettings, state_dict: Mapping[str, Tensor]
) -> NetworkSource:
    """Return what is exported of a ConvPose; raises what `ConvPose.from_state_dict` raises."""
    from bmp_ros.networks.conv_pose import ConvPose

    return heatmap_source(
        ConvPose.from_state_dict(state_dict), settings, state_dict, outputs="heatmap"
    )


def heatmap_source(
    network: Any,
    settings: VitPoseSettings | ConvPoseSettings,
    state_dict: Mapping[str, Tensor],
    outputs: str,
) -> NetworkSource:
    """Return what is exported of a `HeatmapNetwork`. outputs: "heatmap" or "pmpose"."""
    facts = HeatmapFacts(
        input_size=network.input_size,
        skeleton=skeleton_of_size(network.num_keypoints).name,
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
