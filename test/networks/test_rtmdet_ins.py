# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import pytest
import torch
from random_weights import SMALL, random_rtmdet_ins
from torch import Tensor

from bmp_ros.networks.rtmdet_ins import PUBLISHED_SIZES, RTMDetIns, RTMDetInsSize


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return random_rtmdet_ins(SMALL, 80, seed=1, input_size=160)


@pytest.fixture(scope="module")
def network(weights: dict[str, Tensor]) -> RTMDetIns:
    return RTMDetIns.from_state_dict(weights)


# The numbers that OpenMMLab and the publication give; 79 classes are 79 x (width + 1) x 3 less.
@pytest.mark.parametrize(
    ("size", "classes", "parameters"),
    [
        ("tiny", 80, 5_638_187),
        ("s", 80, 10_183_311),
        ("m", 80, 27_575_111),
        ("l", 80, 57_365_663),
        ("l", 1, 57_304_754),
        ("x", 80, 102_703_767),
    ],
)
def test_published_sizes(size: str, classes: int, parameters: int) -> None:
    expected = RTMDetInsSize.scaled(*PUBLISHED_SIZES[size])
    with torch.device("meta"):
        network = RTMDetIns(expected, classes)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert RTMDetInsSize.of_state_dict(network.state_dict()) == expected


@pytest.mark.parametrize("classes", [1, 80])
@pytest.mark.parametrize(
    "size",
    [
        SMALL,
        RTMDetInsSize.scaled(*PUBLISHED_SIZES["tiny"]),
        RTMDetInsSize((8, 16, 24, 40, 64, 72), (1, 2, 1, 1), 2, 24, tower_depth=1),
    ],
    ids=["small", "tiny", "uneven"],
)
def test_size_is_read_from_the_weights(size: RTMDetInsSize, classes: int) -> None:
    saved = RTMDetIns(size, classes).state_dict()
    loaded = RTMDetIns.from_state_dict(saved)
    assert loaded.size == size and not loaded.training
    again = loaded.state_dict()
    assert list(again) == list(saved)
    assert all(torch.equal(again[name], saved[name]) for name in saved)


def test_both_names_of_the_tower_are_in_the_layout(weights: dict[str, Tensor]) -> None:
    for name in (
        "backbone.stem.0.conv.weight",
        "backbone.stage1.1.blocks.0.conv2.depthwise_conv.bn.running_var",
        "backbone.stage4.1.conv2.conv.weight",
        "backbone.stage4.2.attention.fc.bias",
        "neck.bottom_up_blocks.1.final_conv.bn.num_batches_tracked",
        "bbox_head.cls_convs.2.1.conv.weight",
        "bbox_head.reg_convs.2.1.conv.weight",
        "bbox_head.kernel_convs.0.0.bn.weight",
        "bbox_head.mask_head.stacked_convs.3.conv.weight",
        "bbox_head.rtm_kernel.2.bias",
    ):
        assert name in weights


def test_output_shapes(network: RTMDetIns) -> None:
    with torch.inference_mode():
        output = network(torch.zeros(2, 3, 64, 64))
    locations = 64 + 16 + 4
    assert output.class_logits.shape == (2, locations, 80)
    assert output.distances.shape == (2, locations, 4)
    assert (output.distances >= 0).all()
    assert output.kernels.shape == (2, locations, 169)
    assert output.prototypes.shape == (2, 8, 8, 8)


def test_class_tower_runs_once_per_level(network: RTMDetIns) -> None:
    head = network.bbox_head
    runs = []
    hooks = [
        tower[0].register_forward_hook(lambda *_: runs.append(1))
        for tower in (*head.cls_convs, *head.reg_convs)
    ]
    with torch.inference_mode():
        head.boxes(network.features(torch.zeros(1, 3, 64, 64)))
    for hook in hooks:
        hook.remove()
    # Each of the three towers has two hooks, one per name: 6 runs; computed twice it were 12.
    assert len(runs) == 6


def test_kernels_at_locations_equal_those_of_the_full_tower(network: RTMDetIns) -> None:
    exact = copy.deepcopy(network).double()
    with torch.inference_mode():
        features = exact.features(torch.randn(1, 3, 96, 96, dtype=torch.float64))
        everywhere = exact.bbox_head.kernels(features)[0].float()
        # Every location, in mixed order: corners, borders and the inner part of all levels.
        locations = torch.randperm(len(everywhere))
        there = exact.bbox_head.kernels_at(features, locations)
    torch.testing.assert_close(there, everywhere[locations], rtol=1e-6, atol=1e-6)
    assert everywhere.std() > 0.1


def test_entries_that_are_no_weights_are_dropped(weights: dict[str, Tensor]) -> None:
    extra = {
        "data_preprocessor.mean": torch.zeros(3, 1, 1),
        "ema_backbone_stem_0_conv_weight": torch.zeros(1),
    }
    loaded = RTMDetIns.from_state_dict({**extra, **weights}).state_dict()
    assert list(loaded) == list(weights)


def test_unknown_entry_is_refused(weights: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="bbox_head.rtm_obj.0.weight"):
        RTMDetIns.from_state_dict({**weights, "bbox_head.rtm_obj.0.weight": torch.zeros(1)})


def test_missing_entry_is_refused(weights: dict[str, Tensor]) -> None:
    rest = {name: value for name, value in weights.items() if name != "neck.out_convs.0.bn.bias"}
    with pytest.raises(ValueError, match="neck.out_convs.0.bn.bias"):
        RTMDetIns.from_state_dict(rest)


def test_checkpoint_around_the_weights_is_refused(weights: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="'state_dict' entry"):
        RTMDetIns.from_state_dict({"meta": torch.zeros(1), "state_dict": torch.zeros(1)})


@pytest.mark.parametrize(
    "name",
    [
        "bbox_head.reg_convs.1.0.bn.running_mean",
        "bbox_head.reg_convs.0.1.conv.weight",
        "bbox_head.cls_convs.2.0.conv.weight",
    ],
)
def test_separate_towers_are_refused(weights: dict[str, Tensor], name: str) -> None:
    with pytest.raises(ValueError, match=name.replace(".", r"\.") + " differs"):
        RTMDetIns.from_state_dict({**weights, name: weights[name] + 1})
