# SPDX-License-Identifier: Apache-2.0
"""The native pose networks and the decoder give the published numbers."""

import numpy as np
import pytest
import torch
from golden_vit import HEADS, Golden

from bmp_ros.engines.crops import crop_geometry
from bmp_ros.engines.heatmaps import decode_udp_dark, merge_flipped
from bmp_ros.networks.vit_pose import VitPose

WELL_CONDITIONED = {"maskpose_tiny": 28, "pmpose_tiny": 113}
"""Joints of 115 whose sub-pixel step is at most one heatmap pixel."""


def run_flipped(golden: Golden):
    crops = torch.from_numpy(golden["net_inputs"])
    with torch.inference_mode():
        return golden.network()(torch.cat([crops, crops.flip(3)]))


def merged(golden: Golden, output: torch.Tensor) -> np.ndarray:
    return merge_flipped(output.numpy(), golden["flip_indices"])


@pytest.mark.parametrize("name", HEADS)
def test_heatmaps_equal_the_published_ones(name):
    golden = Golden(name)
    output = run_flipped(golden)
    heatmaps = merged(golden, output.heatmaps if golden.head == "pmpose" else output)
    np.testing.assert_allclose(heatmaps, golden["heatmaps_flip_averaged"], rtol=0, atol=1e-5)


def test_maskpose_scores_are_the_peaks_of_the_heatmaps():
    golden = Golden("maskpose_tiny")
    peaks = merged(golden, run_flipped(golden)).max(axis=(2, 3))
    np.testing.assert_allclose(peaks, golden["keypoint_scores"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "output, published",
    [
        ("presence", "keypoints_probs"),
        ("visibility", "keypoints_visible"),
        ("oks", "keypoints_oks"),
        ("oks", "keypoint_scores"),
    ],
)
def test_pmpose_towers_equal_the_published_ones(output, published):
    golden = Golden("pmpose_tiny")
    values = merged(golden, getattr(run_flipped(golden), output))
    np.testing.assert_allclose(values, golden[published], rtol=0, atol=5e-6)


@pytest.mark.parametrize("name", HEADS)
def test_keypoints_equal_the_published_ones(name):
    golden = Golden(name)
    output = run_flipped(golden)
    heatmaps = merged(golden, output.heatmaps if golden.head == "pmpose" else output)
    points, _ = decode_udp_dark(heatmaps)
    keypoints = crop_geometry(golden["boxes_xyxy"]).points_to_image(points, (48, 64))

    well_conditioned = golden.dark_offsets() <= 1
    assert well_conditioned.sum() == WELL_CONDITIONED[name]
    error = np.abs(keypoints - golden["keypoints"])[well_conditioned]
    assert error.max() <= 0.02


def test_the_untrained_error_tower_is_dropped_and_nothing_else():
    state_dict = Golden("pmpose_tiny").state_dict()
    loaded = VitPose.from_state_dict(state_dict, head="pmpose", num_heads=4).state_dict()
    dropped = {key for key in state_dict if key.startswith("head.error_layers.")}
    assert len(dropped) == 23
    assert set(loaded) == set(state_dict) - dropped
