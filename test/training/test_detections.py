# SPDX-License-Identifier: Apache-2.0
"""Detections of the training images: matched to people, written, read, and shown in crops."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from discs import disc_image

from bmp_ros.loop.frame import Frame
from bmp_ros.loop.protocols import Detections, Poses
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.training.detections import (
    SCORE_THRESHOLD,
    Detected,
    detect_people,
    read_detections,
    write_detections,
    write_poses,
)
from bmp_ros.training.images import TrainingFolder, warp
from bmp_ros.training.pose_samples import pose_samples
from bmp_ros.training.segmenter_samples import (
    AT_WORK_THRESHOLD,
    mask_prompt,
    positive_prompts,
    segmenter_sample,
)

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
    labelled = disc_image(3, 1)
    (found,) = detect_people(BrightThings(), labelled.image, labelled.masks)
    assert found is not None
    assert np.array_equal(found.mask, np.roll(labelled.masks[0], 2, axis=1))
    assert np.abs(found.box - labelled.boxes[0]).max() <= 3


def test_a_detection_elsewhere_is_nobodys() -> None:
    labelled = disc_image(3, 1)
    assert detect_people(BrightThings(shift=60), labelled.image, labelled.masks) == [None]


def test_a_good_box_with_a_bad_mask_is_a_detection() -> None:
    """Bad masks are what the segmenter learns to mend."""

    class Crosses(BrightThings):
        def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
            found = super().detect(frame, score_threshold=score_threshold)
            left, top, right, bottom = found.boxes[0].astype(int)
            cross = np.zeros((1, *frame.image.shape[:2]), bool)
            cross[0, (top + bottom) // 2, left:right] = True
            cross[0, top:bottom, (left + right) // 2] = True
            return replace(found, masks=lambda chosen: cross[chosen])

    labelled = disc_image(3, 1)
    (found,) = detect_people(Crosses(shift=0), labelled.image, labelled.masks)
    assert found is not None
    overlap = (found.mask & labelled.masks[0]).sum() / (found.mask | labelled.masks[0]).sum()
    assert overlap < 0.3


def test_one_detection_goes_to_one_person() -> None:
    labelled = disc_image(4, 1)
    twice = np.concatenate([labelled.masks, labelled.masks & (np.arange(128) < 1000)])
    twice[1, :40] = False  # the same disc, cut
    found = detect_people(BrightThings(), labelled.image, twice)
    assert (found[0] is not None) and found[1] is None


def test_a_detector_without_masks_is_refused() -> None:
    class Boxes(BrightThings):
        def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
            return replace(super().detect(frame, score_threshold=score_threshold), masks=None)

    labelled = disc_image(3, 1)
    with pytest.raises(ValueError, match="no masks"):
        detect_people(Boxes(), labelled.image, labelled.masks)


def test_files_come_back_as_they_were(disc_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(disc_folder, folder)
    assert write_detections(folder, BrightThings()) == 50
    images = TrainingFolder(folder, with_detections=True)
    labelled = next(images[n] for n in range(len(images)) if len(images[n]) == 1)
    (expected,) = detect_people(BrightThings(), labelled.image, labelled.masks)
    (read,) = labelled.detected
    assert expected is not None and read is not None
    assert np.array_equal(read.mask, expected.mask)
    assert np.allclose(read.box, expected.box, atol=0.05)
    assert TrainingFolder(folder)[0].detected == ()
    assert all(
        len(read_detections(file)) in (0, 1, 2, 3) for file in (folder / "detections").glob("*")
    )


def test_crops_show_people_as_they_were_detected() -> None:
    labelled = disc_image(3, 1)
    everywhere = Detected(labelled.boxes[0], np.ones_like(labelled.masks[0]))
    crop = [
        pose_samples(np.random.default_rng(0), shown, CROP, MAP, augment=False).crops[0]
        for shown in (labelled, replace(labelled, detected=[everywhere]))
    ]
    dimmed = crop[0] < crop[1] - 0.01
    assert 0.2 < dimmed.mean() < 0.9, "with that mask nothing but the padding is background"


def test_validation_prompts_as_at_work() -> None:
    """Held-out losses are of those whom the networks found, with their mask and sure joints."""
    labelled = disc_image(3, 3)
    keypoints = np.column_stack([labelled.keypoints[0], np.linspace(0, 0.9, 17)])
    seen = Detected(labelled.boxes[0], labelled.masks[0], keypoints.astype(np.float32))
    unsure = replace(seen, keypoints=keypoints.astype(np.float32) * [1, 1, 0.1])
    random = np.random.default_rng(0)
    size = labelled.image.shape[1::-1]
    shown = replace(labelled, detected=[seen, None, unsure])
    samples = [segmenter_sample(random, shown, size, augment=False) for _ in range(2)]
    assert len(samples[0].points) == 1
    assert np.array_equal(samples[0].points, samples[1].points), "nothing is drawn"
    given = samples[0].points[0, samples[0].labels[0] == 1]
    sure = labelled.keypoints[0][keypoints[:, 2] > AT_WORK_THRESHOLD]
    distances = np.linalg.norm(given[:, None] - sure[None], axis=2)
    assert len(given) and distances.min(axis=1).max() < 1e-3
    assert np.abs(samples[0].first - samples[0].masks).max() == 0


def test_mask_prompts_are_the_detectors_damaged_or_none() -> None:
    labelled = disc_image(3, 2)
    seen = ~labelled.masks[0]
    labelled = replace(labelled, detected=[Detected(labelled.boxes[0], seen), None])
    random = np.random.default_rng(0)
    prompts = [mask_prompt(random, labelled, 0) for _ in range(200)]
    given = [prompt for prompt in prompts if prompt is not None]
    assert 140 < len(given) < 195, "some get no mask"
    detected = sum(np.array_equal(prompt, seen) for prompt in given)
    assert 0.6 < detected / len(given) < 0.95
    missed = [mask_prompt(random, labelled, 1) for _ in range(50)]
    truth = labelled.masks[1]
    overlaps = [(m & truth).sum() / (m | truth).sum() for m in missed if m is not None]
    assert np.median(overlaps) > 0.5 and min(overlaps) < 0.95


class Standing:
    """Puts all joints on a line down the middle of each box, with falling scores."""

    skeleton = COCO_17

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        assert masks is not None and masks.shape == (len(boxes), frame.height, frame.width)
        left, top, right, bottom = boxes.T[..., None]
        y = top + np.linspace(0.1, 0.9, 17) * (bottom - top)
        joints = np.stack([np.broadcast_to((left + right) / 2, y.shape), y], axis=2)
        scores = np.tile(np.linspace(0.9, 0.3, 17, dtype=np.float32), (len(boxes), 1))
        return Poses(joints.astype(np.float32), scores)


def test_poses_are_added_once_and_become_prompts(disc_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(disc_folder, folder)
    write_detections(folder, BrightThings())
    assert write_poses(folder, Standing(), 50) > 10
    assert write_poses(folder, Standing(), 50) == 0
    images = TrainingFolder(folder, with_detections=True)
    labelled = next(images[n] for n in range(len(images)) if len(images[n]) == 1)
    (person,) = labelled.detected
    assert person is not None and person.keypoints is not None
    middle = (person.box[0] + person.box[2]) / 2
    random = np.random.default_rng(0)
    prompts = [positive_prompts(random, labelled, 0) for _ in range(40)]
    on_line = [np.abs(points[:, 0] - middle).max() < 2 for points in prompts]
    assert 0.5 < np.mean(on_line) < 1.0


def test_detections_move_with_the_image() -> None:
    labelled = disc_image(3, 1)
    joints = np.column_stack([labelled.keypoints[0], np.linspace(0, 1, 17)]).astype(np.float32)
    labelled = replace(labelled, detected=[Detected(labelled.boxes[0], labelled.masks[0], joints)])
    mirror = np.array([[-1.0, 0.0, 127.0], [0.0, 1.0, 4.0]])
    view = warp(labelled, mirror, (128, 110))
    (person,) = view.detected
    assert person is not None and person.keypoints is not None
    assert np.array_equal(person.mask, view.masks[0])
    assert np.abs(person.box - view.boxes[0]).max() <= 1
    assert np.allclose(person.keypoints[:, :2], view.keypoints[0], atol=1e-3)
