# SPDX-License-Identifier: Apache-2.0
"""Run-length strings against pycocotools; boxes and keypoints."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

coco_mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")

from bmp_ros.loop import People  # noqa: E402
from bmp_ros.loop.skeletons import MULTI_21  # noqa: E402
from bmp_ros.offline.coco_format import coco_keypoints, run_length_string, xywh  # noqa: E402

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@settings(deadline=None)
@given(MASKS)
def test_run_length_strings_are_those_of_pycocotools(mask: np.ndarray) -> None:
    text = run_length_string(mask)
    expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert text == {"size": expected["size"], "counts": expected["counts"].decode()}
    np.testing.assert_array_equal(coco_mask.decode(text), mask)
    json.dumps(text)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 800), st.integers(1, 1500), st.data())
def test_long_runs_round_trip(height: int, width: int, data: st.DataObject) -> None:
    """Runs over many columns, so that differences are large and of both signs."""
    mask = np.zeros((height, width), np.bool_)
    for _ in range(data.draw(st.integers(0, 4))):
        top, left = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
        mask[top : data.draw(st.integers(top, height)), left:] ^= True
    np.testing.assert_array_equal(coco_mask.decode(run_length_string(mask)), mask)


def test_all_joints_on_request() -> None:
    boxes, scores = np.array([[1, 2, 3, 4]], np.float32), np.ones(1, np.float32)
    people = People.from_boxes(boxes, scores, 50, 60, MULTI_21)
    assert len(coco_keypoints(people, 0, 21)) == 63 and len(coco_keypoints(people, 0)) == 51
    assert xywh(np.array([1.5, 2, 4, 8], np.float32)) == [1.5, 2.0, 2.5, 6.0]
