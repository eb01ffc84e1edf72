# SPDX-License-Identifier: Apache-2.0
"""Building pose networks from state dicts: sizes, strictness, precision."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from random_vit import random_state_dict

from bmp_ros.networks.vit_pose import PMPoseOutput, VitPose, sparsemax2d

SMALL_MAPS = arrays(np.float32, (1, 2, 4, 3), elements=st.floats(-20, 20, width=32))


@pytest.mark.parametrize("num_keypoints", [17, 21, 23])
def test_sizes_come_from_the_tensors(num_keypoints):
    network = VitPose.from_state_dict(
        random_state_dict(width=32, depth=3, hidden=40, channels=8, num_keypoints=num_keypoints),
        head="heatmap",
        num_heads=2,
    )
    assert network.num_keypoints == num_keypoints
    assert network.input_size == (192, 256) and network.heatmap_size == (48, 64)
    assert len(network.backbone.layers) == 3 and not network.training
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 256, 192)).shape == (2, num_keypoints, 64, 48)


def test_pmpose_gives_distributions_and_values_between_zero_and_one():
    network = VitPose.from_state_dict(random_state_dict(head="pmpose"), head="pmpose", num_heads=4)
    crops = torch.randn(2, 3, 256, 192, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        output = network(crops)
    assert isinstance(output, PMPoseOutput)
    torch.testing.assert_close(output.heatmaps.sum(dim=(2, 3)), torch.ones(2, 23))
    for values in output[1:]:
        assert values.shape == (2, 23)
        assert (values > 0).all() and (values < 1).all() and values.std() > 0.01


@pytest.mark.parametrize("width, heads", [(384, 12), (768, 12), (1024, 16), (1280, 16)])
def test_published_widths_have_published_heads(width, heads):
    state_dict = random_state_dict(width=width, depth=1, hidden=8, channels=4)
    network = VitPose.from_state_dict(state_dict, head="heatmap")
    assert network.backbone.layers[0].attn.num_heads == heads


def test_the_number_of_heads_matters():
    state_dict, crops = random_state_dict(), torch.ones(1, 3, 256, 192)
    with torch.inference_mode():
        two, four = (
            VitPose.from_state_dict(state_dict, head="heatmap", num_heads=heads)(crops)
            for heads in (2, 4)
        )
    assert (two - four).abs().max() > 0.01


def test_what_is_dropped_is_dropped_by_name():
    state_dict = random_state_dict(head="pmpose")
    state_dict["data_preprocessor.mean"] = torch.zeros(3, 1, 1)
    state_dict["ema_backbone_pos_embed"] = torch.zeros(1)
    loaded = VitPose.from_state_dict(state_dict, head="pmpose", num_heads=4).state_dict()
    gone = {key.split("_")[0] for key in set(state_dict) - set(loaded)}
    assert gone == {"data", "ema", "head.error"}


def broken(change) -> dict[str, torch.Tensor]:
    state_dict = random_state_dict()
    change(state_dict)
    return state_dict


@pytest.mark.parametrize(
    "state_dict, options, message",
    [
        (broken(lambda s: s.pop("backbone.ln1.bias")), {}, "backbone.ln1.bias"),
        (broken(lambda s: s.update(extra=torch.zeros(1))), {}, "extra"),
        (broken(lambda s: s.pop("backbone.pos_embed")), {}, "pos_embed.*is missing.*state_dict"),
        (
            random_state_dict(head="pmpose"),
            {},
            "not the state dict.*'heatmap'.*probability_layers",
        ),
        (
            random_state_dict(),
            {"head": "pmpose"},
            "not the state dict.*'pmpose'.*probability_layers",
        ),
        (random_state_dict(), {"head": "simcc"}, "heatmap, pmpose.*'simcc'"),
        (random_state_dict(), {"num_heads": None}, "width 48.*num_heads"),
        (random_state_dict(), {"num_heads": 5}, "width 48, got 5"),
        (
            broken(lambda s: s.update({"backbone.pos_embed": torch.zeros(1, 256, 48)})),
            {},
            "256 tokens.*192",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(state_dict, options, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        VitPose.from_state_dict(state_dict, **{"head": "heatmap", "num_heads": 4, **options})


def test_half_precision_keeps_normalisations_and_outputs_in_float32():
    network = VitPose.from_state_dict(
        random_state_dict(head="pmpose"), head="pmpose", num_heads=4
    ).set_precision(torch.bfloat16)
    assert network.backbone.layers[0].attn.qkv.weight.dtype == torch.bfloat16
    assert network.head.deconv_layers[0].weight.dtype == torch.bfloat16
    assert network.backbone.layers[0].ln1.weight.dtype == torch.float32
    assert network.head.deconv_layers[1].running_var.dtype == torch.float32
    with torch.inference_mode():
        output = network(torch.zeros(1, 3, 256, 192))
    assert all(values.dtype == torch.float32 for values in output)


def test_half_precision_is_close_to_full_precision():
    state_dict = random_state_dict()
    crops = torch.randn(2, 3, 256, 192, generator=torch.Generator().manual_seed(0))
    full, half = (VitPose.from_state_dict(state_dict, head="heatmap", num_heads=4) for _ in "12")
    half.set_precision(torch.bfloat16)
    with torch.inference_mode():
        expected, heatmaps = full(crops), half(crops)
    # bfloat16 has 8 bits of mantissa; errors grow over a dozen layers in sequence.
    assert (heatmaps - expected).std() < 0.03 * expected.std()


def test_a_large_residual_stream_stays_finite_in_half_precision():
    """Large transformers carry single activations beyond 65504, the largest float16."""
    state_dict = random_state_dict()
    state_dict["backbone.pos_embed"][:, :, 0] = 1e5
    network = VitPose.from_state_dict(state_dict, head="heatmap", num_heads=4)
    seen = []
    network.backbone.ln1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.set_precision(torch.bfloat16)
    with torch.inference_mode():
        heatmaps = network(torch.zeros(1, 3, 256, 192))
    assert seen[0].dtype == torch.float32 and seen[0].max() > 9e4
    assert torch.isfinite(heatmaps).all()


@given(SMALL_MAPS)
def test_sparsemax_is_the_projection_onto_the_simplex(maps):
    projected = sparsemax2d(torch.from_numpy(maps)).numpy().astype(np.float64)
    assert (projected >= 0).all() and (projected <= 1).all()
    np.testing.assert_allclose(projected.sum(axis=(2, 3)), 1, atol=1e-5)
    # Optimality: the same threshold was taken from every cell in the support, and no cell
    # outside of it exceeds that threshold.
    for values, result in zip(maps.reshape(2, -1), projected.reshape(2, -1), strict=True):
        thresholds = (values - result)[result > 0]
        assert np.ptp(thresholds) <= 1e-4
        assert values[result == 0].max(initial=-np.inf) <= thresholds.mean() + 1e-4


def test_sparsemax_of_large_values_keeps_its_precision():
    maps = torch.tensor([[[[1e4, 1e4 + 0.5], [0.0, -1e4]]]])
    torch.testing.assert_close(sparsemax2d(maps), torch.tensor([[[[0.25, 0.75], [0, 0]]]]))
