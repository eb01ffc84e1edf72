# SPDX-License-Identifier: Apache-2.0
"""SAM from poses: prompts, corrections and losses; the network itself is in test_published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from discs import disc_image
from torch import Tensor

from bmp_ros.training import trainer
from bmp_ros.training.optimisation import Schedule
from bmp_ros.training.pose2seg import (
    FIRST_JOINTS,
    MASK_STRIDE,
    Answer,
    Pose2SegOptions,
    Pose2SegTask,
    chosen_masks,
    corrections,
    first_prompts,
    mask_losses,
    pose2seg_sample,
    round_losses,
)
from bmp_ros.training.trainer import train

SIDE = 128


def joints_and_masks(people: int = 2) -> tuple[Tensor, Tensor]:
    labelled = disc_image(3, people)
    sample = pose2seg_sample(np.random.default_rng(0), labelled, SIDE, 3, augment=False)
    return torch.from_numpy(sample.joints), torch.from_numpy(sample.masks)


def generators(people: int = 2) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in range(people)]


def test_an_image_is_squeezed_as_at_work() -> None:
    labelled = disc_image(3, 2)  # 128 x 96
    sample = pose2seg_sample(np.random.default_rng(0), labelled, SIDE, 3, augment=False)
    assert sample.image.shape == (3, SIDE, SIDE) and sample.masks.shape == (2, 32, 32)
    expected = (labelled.keypoints + 0.5) * [1, SIDE / 96] - 0.5
    assert np.allclose(sample.joints[..., :2], expected, atol=1e-3)
    area = labelled.masks.sum(axis=(1, 2)) * SIDE / 96
    assert np.allclose(sample.masks.sum(axis=(1, 2)) * MASK_STRIDE**2, area, rtol=0.06)


@pytest.mark.parametrize("seed", range(4))
def test_augmented_joints_stay_on_their_people(seed: int) -> None:
    labelled = replace(disc_image(3, 1), detected=())
    sample = pose2seg_sample(np.random.default_rng(seed), labelled, SIDE, 3, augment=True)
    seen = sample.joints[0, :, 2] > 0
    cells = (sample.joints[0, seen, :2] / MASK_STRIDE).astype(int)
    assert sample.masks[0, cells[:, 1], cells[:, 0]].min() > 0.2


def test_people_without_a_mask_are_left_out() -> None:
    labelled = replace(disc_image(3, 2), has_mask=np.array([False, True]))
    boxes = disc_image(3, 2).boxes
    labelled = replace(labelled, given_boxes=boxes)
    sample = pose2seg_sample(np.random.default_rng(0), labelled, SIDE, 3, augment=False)
    assert len(sample.masks) == len(sample.joints) == 1


def test_the_first_prompts_are_joints_and_a_point_of_the_mask() -> None:
    joints, masks = joints_and_masks()
    joints[1, :, 2] = 0  # nobody labelled them
    used = torch.zeros(2, 17, dtype=torch.bool)
    prompts, counts = first_prompts(joints, masks, used, generators())
    assert counts.tolist() == [FIRST_JOINTS + 1, 1]
    assert used.sum(dim=1).tolist() == [FIRST_JOINTS, 0]
    taken = joints[0, used[0], :2]
    distance = torch.cdist(prompts.points[0, :FIRST_JOINTS], taken)
    assert (distance.min(dim=1).values == 0).all()
    for person, count in enumerate(counts.tolist()):
        x, y = (prompts.points[person, count - 1] / MASK_STRIDE).long().tolist()
        assert masks[person, y, x] > 0.5
    assert (prompts.labels == 1).all()


def test_corrections_lie_where_the_mask_is_wrong() -> None:
    joints, masks = joints_and_masks()
    rows = torch.arange(2)
    nothing, everything = torch.full_like(masks, -9), torch.full_like(masks, 9)
    lots = generators()
    for _ in range(20):
        used = torch.zeros(2, 17, dtype=torch.bool)
        more = corrections(nothing, masks, joints, used, rows, lots)
        assert (more.labels == 1).all()
        less = corrections(everything, masks, joints, used, rows, lots)
        assert (less.labels == 0).all()
        for person in range(2):
            for prompts, inside in ((more, True), (less, False)):
                x, y = (prompts.points[person, 0] / MASK_STRIDE).long().tolist()
                assert bool(masks[person, y, x] > 0.5) == inside
    right = corrections(masks * 20 - 10, masks, joints, used, rows, lots)
    assert (right.labels == 1).all(), "of a mask without a fault, another point of the person"


def test_one_prompt_may_mean_several_masks() -> None:
    _, truth = joints_and_masks()
    masks = torch.full((2, 4, 32, 32), -9.0)
    masks[:, 2] = truth * 20 - 10
    answer = Answer(masks, torch.rand(2, 4), torch.zeros(2, 1))
    assert chosen_masks(answer, truth, single=True)[0].tolist() == [0, 0]
    place, logits, overlaps = chosen_masks(answer, truth, single=False)
    assert place.tolist() == [2, 2] and torch.equal(logits, masks[:, 2])
    assert torch.equal(overlaps, answer.overlaps[:, 2])


def test_losses_fall_with_the_fault() -> None:
    _, truth = joints_and_masks()
    right, wrong = (truth > 0.5).float() * 20 - 10, 10 - (truth > 0.5).float() * 20
    for good, bad in zip(mask_losses(right, truth), mask_losses(wrong, truth), strict=True):
        assert (good < 0.2 * bad).all() and good.shape == (2,)
    answer = Answer(
        right[:, None].expand(-1, 4, -1, -1), torch.ones(2, 4), torch.full((2, 1), 9.0)
    )
    losses = round_losses(answer, chosen_masks(answer, truth, single=True), truth)
    assert set(losses) == {"focal", "dice", "overlap", "presence"}
    assert losses["overlap"].max() < 0.02 and losses["presence"].max() < 1e-3


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="variant is 'xl', allowed: t, s"):
        _ = Pose2SegOptions(variant="xl").network_size
    with pytest.raises(ValueError, match="square"):
        Pose2SegTask(cast(Any, None), (256, 128))
    with pytest.raises(ValueError, match="no entry 'rounds'"):
        Pose2SegTask(cast(Any, None), (256, 256), {"rounds": 3})


TINY = {
    "embed_dim": 16, "heads": 1, "stages": [1, 1, 2, 1], "global_blocks": [3],
    "windows": [8, 4, 4, 4], "position_side": 7,
}  # fmt: skip


class _Discs:
    """Every number is an image of discs."""

    cut_outs = None

    def draw(self, number: int, seed: int, validation: bool) -> tuple[Any, Any]:
        return np.random.default_rng(number), disc_image(number, number % 3)


def narrow_task(*, frozen: bool) -> Pose2SegTask:
    pytest.importorskip("sam2", reason="SAM's modules are those of the package sam2")
    torch.manual_seed(0)
    options = {"variant": TINY, "freeze_encoder": frozen, "corrections": 1}
    return Pose2SegTask(cast(Any, _Discs()), (64, 64), options)


def total_loss(task: Pose2SegTask, *numbers: int) -> Tensor:
    torch.manual_seed(1)
    batch = task.collate([task.sample(number, 0) for number in numbers])
    return sum(task.losses(task.network, batch).values(), torch.zeros(()))


def test_a_narrow_network_learns() -> None:
    task = narrow_task(frozen=True)
    learning = [p for p in task.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, 2e-3)
    first = total_loss(task, 2).item()
    for _ in range(4):
        optimizer.zero_grad()
        total_loss(task, 2).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert total_loss(task, 2).item() < 0.9 * first
    encoder: Any = task.network.image_encoder
    assert all(p.grad is None for p in encoder.parameters())
    assert total_loss(task, 0).item() == 0, "nobody is there"


def test_prompts_depend_on_the_person_alone() -> None:
    """Neither on the state of a generator nor on who else is in the batch."""
    task = narrow_task(frozen=True)
    samples = [task.sample(number, 0) for number in (1, 2)]
    assert [len(sample.seeds) for sample in samples] == [1, 2]

    def total(*chosen: Any) -> float:
        with torch.no_grad():
            losses = task.losses(task.network, task.collate(list(chosen)))
        return sum(losses.values(), torch.zeros(())).item()

    alone = [total(sample) for sample in samples]
    assert total(*samples) == pytest.approx((alone[0] + 2 * alone[1]) / 3, rel=1e-5)
    assert [total(sample) for sample in samples] == alone


def test_the_encoder_may_learn_too() -> None:
    task = narrow_task(frozen=False)
    total_loss(task, 1).backward()  # type: ignore[no-untyped-call]
    encoder: Any = task.network.image_encoder
    assert any(p.grad is not None for p in encoder.parameters())
    rates = {task.layer_of(name) for name, _ in task.network.named_parameters()}
    assert rates == {(0, 1), (1, 1)}


def test_it_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    schedule = Schedule(2, 1, 1e-4, warmup=1, save_every=1)
    for folder, stops in (("whole", [None]), ("parts", [1, None])):
        for stop in stops:
            torch.manual_seed(7)
            train(narrow_task(frozen=True), schedule, tmp_path / folder, stop_after=stop)
    first, second = (
        torch.load(tmp_path / folder / "segmenter.pth", weights_only=True)
        for folder in ("whole", "parts")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
