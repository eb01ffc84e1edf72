# SPDX-License-Identifier: Apache-2.0
"""Engines on exported networks do what the torch engines do on the networks themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="compares with torch")
from random_weights import drawn_image  # noqa: E402

from bmp_ros.engines import (  # noqa: E402
    Detector,
    PoseEstimator,
    Segmenter,
    build_loop,
)
from bmp_ros.loop import BMPLoop  # noqa: E402
from bmp_ros.loop.frame import Frame  # noqa: E402
from bmp_ros.loop.skeletons import COCO_17  # noqa: E402

SHAPES = [(120, 160), (90, 160), (240, 200)]


@pytest.fixture(scope="module")
def loops(native: Path, exported: Path) -> tuple[BMPLoop, BMPLoop]:
    return build_loop(native, "cpu"), build_loop(exported, "cpu")


def frames(shape: tuple[int, int]) -> tuple[Frame, Frame]:
    """The same picture twice: neither engine sees what the other one has kept."""
    image = drawn_image(*shape, seed=3)
    return Frame(image), Frame(image)


@pytest.mark.parametrize("shape", SHAPES)
def test_detector(loops: tuple[BMPLoop, BMPLoop], shape: tuple[int, int]) -> None:
    ours, theirs = (
        loop.detector.detect(frame, score_threshold=0.4)
        for loop, frame in zip(loops, frames(shape), strict=True)
    )
    assert isinstance(loops[1].detector, Detector)
    assert len(ours.scores) == len(theirs.scores) > 3
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-5)
    np.testing.assert_allclose(theirs.boxes, ours.boxes, atol=0.02)
    assert theirs.boxes.dtype == theirs.scores.dtype == np.float32
    assert ours.masks is not None and theirs.masks is not None
    chosen = np.array([2, 0, len(ours.scores) - 1])
    masks = theirs.masks(chosen)
    assert masks.shape == (3, *shape) and masks.dtype == np.bool_ and masks.any()
    assert (masks ^ ours.masks(chosen)).mean() < 1e-3
    assert theirs.masks(np.array([], int)).shape == (0, *shape)


def test_masks_of_a_crowd(loops: tuple[BMPLoop, BMPLoop]) -> None:
    found = [
        loop.detector.detect(frame, score_threshold=0.0)
        for loop, frame in zip(loops, frames((128, 160)), strict=True)
    ]
    assert len(found[0].scores) == len(found[1].scores) > 50
    agreeing = np.abs(found[0].boxes - found[1].boxes).max(axis=1) < 0.1
    assert agreeing.mean() > 0.9  # equal scores may swap places
    rows = np.flatnonzero(agreeing)
    masks = [part.masks(rows) for part in found if part.masks is not None]
    assert (masks[0] ^ masks[1]).mean() < 1e-3


def test_nobody_and_nothing(loops: tuple[BMPLoop, BMPLoop]) -> None:
    found = loops[1].detector.detect(Frame(drawn_image(9, 9, seed=0)), score_threshold=1.0)
    assert found.boxes.shape == (0, 4) and found.masks is not None
    assert found.masks(np.array([], int)).shape == (0, 9, 9)


@pytest.mark.parametrize("people", [1, 3])
@pytest.mark.parametrize("with_masks", [False, True])
def test_pose_estimator(loops: tuple[BMPLoop, BMPLoop], people: int, with_masks: bool) -> None:
    boxes = np.array([[10, 5, 60, 110], [50, 20.5, 150, 100], [-20, 60, 40, 140]], np.float32)
    boxes = boxes[:people]
    masks = np.zeros((people, 120, 160), bool)
    masks[:, 10:100, 20:90] = True
    ours, theirs = (
        loop.pose_estimator.estimate(frame, boxes, masks if with_masks else None)
        for loop, frame in zip(loops, frames((120, 160)), strict=True)
    )
    estimator = loops[1].pose_estimator
    assert isinstance(estimator, PoseEstimator) and estimator.skeleton is COCO_17
    assert theirs.keypoints.shape == (people, 17, 2)
    assert theirs.keypoints.dtype == theirs.scores.dtype == np.float32
    assert theirs.visibility is None and theirs.presence is None
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=2e-4)
    # On random heatmaps some maxima are ties or flat: their sub-pixel step is arbitrary.
    close = np.abs(theirs.keypoints - ours.keypoints).max(axis=2) < 0.05
    assert close.mean() > 0.9


def test_pose_passes_of_any_size(exported: Path) -> None:
    estimator = build_loop(exported, "cpu").pose_estimator
    frame = Frame(drawn_image(120, 160, seed=3))
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 80, (7, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 60, (7, 2))], axis=1)
    answers = []
    for size in (100, 4):
        estimator.max_batch = size  # type: ignore[attr-defined]
        answers.append(estimator.estimate(frame, boxes, None))
    once, often = answers
    np.testing.assert_allclose(often.scores, once.scores, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_segmenter(loops: tuple[BMPLoop, BMPLoop], shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    both = frames(shape)
    assert isinstance(loops[1].segmenter, Segmenter)
    for people, points in ((4, 3), (1, 1), (2, 8)):
        xy = (rng.uniform(0, 1, (people, points, 2)) * shape[::-1]).astype(np.float32)
        labels = rng.integers(0, 2, (people, points)).astype(np.int32)
        labels[:, 0] = 1
        first = np.zeros((people, *shape), np.bool_)
        first[:, : shape[0] // 2, : shape[1] // 3] = True
        for masks in (None, first):
            ours, theirs = (
                loop.segmenter.segment(frame, xy, labels, masks)  # type: ignore[union-attr]
                for loop, frame in zip(loops, both, strict=True)
            )
            assert theirs.masks.shape == (people, *shape) and theirs.masks.dtype == np.bool_
            assert (theirs.masks ^ ours.masks).mean() < 2e-3
            np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-4)
            assert theirs.scores.dtype == np.float32


def test_the_image_is_encoded_once_per_frame(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = build_loop(exported, "cpu").segmenter
    assert segmenter is not None
    encoder = segmenter.graphs["encoder"]  # type: ignore[attr-defined]
    runs = []
    run = encoder.run
    monkeypatch.setattr(encoder, "run", lambda *given: runs.append(1) or run(*given))
    frame = Frame(drawn_image(90, 160, seed=1))
    for people in (3, 1, 2):
        points = np.full((people, 2, 2), 40, np.float32)
        segmenter.segment(frame, points, np.ones((people, 2), np.int32))
    assert len(runs) == 1


def test_wrong_input_is_refused(loops: tuple[BMPLoop, BMPLoop]) -> None:
    frame = Frame(drawn_image(90, 160, seed=1))
    _, loop = loops
    assert loop.segmenter is not None
    with pytest.raises(ValueError, match="finite"):
        loop.segmenter.segment(frame, np.full((1, 1, 2), np.nan, "f4"), np.ones((1, 1), "i4"))
    with pytest.raises(ValueError, match=r"\(1, 90, 160\).*\(2, 90, 160\)"):
        loop.pose_estimator.estimate(frame, np.ones((1, 4)), np.ones((2, 90, 160), bool))
    with pytest.raises(ValueError, match="box 0 is not finite"):
        loop.pose_estimator.estimate(frame, np.full((1, 4), np.inf), None)


def test_whole_loop(loops: tuple[BMPLoop, BMPLoop]) -> None:
    image = drawn_image(120, 160, seed=3)
    ours, theirs = (loop(image) for loop in loops)
    assert len(ours) == len(theirs) > 1
    np.testing.assert_allclose(theirs.boxes, ours.boxes, atol=0.5)
    np.testing.assert_array_equal(theirs.iterations, ours.iterations)
    assert (theirs.masks ^ ours.masks).mean() < 0.01
