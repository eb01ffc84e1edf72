# SPDX-License-Identifier: Apache-2.0
"""PoseHRNet: parallel branches of several resolutions; heads for heatmaps, SimDR/SimCC and RLE.

Sun et al., "Deep High-Resolution Representation Learning for Human Pose Estimation" (CVPR 2019);
SimDR/SimCC: Li et al. (ECCV 2022); RLE: Li et al., "Human Pose Regression with Residual
Log-likelihood Estimation" (ICCV 2021); PSA: Liu et al., "Polarized Self-Attention" (2021).

Parameter names are the official ones. Checkpoints of three layouts load strictly (`flat_names`).
Widths, depths, head, number of keypoints and attention are read from the tensors.
`bmp_ros.networks.omnipose` builds on the same trunk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bmp_ros.networks.strict_loading import load_strictly

DROPPED_PREFIXES = ("data_preprocessor.", "ema_", "loss_module.", "loss.")
"""Tensors of a checkpoint that are not loaded: normalisation of the input, the running average
kept for training, and RLE's flow, which only its loss needs."""

HEAD_PREFIXES = ("head.", "keypoint_head.")
STRIDE = 4
"""Input pixels per cell of the finest branch."""

Convolution = Callable[[int, int, int, int], nn.Module]
"""(channels in, channels out, kernel, stride) -> a convolution that keeps the size at stride 1."""


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    """A plain convolution without bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def widened(inputs: int, outputs: int, halvings: int, make: Convolution) -> nn.Sequential:
    """Path from a coarser branch: other channels; `Fusion` enlarges it to the finer branch."""
    return nn.Sequential(make(inputs, outputs, 1, 1), nn.BatchNorm2d(outputs))


@dataclass(frozen=True)
class TrunkParts:
    """What the members of the family build differently.

    convolution: of every layer. upward: (channels in, channels out, halvings, convolution) -> the
    path from a branch that was halved that many times more often. attention: channels -> module
    inside each basic block. all_scales: the last module has the paths to all branches.
    resize: how what a path did not enlarge is enlarged, nearest or bilinear.
    """

    convolution: Convolution = convolution
    upward: Callable[[int, int, int, Convolution], nn.Module] = widened
    attention: Callable[[int], nn.Module] = lambda channels: nn.Identity()
    all_scales: bool = False
    resize: str = "nearest"


@dataclass(frozen=True)
class TrunkSize:
    """widths: channels of the four branches. modules: in stages 2 to 4. blocks: per branch."""

    widths: tuple[int, ...]
    modules: tuple[int, ...] = (1, 4, 3)
    blocks: int = 4

    @classmethod
    def of_names(cls, tensors: Mapping[str, Tensor]) -> TrunkSize:
        """Read the size from tensors by their flat names. Raises KeyError naming a missing one."""
        separable = "conv1.spatialConv.weight" in tensors
        last = "pointConv.weight" if separable else "weight"
        widths = [
            len(tensors[f"stage4.0.branches.{branch}.0.conv1.{last}"]) for branch in range(4)
        ]
        return cls(
            tuple(widths),
            tuple(_count(tensors, rf"stage{stage}\.(\d+)\.") for stage in (2, 3, 4)),
            _count(tensors, r"stage2\.0\.branches\.0\.(\d+)\."),
        )


def _count(names: Iterable[str], pattern: str) -> int:
    """How many numbers the pattern finds at the beginning of the names."""
    return len({found.group(1) for name in names if (found := re.match(pattern, name))})


W32 = TrunkSize((32, 64, 128, 256))
W48 = TrunkSize((48, 96, 192, 384))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a skip; the last one has four times the planes."""

    def __init__(self, inputs: int, planes: int, make: Convolution) -> None:
        super().__init__()
        outputs = 4 * planes
        self.conv1, self.bn1 = make(inputs, planes, 1, 1), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = make(planes, planes, 3, 1), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = make(planes, outputs, 1, 1), nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if inputs != outputs:
            self.downsample = nn.Sequential(make(inputs, outputs, 1, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out)).relu()
        return (self.bn3(self.conv3(out)) + self.downsample(x)).relu()


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a skip, with room for attention between them."""

    def __init__(self, channels: int, parts: TrunkParts) -> None:
        super().__init__()
        self.conv1 = parts.convolution(channels, channels, 3, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.deattn = parts.attention(channels)
        self.conv2 = parts.convolution(channels, channels, 3, 1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.deattn(self.bn1(self.conv1(x)).relu())
        return (self.bn2(self.conv2(out)) + x).relu()


def _halving(inputs: int, outputs: int, make: Convolution, *, rectified: bool) -> nn.Sequential:
    layers = [make(inputs, outputs, 3, 2), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU()] if rectified else []))


class Fusion(nn.Module):
    """One module of a stage: every branch works on its own, then each takes from all others."""

    def __init__(
        self, widths: tuple[int, ...], blocks: int, scales: int, parts: TrunkParts
    ) -> None:
        """scales: the first so many branches have paths from the others."""
        super().__init__()
        self.resize = parts.resize
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, parts) for _ in range(blocks))) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_path(widths, source, target, parts) for source in range(len(widths)))
            for target in range(scales)
        )

    def forward(self, features: list[Tensor], scales: int) -> list[Tensor]:
        """Return the first ``scales`` branches, fused."""
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        fused = []
        for target in range(scales):
            size = [int(side) for side in features[target].shape[-2:]]
            paths = self.fuse_layers[target]
            fused.append(
                sum(
                    self._enlarged(path(x), size) for path, x in zip(paths, features, strict=True)
                ).relu()
            )
        return fused

    def _enlarged(self, x: Tensor, size: list[int]) -> Tensor:
        if list(x.shape[-2:]) == size:
            return x
        return functional.interpolate(x, size=size, mode=self.resize)


def _path(widths: tuple[int, ...], source: int, target: int, parts: TrunkParts) -> nn.Module:
    """The path between two branches: to itself, from a coarser one, or from a finer one."""
    first, last = widths[source], widths[target]
    if source == target:
        return nn.Identity()
    if source > target:
        return parts.upward(first, last, source - target, parts.convolution)
    make = parts.convolution
    steps = [_halving(first, first, make, rectified=True) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, _halving(first, last, make, rectified=False))


class HRNetTrunk(nn.Module):
    """The trunk without a head: see `features`."""

    def __init__(self, size: TrunkSize, parts: TrunkParts | None = None) -> None:
        super().__init__()
        parts = parts or TrunkParts()
        make = parts.convolution
        self.conv1, self.bn1 = make(3, 64, 3, 2), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = make(64, 64, 3, 2), nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(
            Bottleneck(64, 64, make), *(Bottleneck(256, 64, make) for _ in range(3))
        )
        widths = size.widths
        self.transition1 = nn.ModuleList(
            [
                nn.Sequential(make(256, widths[0], 3, 1), nn.BatchNorm2d(widths[0]), nn.ReLU()),
                nn.Sequential(_halving(256, widths[1], make, rectified=True)),
            ]
        )
        self.transition2 = _one_more_branch(widths[:3], make)
        self.transition3 = _one_more_branch(widths[:4], make)

        def stage(branches: int, scales: list[int]) -> nn.ModuleList:
            own = widths[:branches]
            return nn.ModuleList(Fusion(own, size.blocks, count, parts) for count in scales)

        self.stage2 = stage(2, [2] * size.modules[0])
        self.stage3 = stage(3, [3] * size.modules[1])
        last = 4 if parts.all_scales else 1
        self.stage4 = stage(4, [4] * (size.modules[2] - 1) + [last])

    def features(self, images: Tensor, scales: int = 1) -> tuple[Tensor, list[Tensor]]:
        """Images (N, 3, H, W) -> the first layer's features (N, 256, H/4, W/4), and the branches.

        scales: how many branches are computed in the end, finest first.
        """
        x = self.bn1(self.conv1(images)).relu()
        x = self.bn2(self.conv2(x)).relu()
        low = self.layer1(x)
        features = [transition(low) for transition in self.transition1]
        for module in self.stage2:
            features = module(features, 2)
        features.append(self.transition2[-1](features[-1]))
        for module in self.stage3:
            features = module(features, 3)
        features.append(self.transition3[-1](features[-1]))
        for module in self.stage4[:-1]:
            features = module(features, 4)
        return low, self.stage4[-1](features, scales)


def _one_more_branch(widths: tuple[int, ...], make: Convolution) -> nn.ModuleList:
    """Only the new branch has a layer; the numbering counts the others."""
    new = nn.Sequential(_halving(widths[-2], widths[-1], make, rectified=True))
    return nn.ModuleList([*(nn.Identity() for _ in widths[:-1]), new])


# ---------------------------------------------------------------- polarized self-attention


class ParallelAttention(nn.Module):
    """PSA(p): the features weighted by channel, plus the features weighted by place.

    As in the published code: the softmax is not taken over the pooled query's channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv_q_right = nn.Conv2d(channels, 1, 1, bias=False)
        self.conv_v_right = nn.Conv2d(channels, half, 1, bias=False)
        self.conv_up = self._channel_gate(channels)
        self.conv_q_left = nn.Conv2d(channels, half, 1, bias=False)
        self.conv_v_left = nn.Conv2d(channels, half, 1, bias=False)

    def _channel_gate(self, channels: int) -> nn.Module:
        return nn.Conv2d(channels // 2, channels, 1, bias=False)

    def by_channel(self, x: Tensor) -> Tensor:
        """Weight the channels by a gate of what is seen where the query looks."""
        values = self.conv_v_right(x).flatten(2)
        query = self.conv_q_right(x).flatten(2).softmax(dim=2)
        context = values @ query.transpose(1, 2)
        return x * self.conv_up(context[..., None]).sigmoid()

    def by_place(self, x: Tensor) -> Tensor:
        """Weight the places by a gate of how they agree with the mean query."""
        query = self.conv_q_left(x).flatten(2).mean(dim=2, keepdim=True).transpose(1, 2)
        agreement = self._agreement(query, self.conv_v_left(x).flatten(2))
        return x * agreement.sigmoid().unflatten(2, x.shape[-2:])

    def _agreement(self, query: Tensor, values: Tensor) -> Tensor:
        return (query @ values).softmax(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.by_channel(x) + self.by_place(x)


class SequentialAttention(ParallelAttention):
    """PSA(s): weighted by channel, then by place."""

    def _channel_gate(self, channels: int) -> nn.Module:
        eighth = channels // 8
        return nn.Sequential(
            nn.Conv2d(channels // 2, eighth, 1),
            nn.LayerNorm([eighth, 1, 1]),
            nn.ReLU(),
            nn.Conv2d(eighth, channels, 1),
        )

    def _agreement(self, query: Tensor, values: Tensor) -> Tensor:
        return query @ values.softmax(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.by_place(self.by_channel(x))


# ---------------------------------------------------------------- heads


class PoseHRNet(HRNetTrunk):
    """Crops (N, 3, H, W), RGB normalised as for ImageNet -> heatmaps (N, C, H/4, W/4).

    C is the number of keypoints K or, for UDP's combined targets, 3 K: map, x and y offset of
    each. input_size: (width, height) of a crop; any multiples of 32, this is what is used.
    num_keypoints: K.
    """

    returns = "heatmaps"

    def __init__(
        self,
        size: TrunkSize,
        channels: int = 17,
        parts: TrunkParts | None = None,
        *,
        input_size: tuple[int, int] = (192, 256),
        kernel: int = 1,
    ) -> None:
        super().__init__(size, parts)
        self.input_size = input_size
        self.heatmap_size = (input_size[0] // STRIDE, input_size[1] // STRIDE)
        self.num_keypoints = channels
        self.final_layer = nn.Conv2d(size.widths[0], channels, kernel, padding=kernel // 2)

    def heatmaps(self, crops: Tensor) -> Tensor:
        _, (finest,) = self.features(crops)
        heatmaps: Tensor = self.final_layer(finest)
        return heatmaps

    def forward(self, crops: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.heatmaps(crops)


class SimDRHRNet(PoseHRNet):
    """Crops -> scores (N, K, bins) along x and along y, before the softmax.

    The heatmaps pass two linear layers, which all joints share; their size fixes the crop's.
    """

    returns = "simcc"

    def __init__(
        self,
        size: TrunkSize,
        channels: int,
        parts: TrunkParts | None = None,
        *,
        bins: tuple[int, int] = (384, 512),
        input_size: tuple[int, int] = (192, 256),
    ) -> None:
        super().__init__(size, channels, parts, input_size=input_size)
        cells = self.heatmap_size[0] * self.heatmap_size[1]
        self.mlp_head_x = nn.Linear(cells, bins[0])
        self.mlp_head_y = nn.Linear(cells, bins[1])

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.heatmaps(crops).flatten(2)
        return self.mlp_head_x(rows), self.mlp_head_y(rows)


class RLEHRNet(HRNetTrunk):
    """Crops -> (N, K, 4): x y as parts of the crop's size, and their expected errors in [0, 1].

    The finest branch, averaged over all places, passes a linear layer (MMPose's ``RLEHead``).
    """

    returns = "coordinates"

    def __init__(
        self,
        size: TrunkSize,
        num_keypoints: int,
        parts: TrunkParts | None = None,
        *,
        input_size: tuple[int, int] = (192, 256),
    ) -> None:
        super().__init__(size, parts)
        self.input_size = input_size
        self.num_keypoints = num_keypoints
        self.fc = nn.Linear(size.widths[0], 4 * num_keypoints)

    def forward(self, crops: Tensor) -> Tensor:
        _, (finest,) = self.features(crops)
        found = self.fc(finest.mean(dim=(2, 3))).unflatten(1, (self.num_keypoints, 4))
        return torch.cat([found[..., :2], found[..., 2:].sigmoid()], dim=2)


# ---------------------------------------------------------------- checkpoints


def flat_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by their official names, whichever layout they come in.

    Layouts: the official one (no prefix, also SimDR's); MMPose (trunk under ``backbone.``, head
    under ``head.`` or, before version 1, ``keypoint_head.``); sithu31296/pose-estimation (trunk
    under ``backbone.``, head without a prefix). A ``module.`` that data-parallel training leaves
    in front is removed. Raises ValueError when two tensors get the same name.
    """
    flat: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        if name.startswith(DROPPED_PREFIXES):
            continue
        short = name.removeprefix("module.")
        for prefix in ("backbone.", *HEAD_PREFIXES):
            if short.startswith(prefix):
                short = short[len(prefix) :]
                break
        if short.startswith(DROPPED_PREFIXES):
            continue
        if short in flat:
            raise ValueError(f"two tensors of the file are called {short} without their prefixes")
        flat[short] = tensor
    return flat


def load_pose_hrnet(
    state_dict: Mapping[str, Tensor], input_size: tuple[int, int] = (192, 256)
) -> PoseHRNet | RLEHRNet:
    """Build the network that a checkpoint's tensors describe, in eval mode, on the CPU.

    input_size: (width, height) of the crops; the file does not tell, except SimDR's, which fixes
    it. Raises ValueError when the tensors are not those of a PoseHRNet, naming what differs, or
    when the network has another input size.
    """
    kind = "PoseHRNet"
    flat = flat_names(state_dict)
    if "waspv2.conv1.weight" in flat:
        raise ValueError("these are the tensors of OmniPose: use the engine omnipose")
    try:
        size, parts = TrunkSize.of_names(flat), TrunkParts(attention=_attention_of(flat))
        network = _with_head(size, parts, flat, input_size)
    except KeyError as error:
        raise ValueError(
            f"not the state dict of a {kind}: {error.args[0]} is missing, in the layout of the "
            "official repository, of MMPose or of sithu31296/pose-estimation"
        ) from None
    load_strictly(network, flat, kind)
    return network.eval()


def _attention_of(flat: Mapping[str, Tensor]) -> Callable[[int], nn.Module]:
    first = "stage2.0.branches.0.0.deattn.conv_up."
    if first + "0.weight" in flat:
        return SequentialAttention
    if first + "weight" in flat:
        return ParallelAttention
    return lambda channels: nn.Identity()


def _with_head(
    size: TrunkSize,
    parts: TrunkParts,
    flat: Mapping[str, Tensor],
    input_size: tuple[int, int],
) -> PoseHRNet | RLEHRNet:
    if "fc.weight" in flat:
        return RLEHRNet(size, len(flat["fc.weight"]) // 4, parts, input_size=input_size)
    last = flat["final_layer.weight"]
    if "mlp_head_x.weight" not in flat:
        kernel = int(last.shape[-1])
        return PoseHRNet(size, len(last), parts, input_size=input_size, kernel=kernel)
    along_x, along_y = flat["mlp_head_x.weight"], flat["mlp_head_y.weight"]
    own = simcc_input_size(along_x.shape[1], len(along_x), len(along_y), STRIDE)
    if own != tuple(input_size):
        raise ValueError(
            f"the linear layers of this SimDR network fix its input to {own[0]}x{own[1]} (width x "
            f"height), input_size says {input_size[0]}x{input_size[1]}: set input_size: "
            f"[{own[0]}, {own[1]}]"
        )
    bins = len(along_x), len(along_y)
    return SimDRHRNet(size, len(last), parts, bins=bins, input_size=own)


def simcc_input_size(cells: int, bins_x: int, bins_y: int, stride: int) -> tuple[int, int]:
    """Width and height of the crops: ``cells`` cells, ``stride`` pixels wide, as the bins go.

    Raises ValueError when no such heatmap has that many cells.
    """
    columns = round((cells * bins_x / bins_y) ** 0.5)
    rows = cells // max(columns, 1)
    if rows * columns != cells or columns * bins_y != rows * bins_x:
        raise ValueError(
            f"the linear layers of this network take {cells} cells and have {bins_x} and {bins_y} "
            "bins: no crop of a SimDR or SimCC network is like that"
        )
    return stride * columns, stride * rows
