# SPDX-License-Identifier: Apache-2.0
"""RTMPose: CSPNeXt backbone, one gated attention unit over the joints, SimCC head.

Jiang et al., "RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose" (2023). Parameter
names are those of MMPose 1.3, whose checkpoints load strictly; sizes are read from the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bmp_ros.networks.hrnet import simcc_input_size
from bmp_ros.networks.rtmdet_ins import PUBLISHED_SIZES, CSPNeXt, RTMDetInsSize, backbone_size
from bmp_ros.networks.strict_loading import load_strictly

DETECTOR_OF_SIZE = {"t": "tiny", "s": "s", "m": "m", "l": "l"}
"""The RTMDet-Ins with the same backbone."""
DROPPED_PREFIXES = ("data_preprocessor.", "ema_")
STRIDE = 32
"""Input pixels per cell of the backbone's last stage."""


class ScaleNorm(nn.Module):
    """Divides vectors by their root mean square; one learned factor."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.scale, self.eps = width**-0.5, eps
        self.g = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * self.scale
        return x / size.clamp(min=self.eps) * self.g


class Scale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class GatedAttention(nn.Module):
    """Gated attention unit over the joints (Hua et al., "Transformer Quality in Linear Time").

    Tokens (N, K, width) in and out; the attention is a squared ReLU, without a softmax.
    """

    def __init__(self, width: int, hidden: int, queries: int) -> None:
        super().__init__()
        self.parts = (hidden, hidden, queries)
        self.o = nn.Linear(hidden, width, bias=False)
        self.uv = nn.Linear(width, 2 * hidden + queries, bias=False)
        self.gamma = nn.Parameter(torch.ones(2, queries))
        self.beta = nn.Parameter(torch.zeros(2, queries))
        self.ln = ScaleNorm(width)
        self.res_scale = Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        gate, values, base = nn.functional.silu(self.uv(self.ln(x))).split(self.parts, dim=2)
        queries, keys = (base[:, :, None] * self.gamma + self.beta).unbind(dim=2)
        attention = (queries @ keys.transpose(1, 2) / self.parts[2] ** 0.5).relu().square()
        return self.res_scale(x) + self.o(gate * (attention @ values))


class RTMPoseHead(nn.Module):
    """Features (N, C, h, w) -> scores (N, K, bins) along x and along y."""

    def __init__(
        self,
        channels: int,
        num_keypoints: int,
        cells: int,
        bins: tuple[int, int] = (384, 512),
        *,
        kernel: int = 7,
        width: int = 256,
        hidden: int = 512,
        queries: int = 128,
    ) -> None:
        super().__init__()
        self.final_layer = nn.Conv2d(channels, num_keypoints, kernel, padding=kernel // 2)
        self.mlp = nn.Sequential(ScaleNorm(cells), nn.Linear(cells, width, bias=False))
        self.gau = GatedAttention(width, hidden, queries)
        self.cls_x = nn.Linear(width, bins[0], bias=False)
        self.cls_y = nn.Linear(width, bins[1], bias=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.gau(self.mlp(self.final_layer(features).flatten(2)))
        return self.cls_x(tokens), self.cls_y(tokens)


class RTMPose(nn.Module):
    """Crops (N, 3, H, W), RGB normalised as for ImageNet -> scores of bins along x and along y.

    input_size: (width, height) of the crops, which the network's tensors fix. num_keypoints: K.
    """

    returns = "simcc"

    def __init__(
        self, backbone: CSPNeXt, head: RTMPoseHead, input_size: tuple[int, int] = (192, 256)
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.input_size = input_size
        self.num_keypoints = head.final_layer.out_channels

    @classmethod
    def published(cls, size: str, num_keypoints: int = 17) -> RTMPose:
        """The untrained network of a size, t, s, m or l, for crops of 192x256."""
        own = RTMDetInsSize.scaled(*PUBLISHED_SIZES[DETECTOR_OF_SIZE[size]])
        backbone = CSPNeXt(own.channels, own.depths)
        return cls(backbone, RTMPoseHead(own.channels[-1], num_keypoints, 48))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        scores: tuple[Tensor, Tensor] = self.head(self.backbone(crops)[-1])
        return scores

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> RTMPose:
        """Build the network that a checkpoint's tensors describe, in eval mode, on the CPU.

        Raises ValueError when they are not those of an RTMPose, naming what differs.
        """
        kept = {k: v for k, v in state_dict.items() if not k.startswith(DROPPED_PREFIXES)}
        try:
            channels, depths = backbone_size(kept)
            last = kept["head.final_layer.weight"]
            width, cells = kept["head.mlp.1.weight"].shape
            bins = len(kept["head.cls_x.weight"]), len(kept["head.cls_y.weight"])
            head = RTMPoseHead(
                channels[-1],
                len(last),
                cells,
                bins,
                kernel=int(last.shape[-1]),
                width=width,
                hidden=int(kept["head.gau.o.weight"].shape[1]),
                queries=int(kept["head.gau.gamma"].shape[1]),
            )
        except KeyError as error:
            raise ValueError(
                f"not the state dict of an RTMPose: {error.args[0]} is missing"
            ) from None
        network = cls(CSPNeXt(channels, depths), head, simcc_input_size(cells, *bins, STRIDE))
        load_strictly(network, kept, "RTMPose")
        return network.eval()
