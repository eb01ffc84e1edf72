# SPDX-License-Identifier: Apache-2.0
"""Small fully convolutional encoder-decoder: CSPNeXt downwards, a light top-down path back up.

The backbone is that of RTMDet (Lyu et al. 2022, arXiv 2212.07784), the way back that of feature
pyramids (Lin et al., CVPR 2017) with concatenation instead of addition. The tiny pose and
segmentation networks share it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bmp_ros.engines.torch.cspnext import ConvNormAct, CSPLayer, CSPNeXt


@dataclass(frozen=True)
class PyramidSize:
    """channels: six, as `CSPNeXt` takes them. depths: blocks of the four stages.

    widths: channels of the outputs at strides 4, 8 and 16.
    """

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    widths: tuple[int, int, int]

    @classmethod
    def of_state_dict(cls, weights: Mapping[str, Tensor], prefix: str) -> PyramidSize:
        """Read the size from names and shapes below ``prefix``; KeyError if one is missing."""

        def width(name: str) -> int:
            return int(weights[f"{prefix}{name}.conv.weight"].shape[0])

        def depth(name: str) -> int:
            pattern = re.compile(re.escape(f"{prefix}backbone.{name}.blocks.") + r"(\d+)\.")
            return len({match.group(1) for key in weights if (match := pattern.match(key))})

        stages = [f"backbone.stage{stage}.0" for stage in (1, 2, 3, 4)]
        channels = tuple(map(width, ("backbone.stem.0", "backbone.stem.2", *stages)))
        depths = tuple(map(depth, ("stage1.1", "stage2.1", "stage3.1", "stage4.2")))
        coarse, middle, fine = (width(f"merge.{step}.final_conv") for step in range(3))
        return cls(channels, depths, (fine, middle, coarse))


class TopDownPyramid(nn.Module):
    """Images (B, 3, h, w), sides multiples of 16 -> maps at strides 4, 8 and 16, finest first."""

    def __init__(self, size: PyramidSize) -> None:
        super().__init__()
        _, _, *stages = size.channels
        fine, middle, coarse = size.widths
        self.size = size
        self.backbone = CSPNeXt(size.channels, size.depths)
        inputs = (stages[3], coarse, middle)
        laterals = (stages[2], stages[1], stages[0])
        outputs = (coarse, middle, fine)
        self.reduce = nn.ModuleList(
            ConvNormAct(above, width, 1) for above, width in zip(inputs, outputs, strict=True)
        )
        self.merge = nn.ModuleList(
            CSPLayer(width + lateral, width, 1, skip=True, attention=False)
            for width, lateral in zip(outputs, laterals, strict=True)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stride_4 = self.backbone.stage1(self.backbone.stem(images))
        stride_8 = self.backbone.stage2(stride_4)
        stride_16 = self.backbone.stage3(stride_8)
        x = self.backbone.stage4(stride_16)
        maps = []
        for step, lateral in enumerate((stride_16, stride_8, stride_4)):
            # To the lateral's size: nine cells halve to five, which do not double to nine.
            x = functional.interpolate(self.reduce[step](x), lateral.shape[-2:], mode="nearest")
            x = self.merge[step](torch.cat([x, lateral], dim=1))
            maps.append(x)
        coarse, middle, fine = maps
        return fine, middle, coarse
