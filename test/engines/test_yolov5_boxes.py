# SPDX-License-Identifier: Apache-2.0
"""Letterbox, decoding and NMS around YOLOv5 against the published code's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.engines.yolov5_boxes import (
    CentredLetterbox,
    decode,
    network_input,
    select_boxes,
)

DATA = Path(__file__).parents[1] / "data" / "seed_networks"


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


YOLOV5, SITHU = golden("yolov5_prepost"), golden("sithu_detector_prepost")


def test_letterbox_of_yolov5() -> None:
    table = YOLOV5["letterbox_h_w_auto_scaleup_outh_outw_r_dw_dh"]
    assert len(table) == 28
    for height, width, minimal, enlarge, *expected in table:
        found = CentredLetterbox.fit(
            (int(width), int(height)), (640, 640), minimal=bool(minimal), enlarge=bool(enlarge)
        )
        padding = [(a - b) / 2 for a, b in zip(found.canvas, found.resized, strict=True)]
        assert [*found.canvas[::-1], found.scale, *padding] == expected


def test_letterbox_of_the_pipeline() -> None:
    for height, width, *expected in SITHU["letterbox_h_w_outh_outw_nh_nw_top_left"].tolist():
        found = CentredLetterbox.fit((width, height), (640, 640))
        assert [*found.canvas[::-1], *found.resized[::-1], *found.corner[::-1]] == expected


@pytest.mark.parametrize("vectors", [YOLOV5, SITHU], ids=["yolov5", "pipeline"])
def test_canvas_is_the_published_one_to_the_bit(vectors: dict[str, np.ndarray]) -> None:
    letterbox = CentredLetterbox.fit((131, 90), (160, 160))
    np.testing.assert_array_equal(letterbox.apply(vectors["image"]), vectors["letterbox_160"])


def test_boxes_come_back_as_published() -> None:
    letterbox = CentredLetterbox.fit((131, 90), (160, 160))
    boxes = letterbox.boxes_to_image(YOLOV5["scale_coords_in"])
    np.testing.assert_allclose(boxes, YOLOV5["scale_coords_out"], rtol=0, atol=1e-4)
    # The pipeline rounds its boxes to whole pixels, which we do not.
    boxes = letterbox.boxes_to_image(SITHU["scale_boxes_in"])
    np.testing.assert_array_equal(boxes.round(), SITHU["scale_boxes_out"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("default", {}),
        ("person", {"classes": [0]}),
        ("head", {"classes": [1]}),
        ("agnostic", {"agnostic": True}),
        ("multi", {"multi_label": True}),
        ("multi_test", {"multi_label": True, "score_threshold": 0.001, "nms_iou": 0.6}),
        ("multi_agnostic", {"multi_label": True, "agnostic": True}),
    ],
)
def test_nms_of_yolov5(name: str, options: dict) -> None:
    options = {"score_threshold": 0.25, "nms_iou": 0.45} | options
    found = select_boxes(YOLOV5["nms_in"][0], **options)
    np.testing.assert_array_equal(found, YOLOV5[f"nms_{name}"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("infer_default_0p4_0p5_person",
         {"classes": [0], "score_threshold": 0.4, "nms_iou": 0.5}),
        ("head", {"classes": [1]}),
        ("all", {}),
    ],
)  # fmt: skip
def test_nms_of_the_pipeline(name: str, options: dict) -> None:
    options = {"score_threshold": 0.25, "nms_iou": 0.45} | options
    found = select_boxes(SITHU["nms_in"][0], **options)
    np.testing.assert_array_equal(found, SITHU[f"nms_{name}"])


@pytest.mark.parametrize("network", ["yolov5_tiny_w0p0625_d0p33", "yolov5m_crowdhuman"])
def test_nms_of_whole_networks(network: str) -> None:
    vectors = golden(network)
    found = select_boxes(vectors["decoded"][0], score_threshold=0.25, nms_iou=0.45)
    np.testing.assert_array_equal(found, vectors["nms_0p25_0p45"])


sides = st.integers(1, 3000)


@given(sides, sides, st.sampled_from([(640, 640), (320, 256), (64, 96)]), st.booleans(),
       st.booleans())  # fmt: skip
def test_image_lies_on_a_canvas_of_multiples_of_32(
    width: int, height: int, largest: tuple[int, int], minimal: bool, enlarge: bool
) -> None:
    found = CentredLetterbox.fit((width, height), largest, minimal=minimal, enlarge=enlarge)
    for side, inner, first, most in zip(
        found.canvas, found.resized, found.corner, largest, strict=True
    ):
        assert side % 32 == 0 and 1 <= inner and 0 <= first <= first + inner <= side <= most
        assert minimal is False or side - inner < 32
        assert minimal or side == most
    corner = np.array([*found.corner, *np.add(found.corner, found.resized)], np.float32)
    back = found.boxes_to_image(corner[None])[0]
    # Within the rounding of one canvas pixel.
    np.testing.assert_allclose(back, [0, 0, width, height], atol=1.01 / found.scale)


@given(st.floats(0, 0.99), st.integers(0, 2**32 - 1))
def test_decoding_above_a_threshold_is_a_selection(threshold: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = [rng.normal(0, 3, (1, 21, 8 // s, 12 // s)).astype(np.float32) for s in (1, 2, 4)]
    anchors = rng.uniform(5, 300, (3, 3, 2)).astype(np.float32)
    everything = decode(maps, anchors)
    assert everything.shape == (3 * (96 + 24 + 6), 7)
    chosen = everything[everything[:, 4] > np.float32(threshold)]
    np.testing.assert_array_equal(decode(maps, anchors, np.float32(threshold)), chosen)


def test_large_and_missing_numbers() -> None:
    maps = [np.full((1, 21, 1, 1), value, np.float32) for value in (-1e4, np.nan, 1e4)]
    values = decode(maps, np.ones((3, 3, 2), np.float32), 0.5)
    assert len(values) == 6 and np.isnan(values[:3]).all() and (values[3:, 4] == 1).all()
    found = select_boxes(values, score_threshold=0.5, nms_iou=0.5, classes=[0])
    assert np.isfinite(found[0]).all() and np.isnan(found[1:]).all() and len(found) == 4


def test_nothing_is_found() -> None:
    empty = np.zeros((0, 7), np.float32)
    assert select_boxes(empty, score_threshold=0.3, nms_iou=0.5).shape == (0, 6)
    one = np.array([[9, 9, 4, 4, 0.9, 0.1, 0.8]], np.float32)
    found = select_boxes(one, score_threshold=0.3, nms_iou=0.5, classes=[0])
    assert found.shape == (0, 6)


def test_limit_keeps_the_best() -> None:
    rng = np.random.default_rng(0)
    boxes = np.column_stack([np.arange(400) * 20, np.zeros(400), np.full((400, 2), 10)])
    scores = np.column_stack([rng.uniform(0.5, 1, 400), np.ones(400)])
    values = np.hstack([boxes, scores]).astype(np.float32)
    found = select_boxes(values, score_threshold=0.3, nms_iou=0.5)
    np.testing.assert_array_equal(found[:, 4], np.sort(values[:, 4])[::-1][:300])


def test_network_reads_rgb_from_0_to_1() -> None:
    canvas = np.zeros((32, 64, 3), np.uint8)
    canvas[..., 0], canvas[..., 2] = 255, 51  # blue, red
    found = network_input(canvas)
    assert found.shape == (1, 3, 32, 64) and found.dtype == np.float32
    assert found[0, :, 0, 0].tolist() == [np.float32(0.2), 0, 1]
