# SPDX-License-Identifier: Apache-2.0
"""Training of SAM 2.1 to segment the person that a pose belongs to (SAM-pose2seg).

First the network is prompted with joints of a person and a point of the mask; then, round after
round, with one more point where its own last mask is wrong, that mask beside it. Losses and their
weights are SAM 2's (Ravi et al. 2024): focal and Dice of the mask, error of the predicted IoU, and
whether there is a person at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bmp_ros.engines.crops import RGB_MEAN, RGB_STD
from bmp_ros.networks.sam2 import SAM2_SIZES, HieraSize, Sam2Embedding, Sam2Network
from bmp_ros.training.images import TrainingImage, recolour, warp
from bmp_ros.training.mixture import Images
from bmp_ros.training.normalisers import shared_weight
from bmp_ros.training.top_down import checked

MASK_STRIDE = 4
MASK, DICE, OVERLAP, PRESENCE = 20.0, 1.0, 1.0, 1.0
FOCUS = 2.0
"""Exponent of the focal loss; its balance of the classes is 0.25, as SAM's."""
ZOOM = (1.0, 1.5)
FIRST_JOINTS = 8
"""Joints of the first prompt at most; the published network knows as many."""
JOINT_SHARE = 0.5
"""Of the corrections, those that are joints that the mask misses, where there are some."""


@dataclass(frozen=True)
class Pose2SegOptions:
    """What a recipe may say under ``options``.

    variant: t, s, b+, l, or a mapping of `HieraSize`'s numbers. freeze_encoder: prompt encoder and
    mask decoder alone learn. corrections: rounds after the first. most: people of an image.
    """

    variant: Any = "b+"
    freeze_encoder: bool = True
    corrections: int = 7
    most: int = 3

    @property
    def network_size(self) -> HieraSize:
        if isinstance(self.variant, Mapping):
            lists = {k: tuple(v) if isinstance(v, list) else v for k, v in self.variant.items()}
            numbers: dict[str, Any] = lists
            return HieraSize(**numbers)
        if self.variant not in SAM2_SIZES:
            known = ", ".join(SAM2_SIZES)
            raise ValueError(f"options: variant is {self.variant!r}, allowed: {known}")
        return SAM2_SIZES[self.variant]


class Pose2SegSample(NamedTuple):
    """image: (3, S, S) float32 normalised RGB. joints: (G, K, 3) float32 x y v in its pixels.

    masks: (G, S / 4, S / 4) float32 covered shares. seeds: (G,) int64, of each person's prompts.
    """

    image: np.ndarray
    joints: np.ndarray
    masks: np.ndarray
    seeds: np.ndarray


class Batch(NamedTuple):
    """images: (B, 3, S, S). joints: (G, K, 3), masks: (G, S / 4, S / 4), image after image.
    seeds: (G,) int64. owners: (G,) int64, whose image."""

    images: Tensor
    joints: Tensor
    masks: Tensor
    seeds: Tensor
    owners: Tensor


class Prompts(NamedTuple):
    """points: (G, P, 2) pixels. labels: (G, P) int32, 1 = on the person, 0 = not."""

    points: Tensor
    labels: Tensor


class Answer(NamedTuple):
    """masks: (G, 4, h, w) logits. overlaps: (G, 4) predicted IoU. presence: (G, 1) logits."""

    masks: Tensor
    overlaps: Tensor
    presence: Tensor


