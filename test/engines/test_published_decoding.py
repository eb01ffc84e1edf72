# SPDX-License-Identifier: Apache-2.0
"""Crops and decoders of HRNet, SimDR and OmniPose against golden vectors of the published code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seed_networks import golden

from bmp_ros.engines.coordinates import (
    decode_regression,
    decode_simcc,
    decode_simdr,
    merge_flipped_bins,
    merge_flipped_points,
    softmax,
)
from bmp_ros.engines.crops import CONVENTIONS, crop_geometry, warp_crops
from bmp_ros.engines.heatmaps import (
    decode_dark,
    decode_quarter,
    decode_udp_combined,
    merge_flipped,
    merge_flipped_combined,
)
from bmp_ros.engines.pose_decoding import DECODINGS, find_decoding
from bmp_ros.loop.skeletons import COCO_17


def box_of(centre, span) -> np.ndarray:
    """The box (1, 4) xyxy whose crop has a centre and spans so many pixels: 1.25 times the box."""
    half = np.asarray(span, np.float64) / 2.5
    return np.concatenate([centre - half, centre + half], axis=-1).reshape(1, 4)


# ---------------------------------------------------------------- HRNet and SimDR


def test_boxes_and_crops_of_hrnet():
    vectors = golden("sithu_prepost")
    geometry = crop_geometry(vectors["b2cs_in"], (192, 256), "corners")
    np.testing.assert_allclose(geometry.image_to_crop, vectors["affine"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(warp_crops(vectors["image"], geometry), vectors["crops"])


def published_points(points, grid, vectors_box):
    x, y, width, height = vectors_box[0]
    box = box_of(np.array([x, y]), 200 * np.array([width, height]))
    return crop_geometry(box, (192, 256), "corners").points_to_image(points, grid)


def test_quarter_offset_on_blobs():
    vectors = golden("sithu_prepost")
    points, scores = decode_quarter(vectors["hm"].astype(np.float32))
    found = published_points(points, (48, 64), vectors["hm_box"])
    np.testing.assert_allclose(found, vectors["hm_xy_float"], atol=1e-3)
    # The published code cuts off the fraction.
    assert (np.abs(found - vectors["hm_xy_int"]) < 1.001).all()
    assert scores[0, 16] < 0 and (points[0, 16] == -1).all()  # nothing positive in this map


@pytest.mark.parametrize("width", ["w32", "w48"])
def test_quarter_offset_on_the_heatmaps_of_a_network(width):
    vectors = golden(f"sithu_posehrnet_{width}")
    points, _ = decode_quarter(vectors["heatmap"])
    found = published_points(points, (24, 32), vectors["box_cxcywh_scale"])
    np.testing.assert_allclose(found, vectors["image_xy_float"], atol=1e-3)


@pytest.mark.parametrize("width", ["w32", "w48"])
def test_bins_of_simdr(width):
    vectors = golden(f"sithu_simdr_{width}")
    along = softmax(vectors["pred_x"]), softmax(vectors["pred_y"])
    points, scores = decode_simdr(*along)
    np.testing.assert_array_equal(points[..., 0], vectors["argmax_x"])
    np.testing.assert_array_equal(points[..., 1], vectors["argmax_y"])
    found = published_points(points, (384, 512), vectors["box_cxcywh_scale"])
    np.testing.assert_allclose(found, vectors["image_xy_float"], atol=1e-3)
    assert (scores > 0).all() and (scores <= 1).all()


# ---------------------------------------------------------------- OmniPose


@pytest.mark.parametrize("size", [(192, 256), (96, 128)])
def test_boxes_of_omnipose(size):
    vectors, name = golden("omnipose_prepost"), f"{size[0]}x{size[1]}"
    x, y, width, height = vectors["boxes_xywh"].T
    boxes = np.stack([x, y, x + width, y + height], axis=1)
    geometry = crop_geometry(boxes, size, "width")
    for found, wanted in (
        (geometry.image_to_crop, vectors[f"affine_{name}"]),
        (geometry.crop_to_image, vectors[f"affine_inv_{name}"]),
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5)
    if size == (96, 128):
        np.testing.assert_array_equal(
            warp_crops(vectors["image"], geometry), vectors["crops_96x128"]
        )


def in_the_image(points, grid, centre, scale):
    """By the published formula, which takes one factor from the width for both axes."""
    size = {(48, 64): (192, 256), (24, 32): (96, 128), (64, 64): (256, 256), (32, 32): (128, 128)}
    box = box_of(centre[0].astype(float) + 0.5, 200 * scale[0].astype(float))
    return crop_geometry(box, size[grid], "width").points_to_image(points, grid)


@pytest.mark.parametrize("name", ["a_", "b_", "c_", "w48_coco17", "w48_mpii16", "lite_coco17"])
def test_dark_of_omnipose(name):
    if name.endswith("_"):
        vectors = golden("omnipose_prepost")
        keys = {key: name + key for key in ("maxvals", "center", "scale", "dark_image_xy")}
        keys |= {"heatmap": f"{name}heatmap", "dark": f"{name}dark_heatmap_xy"}
    else:
        vectors = golden(f"omnipose_{name}")
        keys = {"maxvals": "maxvals", "center": "center", "scale": "scale",
                "dark_image_xy": "dark_xy_image", "heatmap": "heatmap_fliptest",
                "dark": "dark_xy_heatmap"}  # fmt: skip
    heatmaps = vectors[keys["heatmap"]].astype(np.float32)
    points, scores = decode_dark(heatmaps)
    # A joint without a positive value is published as the corner (0, 0), with its score.
    found = vectors[keys["maxvals"]][0, :, 0] > 0
    np.testing.assert_allclose(scores[0], vectors[keys["maxvals"]][0, :, 0])
    assert (points[0, ~found] == -1).all() and found.any()
    np.testing.assert_allclose(points[0, found], vectors[keys["dark"]][0, found], atol=1e-3)
    grid = heatmaps.shape[3], heatmaps.shape[2]
    image = in_the_image(points, grid, vectors[keys["center"]], vectors[keys["scale"]])
    np.testing.assert_allclose(
        image[0, found], vectors[keys["dark_image_xy"]][0, found], rtol=1e-5, atol=1e-2
    )


def test_dark_stays_at_the_maximum_of_what_is_no_peak():
    flat = np.ones((1, 2, 20, 20), np.float32)
    flat[0, 1] = 0
    points, scores = decode_dark(flat)
    assert np.isfinite(points).all()
    assert scores.tolist() == [[1, 0]] and points[0, 1].tolist() == [-1, -1]
    ridge = np.broadcast_to(np.linspace(1, 1.001, 40, dtype=np.float32), (1, 1, 40, 40)).copy()
    ridge[0, 0, 20, 20] = 1.002
    points, _ = decode_dark(ridge)
    assert np.abs(points - 20).max() <= 5


# ---------------------------------------------------------------- what has no vectors


def blob(x: float, y: float, size=(24, 32), sigma: float = 2.0) -> np.ndarray:
    columns, rows = np.arange(size[0]), np.arange(size[1])[:, None]
    squares = (columns - x) ** 2 + (rows - y) ** 2
    return np.exp(-squares / (2 * sigma**2)).astype(np.float32)


@given(st.floats(4, 19), st.floats(4, 27))
def test_dark_finds_a_gaussian(x, y):
    points, _ = decode_dark(blob(x, y)[None, None])
    np.testing.assert_allclose(points[0, 0], [x, y], atol=0.05)


@given(st.floats(9, 14), st.floats(10, 21))  # far from the border, where the blur reflects
def test_combined_maps_tell_the_offset(x, y):
    """UDP's combined target: a disc around the joint, offsets in units of 0.0546875 x 32 cells."""
    column, row = round(x), round(y)
    heatmaps = np.zeros((1, 3, 32, 24), np.float32)
    heatmaps[0, 0] = blob(column, row, sigma=1)
    heatmaps[0, 1], heatmaps[0, 2] = (x - column) / 1.75, (y - row) / 1.75
    points, scores = decode_udp_combined(heatmaps)
    np.testing.assert_allclose(points[0, 0], [x, y], atol=1e-5)
    assert 0 < scores[0, 0] < 1


