# SPDX-License-Identifier: Apache-2.0
"""Networks that return other number types, or shapes that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from scripted import Actor, Stage, grey_image, stage

H, W = 120, 200
IMAGE = grey_image(H, W)
LEFT = Actor((10, 10, 60, 110), visibility=0.75)
RIGHT = Actor((120, 10, 180, 110), score=0.5, visibility=0.75)

Change = Callable[[Any], Any]


def altered(change: Change, *, role: str, field: str) -> Stage:
    """A stage on which one array that a network returns is ``change`` of what it was."""
    play = stage([LEFT, RIGHT], iterations=1)
    network, method = {
        "detector": (play.detector, "detect"),
        "pose_estimator": (play.pose_estimator, "estimate"),
        "segmenter": (play.segmenter, "segment"),
    }[role]
    answer = getattr(network, method)

    def other(*arguments: Any, **options: Any) -> Any:
        said = answer(*arguments, **options)
        value = getattr(said, field)
        if callable(value):
            return replace(said, **{field: lambda rows: change(value(rows))})
        return replace(said, **{field: change(value)})

    setattr(network, method, other)
    return play


NUMBERS = [
    ("detector", "boxes"),
    ("detector", "scores"),
    ("pose_estimator", "keypoints"),
    ("pose_estimator", "scores"),
    ("pose_estimator", "visibility"),
    ("segmenter", "scores"),
]
MASKS = [("detector", "masks"), ("segmenter", "masks")]


@pytest.mark.parametrize("dtype", [np.float64, np.float16, list])
@pytest.mark.parametrize(("role", "field"), NUMBERS)
def test_any_number_type_gives_the_same_people(role: str, field: str, dtype: Any) -> None:
    def change(values: np.ndarray) -> Any:
        return values.tolist() if dtype is list else values.astype(dtype)

    expected = stage([LEFT, RIGHT], iterations=1).loop(IMAGE)
    found = altered(change, role=role, field=field).loop(IMAGE)
    assert len(found) == 2
    for item in fields(found):
        ours, theirs = getattr(expected, item.name), getattr(found, item.name)
        if isinstance(ours, np.ndarray) and ours.dtype == np.float32:
            np.testing.assert_allclose(theirs, ours, rtol=1e-3)
        elif isinstance(ours, np.ndarray):
            np.testing.assert_array_equal(theirs, ours)


def test_float64_presence_beside_visibility() -> None:
    play = stage([LEFT, RIGHT], iterations=1)
    estimate = play.pose_estimator.estimate

    def other(*arguments: Any) -> Any:
        poses = estimate(*arguments)
        unit = np.full(poses.scores.shape, 0.25)
        return replace(poses, visibility=unit, presence=2 * unit)

    play.pose_estimator.estimate = other  # type: ignore[method-assign]
    people = play.loop(IMAGE)
    assert people.visibility.dtype == people.presence.dtype == np.float32
    assert (people.visibility == 0.25).all() and (people.presence == 0.5).all()


@pytest.mark.parametrize(("role", "field"), MASKS)
def test_masks_of_zeros_and_ones_are_masks(role: str, field: str) -> None:
    expected = stage([LEFT, RIGHT], iterations=1).loop(IMAGE)
    found = altered(lambda masks: masks.astype(np.uint8), role=role, field=field).loop(IMAGE)
    np.testing.assert_array_equal(found.masks, expected.masks)


@pytest.mark.parametrize(("role", "field"), [*NUMBERS, *MASKS])
@pytest.mark.parametrize(
    "change",
    [
        lambda values: values[:1],
        lambda values: np.concatenate([values, values]),
        lambda values: values[..., None],
        lambda values: values[..., :-1] if values.ndim > 1 else values[:-1],
    ],
    ids=["too few", "too many", "one axis more", "a column less"],
)
def test_wrong_shapes_are_refused_by_class_and_shape(
    role: str, field: str, change: Change
) -> None:
    seen: list[tuple[int, ...]] = []

    def noted(values: np.ndarray) -> np.ndarray:
        seen.append(change(values).shape)
        return change(values)

    play = altered(noted, role=role, field=field)
    with pytest.raises(ValueError) as refused:
        play.loop(IMAGE)
    name = type(getattr(play.loop, role)).__name__
    if (role, field) == ("detector", "boxes"):  # as many scores as boxes are expected
        assert name in str(refused.value) and "of shape" in str(refused.value)
    else:
        assert all(word in str(refused.value) for word in (name, field, str(seen[0])))


@pytest.mark.parametrize(("role", "field"), MASKS)
def test_masks_of_probabilities_are_refused(role: str, field: str) -> None:
    play = altered(lambda masks: masks * 0.3, role=role, field=field)
    with pytest.raises(ValueError, match=r"masks of dtype float64.*threshold"):
        play.loop(IMAGE)


def test_words_are_no_numbers() -> None:
    play = altered(lambda scores: ["good", "bad"], role="detector", field="scores")
    with pytest.raises(ValueError, match="ScriptedDetector.detect returned scores of dtype"):
        play.loop(IMAGE)


def test_nobody_may_be_an_empty_list() -> None:
    play = altered(lambda _: [], role="detector", field="boxes")
    play.detector.acts = [[]]
    assert len(play.loop(IMAGE)) == 0


def test_numbers_too_large_for_float32_cost_that_person_only() -> None:
    def change(keypoints: np.ndarray) -> np.ndarray:
        large = keypoints.astype(np.float64)
        large[1, 3] = 1e300
        return large

    people, report = altered(change, role="pose_estimator", field="keypoints").loop.run(IMAGE)
    assert people.boxes.tolist() == [list(LEFT.box)] and report.not_finite == 1
