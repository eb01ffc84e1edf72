# SPDX-License-Identifier: Apache-2.0
"""Training of the published top-down pose networks: ViTPose and MaskPose, PMPose, HRNet, OmniPose.

A network here is what its file in `bmp_ros.networks` is, plus where peaks lie (`Grid`), plus a
loss. Which data sets, which mask conditioning and how long is the recipe's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bmp_ros.loop.skeletons import SKELETONS, Skeleton
from bmp_ros.networks.hrnet import W48, PoseHRNet
from bmp_ros.networks.omnipose import OmniPose
from bmp_ros.networks.vit_pose import HeatmapHead, PMPoseHead, VitPose, sparsemax2d
from bmp_ros.training.mask_background import MaskBackground
from bmp_ros.training.mixture import People
from bmp_ros.training.normalisers import shared_weight
from bmp_ros.training.person_samples import (
    ABSENT,
    HIDDEN,
    UNKNOWN,
    VISIBLE,
    Augmentation,
    Grid,
    PersonSample,
    gaussian_maps,
    person_sample,
)
from bmp_ros.training.variants import add_drop_path, trunk, vit_head, vit_layer, vit_pose

Size = tuple[int, int]
Batch = tuple[Tensor, Tensor, Tensor]
"""Crops (N, 3, h, w), cells (N, K, 2), what is known (N, K); see `PersonSample`."""


@dataclass(frozen=True)
class TopDownOptions:
    """What a recipe may say under ``options``.

    variant: size of the network; "s", "b", "l", "h" of ViT, "w32", "w48" of HRNet, "w48", "lite"
    of OmniPose, or a mapping of the numbers (see `build_network`). skeleton: the network's joints.
    mask_background: see `MaskBackground`; None for networks without mask conditioning. drop_path:
    of ViT, the largest share of residual branches that is left out in a step. freeze_backbone:
    only the head learns. augmentation: see `Augmentation`.
    """

    variant: Any = "b"
    skeleton: str = "coco_17"
    mask_background: MaskBackground | None = None
    drop_path: float = 0.0
    freeze_backbone: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TopDownOptions:
        """Read ``options`` of a recipe; ValueError names an entry that is not known."""
        given = dict(checked(cls, values, "options"))
        if given.get("mask_background") is not None:
            part = checked(MaskBackground, given["mask_background"], "mask_background")
            given["mask_background"] = MaskBackground(**part)
        if "augmentation" in given:
            part = dict(checked(Augmentation, given["augmentation"], "augmentation"))
            if "scale" in part:
                part["scale"] = tuple(part["scale"])
            given["augmentation"] = Augmentation(**part)
        options = cls(**given)
        if options.skeleton not in SKELETONS:
            raise ValueError(
                f"options: skeleton is {options.skeleton!r}, allowed: {', '.join(SKELETONS)}"
            )
        if not 0 <= options.drop_path < 1:
            raise ValueError(f"options: drop_path is {options.drop_path}, allowed: 0 to below 1")
        return options


def checked(kind: type, values: Any, section: str) -> Mapping[str, Any]:
    """``values`` as they are, if they are a mapping to fields of ``kind``; else ValueError."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{section} must be a mapping, it is {values!r}")
    names = [item.name for item in fields(kind)]
    unknown = [name for name in values if name not in names]
    if unknown:
        raise ValueError(f"{section} has no entry {unknown[0]!r}; known are {', '.join(names)}")
    return values


