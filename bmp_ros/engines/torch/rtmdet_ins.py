# SPDX-License-Identifier: Apache-2.0
"""RTMDet-Ins (Lyu et al. 2022, arXiv 2212.07784): the network, loading published checkpoints.

Parameter names are those of mmdet 3.3.0, so ``load_state_dict`` (strict) is the loader. What is
done with the outputs (boxes, NMS, masks) lies in ``rtmdet_ins_detector.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bmp_ros.engines.letterbox import STRIDES
from bmp_ros.engines.torch.cspnext import CSPNeXt, CSPNeXtPAFPN
from bmp_ros.engines.torch.rtmdet_ins_head import RTMDetInsHead

PUBLISHED_SIZES = {
    "tiny": (0.375, 0.167),
    "s": (0.5, 0.33),
    "m": (0.75, 0.67),
    "l": (1.0, 1.0),
    "x": (1.25, 1.33),
}
"""Factors (widen, deepen) of the published networks."""

DROPPED_PREFIXES = ("data_preprocessor.", "ema_")
"""Entries of a checkpoint that are no weights of the network: the image normalisation, which is
constant, and the second copy of all weights that averaging them in training leaves behind."""


@dataclass(frozen=True)
class RTMDetInsSize:
    """Widths and depths of an RTMDet-Ins.

    channels: of the stem's first convolution, the stem and the four stages (6 numbers).
    depths: blocks per stage (4 numbers). neck_depth: blocks in each layer of the neck.
    head_channels: width of neck output and head. tower_depth: 3x3 convolutions per head tower.
    """

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    neck_depth: int
    head_channels: int
    tower_depth: int = 2

    @classmethod
    def scaled(cls, widen: float, deepen: float) -> RTMDetInsSize:
        """Return the size of ``widen`` x the width and ``deepen`` x the depth of size l."""
        channels = tuple(int(width * widen) for width in (32, 64, 128, 256, 512, 1024))
        depths = tuple(max(round(depth * deepen), 1) for depth in (3, 6, 6, 3))
        return cls(channels, depths, depths[0], channels[3])

    @classmethod
    def of_state_dict(cls, state_dict: Mapping[str, Tensor]) -> RTMDetInsSize:
        """Read the size from names and shapes; KeyError where an entry is missing."""

        def width(name: str) -> int:
            return int(state_dict[f"{name}.conv.weight"].shape[0])

        def count(prefix: str) -> int:
            pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
            return len({m.group(1) for name in state_dict if (m := pattern.match(name))})

        stages = (f"backbone.stage{stage}.0" for stage in (1, 2, 3, 4))
        csp_layers = ("stage1.1", "stage2.1", "stage3.1", "stage4.2")
        return cls(
            channels=tuple(map(width, ("backbone.stem.0", "backbone.stem.2", *stages))),
            depths=tuple(count(f"backbone.{layer}.blocks") for layer in csp_layers),
            neck_depth=count("neck.top_down_blocks.0.blocks"),
            head_channels=width("bbox_head.cls_convs.0.0"),
            tower_depth=count("bbox_head.cls_convs.0"),
        )


class RTMDetInsOutput(NamedTuple):
    """What the network says about images (B, 3, h, w), at P locations (see ``grid_priors``).

    class_logits: (B, P, classes). distances: (B, P, 4), from the prior to the left, top, right
    and bottom side in canvas pixels, >= 0. kernels: (B, P, 169), parameters of the dynamic mask
    convolutions. prototypes: (B, 8, h / 8, w / 8).
    """

    class_logits: Tensor
    distances: Tensor
    kernels: Tensor
    prototypes: Tensor


class RTMDetIns(nn.Module):
    """RTMDet-Ins of any width and depth.

    ``forward`` computes everything at every location. A detector calls ``features`` and the parts
    of ``bbox_head`` instead: masks of nobody cost nothing.
    """

    def __init__(self, size: RTMDetInsSize, classes: int) -> None:
        super().__init__()
        pyramid = (size.channels[3], size.channels[4], size.channels[5])
        self.size = size
        self.backbone = CSPNeXt(size.channels, size.depths)
        self.neck = CSPNeXtPAFPN(pyramid, size.head_channels, size.neck_depth)
        self.bbox_head = RTMDetInsHead(size.head_channels, size.tower_depth, classes)

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> RTMDetIns:
        """Build the network that ``state_dict`` was saved from, in eval mode, on the CPU.

        Entries under ``DROPPED_PREFIXES`` are dropped. Raises ValueError when the entries are not
        those of an RTMDet-Ins (what is missing, unexpected or of the wrong shape is named) or
        when weights that the network shares differ between their copies.
        """
        weights = {
            name: value
            for name, value in state_dict.items()
            if not name.startswith(DROPPED_PREFIXES)
        }
        try:
            size = RTMDetInsSize.of_state_dict(weights)
            classes = int(weights["bbox_head.rtm_cls.0.weight"].shape[0])
        except KeyError as error:
            some = ", ".join(list(state_dict)[:3]) or "none"
            raise ValueError(
                f"not the state dict of an RTMDet-Ins: entry {error} is missing (entries found: "
                f"{some} ...); for a checkpoint file pass its 'state_dict' entry"
            ) from None
        _check_shared_weights(weights)
        network = cls(size, classes)
        try:
            network.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            raise ValueError(f"not the state dict of an RTMDet-Ins: {error}") from None
        return network.eval()

    def features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised images (B, 3, h, w), multiples of 32 -> maps at strides 8, 16, 32."""
        maps: tuple[Tensor, Tensor, Tensor] = self.neck(self.backbone(images))
        return maps

    def forward(self, images: Tensor) -> RTMDetInsOutput:
        features = self.features(images)
        class_logits, distances = self.bbox_head.boxes(features)
        return RTMDetInsOutput(
            class_logits,
            distances,
            self.bbox_head.kernels(features),
            self.bbox_head.mask_head(features),
        )


def _check_shared_weights(weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError where copies of one shared tensor differ.

    In mmdet's head the box tower is the class tower, saved under both names, and the levels share
    the convolutions of the tower (not the norms). Loading would keep the last copy and hide a
    checkpoint that was trained otherwise.
    """
    for name, value in weights.items():
        original = name.replace("bbox_head.reg_convs.", "bbox_head.cls_convs.")
        if original.endswith(".conv.weight"):
            for level in range(1, len(STRIDES)):
                original = original.replace(f".cls_convs.{level}.", ".cls_convs.0.")
        if original == name or original not in weights:
            continue
        if not torch.equal(value, weights[original]):
            raise ValueError(
                f"{name} differs from {original}, but RTMDet-Ins shares these weights (one tower "
                "for classes and boxes, one convolution for all levels); checkpoints of networks "
                "with separate towers run through the OpenMMLab detector"
            )
