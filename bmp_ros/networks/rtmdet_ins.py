# SPDX-License-Identifier: Apache-2.0
"""RTMDet-Ins (Lyu et al. 2022, arXiv 2212.07784): backbone, neck, head; loads published weights.

CSPNeXt backbone, CSPNeXt-PAFPN neck, and a head of classes, boxes, mask kernels and mask
prototypes. Parameter names are those of mmdet 3.3.0, so ``load_state_dict`` (strict) is the
loader. What is done with the outputs (boxes, NMS, masks) lies in `bmp_ros.engines`.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bmp_ros.networks.rtmdet_ins_layout import (
    BIASES,
    KERNEL_PARAMETERS,
    LAYER_WIDTHS,
    PROTOTYPES,
    STRIDES,
    WEIGHTS,
)
from bmp_ros.networks.strict_loading import load_strictly

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

Features = tuple[Tensor, Tensor, Tensor]

PERSON = 0
"""Class index of people, in the 80 classes of COCO as in networks with one class."""

UNTRAINED_SCORE = 0.01
"""What an untrained network scores everywhere (the prior of focal losses)."""


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
        """Return the mask kernels (n, 169) float32 of n locations of one image (B = 1).

        locations: (n,) int64 in [0, P). Equal to ``kernels(features)[0, locations]`` up to
        rounding, for a tenth of the network's work less: the towers see just the patches of their
        inputs on which each answer depends. Every level answers for all people, so that no shape
        depends on a value: the graph can be exported, and the device never waits for the host.
        """
        kernels = torch.zeros(1, KERNEL_PARAMETERS, device=locations.device)
        first = 0
        for level, x in enumerate(features):
            cells = int(x.shape[-2]) * int(x.shape[-1])
            rows = locations - first
            here = (rows >= 0) & (rows < cells)
            answers = self._kernels_of_level(level, x[0], rows.clamp(0, cells - 1)).float()
            kernels = torch.where(here[:, None], answers, kernels)
            first += cells
        return kernels

    def _kernels_of_level(self, level: int, x: Tensor, cells: Tensor) -> Tensor:
        """x: (C, h, w), cells: (n,) int64, row by row -> (n, 169)."""
        height, width = int(x.shape[-2]), int(x.shape[-1])
        tower = cast(nn.Sequential, self.kernel_convs[level])
        radius = len(tower)  # of the patch: each 3x3 convolution sees one cell further
        side = 2 * radius + 1
        reach = torch.arange(-radius, radius + 1, device=x.device)
        rows = torch.div(cells, width, rounding_mode="floor")[:, None] + reach
        columns = (cells % width)[:, None] + reach
        # Cells beyond the map: the padding of the convolutions, zero before every layer.
        inside_rows = ((rows >= 0) & (rows < height)).to(x.dtype)
        inside_columns = ((columns >= 0) & (columns < width)).to(x.dtype)
        inside = inside_rows[:, None, :, None] * inside_columns[:, None, None, :]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        places = (rows[:, :, None] * width + columns[:, None, :]).flatten()
        patches = x.flatten(1).index_select(1, places)  # (C, n * side * side)
        patches = patches.unflatten(1, (-1, side, side)).transpose(0, 1)
        for layer in tower:
            patches = layer(patches * inside)[:, :, 1:-1, 1:-1]
            inside = inside[:, :, 1:-1, 1:-1]
        kernels: Tensor = self.rtm_kernel[level](patches)
        return kernels.flatten(1)


def _by_location(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    return x.flatten(2).transpose(1, 2)


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
        channels, depths = backbone_size(state_dict)
        return cls(
            channels,
            depths,
            neck_depth=_count(state_dict, "neck.top_down_blocks.0.blocks"),
            head_channels=_width(state_dict, "bbox_head.cls_convs.0.0"),
            tower_depth=_count(state_dict, "bbox_head.cls_convs.0"),
        )


PACKAGED_SIZE = RTMDetInsSize(
    channels=(16, 24, 48, 96, 176, 288),
    depths=(1, 1, 2, 1),
    neck_depth=1,
    head_channels=64,
    tower_depth=2,
)
"""The tiny network that comes with the package: about as wide as RTMDet-Ins-tiny, with a narrower
head; 3.7 M parameters."""


def backbone_size(state_dict: Mapping[str, Tensor]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and depths of the `CSPNeXt` in a state dict; KeyError where an entry is missing."""
    stages = (f"backbone.stage{stage}.0" for stage in (1, 2, 3, 4))
    named = ("backbone.stem.0", "backbone.stem.2", *stages)
    csp_layers = ("stage1.1", "stage2.1", "stage3.1", "stage4.2")
    return (
        tuple(_width(state_dict, name) for name in named),
        tuple(_count(state_dict, f"backbone.{layer}.blocks") for layer in csp_layers),
    )


