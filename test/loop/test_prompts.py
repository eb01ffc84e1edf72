# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.loop.prompts import (
    PROMPT_METHODS,
    _quantile,
    group_prompts,
    nearest_negatives,
    select_prompts,
)

METHODS = st.sampled_from(PROMPT_METHODS)


def pose(seed: int, levels: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random keypoints, scores, visibility; with ``levels`` there are many equal values."""
    rng = np.random.default_rng(seed)
    if levels is None:
        return rng.uniform(0, 100, (17, 2)), rng.random(17), rng.random(17)
    return (
        rng.integers(0, levels, (17, 2)).astype(np.float64),
        rng.integers(0, levels, 17) / levels,
        rng.integers(0, levels, 17) / levels,
    )


@given(st.integers(0, 10_000), METHODS, st.sampled_from([None, 3]), st.floats(0, 1))
def test_candidates_are_the_visible_keypoints_each_once(
    seed: int, method: str, levels: int | None, threshold: float
) -> None:
    keypoints, scores, visibility = pose(seed, levels)
    order = select_prompts(
        keypoints, scores, visibility, method=method, visibility_threshold=threshold
    )
    expected = set(np.flatnonzero(visibility >= threshold).tolist())
    if method != "k_most_visible":
        expected -= {0, 1, 2} - {int(visibility[:3].argmax())}
    assert sorted(order.tolist()) == sorted(expected) and order.dtype == np.int64


@given(st.integers(0, 10_000), METHODS, st.sampled_from([None, 3]), st.integers(1, 17))
def test_limit_is_the_beginning_of_the_whole_order(
    seed: int, method: str, levels: int | None, limit: int
) -> None:
    arguments = pose(seed, levels)
    options = {"method": method, "visibility_threshold": 0.3, "box": np.array([0, 0, 50, 90])}
    whole = select_prompts(*arguments, **options)
    assert select_prompts(*arguments, **options, limit=limit).tolist() == whole[:limit].tolist()


@given(st.integers(0, 10_000), METHODS, st.sampled_from([None, 3]))
def test_arguments_stay_as_they_are(seed: int, method: str, levels: int | None) -> None:
    arguments = pose(seed, levels)
    copies = [array.copy() for array in arguments]
    select_prompts(*arguments, method=method, visibility_threshold=0.3)
    for array, copy in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@given(st.integers(0, 10_000))
def test_spread_over_confident_follows_its_rule(seed: int) -> None:
    keypoints, scores, visibility = pose(seed)
    order = select_prompts(
        keypoints, scores, visibility, method="distance+confidence", visibility_threshold=0.3
    ).tolist()
    keypoints = keypoints.astype(np.float32)
    for step in range(1, len(order)):
        taken, rest = order[:step], order[step:]
        ranking = np.where(np.isin(order, taken), -1.0, scores[order])
        gate = np.quantile(ranking, 0.8)
        open_ones = [index for index in rest if scores[index] >= gate]
        reach = {
            index: np.linalg.norm(keypoints[taken] - keypoints[index], axis=1).min()
            for index in open_ones
        }
        assert reach[order[step]] == max(reach.values())


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.sampled_from([0.5, 0.8]))
def test_quantile_is_numpys(values: list[float], quantile: float) -> None:
    array = np.array(values)
    assert _quantile(sorted(values), quantile) == np.quantile(array, quantile)


def test_equal_values_keep_the_order_of_keypoints() -> None:
    keypoints, same = np.zeros((17, 2)), np.full(17, 0.5)
    for method in PROMPT_METHODS:
        order = select_prompts(keypoints, same, same, method=method, visibility_threshold=0.5)
        assert order.tolist() == sorted(order.tolist()), method


def test_nothing_visible_and_one_visible() -> None:
    keypoints, scores, nothing = np.zeros((17, 2)), np.ones(17), np.zeros(17)
    alone = nothing.copy()
    alone[9] = 1
    for method in PROMPT_METHODS:
        for visibility, expected in ((nothing, []), (alone, [9])):
            order = select_prompts(
                keypoints, scores, visibility, method=method, visibility_threshold=0.3
            )
            assert order.tolist() == expected


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="'confidence' is unknown; known: distance"):
        select_prompts(*pose(0), method="confidence", visibility_threshold=0.3)


@given(st.lists(st.integers(0, 4), max_size=12))
def test_groups_hold_everybody_with_a_point_once(counts: list[int]) -> None:
    points = [np.full((count, 2), row, np.float64) for row, count in enumerate(counts)]
    labels = [np.arange(count) % 2 for count in counts]
    groups = group_prompts(points, labels)
    sizes = [group.points.shape[1] for group in groups]
    assert sizes == sorted(set(counts) - {0}), "one call per number of points"
    people = np.concatenate([group.people for group in groups]) if groups else np.array([])
    assert sorted(people.tolist()) == [row for row, count in enumerate(counts) if count]
    for group in groups:
        assert group.points.dtype == np.float32 and group.labels.dtype == np.int32
        assert group.points.shape == (*group.labels.shape, 2)
        assert (group.points == group.people[:, None, None]).all()
        assert (np.diff(group.people) > 0).all()


def test_nearest_negatives() -> None:
    others = np.array([[[0, 0], [50, 50]], [[51, 50], [52, 50]]], np.float32)
    seen = np.array([[0.9, 0.9], [0.2, 0.3]])
    box = np.array([40, 40, 60, 60], np.float32)
    found = nearest_negatives(others, seen, box, count=2, threshold=0.3)
    assert found.tolist() == [[50, 50], [52, 50]]
    assert nearest_negatives(others, seen * 0, box, count=2, threshold=0.3).shape == (0, 2)
    nobody = nearest_negatives(np.zeros((0, 17, 2)), np.zeros((0, 17)), box, count=2, threshold=0)
    assert nobody.shape == (0, 2)
