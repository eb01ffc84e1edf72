# SPDX-License-Identifier: Apache-2.0
"""``PointSegmenter``: a small network with SAM's interface, prompts in, one mask per person out.

The image is encoded once; the decoder sees the image's features, where the prompts lie, and how
much every cell resembles the prompted ones. Prompts are points and, as in SAM, a first mask, for
which the loop has the detector's. Clicks as Gaussian maps beside the features follow
Xu et al., "Deep Interactive Object Selection" (CVPR 2016); the resemblance maps are dot products
with the features under the prompts, as in matching-based segmentation.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from bmp_ros.networks.residual_pyramid import ConvNormReLU, PyramidSize, ResidualPyramid
from bmp_ros.networks.strict_loading import load_strictly

CANVAS = 384
"""Pixels that the longer side of an image is scaled to."""
POINT_SEGMENTER_SIZE = PyramidSize(
    channels=(16, 32, 64, 112, 160), depths=(1, 2, 2, 1), widths=(24, 48, 96)
)
"""The tiny network that comes with the package: 1.7 M parameters."""

KEYS = 32
"""Channels of the features that prompts are compared in."""
NEAR, FAR = 1.0, 4.0
"""Standard deviations of the prompts' Gaussians, in cells of stride 8."""
DILATIONS = (1, 2, 4, 8, 2, 1)
"""Of the decoder's blocks: together they see a whole person from any of its points."""
NOTHING = -1.0
"""Resemblance to a kind of prompt that was not given."""


