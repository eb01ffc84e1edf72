# SPDX-License-Identifier: Apache-2.0
"""YOLOv5 (G. Jocher et al., releases 4.0 and 5.0 of 2021): three maps of boxes; published weights.

The generation with a Focus stem, C3 blocks, SiLU and one SPP, sizes n to x and anything between:
widths, depths and the number of classes are read from the tensors. Parameter names are those of
the published files, so ``load_state_dict`` (strict) is the loader. What is done with the maps
(boxes, NMS) lies in `bmp_ros.engines.yolov5`.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bmp_ros.networks.strict_loading import load_strictly

PUBLISHED_SIZES = {
    "n": (0.33, 0.25),
    "s": (0.33, 0.5),
    "m": (0.67, 0.75),
    "l": (1.0, 1.0),
    "x": (1.33, 1.25),
}
"""Factors (deepen, widen) by the letter of a published name."""

ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""Width and height in pixels of the three anchors of every level, as trained on COCO."""

STRIDES = (8, 16, 32)
NORM_EPS = 1e-3
"""Of all batch norms; a state dict does not tell it."""
BOX_VALUES = 5
"""Values of a box before those of its classes: x, y, width, height, objectness."""

_DETECT = "24"
_C3_LAYERS = ("2", "4", "6", "9", "13", "17", "20", "23")
_BEFORE_V4 = {"BottleneckCSP", "Hardswish", "LeakyReLU"}


@dataclass(frozen=True)
class YOLOv5Size:
    """widths: channels at strides 2, 4, 8, 16, 32. repeats: bottlenecks of each of the eight C3
    blocks, in the order of the layers."""

    widths: tuple[int, ...]
    repeats: tuple[int, ...]

    @classmethod
    def scaled(cls, deepen: float, widen: float) -> YOLOv5Size:
        """The size of the published factors: widths are multiples of 8, rounded up."""
        widths = tuple(math.ceil(width * widen / 8) * 8 for width in (64, 128, 256, 512, 1024))
        full = (3, 9, 9, 3, 3, 3, 3, 3)
        return cls(widths, tuple(max(round(count * deepen), 1) for count in full))

    @classmethod
    def of_state_dict(cls, weights: Mapping[str, Tensor]) -> YOLOv5Size:
        """Read a size from the tensors. Raises KeyError naming an entry that is missing."""
        first = weights["model.0.conv.conv.weight"]
        widths = [len(first), *(len(weights[f"model.{i}.conv.weight"]) for i in (1, 3, 5, 7))]
        repeats = []
        for layer in _C3_LAYERS:
            parts = (re.match(rf"model\.{layer}\.m\.(\d+)\.", name) for name in weights)
            repeats.append(max((int(part[1]) + 1 for part in parts if part), default=0))
        return cls(tuple(widths), tuple(repeats))


class Conv(nn.Module):
    """Convolution without bias, batch norm, SiLU. Keeps the size at stride 1 (odd kernels)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=NORM_EPS, momentum=0.03)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.bn(self.conv(x)), inplace=True)


class Focus(nn.Module):
    """Every 2x2 block of pixels becomes one position with 12 channels, then a convolution."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = Conv(12, outputs, 3)

    def forward(self, images: Tensor) -> Tensor:
        even, odd = images[..., ::2, :], images[..., 1::2, :]
        parts = (even[..., ::2], odd[..., ::2], even[..., 1::2], odd[..., 1::2])
        return self.conv(torch.cat(parts, dim=1))


class Bottleneck(nn.Module):
    """1x1 and 3x3 convolution, with or without a skip."""

    def __init__(self, channels: int, *, skip: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 1)
        self.cv2 = Conv(channels, channels, 3)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        out = self.cv2(self.cv1(x))
        return x + out if self.skip else out


class C3(nn.Module):
    """Cross stage partial block: half of the channels pass the bottlenecks, half go around."""

    def __init__(self, inputs: int, outputs: int, repeats: int, *, skip: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.cv1 = Conv(inputs, half, 1)
        self.cv2 = Conv(inputs, half, 1)
        self.cv3 = Conv(2 * half, outputs, 1)
        self.m = nn.Sequential(*(Bottleneck(half, skip=skip) for _ in range(repeats)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], dim=1))


