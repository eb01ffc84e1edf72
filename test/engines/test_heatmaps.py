# SPDX-License-Identifier: Apache-2.0
"""UDP-DARK in NumPy, against vectors computed with the published implementation."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmp_ros.engines.heatmaps import (
    blur_matrix,
    decode_udp_dark,
    merge_flipped,
    parabola_vertex,
)
from bmp_ros.loop.skeletons import COCO_17


def gaussian(x: float, y: float, sigma: float = 2.0, amplitude: float = 1.0) -> np.ndarray:
    """One (1, 1, 64, 48) map with a bell at x, y."""
    rows, columns = np.mgrid[:64, :48]
    bell = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return (amplitude * bell).astype(np.float32)[None, None]


def pixels(values: dict[tuple[int, int], float]) -> np.ndarray:
    heatmap = np.zeros((1, 1, 64, 48), dtype=np.float32)
    for (x, y), value in values.items():
        heatmap[0, 0, y, x] = value
    return heatmap


PUBLISHED = {
    "between pixels": (gaussian(20.3, 30.6, amplitude=0.9), 0.8723, (20.3, 30.6)),
    "in the first corner": (gaussian(0.4, 0.2, amplitude=0.5), 0.4877, (-0.5, -0.5)),
    "in the last corner": (gaussian(47.6, 63.2), 0.9512, (47.5, 63.5)),
    "two narrow bells": (gaussian(10, 10, 0.6) + gaussian(30, 40, 0.6, 0.7), 1.0, (10, 10)),
    "nothing": (pixels({}), 0.0, (-1, -1)),
    "two pixels": (pixels({(20, 30): 0.6, (21, 30): 0.4}), 0.6, (20.394, 30)),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_vectors(case):
    heatmap, peak, point = PUBLISHED[case]
    points, peaks = decode_udp_dark(heatmap)
    np.testing.assert_allclose(peaks[0, 0], peak, atol=5e-5)
    np.testing.assert_allclose(points[0, 0], point, atol=5e-5)


def test_the_blur_is_opencvs_on_a_picture_padded_with_zeros():
    heatmap = np.random.default_rng(0).normal(size=(64, 48)).astype(np.float32)
    padded = cv2.copyMakeBorder(heatmap, 5, 5, 5, 5, cv2.BORDER_CONSTANT, value=0)
    expected = cv2.GaussianBlur(padded, (11, 11), 0)[5:-5, 5:-5]
    np.testing.assert_allclose(blur_matrix(64) @ heatmap @ blur_matrix(48), expected, atol=1e-6)


@given(arrays(np.float64, (4, 3, 3), elements=st.floats(-7, 4)))
def test_the_newton_step_is_that_of_the_pseudo_inverse(patches):
    steps = parabola_vertex(patches)
    for patch, step in zip(patches, steps, strict=True):
        (_, above, _), (left, middle, right), (_, below, _) = patch
        gradient = np.array([right - left, below - above]) / 2
        mixed = (patch[2, 2] - right - below + 2 * middle - left - above + patch[0, 0]) / 2
        hessian = np.array(
            [[right - 2 * middle + left, mixed], [mixed, below - 2 * middle + above]]
        )
        hessian += np.finfo(np.float32).eps * np.eye(2)
        singular = np.linalg.svd(hessian, compute_uv=False)
        if singular[1] > 1e-6 * singular[0]:
            expected = -np.linalg.pinv(hessian) @ gradient
            np.testing.assert_allclose(step, expected, rtol=1e-6, atol=1e-9)
        assert np.isfinite(step).all()


def test_a_ridge_without_curvature_along_it_moves_across_it_only():
    ridge = np.tile(np.array([-1.0, 0.0, -0.5]), (3, 1))[None]
    eps = float(np.finfo(np.float32).eps)  # a float32 would make the sums below ones of float32
    expected = -0.25 / (-1.5 + eps)
    np.testing.assert_allclose(parabola_vertex(ridge), [[expected, 0]], atol=1e-9)


def test_the_pseudo_inverse_of_a_matrix_of_rank_one():
    eps = float(np.finfo(np.float32).eps)  # a float32 would make the sums below ones of float32
    # A patch whose Hessian is [[-1, -1], [-1, -1]] once the decoder has added eps.
    right, left, below, above = 0.0, -1.0 - eps, 0.0, -1.0 - eps
    diagonal = 2 * (-1) + right + below + left + above
    patch = np.array([[diagonal, above, 0], [left, 0, right], [0, below, 0]])
    gradient = np.array([right - left, below - above]) / 2
    hessian = np.array([[left + eps, -1], [-1, above + eps]])
    expected = -np.linalg.pinv(hessian) @ gradient
    np.testing.assert_allclose(parabola_vertex(patch[None])[0], expected, rtol=1e-9)


@given(
    st.floats(8, 20), st.floats(8, 30), st.integers(0, 18), st.integers(0, 24), st.floats(0.1, 2)
)
def test_a_shifted_map_gives_the_shifted_point(x, y, shift_x, shift_y, amplitude):
    here, _ = decode_udp_dark(gaussian(x, y, amplitude=amplitude))
    there, _ = decode_udp_dark(gaussian(x + shift_x, y + shift_y, amplitude=amplitude))
    np.testing.assert_allclose(there - here, [[[shift_x, shift_y]]], atol=5e-3)
    np.testing.assert_allclose(here, [[[x, y]]], atol=5e-3)


@given(st.floats(3, 44), st.floats(3, 60))
def test_a_mirrored_map_gives_the_mirrored_point(x, y):
    heatmap = gaussian(x, y)
    plain, _ = decode_udp_dark(heatmap)
    mirrored, _ = decode_udp_dark(heatmap[..., ::-1])
    # 5e-3: exactly between two pixels the maximum may be either of them.
    np.testing.assert_allclose(47 - mirrored[..., 0], plain[..., 0], atol=5e-3)
    np.testing.assert_allclose(mirrored[..., 1], plain[..., 1], atol=5e-3)


def test_people_and_joints_are_decoded_independently():
    rng = np.random.default_rng(0)
    heatmaps = rng.random((3, 5, 64, 48), dtype=np.float32)
    points, peaks = decode_udp_dark(heatmaps)
    assert points.shape == (3, 5, 2) and peaks.shape == (3, 5)
    alone, alone_peak = decode_udp_dark(heatmaps[1:2, 3:4])
    np.testing.assert_allclose(points[1, 3], alone[0, 0], atol=1e-4)
    assert peaks[1, 3] == alone_peak[0, 0]


def test_flip_merge_averages_each_joint_with_its_mirrored_partner():
    outputs = np.random.default_rng(0).random((6, 17, 8, 6), dtype=np.float32)
    merged = merge_flipped(outputs, COCO_17.flip_indices)
    left_ankle, right_ankle = 15, 16
    expected = (outputs[1, left_ankle] + outputs[4, right_ankle][:, ::-1]) / 2
    np.testing.assert_allclose(merged[1, left_ankle], expected)
    expected = (outputs[2, 0] + outputs[5, 0][:, ::-1]) / 2
    np.testing.assert_allclose(merged[2, 0], expected)


def test_flip_merge_of_values_swaps_partners_only():
    outputs = np.arange(2.0 * 17).reshape(2, 17)
    merged = merge_flipped(outputs, COCO_17.flip_indices)
    assert merged.shape == (1, 17)
    assert merged[0, 5] == (outputs[0, 5] + outputs[1, 6]) / 2


@given(st.integers(0, 1000))
def test_merging_an_image_with_itself_mirrored_is_symmetric(seed):
    straight, mirrored = np.random.default_rng(seed).random((2, 1, 17, 8, 6), dtype=np.float32)
    one = merge_flipped(np.concatenate([straight, mirrored]), COCO_17.flip_indices)
    other = merge_flipped(np.concatenate([mirrored, straight]), COCO_17.flip_indices)
    np.testing.assert_allclose(one, other[:, COCO_17.flip_indices][..., ::-1])
