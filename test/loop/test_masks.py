# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmp_ros.loop.masks import (
    exclusive_masks,
    mask_rectangles,
    paint_out,
    remove_holes_and_sprinkles,
)

stacks = arrays(np.bool_, st.tuples(st.integers(0, 5), st.integers(1, 12), st.integers(1, 12)))


@st.composite
def masks_and_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    masks = draw(stacks)
    levels = st.sampled_from([0.0, 0.3, 0.3, 0.9, -0.5])
    scores = draw(st.lists(levels, min_size=len(masks), max_size=len(masks)))
    return masks, np.array(scores, np.float32)


@given(masks_and_scores())
def test_every_pixel_goes_to_the_best_mask_that_covers_it(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    masks, scores = case
    before = masks.copy()
    exclusive = exclusive_masks(masks, scores)
    assert exclusive.shape == masks.shape and exclusive.dtype == np.bool_
    for y, x in np.ndindex(masks.shape[1:]):
        covering = np.flatnonzero(masks[:, y, x])
        owner = max(covering, key=lambda index: (scores[index], -index), default=None)
        assert np.flatnonzero(exclusive[:, y, x]).tolist() == ([] if owner is None else [owner])
    np.testing.assert_array_equal(masks, before)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite, got .*nan"):
        exclusive_masks(np.ones((2, 3, 3), np.bool_), np.array([0.5, np.nan]))


@given(stacks)
def test_rectangles_are_tight(masks: np.ndarray) -> None:
    rectangles = mask_rectangles(masks)
    assert rectangles.shape == (len(masks), 4) and rectangles.dtype == np.int32
    for mask, (x, y, width, height) in zip(masks, rectangles.tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        expected = (0, 0, 0, 0)
        if len(rows):
            expected = (
                columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1,
            )  # fmt: skip
        assert (x, y, width, height) == expected


def test_rectangles_of_views() -> None:
    masks = np.zeros((2, 40, 60), np.bool_)
    masks[1, 10:20, 30:50] = True
    assert mask_rectangles(masks[:, ::2, ::2]).tolist() == [[0, 0, 0, 0], [15, 5, 10, 5]]
    nobody = np.broadcast_to(np.False_, (2, 40, 60))
    assert mask_rectangles(nobody).tolist() == [[0, 0, 0, 0]] * 2


@given(stacks, st.integers(0, 1000))
def test_paint_out_blackens_people_and_nothing_else(masks: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*masks.shape[1:], 3), np.uint8)
    before = image.copy()
    painted = paint_out(image, masks)
    people = masks.any(axis=0)
    assert not painted[people].any()
    np.testing.assert_array_equal(painted[~people], image[~people])
    np.testing.assert_array_equal(image, before)
    assert not np.shares_memory(painted, image)


def test_paint_out_of_a_padded_and_read_only_view() -> None:
    image = np.full((20, 64, 3), 9, np.uint8)[:, :50]
    image.flags.writeable = False
    painted = paint_out(image, np.ones((1, 20, 50), np.bool_))
    assert painted.shape == (20, 50, 3) and not painted.any()


def components(image: np.ndarray) -> list[list[tuple[int, int]]]:
    """8-connected components of a bool image, by flooding, in the order of their first pixel."""
    left = set(zip(*np.nonzero(image), strict=True))
    found = []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        component, edge = [], deque([start])
        while edge:
            y, x = edge.popleft()
            component.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge.extend(near)
        found.append(component)
    return found


def cleaned_by_flooding(logits: np.ndarray, hole: int, sprinkle: int) -> np.ndarray:
    cleaned = logits.copy()
    for component in components(logits <= 0):
        if len(component) <= hole:
            cleaned[tuple(zip(*component, strict=True))] = 10
    people = components(logits > 0)
    largest = max((len(component) for component in people), default=0)
    for component in people:
        if len(component) <= sprinkle and len(component) < largest:
            cleaned[tuple(zip(*component, strict=True))] = -10
    return cleaned


@given(
    st.integers(0, 10_000), st.floats(0.05, 0.95), st.integers(0, 12), st.integers(0, 12),
    st.integers(1, 24), st.integers(1, 24),
)  # fmt: skip
def test_holes_and_sprinkles_by_flooding(
    seed: int, density: float, hole: int, sprinkle: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, height, width)).astype(np.float32)
    logits += np.float32(np.quantile(logits, density))
    logits[0, 0, 0] = 0.0  # on the threshold: background
    before = logits.copy()
    cleaned = remove_holes_and_sprinkles(logits, max_hole_area=hole, max_sprinkle_area=sprinkle)
    np.testing.assert_array_equal(logits, before)
    for own, expected in zip(cleaned, logits, strict=True):
        np.testing.assert_array_equal(own, cleaned_by_flooding(expected, hole, sprinkle))


def test_largest_sprinkle_stays_and_zero_turns_a_rule_off() -> None:
    logits = np.full((1, 16, 16), -1, np.float32)
    logits[0, 2:4, 2:4] = 1  # the person: 4 pixels
    logits[0, 10, 10] = 1  # a sprinkle
    cleaned = remove_holes_and_sprinkles(logits, max_hole_area=10, max_sprinkle_area=50)
    assert (cleaned[0] > 0).sum() == 4 and cleaned[0, 10, 10] == -10
    np.testing.assert_array_equal(
        remove_holes_and_sprinkles(logits, max_hole_area=0, max_sprinkle_area=0), logits
    )
    logits[0, 12:14, 12:14] = 1  # as large as the first: which one is the person?
    cleaned = remove_holes_and_sprinkles(logits, max_hole_area=10, max_sprinkle_area=50)
    assert (cleaned[0] > 0).sum() == 8
    nobody = remove_holes_and_sprinkles(np.zeros((0, 16, 16), np.float32))
    assert nobody.shape == (0, 16, 16)
