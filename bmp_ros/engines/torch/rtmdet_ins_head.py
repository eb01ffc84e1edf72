# SPDX-License-Identifier: Apache-2.0
"""Head of RTMDet-Ins: classes, boxes, mask kernels and mask prototypes from three feature maps."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bmp_ros.engines.dynamic_masks import KERNEL_PARAMETERS, PROTOTYPES
from bmp_ros.engines.letterbox import STRIDES
from bmp_ros.engines.torch.cspnext import ConvNormAct

Features = tuple[Tensor, Tensor, Tensor]

UNTRAINED_SCORE = 0.01
"""What an untrained network scores everywhere (the prior of focal losses)."""


class OutputConv(nn.Conv2d):
    """1x1 convolution that ends a branch. It works in the precision of its own weights.

    Kept in float32 while the rest runs in half precision, these layers cost nothing; a box side
    at 300 px would otherwise be rounded to 0.25 px.
    """

    def __init__(self, inputs: int, outputs: int, *, initial_bias: float = 0.0) -> None:
        super().__init__(inputs, outputs, 1)
        nn.init.constant_(self.bias, initial_bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))

    def keep_channel(self, index: int) -> None:
        """Cut the layer down to one output channel."""
        for parameter in self.parameters():
            parameter.data = parameter.data[index : index + 1].clone()
        self.out_channels = 1


class MaskFeatures(nn.Module):
    """Three feature maps (B, C, ., .) -> prototypes (B, 8, h / 8, w / 8)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fusion_conv = nn.Conv2d(len(STRIDES) * channels, channels, 1)
        self.stacked_convs = nn.Sequential(*(ConvNormAct(channels, channels, 3) for _ in range(4)))
        self.projection = OutputConv(channels, PROTOTYPES)

    def forward(self, features: Features) -> Tensor:
        finest, *coarser = features
        size = finest.shape[-2:]
        enlarged = [functional.interpolate(x, size=size, mode="bilinear") for x in coarser]
        fused = self.fusion_conv(torch.cat([finest, *enlarged], dim=1))
        prototypes: Tensor = self.projection(self.stacked_convs(fused))
        return prototypes


class RTMDetInsHead(nn.Module):
    """One tower for classes and boxes and one for mask kernels; norms are separate per level.

    The published head (mmdet) computes the same tower twice, as ``cls_convs`` and ``reg_convs``;
    here both names lead to one tower that runs once. Its convolutions are shared by the levels.
    """

    def __init__(self, channels: int, tower_depth: int, classes: int) -> None:
        super().__init__()

        def towers() -> list[nn.Sequential]:
            return [
                nn.Sequential(*(ConvNormAct(channels, channels, 3) for _ in range(tower_depth)))
                for _ in STRIDES
            ]

        def outputs(number: int, initial_bias: float = 0.0) -> nn.ModuleList:
            return nn.ModuleList(
                OutputConv(channels, number, initial_bias=initial_bias) for _ in STRIDES
            )

        first, *others = class_towers = towers()
        for tower in others:
            for layer, shared in zip(tower, first, strict=True):
                layer.conv = shared.conv
        self.cls_convs = nn.ModuleList(class_towers)
        self.reg_convs = nn.ModuleList(class_towers)
        self.kernel_convs = nn.ModuleList(towers())
        self.rtm_cls = outputs(classes, math.log(UNTRAINED_SCORE / (1 - UNTRAINED_SCORE)))
        self.rtm_reg = outputs(4)
        self.rtm_kernel = outputs(KERNEL_PARAMETERS)
        self.mask_head = MaskFeatures(channels)

    def boxes(self, features: Features) -> tuple[Tensor, Tensor]:
        """Return class logits (B, P, classes) and distances (B, P, 4) in canvas pixels."""
        logits, distances = [], []
        for level, (x, stride) in enumerate(zip(features, STRIDES, strict=True)):
            x = self.cls_convs[level](x)
            logits.append(_by_location(self.rtm_cls[level](x)))
            distances.append(_by_location(self.rtm_reg[level](x)).relu() * stride)
        return torch.cat(logits, dim=1), torch.cat(distances, dim=1)

    def kernels(self, features: Features) -> Tensor:
        """Return the mask kernels (B, P, 169) of every location."""
        kernels = [
            _by_location(output(tower(x)))
            for x, tower, output in zip(features, self.kernel_convs, self.rtm_kernel, strict=True)
        ]
        return torch.cat(kernels, dim=1)

    def kernels_at(self, features: Features, locations: Tensor) -> Tensor:
        """Return the mask kernels (n, 169) of n locations of one image (B = 1).

        locations: (n,) int64 on the CPU, in [0, P). Equal to ``kernels(features)[0, locations]``
        up to rounding, for a tenth of the network's work less: the tower sees just the patch of
        its input on which each answer depends.
        """
        kernels = features[0].new_empty(len(locations), KERNEL_PARAMETERS, dtype=torch.float32)
        first = 0
        for level, x in enumerate(features):
            cells = x.shape[-2] * x.shape[-1]
            rows = torch.nonzero((locations >= first) & (locations < first + cells))[:, 0]
            if len(rows):
                kernels[rows.to(x.device)] = self._kernels_of_level(
                    level, x[0], locations[rows] - first
                ).float()
            first += cells
        return kernels

    def _kernels_of_level(self, level: int, x: Tensor, cells: Tensor) -> Tensor:
        """x: (C, h, w), cells: (n,) int64 on the CPU, row by row -> (n, 169)."""
        height, width = x.shape[-2:]
        tower = cast(nn.Sequential, self.kernel_convs[level])
        radius = len(tower)  # of the patch: each 3x3 convolution sees one cell further
        reach = torch.arange(-radius, radius + 1)
        rows = (cells // width)[:, None] + reach
        columns = (cells % width)[:, None] + reach
        # Cells beyond the map: the padding of the convolutions, zero before every layer.
        inside = ((rows >= 0) & (rows < height))[:, :, None]
        inside = inside & ((columns >= 0) & (columns < width))[:, None, :]
        inside = inside[:, None].to(x.device)
        rows = rows.clamp(0, height - 1).to(x.device)
        columns = columns.clamp(0, width - 1).to(x.device)

        patches = x[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)
        for layer in tower:
            patches = layer(torch.where(inside, patches, 0))[:, :, 1:-1, 1:-1]
            inside = inside[:, :, 1:-1, 1:-1]
        kernels: Tensor = self.rtm_kernel[level](patches)
        return kernels.flatten(1)


def _by_location(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    return x.flatten(2).transpose(1, 2)
