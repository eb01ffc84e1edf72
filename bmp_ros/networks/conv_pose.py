# SPDX-License-Identifier: Apache-2.0
"""``ConvPose``: a small convolutional heatmap network for top-down pose, conditioned on masks.

It takes the place that MaskPose has in the larger presets, with the same contract: the person's
crop with a dimmed background in, one heatmap per keypoint out. Convolutions instead of a
transformer, because a CPU does them best at this size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bmp_ros.networks.residual_pyramid import ConvNormReLU, PyramidSize, ResidualPyramid
from bmp_ros.networks.strict_loading import load_strictly

CONV_POSE_SIZE = PyramidSize(
    channels=(24, 48, 80, 128, 192), depths=(1, 2, 2, 1), widths=(48, 80, 128)
)
"""The tiny network that comes with the package: 2.2 M parameters."""


PEAK_SIGMA = 1.5
"""Standard deviation, in heatmap cells, of the distribution that a joint seen plainly has."""


class ConvPose(nn.Module):
    """Crops (N, 3, 192, 144), RGB normalised as in `crops` -> heatmaps (N, K, 48, 36).

    The network predicts where a joint is as a distribution over the cells. Its heatmap is that
    distribution, scaled so that a joint as certain as the training targets has a peak of 1; one
    that may be in many places, or is not there, has a low one.
    """

    input_size = (144, 192)
    """Width and height of a crop."""
    heatmap_size = (36, 48)
    """Width and height of a heatmap."""

    def __init__(self, size: PyramidSize = CONV_POSE_SIZE, num_keypoints: int = 17) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints
        self.pyramid = ResidualPyramid(size)
        width = size.widths[0]
        self.head = nn.Sequential(
            ConvNormReLU(width, width, 3), nn.Conv2d(width, num_keypoints, 1)
        )

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> ConvPose:
        """Build the network that ``state_dict`` was saved from, in eval mode, on the CPU.

        Raises ValueError when the entries are not those of a ConvPose.
        """
        try:
            size = PyramidSize.of_state_dict(state_dict, "pyramid.")
            network = cls(size, int(state_dict["head.1.weight"].shape[0]))
        except KeyError as error:
            raise ValueError(
                f"not the state dict of a ConvPose: entry {error} is missing"
            ) from None
        load_strictly(network, state_dict, "ConvPose")
        return network.eval()

    def set_precision(self, dtype: torch.dtype) -> ConvPose:
        """Compute in ``dtype``; heatmaps are returned in float32 whatever it is."""
        return self.to(dtype)

    def logits(self, crops: Tensor) -> Tensor:
        """Crops -> unnormalised log-probabilities (N, K, 48, 36) float32 of the cells."""
        fine, _, _ = self.pyramid(crops.to(self.head[1].weight.dtype))
        logits: Tensor = self.head(fine).float()
        return logits

    def forward(self, crops: Tensor) -> Tensor:
        logits = self.logits(crops)
        shares = logits.flatten(2).softmax(dim=2).view_as(logits)
        return (shares * (2 * math.pi * PEAK_SIGMA**2)).clamp(max=1)