def test_combined_maps_of_a_crowd():
    """More maps than OpenCV takes as the channels of one image, which are 512."""
    maps = np.random.default_rng(0).normal(size=(40, 51, 16, 12)).astype(np.float32)
    points, peaks = decode_udp_combined(maps)
    for one in (0, 31, 39):
        alone, peak = decode_udp_combined(maps[one : one + 1])
        np.testing.assert_array_equal(points[one], alone[0])
        np.testing.assert_array_equal(peaks[one], peak[0])


@pytest.mark.parametrize(
    ("cell", "official", "mmpose"),
    [
        ((5, 5), (0.25, 0.25), (0.25, 0.25)), ((1, 5), (0, 0), (0, 0.25)),
        ((5, 1), (0, 0), (0.25, 0)), ((11, 5), (0, 0), (0, 0.25)), ((5, 15), (0, 0), (0.25, 0)),
        ((0, 5), (0, 0), (0, 0)), ((5, 0), (0, 0), (0, 0)), ((0, 0), (0, 0), (0, 0)),
    ],
)  # fmt: skip
def test_quarter_offset_at_the_border(cell, official, mmpose):
    """Where the official code and MMPose differ: in columns and rows that have no neighbour."""
    x, y = cell
    rows, columns = np.mgrid[:16, :12]
    heatmap = -np.hypot(columns - x - 0.2, rows - y - 0.2) + 10.0
    for axes_apart, step in ((False, official), (True, mmpose)):
        points, _ = decode_quarter(heatmap[None, None], axes_apart=axes_apart)
        np.testing.assert_allclose(points[0, 0] - cell, step)


