# SPDX-License-Identifier: Apache-2.0
"""``ConvPose``: a small convolutional heatmap network for top-down pose, conditioned on masks.

It takes the place that MaskPose has in the larger presets, with the same contract: the person's
crop with a dimmed background in, one heatmap per keypoint out. Convolutions instead of a
transformer, because a CPU does them best at this size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bmp_ros.engines.torch.cspnext import ConvNormAct
from bmp_ros.engines.torch.top_down_pyramid import PyramidSize, TopDownPyramid

CONV_POSE_SIZE = PyramidSize(
    channels=(16, 24, 32, 64, 128, 192), depths=(1, 2, 2, 1), widths=(48, 64, 96)
)
"""The tiny network that comes with the package: 1.2 M parameters."""


class ConvPose(nn.Module):
    """Crops (N, 3, 192, 144), RGB normalised as in `crops` -> heatmaps (N, K, 48, 36)."""

    input_size = (144, 192)
    """Width and height of a crop."""
    heatmap_size = (36, 48)
    """Width and height of a heatmap."""

    def __init__(self, size: PyramidSize = CONV_POSE_SIZE, num_keypoints: int = 17) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints
        self.pyramid = TopDownPyramid(size)
        width = size.widths[0]
        self.head = nn.Sequential(ConvNormAct(width, width, 3), nn.Conv2d(width, num_keypoints, 1))

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> ConvPose:
        """Build the network that ``state_dict`` was saved from, in eval mode, on the CPU.

        Raises ValueError when the entries are not those of a ConvPose.
        """
        try:
            size = PyramidSize.of_state_dict(state_dict, "pyramid.")
            network = cls(size, int(state_dict["head.1.weight"].shape[0]))
            network.load_state_dict(state_dict, strict=True)
        except KeyError as error:
            raise ValueError(
                f"not the state dict of a ConvPose: entry {error} is missing"
            ) from None
        except RuntimeError as error:
            raise ValueError(f"not the state dict of a ConvPose: {error}") from None
        return network.eval()

    def set_precision(self, dtype: torch.dtype) -> ConvPose:
        """Compute in ``dtype``; heatmaps are returned in float32 whatever it is."""
        return self.to(dtype)

    def forward(self, crops: Tensor) -> Tensor:
        fine, _, _ = self.pyramid(crops.to(self.head[1].weight.dtype))
        heatmaps: Tensor = self.head(fine).float()
        return heatmaps
