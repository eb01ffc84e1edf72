# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmp_ros.loop.masks import (
    coco_run_lengths,
    decode_runs,
    encode_runs,
    mask_from_run_lengths,
    mask_rectangles,
)

some_masks = arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14)))

ONE_PIXEL = np.zeros((5, 7), np.bool_)
ONE_PIXEL[4, 6] = True
RING = np.ones((6, 6), np.bool_)
RING[2:4, 2:4] = False
BORDER = np.zeros((6, 9), np.bool_)
BORDER[0], BORDER[-1], BORDER[:, 0], BORDER[:, -1] = True, True, True, True


def decoded(
    rectangle: tuple[int, int, int, int], counts: np.ndarray, like: np.ndarray
) -> np.ndarray:
    x, y, width, height = rectangle
    mask = np.zeros_like(like)
    mask[y : y + height, x : x + width] = decode_runs(counts, width, height)
    return mask


@given(some_masks)
@example(np.zeros((4, 3), np.bool_))
@example(np.ones((4, 3), np.bool_))
@example(ONE_PIXEL)
@example(RING)
@example(BORDER)
def test_there_and_back(mask: np.ndarray) -> None:
    rectangle, counts = encode_runs(mask)
    assert rectangle == tuple(mask_rectangles(mask[None])[0])
    assert counts.dtype == np.uint32 and (counts[1:] > 0).all()
    assert counts[1::2].sum() == mask.sum()
    np.testing.assert_array_equal(decoded(rectangle, counts, mask), mask)


@given(some_masks, st.data())
def test_any_rectangle_around_the_mask_will_do(mask: np.ndarray, data: st.DataObject) -> None:
    height, width = mask.shape
    x, y, inner_width, inner_height = mask_rectangles(mask[None])[0].tolist()
    left, top = data.draw(st.integers(0, x)), data.draw(st.integers(0, y))
    right = data.draw(st.integers(x + inner_width, width))
    bottom = data.draw(st.integers(y + inner_height, height))
    rectangle, counts = encode_runs(mask, (left, top, right - left, bottom - top))
    if mask.any():
        assert rectangle == (left, top, right - left, bottom - top)
    else:
        assert rectangle == (0, 0, 0, 0) and len(counts) == 0
    np.testing.assert_array_equal(decoded(rectangle, counts, mask), mask)


@given(some_masks)
@example(np.zeros((4, 3), np.bool_))
@example(np.ones((4, 3), np.bool_))
@example(RING)
def test_cocos_own_run_lengths(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    height, width = mask.shape
    uncompressed = coco_run_lengths(mask)
    assert uncompressed["size"] == [height, width]
    theirs = coco.decode(coco.frPyObjects(uncompressed, height, width))
    np.testing.assert_array_equal(theirs > 0, mask)
    ours = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert coco.frPyObjects(uncompressed, height, width) == ours


@given(some_masks)
def test_cocos_run_lengths_there_and_back(mask: np.ndarray) -> None:
    encoded = coco_run_lengths(mask)
    assert sum(encoded["counts"]) == mask.size
    decoded_mask = mask_from_run_lengths(encoded)
    np.testing.assert_array_equal(decoded_mask, mask)
    assert decoded_mask.flags.c_contiguous


@pytest.mark.parametrize(
    "rectangle, message",
    [
        ((0, 0, 6, 5), "misses 1 of the mask's 1 pixels"),
        ((0, 0, 7, 4), "misses 1"),
        ((0, 0, 0, 5), "misses 1"),
        ((6, 4, 1, 0), "misses 1"),
        ((0, 0, 8, 5), "lies outside the mask's 7x5 pixels"),
        ((6, 4, 1, 2), "lies outside"),
        ((-1, 0, 8, 5), "lies outside"),
    ],
)
def test_rectangles_that_do_not_hold_the_mask(
    rectangle: tuple[int, int, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encode_runs(ONE_PIXEL, rectangle)


@pytest.mark.parametrize("mask", [np.zeros((3, 4), np.uint8), np.zeros((1, 3, 4), np.bool_)])
def test_other_masks_are_refused(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="mask must be bool"):
        encode_runs(mask)


def test_views_are_encoded_alike() -> None:
    wide = np.zeros((12, 14), np.bool_)
    wide[2:8, 4:10] = True
    view = wide[::2, ::2]
    rectangle, counts = encode_runs(view)
    copied_rectangle, copied = encode_runs(view.copy())
    assert rectangle == copied_rectangle and counts.tolist() == copied.tolist()


@pytest.mark.parametrize("counts", [[3, 4], [3, 10], [-1, 13], [[6, 6]]])
def test_counts_that_do_not_fill_the_rectangle(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="run lengths must"):
        decode_runs(np.array(counts), 4, 3)


def test_no_counts_are_an_empty_mask() -> None:
    assert decode_runs(np.zeros(0, np.uint32), 4, 3).tolist() == [[False] * 4] * 3
