# SPDX-License-Identifier: Apache-2.0
"""Sparsemax, flip merge and UDP-DARK on tensors."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmp_ros.engines import heatmaps as numpy_heatmaps
from bmp_ros.engines.torch.heatmaps import (
    decode_udp_dark,
    merge_flipped,
    parabola_vertex,
    sparsemax2d,
)
from bmp_ros.loop.skeletons import COCO_17

SMALL_MAPS = arrays(np.float32, (1, 2, 4, 3), elements=st.floats(-20, 20, width=32))


def peaked_maps(seed: int) -> np.ndarray:
    """(3, 17, 64, 48) bells anywhere, some cut by the border, one map without a positive value."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :48]
    x, y = rng.uniform(-1, 48, (3, 17, 1, 1)), rng.uniform(-1, 64, (3, 17, 1, 1))
    sigma, amplitude = rng.uniform(1, 4, (3, 17, 1, 1)), rng.uniform(0.01, 1.5, (3, 17, 1, 1))
    heatmaps = amplitude * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    heatmaps[0, 0] = -1
    return heatmaps.astype(np.float32)


def test_both_decoders_agree():
    heatmaps = peaked_maps(0)
    expected, expected_peaks = numpy_heatmaps.decode_udp_dark(heatmaps)
    points, peaks = decode_udp_dark(torch.from_numpy(heatmaps))
    np.testing.assert_array_equal(peaks, expected_peaks)
    np.testing.assert_allclose(points, expected, atol=2e-3)
    np.testing.assert_array_equal(points[0, 0], [-1, -1])


@given(arrays(np.float64, (6, 3, 3), elements=st.floats(-7, 4)))
def test_both_newton_steps_agree(patches):
    steps = parabola_vertex(torch.from_numpy(patches)).numpy()
    np.testing.assert_allclose(
        steps, numpy_heatmaps.parabola_vertex(patches), rtol=1e-6, atol=1e-9
    )


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


def test_flip_merge_averages_each_joint_with_its_mirrored_partner():
    rng = torch.Generator().manual_seed(0)
    outputs = torch.rand(6, 17, 8, 6, generator=rng)
    merged = merge_flipped(outputs, torch.from_numpy(COCO_17.flip_indices))
    left_ankle, right_ankle = 15, 16
    expected = (outputs[1, left_ankle] + outputs[4, right_ankle].flip(1)) / 2
    torch.testing.assert_close(merged[1, left_ankle], expected)
    expected = (outputs[2, 0] + outputs[5, 0].flip(1)) / 2
    torch.testing.assert_close(merged[2, 0], expected)


def test_flip_merge_of_values_swaps_partners_only():
    outputs = torch.arange(2.0 * 17).reshape(2, 17)
    merged = merge_flipped(outputs, torch.from_numpy(COCO_17.flip_indices))
    assert merged.shape == (1, 17)
    assert merged[0, 5] == (outputs[0, 5] + outputs[1, 6]) / 2


@given(st.integers(0, 1000))
def test_merging_an_image_with_itself_mirrored_is_symmetric(seed):
    generator = torch.Generator().manual_seed(seed)
    flip_indices = torch.from_numpy(COCO_17.flip_indices)
    straight, mirrored = torch.rand(2, 1, 17, 8, 6, generator=generator)
    one = merge_flipped(torch.cat([straight, mirrored]), flip_indices)
    other = merge_flipped(torch.cat([mirrored, straight]), flip_indices)
    torch.testing.assert_close(one, other[:, flip_indices].flip(3))
