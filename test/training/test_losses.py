# SPDX-License-Identifier: Apache-2.0
"""Losses: zero or low for the truth, higher for anything else, finite for nobody."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bmp_ros.engines.letterbox import grid_priors
from bmp_ros.networks.rtmdet_ins import RTMDetInsOutput
from bmp_ros.networks.rtmdet_ins_layout import KERNEL_PARAMETERS
from bmp_ros.training.detector_loss import (
    Truth,
    assign,
    detector_loss,
    dice_loss,
    quality_focal_loss,
)
from bmp_ros.training.pose_loss import location_loss
from bmp_ros.training.segmenter_loss import segmenter_loss

PRIORS = torch.from_numpy(grid_priors((128, 96)))


def random_boxes(count: int, seed: int) -> torch.Tensor:
    random = np.random.default_rng(seed)
    low = random.uniform(0, 60, (count, 2))
    return torch.tensor(np.hstack([low, low + random.uniform(5, 40, (count, 2))])).float()


def test_locations_answer_from_within_and_everybody_gets_one() -> None:
    truth = torch.tensor([[10.0, 10, 60, 90], [70.0, 20, 110, 80], [50.0, 50, 53, 53]])
    predicted = random_boxes(len(PRIORS), 3)
    nobody = torch.zeros(1, 4)  # a row that only fills up
    owners, overlaps = assign(
        predicted[None], torch.zeros(1, len(PRIORS)), PRIORS, torch.cat([truth, nobody])[None],
        torch.tensor([[True, True, True, False]]),
    )  # fmt: skip
    locations = (owners[0] >= 0).nonzero()[:, 0]
    people, quality = owners[0, locations], overlaps[0, locations]
    assert (overlaps[owners < 0] == 0).all()
    assert set(people.tolist()) == {0, 1, 2}
    large = people < 2
    points, boxes = PRIORS[locations[large], :2], truth[people[large]]
    assert ((points > boxes[:, :2]) & (points < boxes[:, 2:])).all()
    assert ((quality >= 0) & (quality <= 1)).all()


def output_for(truth: torch.Tensor, right: bool) -> RTMDetInsOutput:
    """What a network would say that knows (or does not know) the one person of ``truth``."""
    centres = PRIORS[:, :2]
    distances = torch.cat([centres - truth[:2], truth[2:] - centres], dim=1)
    inside = (distances > 0).all(dim=1)
    near = (centres - (truth[:2] + truth[2:]) / 2).norm(dim=1) < 20
    logits = torch.where(inside & near & right, 8.0, -8.0)
    if not right:
        distances = distances * 0.3
    kernels = torch.zeros(1, len(PRIORS), KERNEL_PARAMETERS)
    kernels[..., -1] = -6.0
    return RTMDetInsOutput(
        logits[None, :, None],
        distances.clamp(min=0)[None],
        kernels,
        torch.zeros(1, 8, 12, 16),
    )


def test_the_right_answer_costs_less() -> None:
    truth = torch.tensor([30.0, 20, 80, 90])
    masks = [torch.zeros(1, 24, 32)]
    right, wrong = (
        detector_loss(output_for(truth, known), PRIORS, Truth.of([truth[None]], masks))
        for known in (True, False)
    )
    assert right["box"] < 0.01 < wrong["box"]


def test_scores_are_to_equal_the_overlap() -> None:
    targets = torch.tensor([0.0, 0.3, 0.9])
    right = quality_focal_loss(torch.logit(targets, eps=1e-6), targets)
    assert right.max() < 1e-6
    assert (
        quality_focal_loss(torch.logit(targets.flip(0), eps=1e-6), targets)[[0, 2]] > 0.5
    ).all()


def test_canvases_without_people_only_teach_silence() -> None:
    truth = torch.tensor([30.0, 20, 80, 90])
    none, masks = [torch.empty(0, 4)], [torch.empty(0, 24, 32)]
    silent = detector_loss(output_for(truth, False), PRIORS, Truth.of(none, masks))
    loud = detector_loss(output_for(truth, True), PRIORS, Truth.of(none, masks))
    assert silent["box"] == silent["mask"] == 0
    assert silent["class"] < 0.01 < loud["class"]


def test_dice_is_zero_for_equal_masks_and_one_for_disjoint_ones() -> None:
    mask = torch.zeros(1, 4, 4)
    mask[0, :2] = 1
    assert dice_loss(mask, mask).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(1 - mask, mask).item() == pytest.approx(1, abs=1e-3)


def test_the_pose_loss_is_zero_for_the_target_itself_and_weighs_joints() -> None:
    targets = torch.zeros(1, 3, 4, 4)
    targets[0, 0, 1:3, 1:3] = 1  # the third joint is not there
    targets[0, 1, 3, 3] = 1
    right = (targets / targets.sum(dim=(2, 3), keepdim=True).clamp(min=1) + 1e-9).log()
    right[0, 2] = 0
    weights = torch.ones(1, 3)
    assert location_loss(right, targets, weights).item() == pytest.approx(0, abs=1e-5)
    wrong = right.clone()
    wrong[0, 1] = right[0, 1].flip(0)
    assert location_loss(wrong, targets, weights) > 1
    assert location_loss(wrong, targets, torch.tensor([[1.0, 0.0, 1.0]])).item() == pytest.approx(
        0, abs=1e-5
    )


def test_segmenter_scores_learn_the_overlap() -> None:
    masks = torch.zeros(1, 8, 8)
    masks[0, 2:6, 2:6] = 1
    logits = (masks * 2 - 1) * 12
    right = segmenter_loss(logits, torch.ones(1), masks)
    wrong = segmenter_loss(-logits, torch.ones(1), masks)
    assert right["entropy"] + right["dice"] + right["score"] < 0.01
    assert wrong["score"].item() == pytest.approx(1)
    assert wrong["entropy"] > 1 and wrong["dice"] > 0.5


def test_people_without_a_mask_have_no_mask_loss() -> None:
    truth = torch.tensor([30.0, 20, 80, 90])
    output = output_for(truth, True)
    boxes, masks = [truth[None]], [torch.ones(1, 24, 32)]
    known, unknown = (
        detector_loss(output, PRIORS, Truth.of(boxes, masks, [torch.tensor([value])]))
        for value in (True, False)
    )
    assert known["mask"] > 0.1 and unknown["mask"] == 0
    assert known["box"] == unknown["box"] and known["class"] == unknown["class"]


def test_where_nobody_labelled_a_detection_is_no_mistake() -> None:
    truth = torch.tensor([30.0, 20, 80, 90])
    output = output_for(truth, True)
    nobody, masks = [torch.empty(0, 4)], [torch.empty(0, 24, 32)]
    region, elsewhere = torch.tensor([[25.0, 15, 85, 95]]), torch.tensor([[90.0, 0, 128, 40]])
    mistake, ignored, other = (
        detector_loss(output, PRIORS, Truth.of(nobody, masks, None, [boxes]))["class"]
        for boxes in (torch.empty(0, 4), region, elsewhere)
    )
    assert ignored < 0.01 * mistake and other > 0.9 * mistake


def test_somebody_labelled_within_such_a_region_is_still_to_be_found() -> None:
    truth = torch.tensor([30.0, 20, 80, 90])
    masks = [torch.zeros(1, 24, 32)]
    ignore = [torch.tensor([[0.0, 0, 128, 96]])]
    found, missed = (
        detector_loss(
            output_for(truth, right), PRIORS, Truth.of([truth[None]], masks, None, ignore)
        )
        for right in (True, False)
    )
    assert missed["class"] > 10 * found["class"]
