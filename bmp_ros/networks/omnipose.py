# SPDX-License-Identifier: Apache-2.0
"""OmniPose and OmniPose-Lite: HRNet with learned up-sampling and a waterfall of dilations.

Artacho and Savakis, "OmniPose: A Multi-Scale Framework for Multi-Person Pose Estimation" (2021),
and "BAPose / WASPv2" for the head. Parameter names are those of the published checkpoints, which
load strictly. Written from a description of the layers; the published code has a licence of its
own, non-commercial, and none of it is here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bmp_ros.networks.hrnet import (
    STRIDE,
    W48,
    Convolution,
    HRNetTrunk,
    TrunkParts,
    TrunkSize,
    convolution,
)
from bmp_ros.networks.strict_loading import load_strictly

DILATIONS = (6, 12, 18)
"""Of the 3x3 steps of the waterfall; the first step is 1x1."""
LOW_LEVEL = 256
"""Channels of the first layer, which the head takes as well."""
GAUSSIAN_SIGMA = 3.0


class SeparableConv(nn.Module):
    """Depth-wise convolution, ReLU, point-wise convolution; no bias, no norm between."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.spatialConv = nn.Conv2d(
            inputs, inputs, kernel, stride, padding, dilation, groups=inputs, bias=False
        )
        self.pointConv = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointConv(self.spatialConv(x).relu())


def learned_upward(inputs: int, outputs: int, halvings: int, make: Convolution) -> nn.Sequential:
    """Path from a coarser branch: transposed convolutions double it, a fixed Gaussian smooths it.

    The Gaussian is part of the published files, so the stored values are the ones that are used.
    """
    layers: list[nn.Module] = [make(inputs, outputs, 1, 1), nn.BatchNorm2d(outputs)]
    for _ in range(halvings):
        layers += [
            nn.ConvTranspose2d(outputs, outputs, 3, 2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    smooth = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=False)
    smooth.weight.data.copy_(gaussian_kernel().expand_as(smooth.weight))
    return nn.Sequential(*layers, smooth.requires_grad_(False))


def gaussian_kernel() -> Tensor:
    """(3, 3) float32 that sums to 1, of standard deviation `GAUSSIAN_SIGMA` cells."""
    squares = torch.arange(-1.0, 2.0) ** 2
    kernel = torch.exp(-(squares[:, None] + squares[None, :]) / (2 * GAUSSIAN_SIGMA**2))
    return kernel / kernel.sum()


class WaterfallStep(nn.Module):
    """One dilation: convolution (separable, or dense in some files), norm, ReLU."""

    def __init__(self, channels: int, kernel: int, dilation: int, *, separable: bool) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.atrous_conv: nn.Module = (
            SeparableConv(channels, channels, kernel, dilation=dilation)
            if separable
            else nn.Conv2d(channels, channels, kernel, 1, padding, dilation, bias=False)
        )
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.atrous_conv(x))
        return out.relu()


class WaterfallHead(nn.Module):
    """WASPv2: a chain of dilations and the mean, joined, with low-level features -> heatmaps."""

    def __init__(self, channels: int, num_keypoints: int, *, separable: bool) -> None:
        super().__init__()
        low = channels // 8

        def step(kernel: int, dilation: int) -> WaterfallStep:
            return WaterfallStep(channels, kernel, dilation, separable=separable)

        self.aspp1 = step(1, 1)
        self.aspp2, self.aspp3, self.aspp4 = (step(3, dilation) for dilation in DILATIONS)
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.conv1 = nn.Conv2d(5 * channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(LOW_LEVEL, low, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(low)
        self.last_conv = nn.Sequential(
            nn.Conv2d(channels + low, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, num_keypoints, 1),
        )

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        first = self.aspp1(x)
        second = self.aspp2(first)
        third = self.aspp3(second)
        fourth = self.aspp4(third)
        mean = self.global_avg_pool(x).expand_as(x)
        joined = self.bn1(self.conv1(torch.cat([first, second, third, fourth, mean], 1))).relu()
        low = self.bn2(self.conv2(low)).relu()
        heatmaps: Tensor = self.last_conv(torch.cat([joined, low], 1))
        return heatmaps


class OmniPose(HRNetTrunk):
    """Crops (N, 3, H, W), RGB normalised as for ImageNet -> heatmaps (N, K, H/4, W/4).

    lite: every convolution of the trunk is separable. separable: those of the waterfall are.
    input_size: (width, height) of a crop, multiples of 32; the files do not tell.
    """

    returns = "heatmaps"

    def __init__(
        self,
        num_keypoints: int = 17,
        *,
        lite: bool = False,
        size: TrunkSize = W48,
        separable: bool = True,
        input_size: tuple[int, int] = (192, 256),
    ) -> None:
        make: Convolution = SeparableConv if lite else convolution
        super().__init__(size, TrunkParts(make, learned_upward, all_scales=True))
        self.input_size = input_size
        self.heatmap_size = (input_size[0] // STRIDE, input_size[1] // STRIDE)
        self.num_keypoints = num_keypoints
        self.waspv2 = WaterfallHead(size.widths[0], num_keypoints, separable=separable)

    def forward(self, crops: Tensor) -> Tensor:
        low, (finest,) = self.features(crops)
        heatmaps: Tensor = self.waspv2(finest, low)
        return heatmaps


def load_omnipose(
    state_dict: Mapping[str, Tensor], input_size: tuple[int, int] = (192, 256)
) -> OmniPose:
    """Build the network that a checkpoint's tensors describe, in eval mode, on the CPU.

    A ``module.`` that data-parallel training leaves in front is removed. Raises ValueError when
    the tensors are not those of an OmniPose, naming what differs.
    """
    own = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    try:
        network = OmniPose(
            len(own["waspv2.last_conv.6.weight"]),
            lite="conv1.spatialConv.weight" in own,
            size=TrunkSize.of_names(own),
            separable="waspv2.aspp1.atrous_conv.weight" not in own,
            input_size=input_size,
        )
    except KeyError as error:
        raise ValueError(
            f"not the state dict of an OmniPose: {error.args[0]} is missing"
        ) from None
    load_strictly(network, own, "OmniPose")
    return network.eval()
