# SPDX-License-Identifier: Apache-2.0
"""CSPNeXt backbone and CSPNeXt-PAFPN neck of RTMDet (Lyu et al. 2022, arXiv 2212.07784).

Parameter names are those of the published checkpoints (mmdet 3.3.0).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, SiLU. Keeps the size at stride 1 (odd kernels)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.bn: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.bn(self.conv(x)), inplace=True)


class DepthwiseSeparable(nn.Module):
    """Depth-wise convolution, then a point-wise one, each with norm and activation."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvNormAct(channels, channels, kernel, groups=channels)
        self.pointwise_conv = ConvNormAct(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


class CSPNeXtBlock(nn.Module):
    """3x3 convolution and 5x5 depth-wise separable convolution, with or without a skip."""

    def __init__(self, channels: int, *, skip: bool) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, 3)
        self.conv2 = DepthwiseSeparable(channels, 5)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x))
        return out + x if self.skip else out


class ChannelAttention(nn.Module):
    """Scales each channel by a gate computed from the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * functional.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class CSPLayer(nn.Module):
    """Cross stage partial layer: half of the channels pass through ``blocks``, half go around."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, *, skip: bool, attention: bool
    ) -> None:
        super().__init__()
        half = outputs // 2
        self.main_conv = ConvNormAct(inputs, half, 1)
        self.short_conv = ConvNormAct(inputs, half, 1)
        self.final_conv = ConvNormAct(2 * half, outputs, 1)
        self.blocks = nn.Sequential(*(CSPNeXtBlock(half, skip=skip) for _ in range(blocks)))
        self.attention = ChannelAttention(2 * half) if attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        halves = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], dim=1)
        return self.final_conv(self.attention(halves))


class SpatialPyramidPooling(nn.Module):
    """Concatenates max poolings over 5, 9 and 13 cells with their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = ConvNormAct(channels, half, 1)
        self.conv2 = ConvNormAct(4 * half, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        # Two poolings over 5 are one over 9, three are one over 13: same numbers, less work.
        over_5 = functional.max_pool2d(x, 5, stride=1, padding=2)
        over_9 = functional.max_pool2d(over_5, 5, stride=1, padding=2)
        over_13 = functional.max_pool2d(over_9, 5, stride=1, padding=2)
        return self.conv2(torch.cat([x, over_5, over_9, over_13], dim=1))


class CSPNeXt(nn.Module):
    """Backbone: images (B, 3, S, S) -> feature maps at strides 8, 16 and 32.

    channels: of the stem's first convolution, of the stem, and of the four stages (6 numbers).
    depths: CSPNeXt blocks in each of the four stages.
    """

    def __init__(self, channels: tuple[int, ...], depths: tuple[int, ...]) -> None:
        super().__init__()
        half, stem, *stages = channels
        self.stem = nn.Sequential(
            ConvNormAct(3, half, 3, stride=2),
            ConvNormAct(half, half, 3),
            ConvNormAct(half, stem, 3),
        )
        first, second, third, fourth = depths
        self.stage1 = self._stage(stem, stages[0], first)
        self.stage2 = self._stage(stages[0], stages[1], second)
        self.stage3 = self._stage(stages[1], stages[2], third)
        self.stage4 = self._stage(stages[2], stages[3], fourth, last=True)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, *, last: bool = False) -> nn.Sequential:
        layers: list[nn.Module] = [ConvNormAct(inputs, outputs, 3, stride=2)]
        if last:
            layers.append(SpatialPyramidPooling(outputs))
        layers.append(CSPLayer(outputs, outputs, blocks, skip=not last, attention=True))
        return nn.Sequential(*layers)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stride_8 = self.stage2(self.stage1(self.stem(images)))
        stride_16 = self.stage3(stride_8)
        return stride_8, stride_16, self.stage4(stride_16)


class CSPNeXtPAFPN(nn.Module):
    """Neck: three feature maps -> three of equal width, mixed top-down, then bottom-up."""

    def __init__(self, channels: tuple[int, int, int], outputs: int, blocks: int) -> None:
        super().__init__()
        low, middle, high = channels

        def csp(inputs: int, outputs: int) -> CSPLayer:
            return CSPLayer(inputs, outputs, blocks, skip=False, attention=False)

        self.reduce_layers = nn.ModuleList(
            [ConvNormAct(high, middle, 1), ConvNormAct(middle, low, 1)]
        )
        self.top_down_blocks = nn.ModuleList([csp(2 * middle, middle), csp(2 * low, low)])
        self.downsamples = nn.ModuleList(
            [ConvNormAct(low, low, 3, stride=2), ConvNormAct(middle, middle, 3, stride=2)]
        )
        self.bottom_up_blocks = nn.ModuleList([csp(2 * low, middle), csp(2 * middle, high)])
        self.out_convs = nn.ModuleList([ConvNormAct(width, outputs, 3) for width in channels])

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        low, middle, high = features
        high = self.reduce_layers[0](high)
        middle = self.top_down_blocks[0](torch.cat([_doubled(high), middle], dim=1))
        middle = self.reduce_layers[1](middle)
        low = self.top_down_blocks[1](torch.cat([_doubled(middle), low], dim=1))

        middle = self.bottom_up_blocks[0](torch.cat([self.downsamples[0](low), middle], dim=1))
        high = self.bottom_up_blocks[1](torch.cat([self.downsamples[1](middle), high], dim=1))
        return self.out_convs[0](low), self.out_convs[1](middle), self.out_convs[2](high)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")
