# SPDX-License-Identifier: Apache-2.0
"""ROS4HRI's ids, its order of joints with its trap, and shares of the image."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.interaction.ros4hri import (
    SKELETON_2D,
    body_id,
    cropped,
    normalised_boxes,
    run_nonce,
    skeletons_2d,
)
from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import COCO_17, MPII_16

LEFT_EYE, RIGHT_EYE, LEFT_EAR, RIGHT_EAR = 14, 15, 16, 17  # constants of hri_msgs/Skeleton2D


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_ids_are_names_and_differ_as_track_ids_do(first: int, second: int) -> None:
    nonce = run_nonce()
    assert re.fullmatch(r"b[0-9a-z]{4,9}", body_id(nonce, first))
    assert (body_id(nonce, first) == body_id(nonce, second)) == (first == second)
    assert int(body_id(nonce, first)[4:], 36) == first


def test_runs_differ_and_untracked_people_have_no_id() -> None:
    assert len({run_nonce() for _ in range(50)}) > 40
    with pytest.raises(ValueError, match="-1"):
        body_id("abc", -1)


def test_the_order_of_the_18_joints() -> None:
    """As the table of the facts says: COCO's index per joint of ROS4HRI."""
    coco = [0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 1, 2, 3, 4]
    joints = np.stack([np.arange(17.0), np.arange(17.0) + 20], axis=1)[None]
    scores = np.linspace(0.1, 0.9, 17)[None]
    (found,) = skeletons_2d(joints, scores, COCO_17, (100, 200))
    for row, index in enumerate(coco):
        if index is None:
            expected = [(5 + 6) / 2, (25 + 26) / 2, min(scores[0, 5:7])]
        else:
            expected = [*joints[0, index], scores[0, index]]
        x, y, c = found[row]
        assert [x * 200 - 0.5, y * 100 - 0.5, c] == pytest.approx(expected)
    assert SKELETON_2D[LEFT_EYE] == "left_eye" and SKELETON_2D[RIGHT_EYE] == "right_eye"
    assert SKELETON_2D[LEFT_EAR] == "left_ear" and SKELETON_2D[RIGHT_EAR] == "right_ear"


@given(st.lists(st.tuples(st.floats(-50, 250), st.floats(-50, 150), st.floats(0, 1)),
                min_size=17, max_size=17))  # fmt: skip
def test_joints_outside_are_on_the_border_and_not_seen(
    joints: list[tuple[float, float, float]],
) -> None:
    values = np.array(joints)[None]
    (found,) = skeletons_2d(values[..., :2], values[..., 2], COCO_17, (100, 200))
    assert ((found >= 0) & (found <= 1)).all()
    for name, (x, y, c) in zip(SKELETON_2D, found, strict=True):
        if name == "neck":
            continue
        px, py, score = joints[COCO_17.names.index(name)]
        inside = -0.5 <= px <= 199.5 and -0.5 <= py <= 99.5
        assert c == pytest.approx(score if inside else 0.0)
        if not inside:
            assert x in (0.0, 1.0) or y in (0.0, 1.0)


def test_other_skeletons_are_read_by_name_and_what_they_lack_is_not_seen() -> None:
    joints = np.random.default_rng(0).uniform(10, 90, (1, 16, 2))
    (found,) = skeletons_2d(joints, np.full((1, 16), 0.8), MPII_16, (100, 100))
    wrist = MPII_16.names.index("left_wrist")
    assert found[7, :2] * 100 - 0.5 == pytest.approx(joints[0, wrist])
    assert found[0].tolist() == [0, 0, 0] and found[LEFT_EAR, 2] == 0 and found[1, 2] == 0.8


def two() -> People:
    boxes = np.array([[4.2, 2, 9.5, 11.1], [-3, 5, 90, 200]], np.float32)
    people = People.from_boxes(boxes, np.array([0.9, 0.8], np.float32), 48, 64)
    masks = np.zeros((2, 48, 64), np.bool_)
    masks[0, 3:6, 5:8] = True
    return replace(people, masks=masks, raw_masks=masks)


def test_boxes_are_clipped_shares() -> None:
    first, second = normalised_boxes(two())
    assert first == pytest.approx([4.7 / 64, 2.5 / 48, 10 / 64, 11.6 / 48])
    assert second == pytest.approx([0, 5.5 / 48, 1, 1])


def test_crops_and_their_background() -> None:
    image = np.random.default_rng(0).integers(1, 255, (48, 64, 3), np.uint8)
    people = two()
    whole = cropped(image, people, 0, remove_background=False)
    assert (whole == image[2:12, 4:10]).all() and whole.base is None
    cut = cropped(image, people, 0, remove_background=True)
    assert (cut[1:4, 1:4] == image[3:6, 5:8]).all() and cut.any(axis=2).sum() == 9
    assert cropped(image, people, 1, remove_background=False).shape == (43, 64, 3)
    outside = replace(people, boxes=np.array([[70, 60, 80, 90], [5, 5, 5, 5]], np.float32))
    for row in (0, 1):
        assert cropped(image, outside, row, remove_background=True).shape == (1, 1, 3)
