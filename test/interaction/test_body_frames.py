# SPDX-License-Identifier: Apache-2.0
"""Frames of bodies: their axes, what moves with a body, and quaternions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.interaction.body_frames import BodyFrames, body_frames, quaternions
from bmp_ros.loop.skeletons import COCO_17, MPII_16

# A person who stands with the arms hanging: x ahead, y to the left, z up, origin between the hips.
BODY = np.zeros((17, 3))
for _name, _place in {
    "nose": (0.12, 0, 0.68), "left_eye": (0.1, 0.03, 0.71), "right_eye": (0.1, -0.03, 0.71),
    "left_ear": (0, 0.08, 0.69), "right_ear": (0, -0.08, 0.69),
    "left_shoulder": (0, 0.18, 0.5), "right_shoulder": (0, -0.18, 0.5),
    "left_elbow": (0, 0.22, 0.2), "right_elbow": (0, -0.22, 0.2),
    "left_wrist": (0.05, 0.24, -0.05), "right_wrist": (0.05, -0.24, -0.05),
    "left_hip": (0, 0.1, 0), "right_hip": (0, -0.1, 0),
    "left_knee": (0, 0.1, -0.42), "right_knee": (0, -0.1, -0.42),
    "left_ankle": (0, 0.1, -0.84), "right_ankle": (0, -0.1, -0.84),
}.items():  # fmt: skip
    BODY[COCO_17.names.index(_name)] = _place
SURE = np.full((1, 17), 0.9)

unit = st.floats(-1, 1)
turns = st.tuples(unit, unit, unit, unit).filter(lambda q: np.linalg.norm(q) > 0.1)
shifts = st.tuples(*[st.floats(-20, 20)] * 3)


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """(3, 3) by the definition: v -> q v q*."""
    x, y, z, w = np.asarray(quaternion) / np.linalg.norm(quaternion)
    axis = np.array([x, y, z])
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return (w * w - axis @ axis) * np.eye(3) + 2 * np.outer(axis, axis) + 2 * w * cross


def frames_of(joints: np.ndarray, scores: np.ndarray = SURE) -> BodyFrames:
    return body_frames(joints[None], scores, COCO_17)


def test_a_person_who_looks_at_the_camera() -> None:
    """Camera: x right, y down, z ahead. The left of a person who looks at it is on its right."""
    towards = np.array([[0, 1.0, 0], [0, 0, -1], [-1, 0, 0]])
    frames = frames_of(BODY @ towards.T + [0.5, 0.2, 3.0])
    assert frames.known.tolist() == [True]
    np.testing.assert_allclose(frames.origins, [[0.5, 0.2, 3.0]], atol=1e-9)
    np.testing.assert_allclose(frames.rotations[0], towards, atol=1e-9)
    np.testing.assert_allclose(frames.links["head"], [[0, 0, 0.69]], atol=1e-9)
    np.testing.assert_allclose(frames.links["l_wrist"], [[0.05, 0.24, -0.05]], atol=1e-9)
    assert len(frames.links) == 13


@given(turns, shifts)
def test_frames_move_with_the_body(
    quaternion: tuple[float, ...], shift: tuple[float, ...]
) -> None:
    turn = rotation(np.array(quaternion))
    frames = frames_of(BODY @ turn.T + shift)
    np.testing.assert_allclose(frames.origins[0], shift, atol=1e-6)
    np.testing.assert_allclose(frames.rotations[0], turn, atol=1e-6)
    for link, place in frames_of(BODY).links.items():
        np.testing.assert_allclose(frames.links[link], place, atol=1e-6)


@given(st.lists(st.tuples(*[st.floats(-3, 3)] * 3), min_size=17, max_size=17))
def test_a_frame_is_a_rotation_or_nothing(joints: list[tuple[float, ...]]) -> None:
    frames = frames_of(np.array(joints))
    if not frames.known[0]:
        assert np.isnan(frames.rotations).all()
        assert all(np.isnan(place).all() for place in frames.links.values())
        return
    axes = frames.rotations[0]
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    assert np.linalg.det(axes) == pytest.approx(1.0, abs=1e-6)
    # Every link is where its joint is.
    wrist = axes @ frames.links["r_wrist"][0] + frames.origins[0]
    np.testing.assert_allclose(wrist, joints[COCO_17.names.index("right_wrist")], atol=1e-6)


@pytest.mark.parametrize("missing", ["left_hip", "right_shoulder"])
def test_without_the_whole_trunk_there_is_no_frame(missing: str) -> None:
    unknown, unsure = BODY.copy(), SURE.copy()
    unknown[COCO_17.names.index(missing)] = np.nan
    unsure[0, COCO_17.names.index(missing)] = 0.1
    assert not frames_of(unknown).known[0] and not frames_of(BODY, unsure).known[0]


def test_a_missing_arm_costs_its_links_only() -> None:
    joints = BODY.copy()
    joints[[COCO_17.names.index("left_wrist"), COCO_17.names.index("left_ear")]] = np.nan
    frames = frames_of(joints)
    assert frames.known[0] and np.isnan(frames.links["l_wrist"]).all()
    np.testing.assert_allclose(frames.links["head"], [[0.1, 0, 0.71]], atol=1e-9)  # of the eyes


def test_flat_bodies_and_other_skeletons_have_none() -> None:
    assert not frames_of(BODY * 0.1).known[0]
    assert not frames_of(BODY * [1, 0.01, 1]).known[0]
    assert len(body_frames(np.zeros((0, 17, 3)), np.zeros((0, 17)), COCO_17).origins) == 0
    joints = np.zeros((1, 16, 3))
    for index, name in enumerate(MPII_16.names):
        if name in COCO_17.names:
            joints[0, index] = BODY[COCO_17.names.index(name)]
    frames = body_frames(joints, np.ones((1, 16)), MPII_16)
    assert frames.known[0] and np.isnan(frames.links["head"]).all()


@given(turns)
def test_quaternions_are_those_of_the_rotation(quaternion: tuple[float, ...]) -> None:
    turn = rotation(np.array(quaternion))
    (found,) = quaternions(turn[None])
    assert found[3] >= 0 and np.linalg.norm(found) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation(found), turn, atol=1e-9)


def test_quaternions_of_half_turns_and_of_nothing() -> None:
    for axis in np.eye(3):
        (found,) = quaternions(rotation(np.append(axis, 0.0))[None])
        np.testing.assert_allclose(np.abs(found), np.append(axis, 0.0), atol=1e-12)
    assert np.isnan(quaternions(np.full((1, 3, 3), np.nan))).all()
    assert quaternions(np.zeros((0, 3, 3))).shape == (0, 4)
