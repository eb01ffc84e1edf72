# SPDX-License-Identifier: Apache-2.0
"""Defects of the published code that only the whole loop shows: its answer beside ours.

See `test_published_rules.py` for those of single rules.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from scripted import Actor, Stage, grey_image, rectangle_mask, stage

from bmp_ros.loop import BMPLoop, Frame

H, W = 120, 200
IMAGE = grey_image(H, W)
LEFT = Actor((10, 10, 60, 110))
RIGHT = Actor((120, 10, 180, 110), score=0.8)
MIDDLE = Actor((70, 10, 110, 110), score=0.7)


def test_defect_04_suppressed_people_leave_the_result() -> None:
    sparse = np.where(np.arange(17) < 12, 0.9, 0.1)
    first = Actor(LEFT.box, keypoint_scores=sparse)
    again = Actor((11, 10, 61, 110), keypoints=first.pose(17) + 0.5)
    trace = stage([first, RIGHT], [again]).loop.trace(IMAGE)
    before, survivors = trace.iterations[0].people, trace.iterations[1].survivors
    assert before is not None and survivors is not None
    published = [*before.boxes.tolist(), *survivors.boxes.tolist()]  # all old ones, and the new
    assert len(published) == 3, "one person is there twice"
    assert trace.people.boxes.tolist() == [list(RIGHT.box), list(again.box)]


def published_detector_calls(play: Stage, iterations: int) -> int:
    for _ in range(iterations):  # "continue" where nobody was found
        play.detector.detect(Frame(IMAGE), score_threshold=0.3)
    return len(play.detector.frames)


def test_defect_06_empty_picture_is_looked_at_once() -> None:
    assert published_detector_calls(stage([]), iterations=2) == 2
    play = stage([], iterations=2)
    play.loop(IMAGE)
    assert len(play.detector.frames) == 1


def published_mask_out(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Version 1.1: black polygons of the larger outlines, and a caption in the same picture."""
    picture = image.copy()
    for mask in masks:
        outlines, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        large = [outline for outline in outlines if cv2.contourArea(outline) >= 50]
        cv2.fillPoly(picture, large, (0, 0, 0))
    place, font = (10, 30), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(picture, "BMP 1x: Mask-Out", place, font, 1, (0, 0, 0), 5)
    cv2.putText(picture, "BMP 1x: Mask-Out", place, font, 1, (0, 255, 255), 2)
    return picture


def test_defect_07_text_is_not_burned_into_the_detector_input() -> None:
    ring = rectangle_mask(H, W, (120, 50, 180, 110)) & ~rectangle_mask(H, W, (140, 70, 160, 90))
    actors = [Actor((120, 50, 180, 110), segment=ring), Actor((20, 80, 27, 87), score=0.6)]
    play = stage(actors)
    people = play.loop(IMAGE)
    covered = people.masks.any(axis=0)
    published = published_mask_out(IMAGE, people.masks)
    assert (published[~covered] == (0, 255, 255)).all(axis=-1).any(), "yellow letters"
    assert (published[80:87, 20:27] == 127).all(), "a small person is still there"
    assert not published[70:90, 140:160].any(), "the hole in a mask is gone"
    ours = play.detector.frames[1].image
    assert not ours[covered].any()
    np.testing.assert_array_equal(ours[~covered], IMAGE[~covered])


def test_defect_08_segmenter_sees_red_as_red() -> None:
    torch = pytest.importorskip("torch")
    from bmp_ros.engines.sam2 import Sam2Segmenter
    from bmp_ros.networks.sam2 import Sam2Embedding

    class Recorder(torch.nn.Module):
        """Takes the place of SAM 2's network and keeps what its image encoder is given."""

        image_size = 64

        def embed(self, images: Any) -> Any:
            self.images = images
            return Sam2Embedding(images, [images, images])

        def decode(self, embedding: Any, points: Any, labels: Any, **_: Any) -> Any:
            return torch.ones(len(points), 256, 256), torch.full((len(points),), 0.9)

    red = np.zeros((H, W, 3), np.uint8)
    red[..., 2] = 255  # BGR
    mean, spread = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # of RGB
    published = (red[0, 0] / 255 - mean) / spread  # channels as they come
    play, network = stage([LEFT]), Recorder()
    loop = BMPLoop(play.detector, play.pose_estimator, Sam2Segmenter.from_network(network))
    assert len(loop(red)) == 1
    ours = network.images[0].mean(dim=(1, 2)).numpy()
    np.testing.assert_allclose(ours, (np.array([1, 0, 0]) - mean) / spread, atol=1e-4)
    np.testing.assert_allclose(published, (np.array([0, 0, 1]) - mean) / spread, atol=1e-4)


