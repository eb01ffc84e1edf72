# SPDX-License-Identifier: Apache-2.0
"""Losses of RTMDet-Ins for one class: who answers for whom, and how well (arXiv 2212.07784)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from bmp_ros.networks.rtmdet_ins import RTMDetInsOutput, mask_logits
from bmp_ros.training.normalisers import shared_weight

CANDIDATES = 13
"""Best overlaps whose sum says how many locations a person gets."""
OVERLAP_WEIGHT = 3.0
SOFT_RADIUS = 3.0
"""Cells from a box's centre at which the assignment cost of a location is ten to the zero."""
MASKS_PER_IMAGE = 6
"""Locations of an image whose masks are computed; enough for a gradient, few enough for memory."""
CLASS, BOX, MASK = 1.0, 2.0, 2.0


IGNORED_SHARE = 0.6
"""Of a predicted box, what must lie in a region that nobody labelled, for it to be no mistake."""


class Truth(NamedTuple):
    """The people of B canvases, in few tensors: moving one to a GPU costs more than its bytes.

    boxes: (B, most, 4) xyxy in canvas pixels, ``there`` (B, most) bool: which of them exist.
    masks: (N, h / 4, w / 4) in [0, 1] of all N people, canvas after canvas. masked: (N,) bool,
    whose mask is known; the others have no mask loss. ignore: (B, M, 4), where there are people
    whom nobody labelled, and ``ignored`` (B, M) bool: locations in them that answer for nobody
    have no class loss.
    """

    boxes: Tensor
    there: Tensor
    masks: Tensor
    masked: Tensor
    ignore: Tensor
    ignored: Tensor

    @classmethod
    def of(
        cls,
        boxes: Sequence[Tensor],
        masks: Sequence[Tensor],
        masked: Sequence[Tensor] | None = None,
        ignore: Sequence[Tensor] | None = None,
    ) -> Truth:
        """Gather B tensors of each; masked, ignore: None where all masks and people are known."""
        if masked is None:
            masked = [torch.ones(len(rows), dtype=torch.bool) for rows in boxes]
        if ignore is None:
            ignore = [torch.empty(0, 4)] * len(boxes)
        return cls(
            *padded(boxes), torch.cat(list(masks)), torch.cat(list(masked)), *padded(ignore)
        )


def padded(boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """B tensors (N, 4) as (B, most, 4), and (B, most) bool, which of them there are."""
    most = max([1, *(len(rows) for rows in boxes)])
    together = torch.zeros(len(boxes), most, 4)
    there = torch.zeros(len(boxes), most, dtype=torch.bool)
    for image, rows in enumerate(boxes):
        together[image, : len(rows)] = rows
        there[image, : len(rows)] = True
    return together, there


def detector_loss(output: RTMDetInsOutput, priors: Tensor, truth: Truth) -> dict[str, Tensor]:
    """Weighted losses ``class``, ``box`` and ``mask`` of a batch; their sum is minimised.

    output: of B canvases at P locations, one class. priors: (P, 3).
    """
    centres = priors[:, :2]
    predicted = torch.cat(
        [centres - output.distances[..., :2], centres + output.distances[..., 2:]], dim=2
    )
    logits = output.class_logits[..., 0]
    # One set of operations for the whole batch: on a GPU each costs its launch, not its work.
    owners, targets = assign(predicted.detach(), logits.detach(), priors, truth.boxes, truth.there)
    image, location = (owners >= 0).nonzero(as_tuple=True)
    person = owners[image, location]
    total = shared_weight(targets.sum(), logits)
    focal = quality_focal_loss(logits, targets)
    unknown = within(predicted.detach(), centres, truth.ignore, truth.ignored) & (owners < 0)
    focal = focal.masked_fill(unknown, 0.0)
    overlap = generalized_box_iou_loss(predicted[image, location], truth.boxes[image, person])
    box = (overlap * targets[image, location]).sum() / total
    counts = truth.there.sum(dim=1)
    mask = (counts.cumsum(0) - counts)[image] + person
    known = truth.masked[mask]
    image, location, mask = image[known], location[known], mask[known]
    some = drawn(image, location, truth.boxes.sum(dim=(1, 2)), MASKS_PER_IMAGE)
    image, location, mask = image[some], location[some], mask[some]
    mask_loss = logits.sum() * 0
    if len(mask):
        grid = mask_logits(
            output.prototypes[image], output.kernels[image, location], priors[location]
        )
        fine = functional.interpolate(
            grid[:, None], scale_factor=2.0, mode="bilinear", align_corners=False
        )[:, 0]
        mask_loss = dice_loss(fine.sigmoid(), truth.masks[mask]).sum()
    mask_loss = mask_loss / shared_weight(len(mask), logits)
    return {"class": CLASS * focal.sum() / total, "box": BOX * box, "mask": MASK * mask_loss}


def drawn(image: Tensor, location: Tensor, salt: Tensor, most: int) -> Tensor:
    """Rows of at most ``most`` locations per image, drawn by lot.

    image, location: (n,), whose rows are drawn. salt: (B,), a number of each image. The lots are
    made of these numbers alone, so that the same are drawn whichever process has the image.
    """
    lots = (location.double() * 12.9898 + salt.double()[image] * 78.233).sin() * 43758.5453
    order = (image + lots.frac().abs() * 0.999).argsort()
    counts = torch.bincount(image, minlength=len(salt))
    first = (counts.cumsum(0) - counts)[image[order]]
    place = torch.arange(len(order), device=order.device) - first
    return order[place < most].sort().values


def within(predicted: Tensor, centres: Tensor, regions: Tensor, there: Tensor) -> Tensor:
    """(B, P) bool: locations whose centre, or most of whose box, is in a region.

    predicted: (B, P, 4). centres: (P, 2). regions: (B, M, 4) xyxy, ``there`` (B, M) which exist.
    """
    regions = regions[:, None]
    inside = (centres[:, None] > regions[..., :2]) & (centres[:, None] < regions[..., 2:])
    low = torch.maximum(predicted[:, :, None, :2], regions[..., :2])
    high = torch.minimum(predicted[:, :, None, 2:], regions[..., 2:])
    shared = (high - low).clamp(min=0).prod(dim=3)
    share = shared / _areas(predicted).clamp(min=1e-6)[..., None]
    return ((inside.all(dim=3) | (share > IGNORED_SHARE)) & there[:, None]).any(dim=2)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)


