# SPDX-License-Identifier: Apache-2.0
"""ViTPose, MaskPose and PMPose: a plain vision transformer with a light heatmap head.

Xu et al., "ViTPose" (NeurIPS 2022); Purkrabek and Matas, "BBoxMaskPose" (ICCV 2025) and its second
version. Parameter names equal those of the published checkpoints, which load strictly.

Matrices may be in half precision; the token stream, the normalisations and the outputs stay in
float32 (``VitPose.set_precision``), which is what keeps large transformers finite in float16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from bmp_ros.networks.strict_loading import load_strictly

PATCH_PADDING = 2
VIT_SIZES = {"s": (384, 12, 12), "b": (768, 12, 12), "l": (1024, 24, 16), "h": (1280, 32, 16)}
"""Embedding width, layers and attention heads of the published sizes."""
HEADS_BY_WIDTH = {width: heads for width, _, heads in VIT_SIZES.values()}
"""The tensors' shapes do not tell the number of heads."""

DROPPED_PREFIXES = ("data_preprocessor.", "ema_", "head.error_layers.")
"""Keys of the checkpoints that are not loaded: the mean and standard deviation of the input (see
``bmp_ros.engines.crops``), the running average kept for training, and PMPose's error tower, which
was published without having been trained."""


class PMPoseOutput(NamedTuple):
    """Outputs of PMPose for N crops and K keypoints, float32.

    heatmaps: (N, K, H/4, W/4), each a sparse probability distribution. presence: (N, K) in [0, 1],
    the keypoint lies in the crop. visibility: (N, K) in [0, 1], it is not occluded. oks: (N, K) in
    [0, 1], the similarity to the truth that the network expects of its own estimate.
    """

    heatmaps: Tensor
    presence: Tensor
    visibility: Tensor
    oks: Tensor