def test_defect_09_frame_is_embedded_once_whatever_the_iterations() -> None:
    play = stage([LEFT], [RIGHT], [MIDDLE], iterations=3)
    people = play.loop(IMAGE)
    assert people.iterations.tolist() == [1, 2, 3]
    assert play.segmenter.embeddings == 1
    published = stage([LEFT], [RIGHT], [MIDDLE])
    for actor in (LEFT, RIGHT, MIDDLE):  # the image is set anew in every iteration
        published.segmenter.segment(Frame(IMAGE), actor.pose(17)[None, :6], np.ones((1, 6)))
    assert published.segmenter.embeddings == 3


def test_defect_10_people_with_equally_many_points_share_a_decoder_call() -> None:
    published = stage([LEFT, RIGHT, MIDDLE])
    for actor in (LEFT, RIGHT, MIDDLE):  # one by one
        published.segmenter.segment(Frame(IMAGE), actor.pose(17)[None, :6], np.ones((1, 6)))
    assert len(published.segmenter.points) == 3
    play = stage([LEFT, RIGHT, MIDDLE], iterations=1)
    assert len(play.loop(IMAGE)) == 3
    assert [points.shape for points in play.segmenter.points] == [(3, 6, 2)]


def test_defect_21_all_three_scores_reach_the_result() -> None:
    actor = Actor(LEFT.box, score=0.75, keypoint_scores=0.5, mask_score=0.25)
    people = stage([actor]).loop(IMAGE)
    published_v1 = {"scores": people.keypoint_scores.mean(axis=1), "bbox_scores": np.ones(1)}
    published_v2 = {"bboxes", "masks", "keypoints", "presence", "visibility"}
    assert actor.score not in [value[0] for value in published_v1.values()]
    assert not any("score" in key for key in published_v2)
    assert people.scores.tolist() == [0.75]
    assert people.pose_scores.tolist() == [0.5]
    assert people.mask_scores.tolist() == [0.25]


def test_defect_22_visibility_has_one_number_per_keypoint() -> None:
    said = np.full((1, 17), 0.5, np.float32)
    published = said[:, :, None]  # documented as (N, 17)
    assert published.shape == (1, 17, 1)
    people = stage([Actor(LEFT.box, visibility=said[0])]).loop(IMAGE)
    assert people.visibility.shape == people.presence.shape == (1, 17)
    np.testing.assert_array_equal(people.visibility, said)


def published_instances(**arrays: Any) -> dict[str, Any]:
    """The container of the published code takes arrays and lists, nothing else."""
    for value in arrays.values():
        assert isinstance(value, (np.ndarray, list)), "data must be sized"
    return arrays


def test_defect_23_boxes_without_masks_are_welcome() -> None:
    boxes = np.array([LEFT.box, RIGHT.box], np.float32)
    with pytest.raises(AssertionError, match="sized"):
        published_instances(bboxes=boxes, masks=None)
    people = stage([LEFT, RIGHT]).loop(IMAGE, boxes)
    np.testing.assert_array_equal(people.boxes, boxes)
    assert len(stage([LEFT, RIGHT], detector_masks=False).loop(IMAGE)) == 2


def published_dimming(image: np.ndarray, masks: list[np.ndarray | None]) -> list[np.ndarray]:
    """One person without a mask fails the whole image."""
    if any(mask is None or not mask.any() for mask in masks):
        raise ValueError("no mask")
    return [np.where(mask[..., None], image, image * 0.8) for mask in masks if mask is not None]


def test_defect_24_person_without_a_mask_is_not_dimmed_and_fails_nobody() -> None:
    empty = np.zeros((H, W), np.bool_)
    with pytest.raises(ValueError, match="no mask"):
        published_dimming(IMAGE, [rectangle_mask(H, W, LEFT.box), empty])
    play = stage([LEFT, Actor(RIGHT.box, score=0.8, detector_mask=empty)], iterations=1)
    assert len(play.loop(IMAGE)) == 2
    (masks,) = play.pose_estimator.masks
    assert masks is not None and masks.any(axis=(1, 2)).tolist() == [True, False]
    without = stage([LEFT, RIGHT], detector_masks=False, iterations=1)
    assert len(without.loop(IMAGE)) == 2 and without.pose_estimator.masks == [None]
