# SPDX-License-Identifier: Apache-2.0
"""People as COCO results; run-length strings against pycocotools."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

coco_mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")

from bmp_ros.evaluation.coco_results import (  # noqa: E402
    CollectedResults,
    coco_keypoints,
    run_length_string,
    xywh,
)
from bmp_ros.loop import People  # noqa: E402
from bmp_ros.loop.skeletons import MULTI_21  # noqa: E402

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


def people(count: int = 2) -> People:
    boxes = np.array([[1, 2, 11.5, 22], [30, 2, 40, 30]], np.float32)[:count]
    masks = np.zeros((count, 50, 60), np.bool_)
    masks[:, 5:10, 5:10] = True
    found = People.of_boxes(boxes, np.array([0.5, 0.25], np.float32)[:count], 50, 60, MULTI_21)
    fields = {name: getattr(found, name) for name in People.__dataclass_fields__}
    fields |= {
        "masks": masks,
        "mask_scores": np.array([0.9, 0.0], np.float32)[:count],
        "pose_scores": np.array([0.5, 0.75], np.float32)[:count],
        "keypoints": np.arange(count * 42, dtype=np.float32).reshape(count, 21, 2),
        "keypoint_scores": np.full((count, 21), 0.5, np.float32),
    }
    return People(**fields)


def test_every_kind_has_its_score() -> None:
    results = CollectedResults()
    results.add(people(), "a picture")
    results.add(people(1), 7)
    assert [entry["image_id"] for entry in results.boxes] == ["a picture", "a picture", 7]
    assert [entry["score"] for entry in results.boxes] == [0.5, 0.25, 0.5]
    assert [entry["score"] for entry in results.masks] == [0.5, 0.25, 0.5]
    assert [entry["score"] for entry in results.keypoints] == [0.25, 0.1875, 0.25]
    assert results.boxes[0]["bbox"] == [1.0, 2.0, 10.5, 20.0]
    assert results.keypoints[0]["keypoints"][:6] == [0.0, 1.0, 0.5, 2.0, 3.0, 0.5]
    assert all(len(entry["keypoints"]) == 51 for entry in results.keypoints)
    json.dumps([results.boxes, results.masks, results.keypoints])


def test_all_joints_on_request() -> None:
    assert len(coco_keypoints(people(), 1, 21)) == 63
    assert xywh(np.array([1.5, 2, 4, 8], np.float32)) == [1.5, 2.0, 2.5, 6.0]


def test_nobody_adds_nothing() -> None:
    results = CollectedResults()
    results.add(People.empty(50, 60), 1)
    assert results.boxes == results.masks == results.keypoints == []