@given(st.integers(0, 191), st.integers(0, 255))
def test_mirrored_bins_agree_after_the_shift(x, y):
    """A joint at pixel x lies at bin 2 x; in the mirrored crop at pixel 191 - x."""
    bins = np.zeros((2, 17, 384), np.float32)
    rows = np.zeros((2, 17, 512), np.float32)
    bins[0, 5, 2 * x] = bins[1, 6, 2 * (191 - x)] = 1
    rows[0, 5, 2 * y] = rows[1, 6, 2 * y] = 1
    merged = merge_flipped_bins(bins, rows, COCO_17.flip_indices, shift=True)
    points, scores = decode_simcc(*merged)
    assert points[0, 5].tolist() == [2 * x, 2 * y] and scores[0, 5] == 1
    assert points[0, 6].tolist() == [-1, -1]


@given(st.integers(28, 163))
def test_mirrored_heatmaps_agree_after_the_shift(x):
    """Cell c of a heatmap lies upon pixel 4 c, so mirrored maps are 3/4 of a cell off."""
    heatmaps = np.zeros((2, 17, 32, 48), np.float32)
    heatmaps[0, 5] = blob(x / 4, 16, (48, 32))
    heatmaps[1, 6] = blob((191 - x) / 4, 16, (48, 32))
    merged = merge_flipped(heatmaps, COCO_17.flip_indices, shift=True)
    plain = merge_flipped(heatmaps, COCO_17.flip_indices)
    for maps, offset in ((merged, 1 / 8), (plain, -3 / 8)):
        middle = np.average(np.arange(48), weights=maps[0, 5].sum(axis=0))
        assert abs(middle - x / 4 - offset) < 0.02


@given(st.floats(0, 191), st.floats(0, 255))
def test_mirrored_points_agree(x, y):
    found = np.zeros((2, 17, 4), np.float32)
    found[0, 5, :2] = x / 192, y / 256
    found[1, 6, :2] = (191 - x) / 192, y / 256
    merged = merge_flipped_points(found, COCO_17.flip_indices, shift=1 / 192)
    points, scores = decode_regression(merged)
    np.testing.assert_allclose(points[0, 5], [x / 192, y / 256], atol=1e-6)
    assert scores[0, 5] == 1


def test_mirrored_offsets_change_their_sign():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(1, 51, 8, 6)).astype(np.float32)
    mirrored = maps.reshape(1, 17, 3, 8, 6)[:, COCO_17.flip_indices][..., ::-1].copy()
    mirrored[:, :, 1] *= -1
    both = np.concatenate([maps, mirrored.reshape(maps.shape)])
    np.testing.assert_allclose(merge_flipped_combined(both, COCO_17.flip_indices), maps)


@given(
    st.sampled_from(CONVENTIONS),
    st.floats(-50, 300), st.floats(-50, 300), st.floats(0, 300), st.floats(0, 300),
)  # fmt: skip
def test_crop_pixels_are_where_the_matrices_say(convention, x, y, width, height):
    """A grid as fine as the crop is the crop, whatever the convention; there and back again."""
    geometry = crop_geometry(np.array([[x, y, x + width, y + height]]), (96, 128), convention)
    pixels = np.array([[[0, 0], [95, 127], [40, 70.5]]])
    mapped = geometry.points_to_image(pixels, (96, 128))[0]
    matrix = geometry.crop_to_image[0]
    np.testing.assert_allclose(
        mapped, pixels[0] @ matrix[:, :2].T + matrix[:, 2], rtol=1e-5, atol=1e-3
    )
    back = geometry.image_to_crop[0]
    np.testing.assert_allclose(
        mapped @ back[:, :2].T + back[:, 2], pixels[0], rtol=1e-4, atol=0.05
    )


def test_decodings_refuse_what_they_cannot_go_with():
    with pytest.raises(ValueError, match="allowed: udp, quarter"):
        find_decoding("softargmax", "udp", False)
    with pytest.raises(ValueError, match="convention corners, got 'udp'"):
        find_decoding("simdr", "udp", False)
    with pytest.raises(ValueError, match="shift_flipped: false"):
        find_decoding("simcc", "corners", True)
    assert find_decoding("rle", "corners", True) is DECODINGS["rle"]
    with pytest.raises(ValueError, match="crop convention is 'centre', allowed: udp"):
        crop_geometry(np.zeros((1, 4)), convention="centre")
