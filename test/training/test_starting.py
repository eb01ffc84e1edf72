# SPDX-License-Identifier: Apache-2.0
"""What a training begins with: foreign heads are named, foreign backbones refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from bmp_ros.networks.rtmdet_ins import RTMDetIns, RTMDetInsSize
from bmp_ros.networks.vit_pose import HeatmapHead
from bmp_ros.training.starting import load_what_fits, start_from
from bmp_ros.training.tasks import make_task
from bmp_ros.training.variants import vit_head, vit_pose

TINY = {"width": 384, "depth": 1, "hidden": 64, "channels": 8}


def pose_network(joints: int, **other: Any) -> nn.Module:
    torch.manual_seed(joints)
    variant = {**TINY, **other}
    return vit_pose(variant, (96, 128), vit_head(variant, joints, HeatmapHead))


def test_heads_that_do_not_fit_are_named_and_begin_anew() -> None:
    network, published = pose_network(23), pose_network(17)
    before = network.state_dict()["head.final_layer.weight"].clone()
    state = {**published.state_dict(), "data_preprocessor.mean": torch.zeros(3)}
    told = load_what_fits(network, state, "file")
    assert [line.split(":")[0] for line in told] == [
        "head.final_layer.weight", "head.final_layer.bias",
    ]  # fmt: skip
    assert "(23, 8, 1, 1)" in told[0] and "(17, 8, 1, 1)" in told[0]
    after = network.state_dict()
    assert torch.equal(after["head.final_layer.weight"], before)
    name = "backbone.layers.0.attn.qkv.weight"
    assert torch.equal(after[name], published.state_dict()[name])


def test_another_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backbone\..*variant and size"):
        load_what_fits(pose_network(17), pose_network(17, hidden=32).state_dict(), "file")
    with pytest.raises(ValueError, match="file has nothing"):
        load_what_fits(pose_network(17), {"x": torch.zeros(1)}, "file")


def test_of_eighty_classes_the_persons_row_is_taken() -> None:
    size = RTMDetInsSize.scaled(0.125, 0.17)
    one, eighty = RTMDetIns(size, classes=1), RTMDetIns(size, classes=80)
    assert load_what_fits(one, eighty.state_dict(), "file") == []
    name = "bbox_head.rtm_cls.0.weight"
    assert torch.equal(one.state_dict()[name], eighty.state_dict()[name][:1])


class _Nothing:
    """Images that no test draws."""

    cut_outs = None


def test_names_of_zoo_and_presets(tmp_path: Path) -> None:
    task = make_task("vit_pose", cast(Any, _Nothing()), (96, 128), {"variant": TINY})
    torch.save(pose_network(17).state_dict(), tmp_path / "mine.pth")
    assert start_from(task, "mine.pth", tmp_path) == []
    with pytest.raises(ValueError, match="no preset is called so"):
        start_from(task, "no-such-thing", tmp_path)
    with pytest.raises(Exception, match="bmp models"):
        start_from(task, "maskpose-b-1.1.0", tmp_path)
    with pytest.raises(ValueError, match="cannot be read back"):
        start_from(task, tmp_path)
