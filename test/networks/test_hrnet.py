# SPDX-License-Identifier: Apache-2.0
"""PoseHRNet against golden vectors, in every layout, and what it says to foreign files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from seed_networks import assert_close, filled, golden, layout, run, state_dict

from bmp_ros.networks.hrnet import (
    W48,
    BasicBlock,
    HRNetTrunk,
    ParallelAttention,
    PoseHRNet,
    RLEHRNet,
    SequentialAttention,
    SimDRHRNet,
    TrunkParts,
    TrunkSize,
    load_pose_hrnet,
)

TINY = TrunkSize((8, 16, 24, 32), (1, 1, 1), 1)
"""Seconds become milliseconds; depth and widths are read from the tensors like the published."""
ATTENTION = {"p": ParallelAttention, "s": SequentialAttention}


def tiny(**options) -> PoseHRNet:
    torch.manual_seed(0)
    return PoseHRNet(TINY, **options).eval()


def sithu_w32():
    return layout("sithu_posehrnet_w32")


def sithu_w48():
    return [entry for entry in layout("sithu_simdr_w48") if "mlp_head" not in entry[0]]


@pytest.fixture(scope="module")
def kept():
    """Weights by name and shape, which several networks have in common."""
    return {}


@pytest.mark.parametrize("width", ["w32", pytest.param("w48", marks=pytest.mark.slow)])
def test_heatmaps_equal_the_published_ones(width, kept):
    vectors = golden(f"sithu_posehrnet_{width}")
    entries = sithu_w32() if width == "w32" else sithu_w48()
    assert len(entries) == 1754
    network = load_pose_hrnet(state_dict(entries, kept), (96, 128))
    assert network.num_keypoints == 17 and network.heatmap_size == (24, 32)
    assert_close(run(network, vectors["input"]), vectors["heatmap"])


@pytest.mark.parametrize("width", ["w32", pytest.param("w48", marks=pytest.mark.slow)])
def test_simdr_equals_the_published_one(width, kept):
    vectors = golden(f"sithu_simdr_{width}")
    heads = [entry for entry in layout("sithu_simdr_w48") if "mlp_head" in entry[0]]
    entries = (sithu_w32() if width == "w32" else sithu_w48()) + heads
    assert len(entries) == 1758
    network = load_pose_hrnet(state_dict(entries, kept))
    assert isinstance(network, SimDRHRNet)
    along_x, along_y = run(network, vectors["input"])
    assert_close(along_x, vectors["pred_x"])
    assert_close(along_y, vectors["pred_y"])
    for found, axis in ((along_x, "x"), (along_y, "y")):
        wanted, highest = vectors[f"pred_{axis}"], vectors[f"argmax_{axis}"]
        np.testing.assert_array_equal(wanted.argmax(2), highest)
        # Of two bins that are equally high but for rounding either may be the highest.
        there = np.take_along_axis(wanted, found.argmax(2).numpy()[..., None], 2)[..., 0]
        assert (wanted.max(2) - there <= 2e-4 * np.abs(wanted).max()).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["p", "s"])
def test_polarized_self_attention_composed_with_pose_hrnet(kind, kept):
    vectors = golden(f"psa_composed_pose_w48_PSA_{kind}")
    network = load_pose_hrnet(state_dict(with_attention(kind), kept), (96, 128))
    assert isinstance(network.stage2[0].branches[0][0].deattn, ATTENTION[kind])
    wanted = vectors["heatmap"]
    if kind == "s":
        assert_close(run(network, vectors["input"]), wanted)
        return
    # The softmax of PSA(p) over the large activations of random weights nearly picks one place, in
    # 104 blocks one after the other, so rounding grows: a change of the input by 1e-7 moves the
    # heatmaps by 1.4e-4, and the rounding of all layers by some 3e-3. In float32 each order of
    # summation has an answer of its own: bit-equal with two threads where the vectors were made,
    # 4e-3 off with one. In float64 there is one answer, and the vectors are 2.74e-3 from it.
    crops = torch.from_numpy(vectors["input"].astype(np.float64))
    with torch.inference_mode():
        assert_close(network.double()(crops), wanted, 3e-3)


def with_attention(kind):
    """The official layout, and the block's tensors in every basic block."""
    block = layout(f"PSA_{kind}_48")
    entries = layout("official_pose_hrnet_w48")
    for key, (width, *_) in [entry for entry in entries if entry[1]]:
        if ".branches." in key and key.endswith("conv1.weight"):
            sizes = {48: width, 24: width // 2, 6: width // 8, 1: 1}
            stem = key.removesuffix("conv1.weight")
            entries += [
                (f"{stem}deattn.{name}", tuple(sizes[side] for side in shape))
                for name, shape in block
            ]
    return entries


@pytest.mark.parametrize("channels", [48, 16])
@pytest.mark.parametrize("kind", ["p", "s"])
def test_attention_block(kind, channels):
    vectors = golden("psa_blocks")
    block = ATTENTION[kind](channels)
    fill(block, "deattn.")
    name = f"psa_PSA_{kind}_{channels}"
    x = torch.from_numpy(vectors[f"{name}_input"].astype(np.float32))
    with torch.inference_mode():
        assert_close(block(x), vectors[f"{name}_output"])
        assert_close(block.by_channel(x), vectors[f"{name}_channel_branch"])
        assert_close(block.by_place(x), vectors[f"{name}_spatial_branch"])


@pytest.mark.parametrize("kind", ["p", "s"])
def test_attention_in_a_basic_block(kind):
    vectors = golden("psa_blocks")
    block = BasicBlock(16, TrunkParts(attention=ATTENTION[kind])).eval()
    fill(block, "")
    found = run(block, vectors[f"psa_block_PSA_{kind}_input"])
    assert_close(found, vectors[f"psa_block_PSA_{kind}_output"])


def fill(module, prefix):
    own = module.state_dict()
    module.load_state_dict({key: filled(prefix + key, tuple(own[key].shape)) for key in own})


@pytest.mark.slow
def test_the_one_published_network_with_attention():
    """PSA's segmentation trunk: all scales, enlarged bilinearly, side by side."""
    vectors = golden("psa_seg_trunk_w48")
    parts = TrunkParts(attention=SequentialAttention, all_scales=True, resize="bilinear")
    trunk = HRNetTrunk(W48, parts).eval()
    fill(trunk, "")
    assert sum(value.numel() for value in trunk.parameters()) == 70_709_664
    x = torch.from_numpy(vectors["input"].astype(np.float32))
    with torch.inference_mode():
        _, branches = trunk.features(x, scales=4)
        size = branches[0].shape[-2:]
        enlarged = [
            torch.nn.functional.interpolate(branch, size=size, mode="bilinear")
            for branch in branches
        ]
    assert_close(torch.cat(enlarged, dim=1), vectors["feats"])


@pytest.mark.slow
def test_the_official_layout_is_that_of_the_network():
    own = [(key, tuple(value.shape)) for key, value in PoseHRNet(W48).state_dict().items()]
    assert sorted(own) == sorted(layout("official_pose_hrnet_w48"))


# ---------------------------------------------------------------- layouts, heads, sizes


def official(own):
    return own


def mmpose(own):
    return {
        ("head." if key.startswith(("final", "mlp", "fc")) else "backbone.") + key: value
        for key, value in own.items()
    } | {"data_preprocessor.mean": torch.zeros(3), "head.loss_module.flow.w": torch.zeros(2)}


def mmpose_0(own):
    return {key.replace("head.", "keypoint_head.", 1): value for key, value in mmpose(own).items()
            if "loss" not in key}  # fmt: skip


def sithu(own):
    return {
        key if key.startswith(("final", "mlp", "fc")) else f"backbone.{key}": value
        for key, value in own.items()
    }


def parallel(own):
    return {f"module.{key}": value for key, value in own.items()}


@pytest.mark.parametrize("arrange", [official, mmpose, mmpose_0, sithu, parallel])
@pytest.mark.parametrize("channels", [17, 16, 51])
def test_every_layout_gives_the_same_network(arrange, channels):
    original = tiny(channels=channels, input_size=(64, 96))
    crops = torch.randn(2, 3, 96, 64)
    loaded = load_pose_hrnet(arrange(original.state_dict()), (64, 96))
    with torch.inference_mode():
        heatmaps = loaded(crops)
        assert heatmaps.shape == (2, channels, 24, 16)
        assert torch.equal(heatmaps, original(crops))


def test_regression_is_scaled_to_the_crop_and_its_errors_to_one():
    torch.manual_seed(0)
    original = RLEHRNet(TINY, 17).eval()
    loaded = load_pose_hrnet(mmpose(original.state_dict()))
    crops = torch.randn(2, 3, 256, 192)
    with torch.inference_mode():
        found = loaded(crops)
        assert torch.equal(found, original(crops))
    assert found.shape == (2, 17, 4)
    assert (found[..., 2:] > 0).all() and (found[..., 2:] < 1).all()


def test_simdr_of_another_size_is_named():
    torch.manual_seed(0)
    network = SimDRHRNet(TINY, 16, bins=(512, 512), input_size=(256, 256))
    loaded = load_pose_hrnet(network.state_dict(), (256, 256))
    assert loaded.input_size == (256, 256)
    with pytest.raises(ValueError, match=r"fix its input to 256x256 .* set input_size: \[256"):
        load_pose_hrnet(network.state_dict(), (192, 256))


def test_files_of_before_the_counters_of_batches_load():
    own = {k: v for k, v in tiny().state_dict().items() if "num_batches" not in k}
    load_pose_hrnet(own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own.pop("final_layer.weight"), "final_layer.weight is missing"),
        (lambda own: own.pop("stage4.0.branches.3.0.conv1.weight"), "branches.3.0.conv1"),
        (lambda own: own.pop("layer1.0.conv2.weight"), "1 missing .layer1.0.conv2.weight"),
        (lambda own: own.update({"extra.weight": torch.zeros(1)}), "1 not part .*extra.weight"),
        (lambda own: own.update({"bn1.weight": torch.zeros(7)}), r"another shape .bn1.weight .7"),
        (lambda own: own.update({"backbone.conv1.weight": own["conv1.weight"]}), "two tensors"),
        (lambda own: own.update({"waspv2.conv1.weight": torch.zeros(1)}), "engine omnipose"),
    ],
)
def test_a_foreign_or_damaged_file_is_one_clear_error(change, message):
    own = dict(tiny().state_dict())
    change(own)
    with pytest.raises(ValueError, match=message) as caught:
        load_pose_hrnet(own)
    assert len(str(caught.value)) < 500