class TopDownTask:
    """Heatmaps of people's joints, by mean squared error: ViTPose, MaskPose, HRNet, OmniPose."""

    role = "pose_estimator"
    default_variant = "b"
    all_used = True
    """Every parameter that learns has a gradient in each step."""

    def __init__(
        self, images: People, size: Size = (192, 256), options: Mapping[str, Any] | None = None
    ) -> None:
        given = {"variant": self.default_variant, **(options or {})}
        self.images = images
        self.options = TopDownOptions.of(given)
        self.size = size
        self.name = "pose"
        if min(size) < 32 or any(side % 16 for side in size):
            raise ValueError(f"size is {list(size)}, needs multiples of 16, 32 at least")
        self.grid = self.grid_of(size)
        self.network: nn.Module = self.build(self.skeleton)
        if self.options.freeze_backbone:
            cast(Any, self.network).backbone.requires_grad_(False)

    @property
    def skeleton(self) -> Skeleton:
        return SKELETONS[self.options.skeleton]

    def grid_of(self, size: Size) -> Grid:
        return Grid(size, (size[0] // 4, size[1] // 4))

    def build(self, skeleton: Skeleton) -> nn.Module:
        head = vit_head(self.options.variant, len(skeleton), HeatmapHead)
        return add_drop_path(
            vit_pose(self.options.variant, self.size, head), self.options.drop_path
        )

    def sample(self, number: int, seed: int, *, validation: bool = False) -> PersonSample:
        random, labelled, row = self.images.draw_person(number, seed, validation)
        return person_sample(
            random, labelled, row, self.grid, self.options.mask_background,
            None if validation else self.options.augmentation,
        )  # fmt: skip

    def collate(self, samples: list[PersonSample]) -> Batch:
        return (
            torch.from_numpy(np.stack([sample.crop for sample in samples])),
            torch.from_numpy(np.stack([sample.cells for sample in samples])),
            torch.from_numpy(np.stack([sample.known for sample in samples])),
        )

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        crops, cells, known = batch
        targets, touches = gaussian_maps(cells, self.grid)
        weights = (((known == VISIBLE) | (known == HIDDEN)) & touches).float()
        return {"heatmap": heatmap_loss(network(crops).float(), targets, weights)}

    def layer_of(self, name: str) -> tuple[int, int] | None:
        """Number of the layer that the parameter ``name`` belongs to, and of the last one; None
        for networks whose layers learn alike."""
        network = self.network
        if not isinstance(network, VitPose):
            return None
        return vit_layer(name, len(network.backbone.layers))

    def section(self, weights: str) -> dict[str, Any]:
        """What a preset says under ``pose_estimator`` to run ``weights`` as they were trained."""
        dim = self.options.mask_background
        return {
            "engine": "vit_pose", "weights": weights, "flip_test": False,
            "background_factor": None if dim is None else 1 - dim.dim,
        }  # fmt: skip


def heatmap_loss(predicted: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error over all cells of all joints; (N, K, h, w), weights (N, K).

    Joints without a weight count as learned, as in the published losses: N K h w divides.
    """
    squares = (predicted - targets).square().mean(dim=(2, 3))
    return (squares * weights).sum() / shared_weight(weights.numel(), squares)


class PMPoseTask(TopDownTask):
    """Sparse probability maps by expected OKS, and what the network says of its own answers.

    The losses are those of ProbPose (Purkrabek and Matas, 2024), whose successor PMPose is. There
    the map's is a mean over cells, here the sum over a map: the expected dissimilarity itself, of
    the size of the other losses.
    """

    EXTENT = (64 / 1.25) * (48 / 1.25)
    """Cells of a person's box on the published heatmap, for the similarity of the maps."""
    AREA_SHARE = 0.53
    """Of the heatmap, what a person's area is taken for where the network judges itself."""
    SMOOTHNESS = 0.05

    def build(self, skeleton: Skeleton) -> nn.Module:
        if self.size != (192, 256):
            raise ValueError(f"size of pmpose is [192, 256], got {list(self.size)}")
        head = vit_head(self.options.variant, len(skeleton), PMPoseHead)
        return add_drop_path(
            vit_pose(self.options.variant, self.size, head), self.options.drop_path
        )

    def section(self, weights: str) -> dict[str, Any]:
        return {**super().section(weights), "head": "pmpose"}

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(network, VitPose) and isinstance(network.head, PMPoseHead)
        crops, cells, known = batch
        features, head = network.backbone(crops), network.head
        with torch.autocast(crops.device.type, enabled=False):
            logits = head.heatmaps(features.float())
            apart = features.detach().float()  # the towers judge, they do not teach the backbone
            towers = (head.probability_layers, head.visibility_layers, head.oks_layers)
            presence, visibility, oks = (tower(apart).flatten(1) for tower in towers)
            maps = sparsemax2d(logits / head.TEMPERATURE)
            return self._losses(maps, presence, visibility, oks, cells, known)

    def _losses(
        self, maps: Tensor, presence: Tensor, visibility: Tensor, oks: Tensor, cells: Tensor,
        known: Tensor,
    ) -> dict[str, Tensor]:  # fmt: skip
        sigmas = torch.tensor(self.skeleton.sigmas, device=maps.device)
        spread = ((2 * sigmas) ** 2 * 2 * self.EXTENT**0.5).clamp(0.55, 3.0)
        there = ((known == VISIBLE) | (known == HIDDEN)).float()
        width, height = self.grid.size
        x = torch.arange(width, device=maps.device) - cells[..., :1]
        y = torch.arange(height, device=maps.device) - cells[..., 1:]
        along_x, along_y = (torch.exp(-d.square() / (2 * spread[:, None])) for d in (x, y))
        likeness = along_y[..., :, None] * along_x[..., None, :]
        likeness = likeness / likeness.amax(dim=(2, 3), keepdim=True).clamp(min=1e-6)
        missed = 1 - (maps * likeness).sum(dim=(2, 3))
        roughness = sobel_energy(maps)
        each = (1 - self.SMOOTHNESS) * missed + self.SMOOTHNESS * roughness
        labelled = shared_weight(there.sum(), maps)
        with torch.no_grad():
            best = maps.flatten(2).argmax(dim=2)
            found = torch.stack([best % width, best // width], dim=2)
            area = width * height * self.AREA_SHARE
            squares = (found - cells).square().sum(dim=2)
            truth = torch.exp(-squares / (2 * (2 * sigmas).square() * area))
        return {
            "map": (each * there).sum() / labelled,
            "presence": _entropy(presence, (known != ABSENT).float(), (known != UNKNOWN).float()),
            "visibility": _entropy(
                visibility, (known == VISIBLE).float(), balanced(known == VISIBLE, known == HIDDEN)
            ),
            "oks": ((oks - truth).square() * there).sum() / labelled,
        }


def _entropy(predicted: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    each = functional.binary_cross_entropy(predicted, targets, reduction="none")
    return (each * weights).sum() / shared_weight(weights.sum(), predicted)


def balanced(first: Tensor, second: Tensor) -> Tensor:
    """Weights (N, K) with which both kinds of joints count alike, however rare one is."""
    weights = torch.zeros(first.shape, device=first.device)
    counts = [shared_weight(kind.sum(), weights) for kind in (first, second)]
    for kind, own in zip((first, second), counts, strict=True):
        weights += kind * (sum(counts) / (2 * own))
    return weights


def sobel_energy(maps: Tensor) -> Tensor:
    """(N, K, h, w) -> (N, K), the sum of the squared gradients by Sobel's filters."""
    kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]], device=maps.device) / 8
    filters = torch.stack([kernel, kernel.T])[:, None]
    flat = maps.flatten(0, 1)[:, None]
    gradients = functional.conv2d(flat, filters, padding=1)
    return gradients.square().sum(dim=(1, 2, 3)).unflatten(0, maps.shape[:2])


class HRNetTask(TopDownTask):
    """PoseHRNet with the official geometry: peaks in the centres of cells."""

    default_variant = "w32"

    def grid_of(self, size: Size) -> Grid:
        return Grid(size, (size[0] // 4, size[1] // 4), "corners", rounded=True)

    def build(self, skeleton: Skeleton) -> nn.Module:
        return PoseHRNet(trunk(self.options.variant), len(skeleton), input_size=self.size)

    def section(self, weights: str) -> dict[str, Any]:
        return {
            "engine": "hrnet", "weights": weights, "input_size": list(self.size),
            "decoding": "quarter", "crop": "corners", "flip_test": False,
        }  # fmt: skip


class OmniPoseTask(TopDownTask):
    """OmniPose: wide peaks around the true place, uncut."""

    default_variant = "w48"
    all_used = False
    """Of the last stage only some outputs are read."""
    least_batch = 2
    """Its global pooling leaves one value per sample to a batch norm."""

    def grid_of(self, size: Size) -> Grid:
        sigma = 1.0 if size[1] <= 128 else 3.0
        return Grid(size, (size[0] // 4, size[1] // 4), "width", sigma, cut=False)

    def build(self, skeleton: Skeleton) -> nn.Module:
        variant = self.options.variant
        lite = variant == "lite"
        return OmniPose(
            len(skeleton), lite=lite, size=W48 if lite else trunk(variant), input_size=self.size
        )

    def section(self, weights: str) -> dict[str, Any]:
        return {
            "engine": "omnipose", "weights": weights, "input_size": list(self.size),
            "flip_test": False,
        }  # fmt: skip