def _width(state_dict: Mapping[str, Tensor], name: str) -> int:
    return int(state_dict[f"{name}.conv.weight"].shape[0])


def _count(state_dict: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return len({m.group(1) for name in state_dict if (m := pattern.match(name))})


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
    of ``bbox_head`` instead: without people no mask is computed.
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
        load_strictly(network, weights, "RTMDet-Ins")
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


def prepare_for_inference(network: RTMDetIns, dtype: torch.dtype) -> RTMDetIns:
    """Return a copy for inference: norms folded, people only, in ``dtype``.

    Folding a batch norm into its convolution changes results by rounding alone. The convolutions
    that levels share become one per level, since their norms are. The last layer of each branch
    stays in float32 (see ``OutputConv``).
    """
    network = copy.deepcopy(network).eval().float().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, ConvNormAct) and isinstance(module.bn, nn.BatchNorm2d):
            module.conv = nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    for classifier in network.bbox_head.rtm_cls:
        cast(OutputConv, classifier).keep_channel(PERSON)
    network.to(dtype)
    for module in network.modules():
        if isinstance(module, OutputConv):
            module.float()
    return network


def mask_logits(prototypes: Tensor, kernels: Tensor, priors: Tensor) -> Tensor:
    """Return mask logits (n, h, w) float32 on the stride-8 grid of the canvas (CondInst style).

    Each person brings three 1x1 layers, 10 -> 8 -> 8 -> 1 channels, ReLU between. Their input are
    two coordinates relative to the person's prior and the eight prototypes of the image.

    prototypes: (8, h, w), the grid or its upper left part, or (n, 8, h, w) where people are of
    several images. kernels: (n, 169). priors: (n, 3), x and y in canvas pixels and stride.
    """
    height, width = prototypes.shape[-2:]
    stride = STRIDES[0]
    x, y, scale = priors.to(prototypes.device, torch.float32)[:, :, None].unbind(1)
    columns = torch.arange(width, device=prototypes.device) * stride
    rows = torch.arange(height, device=prototypes.device) * stride
    # 8 x the prior's stride is the unit of length in which the networks were trained.
    relative_x = ((x - columns) / (8 * scale))[:, None, :].expand(-1, height, -1)
    relative_y = ((y - rows) / (8 * scale))[:, :, None].expand(-1, -1, width)
    shared = prototypes.float().expand(len(kernels), -1, -1, -1)
    values = torch.cat([torch.stack([relative_x, relative_y], dim=1), shared], dim=1).flatten(2)

    parts = kernels.float().split([*WEIGHTS, *BIASES], dim=1)
    layers = len(WEIGHTS)
    for layer in range(layers):
        weights = parts[layer].unflatten(1, (LAYER_WIDTHS[layer + 1], LAYER_WIDTHS[layer]))
        values = torch.baddbmm(parts[layers + layer][:, :, None], weights, values)
        if layer < layers - 1:
            values = values.relu()
    return values.unflatten(2, (height, width))[:, 0]
