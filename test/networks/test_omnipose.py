# SPDX-License-Identifier: Apache-2.0
"""OmniPose against golden vectors, and what it says to foreign files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from seed_networks import assert_close, golden, layout, run, state_dict

from bmp_ros.engines.heatmaps import merge_flipped
from bmp_ros.loop.skeletons import COCO_17, MPII_16
from bmp_ros.networks.hrnet import TrunkSize, load_pose_hrnet
from bmp_ros.networks.omnipose import OmniPose, gaussian_kernel, load_omnipose

TINY = TrunkSize((8, 16, 24, 32), (1, 1, 1), 1)


def layout_of(variant: str):
    if variant == "lite_coco17":
        return layout("omnipose_lite_coco17")
    entries = layout("omnipose_w48_coco17")
    if variant == "w48_coco17":
        return entries
    return [
        (key, (16, *shape[1:]) if key.startswith("waspv2.last_conv.6.") else shape)
        for key, shape in entries
    ]


VARIANTS = {  # keypoints, tensors, parameters
    "lite_coco17": (COCO_17, 2508, 11_128_984),
    "w48_coco17": (COCO_17, 2203, 68_141_357),
    "w48_mpii16": (MPII_16, 2203, 68_141_308),
}


@pytest.fixture(scope="module")
def kept():
    """Weights by name and shape, which several networks have in common."""
    return {}


@pytest.mark.parametrize(
    "variant",
    ["lite_coco17", *(pytest.param(v, marks=pytest.mark.slow) for v in list(VARIANTS)[1:])],
)
def test_heatmaps_equal_the_published_ones(variant, kept):
    vectors = golden(f"omnipose_{variant}")
    skeleton, tensors, parameters = VARIANTS[variant]
    entries = layout_of(variant)
    assert len(entries) == tensors
    network = load_omnipose(state_dict(entries, kept))
    assert sum(value.numel() for value in network.parameters()) == parameters
    assert network.num_keypoints == len(skeleton)
    straight = run(network, vectors["input"])
    mirrored = run(network, vectors["input"][..., ::-1].copy())
    assert_close(straight, vectors["heatmap"])
    assert_close(mirrored, vectors["heatmap_flipped_raw"])
    merged = merge_flipped(torch.cat([straight, mirrored]).numpy(), skeleton.flip_indices)
    assert_close(torch.from_numpy(merged), vectors["heatmap_fliptest"])


def test_the_gaussian_of_the_published_files():
    kernel = gaussian_kernel().numpy()
    np.testing.assert_allclose(kernel.sum(), 1, atol=1e-6)
    np.testing.assert_allclose(
        [kernel[0, 0], kernel[0, 1], kernel[1, 1]], [0.1070, 0.1131, 0.1196], atol=5e-5
    )


@pytest.mark.parametrize("lite", [False, True])
@pytest.mark.parametrize("separable", [False, True])
def test_variants_are_told_apart_by_their_tensors(lite, separable):
    torch.manual_seed(0)
    original = OmniPose(16, lite=lite, separable=separable, size=TINY).eval()
    stored = {f"module.{key}": value for key, value in original.state_dict().items()}
    loaded = load_omnipose(stored, (64, 64))
    assert (loaded.num_keypoints, loaded.input_size) == (16, (64, 64))
    crops = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(crops), original(crops))


def test_a_foreign_or_damaged_file_is_one_clear_error():
    own = dict(OmniPose(size=TINY).state_dict())
    with pytest.raises(ValueError, match="engine omnipose"):
        load_pose_hrnet(own)
    for change, message in (
        ({"waspv2.bn1.bias": None}, r"OmniPose: .* 1 missing .waspv2\.bn1\.bias"),
        ({"waspv2.last_conv.6.weight": None}, r"OmniPose: waspv2\.last_conv\.6\.weight is miss"),
        ({"head.weight": torch.zeros(1)}, r"1 not part of the network .head\.weight"),
        ({"waspv2.bn1.bias": torch.zeros(7)}, r"1 of another shape .waspv2\.bn1\.bias .7"),
    ):
        damaged = {k: v for k, v in {**own, **change}.items() if v is not None}
        with pytest.raises(ValueError, match=message) as caught:
            load_omnipose(damaged)
        assert len(str(caught.value)) < 500