class SPP(nn.Module):
    """Concatenates max poolings over 5, 9 and 13 positions with their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels // 2, 1)
        self.cv2 = Conv(channels // 2 * 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        # Two poolings over 5 are one over 9, three are one over 13: same numbers, less work.
        over_5 = functional.max_pool2d(x, 5, stride=1, padding=2)
        over_9 = functional.max_pool2d(over_5, 5, stride=1, padding=2)
        over_13 = functional.max_pool2d(over_9, 5, stride=1, padding=2)
        return self.cv2(torch.cat([x, over_5, over_9, over_13], dim=1))


class Detect(nn.Module):
    """One 1x1 convolution per level; anchors in units of the stride, and in pixels."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        pixels = torch.tensor(ANCHORS, dtype=torch.float32)
        self.register_buffer("anchors", pixels / torch.tensor(STRIDES).view(3, 1, 1))
        self.register_buffer("anchor_grid", pixels.view(3, 1, 3, 1, 1, 2).clone())
        outputs = 3 * (BOX_VALUES + classes)
        self.m = nn.ModuleList(nn.Conv2d(width, outputs, 1) for width in widths)

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(self.m, features, strict=True)
        # In half precision the last layer stays in float32.
        return tuple(layer(x.to(layer.weight.dtype)) for layer, x in pairs)