class Pose2SegTask:
    """SAM 2.1's image encoder, prompt encoder and mask decoder, from poses."""

    name = "segmenter"
    role = "segmenter"

    def __init__(
        self,
        images: Images,
        size: tuple[int, int] = (1024, 1024),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.options = Pose2SegOptions(**checked(Pose2SegOptions, options or {}, "options"))
        if size[0] != size[1]:
            raise ValueError(f"size of pose2seg is a square, got {list(size)}")
        self.images = images
        self.size = size
        network = Sam2Network(self.options.network_size, size[0]).requires_grad_(True)
        if self.options.freeze_encoder:
            network.image_encoder.requires_grad_(False)
        network.sam_prompt_encoder.pe_layer.requires_grad_(False)
        self.network: nn.Module = network

    def sample(self, number: int, seed: int, *, validation: bool = False) -> Pose2SegSample:
        random, labelled = self.images.draw(number, seed, validation)
        return pose2seg_sample(
            random, labelled, self.size[0], self.options.most, augment=not validation
        )

    def collate(self, samples: list[Pose2SegSample]) -> Batch:
        owners = np.repeat(np.arange(len(samples)), [len(s.joints) for s in samples])
        return Batch(
            torch.from_numpy(np.stack([s.image for s in samples])),
            torch.from_numpy(np.concatenate([s.joints for s in samples])),
            torch.from_numpy(np.concatenate([s.masks for s in samples])),
            torch.from_numpy(np.concatenate([s.seeds for s in samples])),
            torch.from_numpy(owners),
        )

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(network, Sam2Network)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.options.freeze_encoder):
            levels = network.image_encoder(batch.images)["backbone_fpn"]
        # Without people nothing is learned, but every process has gradients to share.
        nothing = sum(p.sum() for p in network.sam_mask_decoder.parameters()) * torch.tensor(0.0)
        total = dict.fromkeys(("focal", "dice", "overlap", "presence"), nothing)
        used = torch.zeros(batch.joints.shape[:2], dtype=torch.bool, device=batch.joints.device)
        # A generator for each person: the prompts are the same whichever process has the image,
        # and whoever else is in the batch.
        lots = [torch.Generator().manual_seed(seed) for seed in batch.seeds.tolist()]
        # All people of a decoder call have as many prompts; padding would change the answer.
        first, counts = first_prompts(batch.joints, batch.masks, used, lots)
        rounds = 1 + self.options.corrections
        for image in range(len(batch.images)):
            embedding = _embedding(network, levels, image)
            mine = batch.owners == image
            for count in counts[mine].unique().tolist():
                rows = (mine & (counts == count)).nonzero()[:, 0]
                prompts = Prompts(*(part[rows, :count] for part in first))
                truth = batch.masks[rows]
                previous: Tensor | None = None
                for turn in range(rounds):
                    answer = decode(network, embedding, prompts, previous)
                    chosen = chosen_masks(answer, truth, single=prompts.labels.shape[1] > 1)
                    for name, value in round_losses(answer, chosen, truth).items():
                        total[name] = total[name] + value.sum()
                    previous = chosen[1].detach()
                    if turn + 1 < rounds:
                        more = corrections(previous, truth, batch.joints[rows], used, rows, lots)
                        prompts = Prompts(
                            torch.cat([prompts.points, more.points], dim=1),
                            torch.cat([prompts.labels, more.labels], dim=1),
                        )
        people = shared_weight(len(batch.owners) * rounds, batch.images)
        return {name: value / people for name, value in total.items()}

    def layer_of(self, name: str) -> tuple[int, int]:
        """The image encoder learns at ``layer_decay`` times the rate."""
        return (0, 1) if name.startswith("image_encoder.") else (1, 1)

    def section(self, weights: str) -> dict[str, Any]:
        """What a preset says under ``segmenter`` to run ``weights`` as they were trained."""
        return {"engine": "sam2", "weights": weights, "image_size": self.size[0]}