def assign(
    predicted: Tensor, logits: Tensor, priors: Tensor, truth: Tensor, there: Tensor
) -> tuple[Tensor, Tensor]:
    """Dynamic soft labels of RTMDet: for whom each location answers, and the IoU with them.

    predicted: (B, P, 4) boxes. logits: (B, P). priors: (P, 3). truth: (B, N, 4), ``there`` (B, N)
    bool, which of these people exist. Returns (B, P) int64, -1 for nobody, and (B, P) float32,
    0 there. A location answers for a person only from within the box; of several people it takes
    the cheapest. A person with no location of its own within the box (smaller than a cell) gets
    the one nearest to the centre.
    """
    people = truth[:, :, None]  # (B, N, 1, 4): lists of locations lie together, for topk
    low = torch.maximum(predicted[:, None, :, :2], people[..., :2])
    high = torch.minimum(predicted[:, None, :, 2:], people[..., 2:])
    shared = (high - low).clamp(min=0).prod(dim=3)
    together = _areas(predicted)[:, None] + _areas(truth)[:, :, None] - shared
    overlap = shared / together.clamp(min=1e-6)  # (B, N, P)
    points = priors[:, :2]
    inside = ((points > people[..., :2]) & (points < people[..., 2:])).all(dim=3)
    centre = (people[..., :2] + people[..., 2:]) / 2
    distance = (points - centre).norm(dim=3) / priors[:, 2]
    lonely = ~inside.any(dim=2, keepdim=True)
    nearest = torch.zeros_like(inside).scatter_(2, distance.argmin(dim=2, keepdim=True), True)
    inside = (inside | (lonely & nearest)) & there[..., None]

    scores = logits.sigmoid()[:, None]
    class_cost = (
        functional.binary_cross_entropy_with_logits(
            logits[:, None].expand_as(overlap), overlap, reduction="none"
        )
        * (overlap - scores).abs().square()
    )
    cost = class_cost - OVERLAP_WEIGHT * (overlap + 1e-7).log() + 10 ** (distance - SOFT_RADIUS)
    cost = cost.masked_fill(~inside, torch.inf)

    most = min(CANDIDATES, len(priors))
    among = overlap.masked_fill(~inside, 0).topk(most, dim=2).values
    wanted = among.sum(dim=2).int().clamp(min=1)
    cheapest, places = cost.topk(most, dim=2, largest=False)
    taken = (torch.arange(most, device=cost.device) < wanted[..., None]) & cheapest.isfinite()
    chosen = torch.zeros_like(inside).scatter_(2, places, taken)
    owner = cost.masked_fill(~chosen, torch.inf).argmin(dim=1)  # (B, P)
    answers = chosen.any(dim=1)
    quality = overlap.gather(1, owner[:, None])[:, 0].clamp(min=0)
    return owner.masked_fill(~answers, -1), quality.masked_fill(~answers, 0)


def quality_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Li et al., "Generalized Focal Loss" (NeurIPS 2020), eq. 2 with beta = 2; elementwise."""
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return entropy * (targets - logits.sigmoid()).square()


def dice_loss(predicted: Tensor, masks: Tensor) -> Tensor:
    """1 - Dice coefficient with squares in the denominator, (n, h, w) each -> (n,)."""
    predicted, masks = predicted.flatten(1), masks.flatten(1)
    shared = (predicted * masks).sum(dim=1)
    size = predicted.square().sum(dim=1) + masks.square().sum(dim=1)
    return 1 - (2 * shared + 1e-3) / (size + 1e-3)
