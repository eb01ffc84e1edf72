# SPDX-License-Identifier: Apache-2.0
"""Pose networks by variant, untrained: published sizes by name, any other by its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from bmp_ros.networks.hrnet import W32, W48, TrunkSize
from bmp_ros.networks.vit_pose import (
    HEADS_BY_WIDTH,
    VIT_SIZES,
    HeatmapHead,
    VisionTransformer,
    VitPose,
)

Size = tuple[int, int]


def vit_numbers(variant: Any) -> tuple[int, int, int, int]:
    """Width, depth, hidden width and attention heads of "s", "b", "l", "h", or of a mapping with
    ``width``, ``depth`` and, where they differ from a published size's, ``hidden``, ``heads``."""
    if isinstance(variant, Mapping):
        width, depth = int(variant["width"]), int(variant["depth"])
        heads = variant.get("heads", HEADS_BY_WIDTH.get(width))
        if heads is None:
            raise ValueError(f"options: variant of width {width} must say its heads")
        return width, depth, int(variant.get("hidden", 4 * width)), int(heads)
    if variant not in VIT_SIZES:
        raise ValueError(f"options: variant is {variant!r}, allowed: {', '.join(VIT_SIZES)}")
    width, depth, heads = VIT_SIZES[variant]
    return width, depth, 4 * width, heads


def vit_head(variant: Any, joints: int, kind: type[HeatmapHead]) -> HeatmapHead:
    """A head on a ViT; ``channels`` of a mapping is the width of its transposed convolutions."""
    channels = int(variant.get("channels", 256)) if isinstance(variant, Mapping) else 256
    return kind(vit_numbers(variant)[0], (channels, channels), joints)


def vit_pose(variant: Any, size: Size, head: HeatmapHead) -> VitPose:
    """A ViT with that head, untrained, initialised as published: small normal weights."""
    if size[0] % 48 or 4 * size[0] != 3 * size[1]:
        raise ValueError(f"size of a ViT is [48 n, 64 n], such as [192, 256], got {list(size)}")
    width, depth, hidden, heads = vit_numbers(variant)
    grid = (size[1] // 16, size[0] // 16)
    backbone = VisionTransformer(width, depth, hidden, heads, 16, grid)
    nn.init.trunc_normal_(backbone.pos_embed, std=0.02)
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for module in head.modules():
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.001)
    nn.init.normal_(head.final_layer.weight, std=0.001)
    nn.init.zeros_(cast(Tensor, head.final_layer.bias))
    return VitPose(backbone, head)


def vit_layer(name: str, depth: int) -> tuple[int, int]:
    """Layer of a ViTPose parameter for layer-wise decay: 0 the patches and positions, 1 to depth
    the blocks, depth + 1 the rest; and that last number."""
    last = depth + 1
    if name.startswith(("backbone.patch_embed.", "backbone.pos_embed")):
        return 0, last
    if name.startswith("backbone.layers."):
        return int(name.split(".")[2]) + 1, last
    return last, last


def add_drop_path(network: VitPose, most: float) -> VitPose:
    """Leave residual branches of training crops out, the more the deeper (Huang et al., "Deep
    Networks with Stochastic Depth", 2016). The network's own code and names stay as they are."""
    layers = list(network.backbone.layers)
    for number, layer in enumerate(layers):
        share = most * number / max(1, len(layers) - 1)
        for branch in (cast(Any, layer).attn, cast(Any, layer).ffn) if share > 0 else ():
            branch.register_forward_hook(_Dropped(share))
    return network


@dataclass
class _Dropped:
    """A forward hook that zeroes the outputs of some crops and raises the others'."""

    share: float

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        shape = (len(output), *[1] * (output.ndim - 1))
        kept = torch.rand(shape, device=output.device) >= self.share
        return output * kept.to(output.dtype) / (1 - self.share)


def trunk(variant: Any) -> TrunkSize:
    """The trunk "w32", "w48", or of a mapping with ``widths`` (4), ``modules`` (3), ``blocks``."""
    known = {"w32": W32, "w48": W48}
    if isinstance(variant, Mapping):
        return TrunkSize(
            tuple(variant["widths"]), tuple(variant.get("modules", (1, 4, 3))),
            int(variant.get("blocks", 4)),
        )  # fmt: skip
    if variant not in known:
        raise ValueError(f"options: variant is {variant!r}, allowed: {', '.join(known)}")
    return known[variant]
