# SPDX-License-Identifier: Apache-2.0
"""Detections of the training pictures: matched to people, written, read, and shown in crops."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from discs import disc_picture

from bmp_ros.engines.protocols import Detections
from bmp_ros.loop.frame import Frame
from bmp_ros.training.detections import (
    SCORE_THRESHOLD,
    Detected,
    detect_people,
    read_detections,
    write_detections,
)
from bmp_ros.training.pictures import PictureFolder
from bmp_ros.training.pose_samples import pose_samples

CROP, MAP = (144, 192), (36, 48)


class BrightThings:
    """Finds what is bright, as one thing; shifted masks stand for a network's errors."""

    def __init__(self, shift: int = 2) -> None:
        self.shift = shift

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        assert score_threshold == SCORE_THRESHOLD
        mask = np.roll(frame.image.max(axis=2) > 100, self.shift, axis=1)
        if not mask.any():
            return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32))
        rows, columns = np.nonzero(mask)
        box = np.array(
            [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32
        )
        return Detections(box, np.array([0.9], np.float32), lambda chosen: mask[None][chosen])


def test_a_person_gets_the_detection_that_fits() -> None:
    picture = disc_picture(3, 1)
    (found,) = detect_people(BrightThings(), picture.image, picture.masks)
    assert found is not None
    assert np.array_equal(found.mask, np.roll(picture.masks[0], 2, axis=1))
    assert np.abs(found.box - picture.boxes[0]).max() <= 3


def test_a_detection_elsewhere_is_nobodys() -> None:
    picture = disc_picture(3, 1)
    assert detect_people(BrightThings(shift=60), picture.image, picture.masks) == [None]


def test_one_detection_goes_to_one_person() -> None:
    picture = disc_picture(4, 1)
    twice = np.concatenate([picture.masks, picture.masks & (np.arange(128) < 1000)])
    twice[1, :40] = False  # the same disc, cut
    found = detect_people(BrightThings(), picture.image, twice)
    assert (found[0] is not None) and found[1] is None


def test_a_detector_without_masks_is_refused() -> None:
    class Boxes(BrightThings):
        def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
            return replace(super().detect(frame, score_threshold=score_threshold), masks=None)

    picture = disc_picture(3, 1)
    with pytest.raises(ValueError, match="no masks"):
        detect_people(Boxes(), picture.image, picture.masks)


def test_files_come_back_as_they_were(disc_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(disc_folder, folder)
    assert write_detections(folder, BrightThings()) == 50
    pictures = PictureFolder(folder, with_detections=True)
    picture = next(pictures[n] for n in range(len(pictures)) if len(pictures[n]) == 1)
    (expected,) = detect_people(BrightThings(), picture.image, picture.masks)
    (read,) = picture.detected
    assert expected is not None and read is not None
    assert np.array_equal(read.mask, expected.mask)
    assert np.allclose(read.box, expected.box, atol=0.05)
    assert PictureFolder(folder)[0].detected == ()
    assert all(
        len(read_detections(file)) in (0, 1, 2, 3) for file in (folder / "detections").glob("*")
    )


def test_crops_show_people_as_they_were_detected() -> None:
    picture = disc_picture(3, 1)
    everywhere = Detected(picture.boxes[0], np.ones_like(picture.masks[0]))
    crop = [
        pose_samples(np.random.default_rng(0), shown, CROP, MAP, augment=False).crops[0]
        for shown in (picture, replace(picture, detected=[everywhere]))
    ]
    dimmed = crop[0] < crop[1] - 0.01
    assert 0.2 < dimmed.mean() < 0.9, "with that mask nothing but the padding is background"
