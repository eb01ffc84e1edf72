# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from random_tiny import random_point_segmenter
from random_weights import drawn_image

from bmp_ros.engines.point_segmenter import (
    PointPromptSegmenter,
    masks_to_canvas,
    point_letterbox,
    points_to_canvas,
    segmenter_input,
)
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.protocols import Segmenter
from bmp_ros.networks.point_segmenter import PointSegmenter

IMAGE = drawn_image(90, 160, seed=1)


@pytest.fixture(scope="module")
def network() -> PointSegmenter:
    return PointSegmenter.from_state_dict(random_point_segmenter())


@pytest.fixture
def engine(network: PointSegmenter) -> PointPromptSegmenter:
    return PointPromptSegmenter.from_network(
        network, max_hole_area=0, max_sprinkle_area=0, side=128
    )


def prompts(people: int, points: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(people)
    xy = rng.uniform(0, 1, (people, points, 2)) * [160, 90]
    labels = rng.integers(0, 2, (people, points))
    labels[:, 0] = 1
    return xy.astype(np.float32), labels.astype(np.int32)


def test_it_is_canvas_network_upsampling(
    network: PointSegmenter, engine: PointPromptSegmenter
) -> None:
    assert isinstance(engine, Segmenter)
    points, labels = prompts(5, 4)
    masks = np.zeros((5, 90, 160), np.bool_)
    masks[2:, 20:70, 40:80] = True
    found = engine.segment(Frame(IMAGE), points, labels, masks)
    letterbox = point_letterbox(90, 160, 128)
    assert letterbox.canvas == (128, 96)
    canvas = torch.from_numpy(segmenter_input(IMAGE, letterbox))
    with torch.inference_mode():
        logits, scores = network.decode(
            network.encode(canvas),
            torch.from_numpy(points_to_canvas(points, letterbox)),
            torch.from_numpy(labels),
            torch.from_numpy(masks_to_canvas(masks, 5, letterbox)),
        )
    # 128 of 160 pixels: the grid of stride 4 on the canvas has a cell per 5 image pixels.
    logits = torch.nn.functional.interpolate(logits[:, None], size=(120, 160), mode="bilinear")
    logits = logits[:, 0, :90].numpy()
    clear = np.abs(logits) > 1e-3
    assert clear.mean() > 0.99 and 0.1 < (logits > 0).mean() < 0.9
    np.testing.assert_array_equal(found.masks[clear], (logits > 0)[clear])
    np.testing.assert_allclose(found.scores, scores.numpy(), atol=1e-6)
    assert found.masks.dtype == np.bool_ and found.scores.dtype == np.float32
    assert np.unique(found.scores).size == 5


def test_a_mask_without_a_pixel_is_none_at_all(engine: PointPromptSegmenter) -> None:
    points, labels = prompts(3, 4)
    empty = np.zeros((3, 90, 160), np.bool_)
    found = engine.segment(Frame(IMAGE), points, labels, empty)
    plain = engine.segment(Frame(IMAGE), points, labels)
    np.testing.assert_array_equal(found.masks, plain.masks)
    np.testing.assert_array_equal(found.scores, plain.scores)
    full = engine.segment(Frame(IMAGE), points, labels, ~empty)
    assert not np.array_equal(full.scores, plain.scores)


@pytest.mark.parametrize(
    "masks", [np.zeros((2, 90, 160), bool), np.zeros((3, 90, 161), bool), np.zeros((3, 90, 160))]
)
def test_wrong_masks_are_refused(engine: PointPromptSegmenter, masks: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"masks must be bool \(3, 90, 160\)"):
        engine.segment(Frame(IMAGE), *prompts(3, 2), masks)


def test_the_image_is_encoded_once_per_frame(
    network: PointSegmenter, engine: PointPromptSegmenter
) -> None:
    calls: list[int] = []
    hook = network.pyramid.register_forward_hook(lambda *_: calls.append(1))
    try:
        frame = Frame(IMAGE)
        for people, points in ((3, 2), (1, 5), (3, 2)):
            engine.segment(frame, *prompts(people, points))
        assert len(calls) == 1
        engine.segment(Frame(IMAGE), *prompts(1, 1))
        assert len(calls) == 2
    finally:
        hook.remove()


def test_people_do_not_depend_on_each_other(engine: PointPromptSegmenter) -> None:
    points, labels = prompts(4, 3)
    together = engine.segment(Frame(IMAGE), points, labels)
    alone = engine.segment(Frame(IMAGE), points[2:3], labels[2:3])
    assert (together.masks[2] ^ alone.masks[0]).mean() < 1e-3
    np.testing.assert_allclose(together.scores[2], alone.scores[0], atol=1e-5)


def test_holes_and_sprinkles_go(network: PointSegmenter, engine: PointPromptSegmenter) -> None:
    points, labels = prompts(6, 2)
    raw = engine.segment(Frame(IMAGE), points, labels).masks
    tidy = PointPromptSegmenter.from_network(
        network, max_hole_area=50, max_sprinkle_area=50, side=128
    )
    cleaned = tidy.segment(Frame(IMAGE), points, labels).masks
    import cv2

    def parts(masks: np.ndarray) -> int:
        return sum(cv2.connectedComponents(mask.view(np.uint8))[0] for mask in masks)

    assert parts(cleaned) < parts(raw)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (257, 3)])
def test_any_image_size(engine: PointPromptSegmenter, height: int, width: int) -> None:
    found = engine.segment(Frame(drawn_image(height, width, seed=2)), *prompts(2, 3))
    assert found.masks.shape == (2, height, width)
    assert np.isfinite(found.scores).all()


def test_bf16_agrees_roughly(network: PointSegmenter, engine: PointPromptSegmenter) -> None:
    rough = PointPromptSegmenter.from_network(
        network, max_hole_area=0, max_sprinkle_area=0, side=128, precision="bf16"
    )
    points, labels = prompts(4, 3)
    exact = engine.segment(Frame(IMAGE), points, labels)
    found = rough.segment(Frame(IMAGE), points, labels)
    assert not np.array_equal(found.scores, exact.scores), "bf16 was not used"
    assert (found.masks ^ exact.masks).mean() < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"max_hole_area": -1}, r"max_hole_area must be >= 0 \(0 = off\), got -1"),
    ],
)
def test_wrong_options_are_refused(network: PointSegmenter, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PointPromptSegmenter.from_network(network, **options)


def test_wrong_prompts_are_refused(engine: PointPromptSegmenter) -> None:
    with pytest.raises(ValueError, match="finite"):
        engine.segment(Frame(IMAGE), np.full((1, 1, 2), np.nan, "f4"), np.ones((1, 1), "i4"))
    with pytest.raises(ValueError, match=r"labels must be int32 \(1, 2\)"):
        engine.segment(Frame(IMAGE), np.zeros((1, 2, 2), "f4"), np.ones((1, 1), "i4"))
