# SPDX-License-Identifier: Apache-2.0
"""ConvPose: a distribution per joint, of any size that its weights say."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from bmp_ros.networks.conv_pose import PEAK_SIGMA, ConvPose  # noqa: E402
from bmp_ros.networks.residual_pyramid import PyramidSize  # noqa: E402

SMALL = PyramidSize((8, 12, 16, 16, 24), (1, 2, 1, 1), (16, 12, 8))


@pytest.fixture(scope="module")
def network() -> ConvPose:
    torch.manual_seed(0)
    return ConvPose(SMALL, num_keypoints=5).eval()


def test_heatmaps_are_scaled_distributions(network: ConvPose) -> None:
    with torch.inference_mode():
        heatmaps = network(torch.randn(3, 3, 192, 144))
    assert heatmaps.shape == (3, 5, 48, 36) and heatmaps.dtype == torch.float32
    # Far from certain, so nothing is cut off at 1.
    mass = heatmaps.sum(dim=(2, 3)) / (2 * math.pi * PEAK_SIGMA**2)
    assert torch.allclose(mass, torch.ones(3, 5), atol=1e-4)


def test_a_plain_joint_has_a_peak_of_one() -> None:
    """The logits of the training target itself, a Gaussian in the middle of the map."""
    network = ConvPose(SMALL, num_keypoints=1)
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(36.0), indexing="ij")
    gaussian = -((x - 18) ** 2 + (y - 24) ** 2) / (2 * PEAK_SIGMA**2)
    network.logits = lambda crops: gaussian[None, None]
    heatmap = network(torch.zeros(1, 3, 192, 144))[0, 0]
    assert heatmap[24, 18].item() == pytest.approx(1, abs=0.01)
    assert heatmap[24, 21].item() == pytest.approx(math.exp(-2), abs=0.01)


def test_sizes_are_read_from_the_weights(network: ConvPose) -> None:
    again = ConvPose.from_state_dict(network.state_dict())
    assert again.num_keypoints == 5 and again.pyramid.size == SMALL and not again.training
    crops = torch.randn(2, 3, 192, 144)
    with torch.inference_mode():
        assert torch.equal(again(crops), network(crops))


def test_foreign_weights_are_named(network: ConvPose) -> None:
    weights = dict(network.state_dict())
    with pytest.raises(ValueError, match="ConvPose"):
        ConvPose.from_state_dict({"a": torch.zeros(1)})
    del weights["head.1.bias"]
    with pytest.raises(ValueError, match=r"head\.1\.bias"):
        ConvPose.from_state_dict(weights)
