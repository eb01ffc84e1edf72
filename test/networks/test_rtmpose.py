# SPDX-License-Identifier: Apache-2.0
"""RTMPose: sizes, what is read from its tensors, foreign files.

That it gives MMPose's numbers is tested in engines/openmmlab/test_top_down_parity.py.
"""

from __future__ import annotations

import pytest
import torch

from bmp_ros.networks.rtmdet_ins import CSPNeXt
from bmp_ros.networks.rtmpose import RTMPose, RTMPoseHead

PARAMETERS = {"t": 3.34, "s": 5.47, "m": 13.59, "l": 27.66}
"""Millions, as MMPose's tables say."""


def tiny(**options) -> RTMPose:
    torch.manual_seed(0)
    backbone = CSPNeXt((4, 8, 16, 24, 32, 40), (1, 1, 1, 1))
    return RTMPose(backbone, RTMPoseHead(40, **options), (128, 192)).eval()


@pytest.mark.parametrize("size", PARAMETERS)
def test_the_published_sizes(size):
    count = sum(value.numel() for value in RTMPose.published(size).parameters())
    assert abs(count / 1e6 - PARAMETERS[size]) < 0.02


def test_everything_is_read_from_the_tensors():
    original = tiny(
        num_keypoints=21, cells=24, bins=(256, 384), kernel=3, width=16, hidden=24, queries=8
    )
    extra = {"data_preprocessor.mean": torch.zeros(3)}
    loaded = RTMPose.from_state_dict({**original.state_dict(), **extra})
    assert (loaded.input_size, loaded.num_keypoints) == ((128, 192), 21)
    crops = torch.randn(2, 3, 192, 128)
    with torch.inference_mode():
        for ours, theirs in zip(loaded(crops), original(crops), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own.pop("head.cls_x.weight"), "RTMPose: head.cls_x.weight is missing"),
        (lambda own: own.pop("head.gau.beta"), r"1 missing .head\.gau\.beta"),
        (lambda own: own.update({"neck.weight": torch.zeros(1)}), r"1 not part .*neck\.weight"),
        (lambda own: own.update({"head.cls_x.weight": torch.zeros(250, 256)}), "no crop of a"),
    ],
)
def test_a_foreign_or_damaged_file_is_one_clear_error(change, message):
    own = dict(tiny(num_keypoints=17, cells=24, bins=(256, 384)).state_dict())
    change(own)
    with pytest.raises(ValueError, match=message) as caught:
        RTMPose.from_state_dict(own)
    assert len(str(caught.value)) < 500
