# SPDX-License-Identifier: Apache-2.0
"""Feature pyramid of the small networks: residual stages down to stride 32, then up to stride 4.

Blocks as in He et al., "Deep Residual Learning" (CVPR 2016); lateral connections as in Lin et
al., "Feature Pyramid Networks" (CVPR 2017). Plain 3x3 convolutions with ReLU: CPUs compute them
near their peak and runtimes fuse the two, which depth-wise convolutions and SiLU do not allow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class PyramidSize:
    """channels: of the stem at stride 2 and of the stages at strides 4, 8, 16, 32 (5 numbers).

    depths: residual blocks of the four stages. widths: channels of the outputs at strides 4, 8
    and 16.
    """

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    widths: tuple[int, int, int]

    @classmethod
    def of_state_dict(cls, weights: Mapping[str, Tensor], prefix: str) -> PyramidSize:
        """Read the size from names and shapes below ``prefix``; KeyError if one is missing."""

        def width(name: str) -> int:
            return int(weights[f"{prefix}{name}.conv.weight"].shape[0])

        def depth(stage: int) -> int:
            pattern = re.compile(re.escape(f"{prefix}stages.{stage}.") + r"(\d+)\.")
            return len({m.group(1) for key in weights if (m := pattern.match(key))}) - 1

        stages = range(4)
        channels = (width("stem"), *(width(f"stages.{stage}.0") for stage in stages))
        coarse, middle, fine = (width(f"lateral.{step}") for step in range(3))
        return cls(channels, tuple(map(depth, stages)), (fine, middle, coarse))


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch norm and, if wanted, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return functional.relu(x, inplace=True) if self.active else x


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNormReLU(channels, channels, 3)
        self.second = ConvNormReLU(channels, channels, 3, active=False)
        nn.init.zeros_(self.second.bn.weight)  # begin as the identity (Goyal et al. 2017)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class ResidualPyramid(nn.Module):
    """Images (B, 3, h, w), sides multiples of 4 -> maps at strides 4, 8 and 16, finest first."""

    def __init__(self, size: PyramidSize) -> None:
        super().__init__()
        stem, *stages = size.channels
        fine, middle, coarse = size.widths
        self.size = size
        self.stem = ConvNormReLU(3, stem, 3, stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvNormReLU(inputs, outputs, 3, stride=2),
                *(ResidualBlock(outputs) for _ in range(depth)),
            )
            for inputs, outputs, depth in zip(size.channels[:-1], stages, size.depths, strict=True)
        )
        outputs = (coarse, middle, fine)
        self.reduce = nn.ModuleList(
            ConvNormReLU(above, width, 1, active=False)
            for above, width in zip((stages[3], coarse, middle), outputs, strict=True)
        )
        self.lateral = nn.ModuleList(
            ConvNormReLU(channels, width, 1, active=False)
            for channels, width in zip((stages[2], stages[1], stages[0]), outputs, strict=True)
        )
        self.merge = nn.ModuleList(ConvNormReLU(width, width, 3) for width in outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(images)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        maps = []
        for step, level in enumerate((levels[2], levels[1], levels[0])):
            # To the level's size: nine cells halve to five, which do not double to nine.
            above = functional.interpolate(self.reduce[step](x), level.shape[-2:], mode="nearest")
            x = self.merge[step](torch.relu(above + self.lateral[step](level)))
            maps.append(x)
        coarse, middle, fine = maps
        return fine, middle, coarse