def pose2seg_sample(
    random: np.random.Generator, labelled: TrainingImage, side: int, most: int, *, augment: bool
) -> Pose2SegSample:
    """An image squeezed into a square of ``side`` pixels, as SAM sees it at work, and up to
    ``most`` of its people whose mask is known. With ``augment`` zoomed, moved, mirrored, coloured.
    """
    height, width = labelled.image.shape[:2]
    scale = np.array([side / width, side / height])
    shift = scale / 2 - 0.5
    if augment:
        zoom = random.uniform(*ZOOM)
        shift = shift * zoom - random.uniform(0, 1, 2) * (zoom - 1) * side
        scale = scale * zoom
        if random.random() < 0.5:
            scale[0], shift[0] = -scale[0], side - 1 - shift[0]
    view = warp(
        labelled, np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]]), (side, side)
    )
    image = recolour(random, view.image, rendered=False) if augment else view.image
    rows = np.flatnonzero(view.masked)
    if augment:
        rows = random.permutation(rows)
    rows = rows[:most]
    grid = (side // MASK_STRIDE, side // MASK_STRIDE)
    masks = np.empty((len(rows), *grid), np.float32)
    for place, row in enumerate(rows):
        pixels = view.masks[row].view(np.uint8) * np.uint8(255)
        masks[place] = cv2.resize(pixels, grid, interpolation=cv2.INTER_AREA) / np.float32(255)
    joints = np.concatenate([view.keypoints, view.visibility[..., None]], axis=2)[rows]
    values = (image[..., ::-1].astype(np.float32) - RGB_MEAN) / RGB_STD
    return Pose2SegSample(
        np.ascontiguousarray(values.transpose(2, 0, 1)), joints.astype(np.float32), masks,
        random.integers(2**31, size=len(rows)),
    )  # fmt: skip


def first_prompts(
    joints: Tensor, masks: Tensor, used: Tensor, lots: Sequence[torch.Generator]
) -> tuple[Prompts, Tensor]:
    """Visible joints of each person, in random order, and one point of the mask.

    Returns points (G, P, 2) and labels, of which a person's first ``count`` hold, and the counts
    (G,). ``used`` (G, K) notes the joints that were taken. lots: G generators on the CPU.
    """
    people = len(joints)
    points = joints.new_zeros(people, FIRST_JOINTS + 1, 2)
    counts = torch.ones(people, dtype=torch.long, device=joints.device)
    for row in range(people):
        visible = (joints[row, :, 2] == 2).nonzero()[:, 0]
        order = torch.randperm(len(visible), generator=lots[row])[:FIRST_JOINTS]
        chosen = visible[order.to(visible.device)]
        used[row, chosen] = True
        points[row, : len(chosen)] = joints[row, chosen, :2]
        points[row, len(chosen)] = _some_pixel(masks[row] > 0.5, masks[row], lots[row])
        counts[row] = len(chosen) + 1
    labels = torch.ones(points.shape[:2], dtype=torch.int32, device=joints.device)
    return Prompts(points, labels), counts


def corrections(
    logits: Tensor, truth: Tensor, joints: Tensor, used: Tensor, rows: Tensor,
    lots: Sequence[torch.Generator],
) -> Prompts:  # fmt: skip
    """One point per person where its mask is wrong: points (G, 1, 2) and labels (G, 1).

    rows: (G,), places of these people in ``used`` and among the generators ``lots``.
    """
    points = joints.new_zeros(len(rows), 1, 2)
    labels = torch.ones(len(rows), 1, dtype=torch.int32, device=joints.device)
    found, wanted = logits > 0, truth > 0.5
    for place, row in enumerate(rows.tolist()):
        missed, wrong = wanted[place] & ~found[place], found[place] & ~wanted[place]
        share = missed.sum() / (missed.sum() + wrong.sum()).clamp(min=1)
        lot = lots[row]
        on = bool(torch.rand((), generator=lot) < share.item()) or not bool(wrong.any())
        labels[place] = int(on)
        left = _missed_joints(joints[place], missed, used[row]) if on else []
        if left and torch.rand((), generator=lot) < JOINT_SHARE:
            joint = left[int(torch.randint(len(left), (), generator=lot))]
            used[row, joint] = True
            points[place, 0] = joints[place, joint, :2]
        else:
            region = missed if on else wrong
            region = region if region.any() else wanted[place]
            points[place, 0] = _some_pixel(region, truth[place], lot)
    return Prompts(points, labels)


def _missed_joints(joints: Tensor, missed: Tensor, used: Tensor) -> list[int]:
    """Visible joints, not prompted yet, in cells that the mask misses."""
    cells = (joints[:, :2] / MASK_STRIDE).long()
    height, width = missed.shape
    inside = (cells >= 0).all(dim=1) & (cells[:, 0] < width) & (cells[:, 1] < height)
    fit = inside & (joints[:, 2] == 2) & ~used
    return [
        joint for joint in fit.nonzero()[:, 0].tolist() if missed[cells[joint, 1], cells[joint, 0]]
    ]


def _some_pixel(region: Tensor, fallback: Tensor, lot: torch.Generator) -> Tensor:
    """The middle of a random cell of ``region`` (h, w), in pixels; of the fullest one of a person
    too thin for any.

    Every cell draws a number and the largest one of the region wins, so that a cell more or less
    at its edge, a matter of rounding, seldom changes which.
    """
    drawn = torch.rand(region.shape, generator=lot).to(region.device)
    best = int((drawn.masked_fill(~region, -1) if region.any() else fallback).argmax())
    y, x = divmod(best, region.shape[1])
    middle = (MASK_STRIDE - 1) / 2
    return torch.tensor([x * MASK_STRIDE + middle, y * MASK_STRIDE + middle], device=region.device)


def _embedding(network: Sam2Network, levels: list[Tensor], image: int) -> Sam2Embedding:
    fine, middle, coarse = (level[image : image + 1] for level in levels)
    decoder = network.sam_mask_decoder
    return Sam2Embedding(
        coarse + network.no_mem_embed.view(1, -1, 1, 1),
        [decoder.conv_s0(fine), decoder.conv_s1(middle)],
    )


def decode(
    network: Sam2Network, embedding: Sam2Embedding, prompts: Prompts, previous: Tensor | None
) -> Answer:
    """All four masks of each person. previous: (G, h, w), logits of the mask to be corrected."""
    # Where things are stays in float32 also under autocast, as at work.
    with torch.autocast(prompts.points.device.type, enabled=False):
        sparse, dense = network.sam_prompt_encoder(
            points=tuple(prompts), boxes=None,
            masks=None if previous is None else previous[:, None].float(),
        )  # fmt: skip
        places = network.sam_prompt_encoder.get_dense_pe()
    masks, overlaps, _, presence = network.sam_mask_decoder.predict_masks(
        image_embeddings=embedding.image, image_pe=places, sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense, repeat_image=True, high_res_features=embedding.fine,
    )  # fmt: skip
    return Answer(masks.float(), overlaps.float(), presence.float())


def chosen_masks(answer: Answer, truth: Tensor, *, single: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Which mask learns: the first one of several prompts, of one prompt the best of the others.

    Returns rows (G,), the logits (G, h, w) and the predicted IoU (G,) of these masks.
    """
    rows = torch.arange(len(truth), device=truth.device)
    place = torch.zeros_like(rows)
    if not single:
        with torch.no_grad():
            each = [mask_losses(answer.masks[:, n], truth) for n in (1, 2, 3)]
            cost = torch.stack([MASK * focal + DICE * dice for focal, dice in each], dim=1)
            place = 1 + cost.argmin(dim=1)
    return place, answer.masks[rows, place], answer.overlaps[rows, place]


def mask_losses(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Focal and Dice loss of each mask, (G, h, w) -> (G,) and (G,)."""
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    chance = logits.sigmoid()
    missing = chance * (1 - truth) + (1 - chance) * truth
    balance = 0.25 * truth + 0.75 * (1 - truth)
    focal = (balance * entropy * missing**FOCUS).mean(dim=(1, 2))
    shared = 2 * (chance * truth).sum(dim=(1, 2))
    dice = 1 - (shared + 1) / (chance.sum(dim=(1, 2)) + truth.sum(dim=(1, 2)) + 1)
    return focal, dice


def round_losses(
    answer: Answer, chosen: tuple[Tensor, Tensor, Tensor], truth: Tensor
) -> dict[str, Tensor]:
    """Weighted losses of one round, (G,) each."""
    _, logits, expected = chosen
    focal, dice = mask_losses(logits, truth)
    with torch.no_grad():
        found, wanted = logits > 0, truth > 0.5
        union = (found | wanted).sum(dim=(1, 2)).clamp(min=1)
        overlap = (found & wanted).sum(dim=(1, 2)) / union
    there = torch.ones_like(answer.presence)
    presence = functional.binary_cross_entropy_with_logits(
        answer.presence, there, reduction="none"
    )
    return {
        "focal": MASK * focal,
        "dice": DICE * dice,
        "overlap": OVERLAP * (expected - overlap).abs(),
        "presence": PRESENCE * presence[:, 0],
    }
