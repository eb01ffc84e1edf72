# SPDX-License-Identifier: Apache-2.0
"""Rules of postures and gestures on figures of lines, and what does not matter to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.interaction.postures import (
    Gesture,
    Joints,
    Posture,
    WaveWatch,
    gestures,
    postures,
    turning_points,
)
from bmp_ros.loop.skeletons import COCO_17, MULTI_21

# A person who faces the camera and stands, y down, in parts of the trunk's length.
STANDING = {
    "nose": (0, -0.45), "left_eye": (0.06, -0.52), "right_eye": (-0.06, -0.52),
    "left_ear": (0.14, -0.48), "right_ear": (-0.14, -0.48),
    "left_shoulder": (0.35, 0), "right_shoulder": (-0.35, 0),
    "left_elbow": (0.45, 0.55), "right_elbow": (-0.45, 0.55),
    "left_wrist": (0.48, 1.05), "right_wrist": (-0.48, 1.05),
    "left_hip": (0.2, 1.0), "right_hip": (-0.2, 1.0),
    "left_knee": (0.2, 1.8), "right_knee": (-0.2, 1.8),
    "left_ankle": (0.2, 2.6), "right_ankle": (-0.2, 2.6),
}  # fmt: skip
SITTING = {
    "left_knee": (0.3, 1.2), "right_knee": (-0.3, 1.2),
    "left_ankle": (0.3, 2.05), "right_ankle": (-0.3, 2.05),
}  # fmt: skip
CROUCHING = {
    "left_knee": (0.4, 0.9), "right_knee": (-0.4, 0.9),
    "left_ankle": (0.2, 1.4), "right_ankle": (-0.2, 1.4),
}  # fmt: skip
ARMS = {
    Gesture.OTHER: {},
    Gesture.LEFT_HAND_RAISED: {"left_elbow": (0.5, -0.5), "left_wrist": (0.5, -1.0)},
    Gesture.RIGHT_HAND_RAISED: {"right_elbow": (-0.5, -0.5), "right_wrist": (-0.5, -1.0)},
    Gesture.BOTH_HANDS_RAISED: {"left_wrist": (0.5, -1.0), "right_wrist": (-0.5, -1.0)},
    Gesture.HANDS_ON_FACE: {"left_elbow": (0.5, 0.3), "left_wrist": (0.12, -0.25)},
    Gesture.ARMS_CROSSED: {"left_wrist": (-0.2, 0.4), "right_wrist": (0.2, 0.35)},
}


def figure(**changed: tuple[float, float]) -> np.ndarray:
    """(17, 2) joints of a standing person with some joints elsewhere."""
    places = STANDING | changed
    return np.array([places[name] for name in COCO_17.names])


def posture(joints: np.ndarray, scores: np.ndarray | None = None) -> Posture:
    sure = np.full(17, 0.9) if scores is None else scores
    return Posture(int(postures(Joints(joints[None], sure[None], COCO_17))[0]))


def gesture(joints: np.ndarray, scores: np.ndarray | None = None) -> Gesture:
    sure = np.full(17, 0.9) if scores is None else scores
    none = np.zeros(1, np.bool_)
    return Gesture(int(gestures(Joints(joints[None], sure[None], COCO_17), none)[0]))


POSTURES = {
    Posture.STANDING: figure(),
    Posture.SITTING: figure(**SITTING),
    Posture.CROUCHING: figure(**CROUCHING),
    Posture.LAYING: figure()[:, ::-1],
}


@pytest.mark.parametrize("expected", list(POSTURES))
@given(st.floats(10, 300), st.floats(-500, 500), st.booleans())
def test_postures_wherever_and_however_large(
    expected: Posture, size: float, shift: float, mirrored: bool
) -> None:
    joints = POSTURES[expected] * size
    if mirrored:
        joints = (joints * [-1, 1])[COCO_17.flip_indices]
    assert posture(joints + shift) is expected


def hidden(*names: str) -> np.ndarray:
    scores = np.full(17, 0.9)
    scores[[COCO_17.names.index(name) for name in names]] = 0.1
    return scores


def test_what_is_not_seen_decides_nothing() -> None:
    knees, ankles = ("left_knee", "right_knee"), ("left_ankle", "right_ankle")
    assert posture(figure(), hidden(*knees, *ankles)) is Posture.OTHER
    assert posture(figure(), hidden("left_hip", "right_hip")) is Posture.OTHER
    assert posture(figure(), hidden(*ankles)) is Posture.STANDING
    assert posture(figure(**SITTING), hidden(*ankles)) is Posture.SITTING
    assert (
        posture(figure(), hidden("left_knee", "left_ankle")) is Posture.STANDING
    )  # from the side
    assert posture(np.full((17, 2), np.nan)) is Posture.OTHER
    assert gesture(figure(), np.zeros(17)) is Gesture.OTHER
    assert len(postures(Joints(np.zeros((0, 17, 2)), np.zeros((0, 17)), COCO_17))) == 0


def test_who_bends_down_does_not_lie() -> None:
    bent = figure(
        left_shoulder=(0.9, 0.75), right_shoulder=(0.8, 0.75), nose=(1.2, 0.9),
    )  # fmt: skip
    assert posture(bent) is Posture.STANDING


@pytest.mark.parametrize("expected", list(ARMS))
@given(st.floats(10, 300), st.booleans())
def test_gestures_also_from_behind(expected: Gesture, size: float, behind: bool) -> None:
    """From behind left and right are exchanged in the image, and stay who they are."""
    joints = figure(**ARMS[expected]) * size
    assert gesture(joints * [-1, 1] if behind else joints) is expected


def test_a_mirrored_person_raises_the_other_hand() -> None:
    joints = figure(**ARMS[Gesture.LEFT_HAND_RAISED]) * [-1, 1]
    assert gesture(joints[COCO_17.flip_indices]) is Gesture.RIGHT_HAND_RAISED


def test_hands_in_the_lap_and_on_the_hips_are_no_crossed_arms() -> None:
    assert gesture(figure(left_wrist=(-0.05, 0.95), right_wrist=(0.05, 0.9))) is Gesture.OTHER
    assert gesture(figure(left_wrist=(0.25, 0.6), right_wrist=(-0.25, 0.6))) is Gesture.OTHER


def waves(
    rate: float, swing: float, *, fps: float = 15.0, seconds: float = 2.0, up: bool = True
) -> list[bool]:
    watch, found = WaveWatch(), []
    for time in np.arange(0, seconds, 1 / fps):
        x = 0.6 + swing * np.sin(2 * np.pi * rate * time)
        height = -0.3 if up else 1.0
        joints = figure(left_elbow=(0.6, 0.2), left_wrist=(x, height)) * 100
        ids = np.array([4], np.int32)
        found += watch.update(
            ids, Joints(joints[None], np.full((1, 17), 0.9), COCO_17), time
        ).tolist()
    return found


def test_a_hand_that_swings_to_and_fro_waves() -> None:
    assert waves(1.5, 0.3)[-1] and not waves(1.5, 0.3)[3]
    assert waves(1.0, 0.25)[-1] and waves(2.5, 0.3, fps=30)[-1]
    assert not any(waves(1.5, 0.03))  # trembles
    assert not any(waves(0.15, 0.3))  # moves slowly
    assert not any(waves(1.5, 0.3, up=False))  # hangs


def test_waving_comes_first_and_people_are_watched_apart() -> None:
    watch = WaveWatch()
    sure = np.full((3, 17), 0.9)
    for time in np.arange(0, 2, 0.1):
        x = 0.6 + 0.3 * np.sin(2 * np.pi * 1.2 * time)
        moving = figure(left_elbow=(0.6, 0.2), left_wrist=(x, -0.9))
        still = figure(**ARMS[Gesture.LEFT_HAND_RAISED])
        joints = Joints(np.stack([still, moving, moving]) * 80, sure, COCO_17)
        waving = watch.update(np.array([1, 2, -1]), joints, float(time))
    assert waving.tolist() == [False, True, False]  # who is not tracked is not remembered
    found = gestures(joints, waving)
    assert found[:2].tolist() == [Gesture.LEFT_HAND_RAISED, Gesture.WAVING]
    assert len(watch._ways) == 2
    watch.update(np.zeros(0, int), Joints(np.zeros((0, 17, 2)), sure[:0], COCO_17), 9.0)
    assert not watch._ways


@given(st.lists(st.floats(-1, 1), max_size=30), st.floats(0.05, 0.5))
def test_turning_points_are_those_of_the_extremes(values: list[float], swing: float) -> None:
    count = turning_points(values, swing)
    assert count == turning_points([-each for each in values], swing)
    assert count <= max(0, len(values) - 2)
    doubled = [each for each in values for _ in range(2)]
    assert turning_points(doubled, swing) == count
    if values and max(values) - min(values) < swing:
        assert count == 0


def test_other_skeletons_are_read_by_name() -> None:
    joints = np.concatenate([POSTURES[Posture.SITTING], np.zeros((4, 2))])[None]
    assert postures(Joints(joints, np.ones((1, 21)), MULTI_21)).tolist() == [Posture.SITTING]
