# SPDX-License-Identifier: Apache-2.0
"""Losses of RTMDet-Ins for one class: who answers for whom, and how well (arXiv 2212.07784)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_area, box_iou, generalized_box_iou_loss

from bmp_ros.networks.rtmdet_ins import RTMDetInsOutput, mask_logits

CANDIDATES = 13
"""Best overlaps whose sum says how many locations a person gets."""
OVERLAP_WEIGHT = 3.0
SOFT_RADIUS = 3.0
"""Cells from a box's centre at which the assignment cost of a location is ten to the zero."""
MASKS_PER_BATCH = 48
"""Locations whose masks are computed; enough for a gradient, few enough for memory."""
CLASS, BOX, MASK = 1.0, 2.0, 2.0


IGNORED_SHARE = 0.6
"""Of a predicted box, what must lie in a region that nobody labelled, for it to be no mistake."""


def detector_loss(
    output: RTMDetInsOutput,
    priors: Tensor,
    boxes: Sequence[Tensor],
    masks: Sequence[Tensor],
    masked: Sequence[Tensor] | None = None,
    ignore: Sequence[Tensor] | None = None,
) -> dict[str, Tensor]:
    """Weighted losses ``class``, ``box`` and ``mask`` of a batch; their sum is minimised.

    output: of B canvases at P locations, one class. priors: (P, 3). boxes: B tensors (N, 4) xyxy
    in canvas pixels. masks: B tensors (N, h / 4, w / 4) in [0, 1]. masked: B tensors (N,) bool,
    whose mask is known (None: all); the others have no mask loss. ignore: B tensors (M, 4), where
    there are people whom nobody labelled: locations in them that answer for nobody have no class
    loss.
    """
    centres = priors[:, :2]
    predicted = torch.cat(
        [centres - output.distances[..., :2], centres + output.distances[..., 2:]], dim=2
    )
    logits = output.class_logits[..., 0]
    targets = torch.zeros_like(logits)
    assigned: list[tuple[int, Tensor, Tensor]] = []  # image, locations, people
    for image, truth in enumerate(boxes):
        if len(truth):
            locations, people, quality = assign(
                predicted[image].detach(), logits[image].detach(), priors, truth
            )
            targets[image, locations] = quality
            assigned.append((image, locations, people))
    total = targets.sum().clamp(min=1)
    focal = quality_focal_loss(logits, targets)
    if ignore is not None:
        unknown = [
            within(predicted[image].detach(), centres, regions) & (targets[image] == 0)
            for image, regions in enumerate(ignore)
        ]
        focal = focal.masked_fill(torch.stack(unknown), 0.0)
    losses = {"class": CLASS * focal.sum() / total}
    box_losses, mask_losses = [logits.sum() * 0], [logits.sum() * 0]
    for image, locations, people in assigned:
        loss = generalized_box_iou_loss(predicted[image, locations], boxes[image][people])
        box_losses.append((loss * targets[image, locations]).sum())
    if masked is not None:
        assigned = [
            (image, locations[masked[image][people]], people[masked[image][people]])
            for image, locations, people in assigned
        ]
        assigned = [
            (image, locations, people) for image, locations, people in assigned if len(people)
        ]
    share = MASKS_PER_BATCH / max(1, sum(len(locations) for _, locations, _ in assigned))
    number = 0
    for image, locations, people in assigned:
        if share < 1:
            some = torch.randperm(len(locations))[: max(1, round(share * len(locations)))]
            locations, people = locations[some], people[some]
        grid = mask_logits(
            output.prototypes[image], output.kernels[image, locations], priors[locations]
        )
        fine = functional.interpolate(
            grid[:, None], scale_factor=2.0, mode="bilinear", align_corners=False
        )[:, 0]
        mask_losses.append(dice_loss(fine.sigmoid(), masks[image][people]).sum())
        number += len(locations)
    losses["box"] = BOX * torch.stack(box_losses).sum() / total
    losses["mask"] = MASK * torch.stack(mask_losses).sum() / max(1, number)
    return losses


def within(predicted: Tensor, centres: Tensor, regions: Tensor) -> Tensor:
    """(P,) bool: locations whose centre (P, 2), or most of whose box (P, 4), is in a region.

    regions: (M, 4) xyxy.
    """
    inside = (centres[:, None] > regions[:, :2]) & (centres[:, None] < regions[:, 2:])
    low = torch.maximum(predicted[:, None, :2], regions[:, :2])
    high = torch.minimum(predicted[:, None, 2:], regions[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    share = shared / box_area(predicted).clamp(min=1e-6)[:, None]
    return (inside.all(dim=2) | (share > IGNORED_SHARE)).any(dim=1)


def assign(
    predicted: Tensor, logits: Tensor, priors: Tensor, truth: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Dynamic soft labels of RTMDet: locations (n,), their people (n,) and IoUs (n,).

    predicted: (P, 4) boxes, logits: (P,), truth: (N, 4). A location answers for a person only
    from within the box; of several people it takes the cheapest. A person with no location of its
    own within the box (smaller than a cell) gets the one nearest to the centre.
    """
    overlap = box_iou(predicted, truth)  # (P, N)
    centre = (truth[:, :2] + truth[:, 2:]) / 2
    points = priors[:, None, :2]
    inside = ((points > truth[:, :2]) & (points < truth[:, 2:])).all(dim=2)
    distance = (points - centre).norm(dim=2) / priors[:, None, 2]
    lonely = ~inside.any(dim=0)
    if lonely.any():
        nearest = distance[:, lonely].argmin(dim=0)
        inside[nearest, lonely.nonzero()[:, 0]] = True

    scores = logits.sigmoid()[:, None]
    class_cost = (
        functional.binary_cross_entropy_with_logits(
            logits[:, None].expand_as(overlap), overlap, reduction="none"
        )
        * (overlap - scores).abs().square()
    )
    cost = class_cost - OVERLAP_WEIGHT * (overlap + 1e-7).log() + 10 ** (distance - SOFT_RADIUS)
    cost = torch.where(inside, cost, torch.inf)

    among = torch.where(inside, overlap, 0).topk(min(CANDIDATES, len(priors)), dim=0).values
    wanted = among.sum(dim=0).int().clamp(min=1)
    rank = cost.argsort(dim=0).argsort(dim=0)
    chosen = (rank < wanted) & inside
    cheapest = torch.where(chosen, cost, torch.inf).argmin(dim=1)
    locations = chosen.any(dim=1).nonzero()[:, 0]
    people = cheapest[locations]
    return locations, people, overlap[locations, people].clamp(min=0)


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
