# SPDX-License-Identifier: Apache-2.0
"""Whatever three networks say, the result keeps its promises."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import assert_same_people

from bmp_ros.loop import BMPLoop, Frame, LoopSettings, People
from bmp_ros.loop.prompts import PROMPT_METHODS
from bmp_ros.loop.protocols import Detections, Poses, Segments
from bmp_ros.loop.skeletons import COCO_17, MULTI_23, Skeleton


class RandomNetworks:
    """A detector, pose estimator and segmenter that make everything up, NaN now and then."""

    def __init__(self, seed: int, skeleton: Skeleton, broken: float, has_masks: bool) -> None:
        self.random = np.random.default_rng(seed)
        self.skeleton = skeleton
        self.broken = broken
        self.has_masks = has_masks

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        count = int(self.random.integers(0, 9))
        size = np.array([frame.width, frame.height] * 2)
        corners = self.random.uniform(-0.2, 1.2, (count, 2, 2))
        boxes = (np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1) * size).round()
        levels = self.random.choice([0.1, 0.35, 0.5, 0.5, 0.9], count)

        def masks(indices: np.ndarray) -> np.ndarray:
            return self._blobs(frame, len(indices))

        return Detections(
            self._spoiled(boxes), self._spoiled(levels), masks if self.has_masks else None
        )

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        assert len(boxes) and (masks is None or masks.shape[0] == len(boxes))
        shape = (len(boxes), len(self.skeleton))
        # Few places, so that poses are alike and points coincide; some outside of the image.
        keypoints = self.random.integers(-1, 4, (*shape, 2)) * [frame.width / 2, frame.height / 2]
        scores = self.random.choice([0.05, 0.4, 0.9], shape) * self.random.choice(
            [0.1, 1, 1], (len(boxes), 1)
        )
        visibility = self.random.random(shape) if self.random.random() < 0.5 else None
        if visibility is not None:
            visibility = self._spoiled(visibility)
        return Poses(self._spoiled(keypoints), self._spoiled(scores), visibility)

    def segment(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        assert points.shape[0] and points.shape[1] and points.dtype == np.float32
        assert labels.shape == points.shape[:2] and labels.dtype == np.int32
        assert np.isfinite(points).all() and set(labels.ravel().tolist()) <= {0, 1}
        scores = self.random.choice([0.0, 0.5, 0.5, 0.9], len(points))
        return Segments(self._blobs(frame, len(points)), self._spoiled(scores))

    def _blobs(self, frame: Frame, count: int) -> np.ndarray:
        coarse = self.random.random((count, 3, 3)) < self.random.random()
        rows = np.arange(frame.height) * 3 // frame.height
        columns = np.arange(frame.width) * 3 // frame.width
        return coarse[:, rows][:, :, columns]

    def _spoiled(self, values: np.ndarray) -> np.ndarray:
        """As float32, with NaN and infinity in a few rows."""
        values = values.astype(np.float32)
        bad = self.random.random(values.shape) < self.broken
        values[bad] = self.random.choice([np.nan, np.inf, -np.inf], int(bad.sum()))
        return values


some_settings = st.fixed_dictionaries(
    {},
    optional={
        "iterations": st.integers(1, 4),
        "box_nms_iou": st.sampled_from([0.0, 0.5, 1.0]),
        "oks_threshold": st.sampled_from([0.0, 0.5, 1.0]),
        "max_people": st.integers(1, 6),
        "keep_poseless": st.sampled_from(["first", "never"]),
        "prompt_method": st.sampled_from(PROMPT_METHODS),
        "num_positive": st.integers(1, 17),
        "num_negative": st.integers(0, 4),
        "crowd_iou": st.sampled_from([None, 0.0, 0.5]),
        "visibility_threshold": st.sampled_from([0.0, 0.3, 0.9]),
        "boxes_from_masks": st.booleans(),
    },
)


def check(people: People, image: np.ndarray, settings: LoopSettings) -> None:
    height, width = image.shape[:2]
    assert people.image_size == (height, width)  # shapes and dtypes are checked by People
    for name in ("boxes", "scores", "pose_scores", "mask_scores", "keypoints", "keypoint_scores"):
        assert np.isfinite(getattr(people, name)).all(), name
    assert ((people.boxes >= 0) & (people.boxes <= [width, height] * 2)).all()
    assert (people.boxes[:, 2:] > people.boxes[:, :2]).all()
    assert (people.track_ids == -1).all() and len(people) <= settings.max_people
    assert (people.masks.sum(axis=0) <= 1).all(), "exclusive"
    assert not (people.masks & ~people.raw_masks).any(), "subsets of the raw masks"
    np.testing.assert_array_equal(people.masks.any(axis=0), people.raw_masks.any(axis=0))
    assert (np.diff(people.iterations) >= 0).all()
    assert set(people.iterations.tolist()) <= set(range(1, settings.iterations + 1))
    for _, rows in itertools.groupby(range(len(people)), key=lambda row: people.iterations[row]):
        assert (np.diff(people.scores[list(rows)]) <= 0).all(), "best first"


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    skeleton=st.sampled_from([COCO_17, MULTI_23]),
    broken=st.sampled_from([0.0, 0.002, 0.05]),
    has_masks=st.booleans(),
    has_segmenter=st.booleans(),
    changes=some_settings,
)
def test_random_networks(
    seed: int, height: int, width: int, skeleton: Skeleton, broken: float, has_masks: bool,
    has_segmenter: bool, changes: dict[str, Any],
) -> None:  # fmt: skip
    wanted = LoopSettings(**changes)
    networks = RandomNetworks(seed, skeleton, broken, has_masks)
    loop = BMPLoop(networks, networks, networks if has_segmenter else None, wanted)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    before = image.copy()
    people, report = loop.run(image)
    check(people, image, wanted)
    np.testing.assert_array_equal(image, before)
    assert (report.not_finite == 0) or broken
    again = RandomNetworks(seed, skeleton, broken, has_masks)
    trace = BMPLoop(again, again, again if has_segmenter else None, wanted).trace(image)
    assert_same_people(trace.people, people)


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.booleans(), some_settings)
def test_random_networks_on_given_boxes(
    seed: int, count: int, has_segmenter: bool, changes: dict[str, Any]
) -> None:
    wanted = LoopSettings(**{**changes, "max_people": 6, "boxes_from_masks": False})
    networks = RandomNetworks(seed, COCO_17, 0.0, False)
    corners = np.random.default_rng(seed).integers(0, 9, (count, 2))
    boxes = np.concatenate([corners, corners + 5], axis=1)
    image = np.zeros((10, 12, 3), np.uint8)
    people = BMPLoop(networks, networks, networks if has_segmenter else None, wanted)(image, boxes)
    check(people, image, wanted)
    np.testing.assert_array_equal(people.boxes, np.clip(boxes, 0, [12, 10, 12, 10]))