class DilatedBlock(nn.Module):
    """Two 3x3 convolutions, the first one dilated, with a skip."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilated = nn.Conv2d(
            channels, channels, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.norm = nn.BatchNorm2d(channels)
        self.out = ConvNormReLU(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(functional.relu(self.norm(self.dilated(x))))


class PointSegmenter(nn.Module):
    """Canvas -> features (``encode``); features and prompts -> mask logits (``decode``)."""

    def __init__(self, size: PyramidSize = POINT_SEGMENTER_SIZE) -> None:
        super().__init__()
        fine, width, _ = size.widths
        self.pyramid = ResidualPyramid(size)
        self.key = nn.Conv2d(width, KEYS, 1)
        # Gaussians near and far, on and off the person; resemblances; the first mask.
        maps = 4 + 4 + 1
        self.enter = ConvNormReLU(width + maps, width, 1)
        self.modulate = nn.Sequential(
            nn.Linear(3 * KEYS + 4, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width)
        )
        self.blocks = nn.Sequential(*(DilatedBlock(width, dilation) for dilation in DILATIONS))
        self.narrow = ConvNormReLU(width, fine, 1)
        self.refine = nn.Sequential(
            ConvNormReLU(2 * fine + 1, fine, 3), ConvNormReLU(fine, fine, 3), nn.Conv2d(fine, 1, 1)
        )
        self.score = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 1))

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> PointSegmenter:
        """Build the network that ``state_dict`` was saved from, in eval mode, on the CPU.

        Raises ValueError when the entries are not those of a PointSegmenter.
        """
        try:
            network = cls(PyramidSize.of_state_dict(state_dict, "pyramid."))
        except KeyError as error:
            raise ValueError(
                f"not the state dict of a PointSegmenter: entry {error} is missing"
            ) from None
        load_strictly(network, state_dict, "PointSegmenter")
        return network.eval()

    def encode(self, canvas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Canvas (B, 3, h, w), RGB normalised as in `crops`, sides multiples of 32 -> features.

        Returns maps (B, ., h/4, w/4), (B, ., h/8, w/8) and (B, KEYS, h/8, w/8).
        """
        fine, middle, _ = self.pyramid(canvas)
        return fine, middle, self.key(middle)

    def decode(
        self, features: tuple[Tensor, ...], points: Tensor, labels: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Segment G people.

        features: of ``encode`` with B = 1, or with B = G (a row per person, for training).
        points: (G, P, 2) float32, x y in canvas pixels, centres at integers. labels: (G, P),
        1 on the person, 0 not, -1 no point at all (padding). masks: (G, h/4, w/4) float32 in
        [0, 1], the covered share of each cell; all 0: no mask is known.
        Returns logits (G, h/4, w/4), whose cell (i, j) has its centre at canvas pixel
        (4 j + 1.5, 4 i + 1.5), and scores (G,), the IoU that the network expects, in [0, 1].
        """
        fine, middle, keys = features
        people = points.shape[0]
        height, width = middle.shape[-2:]
        positive, negative = (labels == 1).float(), (labels == 0).float()  # (G, P)

        cells = (points - 3.5) / 8  # in the grid of stride 8
        columns = torch.arange(width, device=points.device, dtype=points.dtype)
        rows = torch.arange(height, device=points.device, dtype=points.dtype)
        dx = (cells[..., 0, None] - columns).abs()  # (G, P, w)
        dy = (cells[..., 1, None] - rows).abs()  # (G, P, h)

        def gaussian(sigma: float, chosen: Tensor) -> Tensor:
            along_x = torch.exp(-dx.square() / (2 * sigma**2))
            along_y = torch.exp(-dy.square() / (2 * sigma**2)) * chosen[..., None]
            return (along_y[..., :, None] * along_x[..., None, :]).amax(dim=1)  # (G, h, w)

        # Bilinear sampling as a product: point-wise gathers are slow in many runtimes.
        under = (1 - dy).clamp(min=0)[..., :, None] * (1 - dx).clamp(min=0)[..., None, :]
        flat_keys = keys.flatten(2)  # (1 or G, KEYS, h w)
        sampled = under.flatten(2) @ flat_keys.transpose(1, 2)  # (G, P, KEYS)
        resemblance = torch.tanh(sampled @ flat_keys / KEYS**0.5)  # (G, P, h w)
        resemblance = resemblance.unflatten(2, (height, width))
        like = torch.where(positive[..., None, None] > 0, resemblance, NOTHING).amax(dim=1)
        unlike = torch.where(negative[..., None, None] > 0, resemblance, NOTHING).amax(dim=1)
        given = positive.sum(dim=1).clamp(min=1)  # (G,)
        mean_like = (resemblance * positive[..., None, None]).sum(dim=1) / given[:, None, None]

        shares = functional.avg_pool2d(masks[:, None], 2)  # (G, 1, h, w)
        area = shares.sum(dim=(2, 3))  # (G, 1)
        in_mask = (shares.flatten(2) @ flat_keys.transpose(1, 2))[:, 0] / area.clamp(min=0.25)
        like_mask = torch.tanh(in_mask[:, None] @ flat_keys / KEYS**0.5)
        like_mask = like_mask.unflatten(2, (height, width))[:, 0]

        maps = torch.stack(
            [
                gaussian(NEAR, positive), gaussian(FAR, positive),
                gaussian(NEAR, negative), gaussian(FAR, negative),
                like, unlike, mean_like, like_mask, shares[:, 0],
            ],
            dim=1,
        )  # fmt: skip
        x = torch.cat([middle.expand(people, -1, -1, -1), maps], dim=1)
        x = self.enter(x)

        centre = (cells * positive[..., None]).sum(dim=1) / given[:, None]
        offset = (cells - centre[:, None]).square() * positive[..., None]
        spread = (offset.sum(dim=1) / given[:, None] + 1e-6).sqrt()  # (G, 2) cells
        on_person = (sampled * positive[..., None]).sum(dim=1) / given[:, None]
        others = negative.sum(dim=1).clamp(min=1)
        off_person = (sampled * negative[..., None]).sum(dim=1) / others[:, None]
        sizes = [spread / 8, given[:, None] / 8, area.sqrt() / 16]
        summary = torch.cat([on_person, off_person, in_mask, *sizes], dim=1)
        gain, shift = self.modulate(summary)[..., None, None].chunk(2, dim=1)
        x = self.blocks(x * (1 + gain) + shift)

        doubled = functional.interpolate(
            self.narrow(x), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        near = torch.cat([doubled, fine.expand(people, -1, -1, -1), masks[:, None]], dim=1)
        logits = self.refine(near)[:, 0]

        weight = functional.avg_pool2d(logits[:, None].detach().sigmoid(), 2)
        inside = (x * weight).sum(dim=(2, 3)) / (weight.sum(dim=(2, 3)) + 1.0)
        pooled = torch.cat([inside, x.mean(dim=(2, 3))], dim=1)
        return logits, self.score(pooled)[:, 0].sigmoid()