class Attention(nn.Module):
    """Multi-head self-attention over the patches of one crop."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        people, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(people, count, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(people, count, width))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them, nested as the checkpoints name them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        expand = nn.Sequential(nn.Linear(width, hidden), nn.GELU())
        self.layers = nn.Sequential(expand, nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layers(tokens)


class Block(nn.Module):
    """One pre-norm transformer layer; the residual stream keeps the dtype it comes in."""

    def __init__(self, width: int, hidden: int, num_heads: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, num_heads)
        self.ln2 = nn.LayerNorm(width, eps=1e-6)
        self.ffn = FeedForward(width, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        dtype = self.attn.qkv.weight.dtype
        tokens = tokens + self.attn(self.ln1(tokens).to(dtype))
        return tokens + self.ffn(self.ln2(tokens).to(dtype))


class PatchEmbedding(nn.Module):
    """Square patches of the crop, padded by two pixels, each projected to one token."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, patch, stride=patch, padding=PATCH_PADDING)

    def forward(self, crops: Tensor) -> Tensor:
        tokens = self.projection(crops.to(self.projection.weight.dtype))
        return tokens.flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Backbone: crops (N, 3, 16 h, 16 w) -> features (N, C, h, w), for patches of 16 pixels."""

    def __init__(
        self,
        width: int,
        depth: int,
        hidden: int,
        num_heads: int,
        patch: int,
        grid: tuple[int, int],
    ) -> None:
        super().__init__()
        self.grid = grid
        self.patch_embed = PatchEmbedding(width, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1], width))
        self.layers = nn.ModuleList(Block(width, hidden, num_heads) for _ in range(depth))
        self.ln1 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, crops: Tensor) -> Tensor:
        tokens = self.patch_embed(crops) + self.pos_embed
        for layer in self.layers:
            tokens = layer(tokens)
        return self.ln1(tokens).transpose(1, 2).unflatten(2, self.grid)


class HeatmapHead(nn.Module):
    """Two transposed convolutions and a 1x1 one: features -> heatmaps, four times finer."""

    def __init__(self, width: int, channels: tuple[int, int], num_keypoints: int) -> None:
        super().__init__()
        first, second = channels
        self.deconv_layers = nn.Sequential(
            nn.ConvTranspose2d(width, first, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(first, second, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(inplace=True),
        )
        self.final_layer = nn.Conv2d(second, num_keypoints, 1)

    def heatmaps(self, features: Tensor) -> Tensor:
        """Return (N, K, 4 h, 4 w) float32 raw maps of (N, C, h, w) features."""
        features = features.to(self.final_layer.weight.dtype)
        return self.final_layer(self.deconv_layers(features)).float()

    def forward(self, features: Tensor) -> Tensor:
        return self.heatmaps(features)


class PMPoseHead(HeatmapHead):
    """Sparse probability maps, and three towers that judge each keypoint of the whole crop."""

    TEMPERATURE = 0.5

    def __init__(self, width: int, channels: tuple[int, int], num_keypoints: int) -> None:
        super().__init__(width, channels, num_keypoints)
        self.probability_layers = _keypoint_tower(width, num_keypoints)
        self.visibility_layers = _keypoint_tower(width, num_keypoints)
        self.oks_layers = _keypoint_tower(width, num_keypoints)

    def forward(self, features: Tensor) -> PMPoseOutput:
        features = features.to(self.final_layer.weight.dtype)
        return PMPoseOutput(
            sparsemax2d(self.heatmaps(features) / self.TEMPERATURE),
            self.probability_layers(features).flatten(1).float(),
            self.visibility_layers(features).flatten(1).float(),
            self.oks_layers(features).flatten(1).float(),
        )


def sparsemax2d(maps: Tensor) -> Tensor:
    """Project each (h, w) map onto the probability simplex; most cells become exactly zero.

    Martins and Astudillo, "From Softmax to Sparsemax" (ICML 2016), equation 3. maps: (N, K, h, w)
    float32. Returns the same shape, values in [0, 1] that sum to 1 per map.
    """
    values = maps.flatten(2)
    values = values - values.amax(dim=-1, keepdim=True)
    ordered = values.sort(dim=-1, descending=True).values
    partial_sums = ordered.cumsum(dim=-1) - 1
    rank = torch.arange(1, values.shape[-1] + 1, device=maps.device, dtype=maps.dtype)
    support = (rank * ordered > partial_sums).sum(dim=-1, keepdim=True)
    threshold = partial_sums.gather(-1, support - 1) / support
    return (values - threshold).clamp(0, 1).view_as(maps)


def _keypoint_tower(width: int, num_keypoints: int) -> nn.Sequential:
    """(N, C, 16, 12) features -> (N, K, 1, 1) in [0, 1]; pools before it rectifies."""
    layers: list[nn.Module] = []
    for pool in ((4, 3), (2, 2), (2, 2)):
        layers += [
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.MaxPool2d(pool),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(width, num_keypoints, 1), nn.Sigmoid())


class VitPose(nn.Module):
    """Crops (N, 3, H, W), normalised RGB -> heatmaps (N, K, H/4, W/4) or ``PMPoseOutput``.

    input_size: (width, height) of the crops. heatmap_size: (width, height) of the heatmaps.
    num_keypoints: K.
    """

    def __init__(self, backbone: VisionTransformer, head: HeatmapHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        rows, columns = backbone.grid
        patch = backbone.patch_embed.projection.kernel_size[0]
        self.input_size = (columns * patch, rows * patch)
        self.heatmap_size = (columns * 4, rows * 4)
        self.num_keypoints = head.final_layer.out_channels

    def forward(self, crops: Tensor) -> Tensor | PMPoseOutput:
        return self.head(self.backbone(crops))

    def set_precision(self, dtype: torch.dtype) -> VitPose:
        """Hold the matrices and kernels in ``dtype``, everything else in float32. Returns self."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                module.to(dtype)
        return self

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Tensor],
        head: str,
        num_heads: int | None = None,
    ) -> VitPose:
        """Build the network that a checkpoint's tensors describe and load them strictly.

        state_dict: tensors by the published names (of a checkpoint file, its ``state_dict``).
        head: "heatmap" for ViTPose and MaskPose, "pmpose" for PMPose. num_heads: attention heads;
        None takes those of ViT-s, b, l or h by embedding width. Returns the network in eval mode.
        Raises ValueError where the tensors do not fit the architecture, naming what differs.
        """
        kept = {k: v for k, v in state_dict.items() if not k.startswith(DROPPED_PREFIXES)}
        heads = {"heatmap": HeatmapHead, "pmpose": PMPoseHead}
        if head not in heads:
            raise ValueError(f"head must be one of {', '.join(heads)}, got {head!r}")
        try:
            projection = kept["backbone.patch_embed.projection.weight"]
            tokens = kept["backbone.pos_embed"].shape[1]
            hidden = kept["backbone.layers.0.ffn.layers.0.0.weight"].shape[0]
            first = kept["head.deconv_layers.0.weight"].shape[1]
            second = kept["head.deconv_layers.3.weight"].shape[1]
            num_keypoints = kept["head.final_layer.weight"].shape[0]
        except KeyError as error:
            raise ValueError(
                f"not the state dict of a ViTPose network: {error} is missing; of a checkpoint "
                "file pass what lies under 'state_dict'"
            ) from error
        width, patch = projection.shape[0], projection.shape[2]
        depth = len({k.split(".")[2] for k in kept if k.startswith("backbone.layers.")})
        network = cls(
            VisionTransformer(
                width, depth, hidden, _num_heads(width, num_heads), patch, _patch_grid(tokens)
            ),
            heads[head](width, (first, second), num_keypoints),
        )
        load_strictly(network, kept, f"ViTPose network with head {head!r}")
        return network.eval()


def _num_heads(width: int, num_heads: int | None) -> int:
    if num_heads is None:
        if width not in HEADS_BY_WIDTH:
            raise ValueError(
                f"embedding width {width} is none of ViT-s, b, l, h {tuple(HEADS_BY_WIDTH)}; "
                "pass num_heads"
            )
        return HEADS_BY_WIDTH[width]
    if num_heads < 1 or width % num_heads:
        raise ValueError(f"num_heads must divide the embedding width {width}, got {num_heads}")
    return num_heads


def _patch_grid(tokens: int) -> tuple[int, int]:
    """Return rows and columns of a 4:3 portrait grid with ``tokens`` patches."""
    unit = round((tokens / 12) ** 0.5)
    if unit < 1 or 12 * unit * unit != tokens:
        raise ValueError(
            f"pos_embed has {tokens} tokens; the crops of pose networks have 4:3 portrait grids "
            "of 12 n² patches, e.g. 192 for 256x192 pixels"
        )
    return 4 * unit, 3 * unit
