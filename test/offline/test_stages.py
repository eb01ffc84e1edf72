# SPDX-License-Identifier: Apache-2.0
"""Stage pictures and GIFs of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numbered import HEIGHT, WIDTH, numbered_image, numbered_loop
from scripted import Actor, rectangle_mask

from bmp_ros.drawing import person_color
from bmp_ros.offline.gif import MAX_BYTES, write_gif
from bmp_ros.offline.stages import captioned, stage_pictures

LEFT = Actor((10, 10, 60, 110), score=0.9)
RIGHT = Actor((120, 10, 180, 110), score=0.8)
DUPLICATE = replace(RIGHT, box=(121, 10, 181, 110), keypoints=RIGHT.pose(17), score=0.7)


def stages(*acts: list[Actor], **settings: object) -> list[tuple[str, np.ndarray]]:
    image = numbered_image(1)
    before = image.copy()
    pictures = list(stage_pictures(image, numbered_loop({1: acts}, **settings).trace(image)))
    np.testing.assert_array_equal(image, before)
    assert all(picture.shape == (HEIGHT, WIDTH, 3) for _, picture in pictures)
    return pictures


def test_every_stage_of_every_iteration() -> None:
    captions = [caption for caption, _ in stages([LEFT], [RIGHT])]
    assert captions == [
        "1. detector sees: the image",
        "1. detector: 1 box, 1 after NMS",
        "1. poses: 1",
        "1. masks: 1, from 6 prompt points",
        "2. detector sees: those found are painted out",
        "2. detector: 1 box, 1 after NMS",
        "2. poses: 1",
        "2. masks: 1, from 6 prompt points",
        "found: 2 people in 2 looks",
    ]


def test_what_the_detector_saw_is_shown_as_it_was() -> None:
    """No caption, box or outline is burned into it."""
    pictures = dict(stages([LEFT], [RIGHT]))
    np.testing.assert_array_equal(pictures["1. detector sees: the image"], numbered_image(1))
    painted = pictures["2. detector sees: those found are painted out"]
    expected = numbered_image(1)
    expected[rectangle_mask(HEIGHT, WIDTH, LEFT.box)] = 0
    np.testing.assert_array_equal(painted, expected)


def test_nobody_and_duplicates() -> None:
    captions = [caption for caption, _ in stages([])]
    assert captions == [
        "1. detector sees: the image",
        "1. detector: 0 boxes, 0 after NMS",
        "found: 0 people in 1 look",
    ]
    captions = [caption for caption, _ in stages([RIGHT], [DUPLICATE])]
    assert "2. poses: 0, 1 dropped as duplicates" in captions
    assert "found: 1 person in 2 looks" in captions


def test_people_keep_their_colour() -> None:
    """The second one found is drawn in the second colour from its first stage to the last."""

    def has(picture: np.ndarray, number: int) -> bool:
        return bool((picture == person_color(number)).all(axis=2).any())

    for changes in ({}, {"boxes_from_masks": True}):
        pictures = dict(stages([LEFT], [RIGHT], **changes))
        first = pictures["1. detector: 1 box, 1 after NMS"]
        second = pictures["2. detector: 1 box, 1 after NMS"]
        final = pictures["found: 2 people in 2 looks"]
        assert has(first, 0) and not has(first, 1)
        assert has(second, 1) and not has(second, 0)
        assert has(final[:, :90], 0) and has(final[:, 100:], 1)


def test_detectors_without_masks_and_loops_without_a_segmenter() -> None:
    assert len(stages([LEFT], [RIGHT], masks=False)) == 9
    captions = [caption for caption, _ in stages([LEFT], [RIGHT], segmenter=False)]
    assert "1. masks: 1, from 0 prompt points" in captions


@pytest.mark.parametrize("width", [160, 200, 640])
def test_caption_is_below_the_picture(width: int) -> None:
    image = numbered_image(1)
    long = captioned("a caption " * 9, image, width)
    picture_height = round(HEIGHT * width / WIDTH)
    assert long.shape[1] == width and picture_height < long.shape[0] < 1.6 * picture_height
    np.testing.assert_array_equal(
        long[:picture_height], captioned("", image, width)[:picture_height]
    )
    band = long[picture_height:]
    assert (band[:, :2] == band[0, 0]).all() and (band[:, -2:] == band[0, 0]).all(), "it fits"
    if width == 200:
        np.testing.assert_array_equal(long[:picture_height], image)


def frames_of(path: Path) -> list[tuple[int, tuple[int, int]]]:
    """Milliseconds and size of every frame."""
    from PIL import Image, ImageSequence

    with Image.open(path) as gif:
        return [(frame.info["duration"], frame.size) for frame in ImageSequence.Iterator(gif)]


def test_gif_has_a_frame_per_stage(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    path = tmp_path / "Stufen 人.gif"
    write_gif(path, stages([LEFT], [RIGHT]))
    frames = frames_of(path)
    assert [duration for duration, _ in frames] == [1500] * 8 + [4000]
    sizes = {size for _, size in frames}
    assert len(sizes) == 1 and sizes.pop()[0] == 480, "small pictures are enlarged"
    assert path.stat().st_size <= MAX_BYTES


def test_thin_lines_keep_their_colours(tmp_path: Path) -> None:
    """Boxes and labels are a few in a hundred pixels, and their colours say who is who."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    room = np.random.default_rng(0).normal((110, 120, 130), 12, (360, 480, 3))
    room = np.clip(room + np.linspace(-40, 40, 480)[None, :, None], 0, 255).astype(np.uint8)
    colors = [person_color(number) for number in range(8)]
    for number, color in enumerate(colors):
        left = 10 + 58 * number
        cv2.rectangle(room, (left, 40), (left + 40, 300), color, 1)
    write_gif(tmp_path / "a.gif", [("room", room)])
    with image.open(tmp_path / "a.gif") as gif:
        shown = np.asarray(gif.convert("RGB"))[..., ::-1].astype(int)
    for number, color in enumerate(colors):
        line = shown[60:280, 10 + 58 * number]
        assert np.abs(np.median(line, axis=0) - color).max() < 40, f"colour of person {number}"


def test_gif_becomes_smaller_until_it_fits(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    pictures = [("noise", noise), ("noise turned", noise[::-1])]
    write_gif(tmp_path / "a.gif", pictures, max_bytes=40_000)
    assert 12_000 < (tmp_path / "a.gif").stat().st_size <= 40_000
    assert len(frames_of(tmp_path / "a.gif")) == 2
    with pytest.raises(ValueError, match="2 images do not fit into 100 bytes"):
        write_gif(tmp_path / "b.gif", pictures, max_bytes=100)
    assert not (tmp_path / "b.gif").exists()
