# SPDX-License-Identifier: Apache-2.0
"""Drawing people: on a copy, in colours that tell them apart, and only what is asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bmp_ros.drawing import draw_people, letters_on, person_color, person_colors
from bmp_ros.loop.people import People

IMAGE = np.full((120, 160, 3), 100, np.uint8)


def person(**changes: np.ndarray) -> People:
    masks = np.zeros((1, 120, 160), np.bool_)
    masks[0, 30:90, 40:80] = True
    people = People.from_boxes(
        np.array([[40, 30, 80, 90]], np.float32), np.array([0.9], np.float32), 120, 160,
        masks=masks,
    )  # fmt: skip
    arrays = {name: getattr(people, name) for name in people.__dataclass_fields__}
    arrays["keypoints"] = np.random.default_rng(1).uniform(40, 80, (1, 17, 2)).astype(np.float32)
    arrays["keypoint_scores"] = np.full((1, 17), 0.9, np.float32)
    return People(**(arrays | changes))


def test_draws_on_a_copy() -> None:
    image = IMAGE.copy()
    drawn = draw_people(image, person())
    assert (image == IMAGE).all()
    assert drawn.shape == IMAGE.shape and drawn.dtype == np.uint8
    assert (drawn != IMAGE).any()


def test_nobody_changes_nothing() -> None:
    drawn = draw_people(IMAGE, People.empty(120, 160))
    np.testing.assert_array_equal(drawn, IMAGE)


def test_mask_tints_its_pixels_only() -> None:
    people = person()
    drawn = draw_people(IMAGE, people, boxes=False, keypoints=False)
    changed = (drawn != IMAGE).any(axis=2)
    assert changed[people.masks[0]].all()
    grown = np.zeros_like(changed)
    grown[28:92, 38:82] = True  # the outline is smooth
    assert not changed[~grown].any()


def test_box_and_keypoints_can_be_left_out() -> None:
    drawn = draw_people(IMAGE, person(), boxes=False, keypoints=False, masks=False)
    np.testing.assert_array_equal(drawn, IMAGE)


def test_keypoints_below_the_threshold_are_not_drawn() -> None:
    unsure = person(keypoint_scores=np.full((1, 17), 0.3, np.float32))
    drawn = draw_people(IMAGE, unsure, boxes=False, masks=False, score_threshold=0.3)
    np.testing.assert_array_equal(drawn, IMAGE)


def test_keypoints_far_outside_are_harmless() -> None:
    far = person(keypoints=np.full((1, 17, 2), 1e30, np.float32))
    assert draw_people(IMAGE, far).shape == IMAGE.shape


def test_colors_of_neighbours_differ() -> None:
    colors = [person_color(number) for number in range(8)]
    assert len(set(colors)) == 8
    assert all(0 <= value <= 255 for color in colors for value in color)


def test_a_track_keeps_its_colour_and_shows_its_number() -> None:
    assert person_colors(np.array([7, -1, 3])) == [
        person_color(7), (190, 190, 190), person_color(3),
    ]  # fmt: skip
    assert person_colors(np.array([-1, -1])) == [person_color(0), person_color(1)]
    assert person_colors(np.array([], np.int32)) == []
    pictures = [draw_people(IMAGE, person(track_ids=np.array([each], np.int32)))
                for each in (4, 4, 5, -1)]  # fmt: skip
    np.testing.assert_array_equal(pictures[0], pictures[1])
    below, text = np.s_[30:90, 40:80], np.s_[18:27, 40:]
    assert (pictures[0][below] != pictures[2][below]).any()  # the colour
    # The number makes the label wider than the score alone.
    widths = [(p[text] != IMAGE[text]).any(axis=(0, 2)).sum() for p in (pictures[0], pictures[3])]
    assert widths[0] > widths[1]


def test_labels_of_boxes_with_one_corner_are_all_to_be_read() -> None:
    boxes = np.tile(np.array([[40, 30, 80, 90]], np.float32), (3, 1))
    people = People.from_boxes(boxes, np.array([0.9, 0.8, 0.7], np.float32), 120, 160)
    people = replace(people, track_ids=np.array([7, 8, 9], np.int32))
    drawn = draw_people(np.zeros_like(IMAGE), people, keypoints=False)
    areas = [(drawn == person_color(track)).all(axis=2).sum() for track in (7, 8, 9)]
    assert min(areas) > 0.7 * max(areas) > 200


def test_numbers_can_be_read_on_every_colour() -> None:
    """Contrast of WCAG 2, which asks 3 of large letters; the dark blue of some ids had 2.6."""

    def luminance(color: tuple[int, int, int]) -> float:
        part = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.0722 * part[0] + 0.7152 * part[1] + 0.2126 * part[2]

    for color in map(person_color, range(200)):
        one, other = sorted((luminance(color), luminance(letters_on(color))))
        assert (other + 0.05) / (one + 0.05) > 3.8


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="160x120"):
        draw_people(IMAGE, People.empty(100, 100))