class YOLOv5(nn.Module):
    """RGB images in [0, 1] (B, 3, h, w), sides multiples of 32 -> maps at strides 8, 16, 32.

    A map is (B, 3 * (5 + classes), h/stride, w/stride), before the sigmoid: for each of three
    anchors x, y, width, height, objectness and the classes.
    """

    def __init__(self, size: YOLOv5Size, classes: int, names: Sequence[str] | None = None) -> None:
        super().__init__()
        self.classes = classes
        self.names = None if names is None else tuple(names)
        c2, c4, c8, c16, c32 = size.widths
        n = dict(zip(_C3_LAYERS, size.repeats, strict=True))
        self.model = nn.ModuleDict({
            "0": Focus(c2),
            "1": Conv(c2, c4, 3, 2), "2": C3(c4, c4, n["2"], skip=True),
            "3": Conv(c4, c8, 3, 2), "4": C3(c8, c8, n["4"], skip=True),
            "5": Conv(c8, c16, 3, 2), "6": C3(c16, c16, n["6"], skip=True),
            "7": Conv(c16, c32, 3, 2), "8": SPP(c32), "9": C3(c32, c32, n["9"], skip=False),
            "10": Conv(c32, c16, 1), "13": C3(2 * c16, c16, n["13"], skip=False),
            "14": Conv(c16, c8, 1), "17": C3(2 * c8, c8, n["17"], skip=False),
            "18": Conv(c8, c8, 3, 2), "20": C3(2 * c8, c16, n["20"], skip=False),
            "21": Conv(c16, c16, 3, 2), "23": C3(2 * c16, c32, n["23"], skip=False),
            _DETECT: Detect((c8, c16, c32), classes),
        })  # fmt: skip

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None
    ) -> YOLOv5:
        """Build the network that ``state_dict`` was saved from, in eval mode, float32, on the CPU.

        facts: what the file says beside the tensors: ``names`` of the classes, ``module_types``,
        ``norm_eps`` (see `bmp_ros.weights.pickled_modules.load_pickled_module`).
        Raises ValueError when the tensors are not those of a YOLOv5 of this generation: an older
        or a newer one, one with folded norms, or what is missing, unexpected or of the wrong
        shape is named.
        """
        facts = facts or {}
        weights = _with_published_names(state_dict)
        _refuse_other_generations(weights, facts)
        try:
            size = YOLOv5Size.of_state_dict(weights)
            outputs = len(weights[f"model.{_DETECT}.m.0.bias"])
        except KeyError as error:
            some = ", ".join(list(state_dict)[:3]) or "none"
            raise ValueError(
                f"not the state dict of a YOLOv5: entry {error} is missing (entries found: "
                f"{some} ...)"
            ) from None
        classes = outputs // 3 - BOX_VALUES
        if outputs % 3 or classes < 1:
            raise ValueError(
                f"not the state dict of a YOLOv5: {outputs} outputs per position, expected "
                f"3 * ({BOX_VALUES} + the number of classes)"
            )
        names = facts.get("names")
        if not isinstance(names, list) or len(names) != classes:
            names = None
        network = cls(size, classes, names)
        load_strictly(network, weights, "YOLOv5")
        if not (torch.isfinite(network.anchor_sizes) & (network.anchor_sizes > 0)).all():
            raise ValueError("the anchors of this YOLOv5 are not positive numbers")
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = float(facts.get("norm_eps", NORM_EPS))
        return network.eval()

    @property
    def anchor_sizes(self) -> Tensor:
        """(3, 3, 2) float32: level, anchor, width and height in pixels of the input.

        From the file: training replaces the published ones where they do not suit the data.
        """
        sizes: Tensor = self.model[_DETECT].anchor_grid
        return sizes.reshape(3, 3, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layer = self.model
        at_8 = layer["4"](layer["3"](layer["2"](layer["1"](layer["0"](images)))))
        at_16 = layer["6"](layer["5"](at_8))
        at_32 = layer["10"](layer["9"](layer["8"](layer["7"](at_16))))
        up_16 = layer["14"](layer["13"](torch.cat([_twice(at_32), at_16], dim=1)))
        out_8 = layer["17"](torch.cat([_twice(up_16), at_8], dim=1))
        out_16 = layer["20"](torch.cat([layer["18"](out_8), up_16], dim=1))
        out_32 = layer["23"](torch.cat([layer["21"](out_16), at_32], dim=1))
        maps: tuple[Tensor, Tensor, Tensor] = layer[_DETECT](out_8, out_16, out_32)
        return maps


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def _with_published_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names that begin with ``model.`` once, whatever the network was wrapped in."""
    weights = dict(state_dict)
    for prefix in ("module.", "model."):
        wrapped = f"{prefix}model."
        if weights and all(name.startswith(wrapped) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    if "0.conv.conv.weight" in weights:
        weights = {f"model.{name}": value for name, value in weights.items()}
    return weights


def _refuse_other_generations(weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Raise ValueError for what is a YOLOv5, but not one of releases 4.0 and 5.0 as trained."""
    old = _BEFORE_V4 & set(facts.get("module_types", ()))
    if old or "model.2.cv4.conv.weight" in weights or "model.2.bn.weight" in weights:
        raise ValueError(
            "this is a YOLOv5 from before release 4.0 (January 2021), with "
            f"{', '.join(sorted(old)) or 'BottleneckCSP'} where later ones have C3 blocks and "
            "SiLU; train or download it with release 4.0 or 5.0"
        )
    if "model.0.conv.weight" in weights or "model.0.conv.bias" in weights:
        raise ValueError(
            "this is a YOLOv5 of release 6.0 or later, whose first layer is a plain convolution "
            "instead of Focus; releases 4.0 and 5.0 can be loaded"
        )
    if "model.0.conv.conv.bias" in weights and "model.0.conv.bn.weight" not in weights:
        raise ValueError(
            "the batch norms of this YOLOv5 are folded into its convolutions (a fused file); "
            "give the checkpoint as training or strip_optimizer left it"
        )
    numbers = {int(found[1]) for name in weights if (found := re.match(r"model\.(\d+)\.", name))}
    if "model.0.conv.conv.weight" in weights and max(numbers) != int(_DETECT):
        raise ValueError(
            f"this YOLOv5 has layers up to {max(numbers)}; those with three levels (strides 8, "
            f"16, 32) and {_DETECT} as their last layer can be loaded, the ones for 1280 pixels "
            "(P6) cannot"
        )


def prepare_for_inference(network: YOLOv5, dtype: torch.dtype) -> YOLOv5:
    """Return a copy for inference in ``dtype``, its norms folded into the convolutions.

    That changes results by rounding alone. The last layers stay in float32.
    """
    network = copy.deepcopy(network).eval().float().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, Conv) and isinstance(module.bn, nn.BatchNorm2d):
            module.conv = nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    network.to(dtype)
    network.model[_DETECT].float()
    return network
