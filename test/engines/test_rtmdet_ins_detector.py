# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from random_weights import SMALL, drawn_image, random_rtmdet_ins
from torch.nn import functional

from bmp_ros.engines.letterbox import (
    BGR_MEAN,
    BGR_STD,
    Letterbox,
    grid_priors,
    mask_resampling,
)
from bmp_ros.engines.rtmdet_ins import RTMDetInsDetector
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.protocols import Detections, Detector
from bmp_ros.networks.rtmdet_ins import RTMDetIns, mask_logits

CANVAS = 160
IMAGE = drawn_image(180, 320, seed=5)  # exactly twice the size it has on the canvas


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small lose more to waiting threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network() -> RTMDetIns:
    weights = random_rtmdet_ins(SMALL, 80, seed=5, image=IMAGE, input_size=CANVAS)
    return RTMDetIns.from_state_dict(weights)


@pytest.fixture(scope="module")
def detector(network: RTMDetIns) -> RTMDetInsDetector:
    return RTMDetInsDetector.from_network(network, input_size=CANVAS)


@pytest.fixture(scope="module")
def detections(detector: RTMDetInsDetector) -> Detections:
    return detector.detect(Frame(IMAGE), score_threshold=0.3)


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    intersection = max(0.0, width) * max(0.0, height)
    return intersection / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - intersection)


@torch.inference_mode()
def slow_detect(
    network: RTMDetIns, image: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The published order: everything for all classes and locations, people picked at the end."""
    letterbox = Letterbox.fit(*image.shape[:2], CANVAS)
    canvas = (letterbox.apply(image) - np.array(BGR_MEAN)) / np.array(BGR_STD)
    output = network(torch.from_numpy(canvas).float().permute(2, 0, 1)[None])
    priors = torch.from_numpy(grid_priors(CANVAS))
    scores = output.class_logits[0].sigmoid()
    low, high = output.distances[0].split(2, dim=1)
    boxes = torch.cat([priors[:, :2] - low, priors[:, :2] + high], dim=1).clamp(0, CANVAS)
    boxes = boxes.double().numpy() * 2

    chosen: list[tuple[int, int]] = []
    for flat in scores.flatten().argsort(descending=True, stable=True).tolist():
        location, label = divmod(flat, scores.shape[1])
        if scores[location, label] <= threshold:
            break
        sides = boxes[location, 2:] - boxes[location, :2]
        rivals = [boxes[other] for other, its_label in chosen if its_label == label]
        if (sides > 0).all() and all(box_iou(boxes[location], b) <= 0.6 for b in rivals):
            chosen.append((location, label))
    height, width = image.shape[:2]
    boxes = np.minimum(boxes, [width, height, width, height])
    people = [at for at, label in chosen if label == 0 and (boxes[at, 2:] > boxes[at, :2]).all()]

    logits = mask_logits(output.prototypes[0], output.kernels[0, people], priors[people])
    logits = functional.interpolate(logits[None], scale_factor=8, mode="bilinear")
    logits = functional.interpolate(logits, size=[2 * CANVAS] * 2, mode="bilinear")
    return boxes[people], scores[people, 0].numpy(), logits[0, :, :height, :width].numpy()


def test_fused_post_processing_equals_the_published_order(
    network: RTMDetIns, detections: Detections
) -> None:
    boxes, scores, logits = slow_detect(network, IMAGE, 0.3)
    assert 20 <= len(scores) < 100 and np.unique(scores).size == len(scores)
    np.testing.assert_allclose(detections.scores, scores, atol=1e-5)
    np.testing.assert_allclose(detections.boxes, boxes, atol=0.01)
    masks = detections.masks(np.arange(len(scores)))
    clear = np.abs(logits) > 1e-3
    assert clear.mean() > 0.99 and (logits > 0).any((1, 2)).sum() >= 10
    np.testing.assert_array_equal(masks[clear], (logits > 0)[clear])


def test_contract(detector: RTMDetInsDetector, detections: Detections) -> None:
    assert isinstance(detector, Detector)
    assert detections.boxes.dtype == np.float32 and detections.scores.dtype == np.float32
    assert (detections.boxes >= 0).all()
    assert (detections.boxes[:, 2] <= 320).all() and (detections.boxes[:, 3] <= 180).all()
    assert (detections.scores > 0.3).all()
    assert (np.diff(detections.scores) <= 0).all()


def test_any_subset_of_masks_in_any_order(detections: Detections) -> None:
    everyone = np.arange(len(detections.scores))
    masks = detections.masks(everyone)
    assert masks.shape == (len(everyone), 180, 320) and masks.dtype == np.bool_
    for indices in (everyone[::-1], everyone[3:4], np.array([7, 2, 7])):
        differing = detections.masks(indices) ^ masks[indices]
        assert differing.mean() < 1e-4  # rounding depends on the number of people
    assert detections.masks(np.array([], int)).shape == (0, 180, 320)


def test_masks_outlive_the_next_detection(
    detector: RTMDetInsDetector, detections: Detections
) -> None:
    before = detections.masks(np.arange(5))
    detector.detect(Frame(255 - IMAGE), score_threshold=0.3)
    np.testing.assert_array_equal(detections.masks(np.arange(5)), before)


def test_max_people_keeps_the_best(network: RTMDetIns, detections: Detections) -> None:
    few = RTMDetInsDetector.from_network(network, input_size=CANVAS)
    few.max_people = 6
    found = few.detect(Frame(IMAGE), score_threshold=0.3)
    np.testing.assert_array_equal(found.boxes, detections.boxes[:6])


def test_candidates_limit_what_reaches_the_nms(network: RTMDetIns, detections: Detections) -> None:
    few = RTMDetInsDetector.from_network(network, input_size=CANVAS)
    few.candidates = 20
    found = few.detect(Frame(IMAGE), score_threshold=0.3)
    assert 0 < len(found.boxes) < len(detections.boxes)
    np.testing.assert_array_equal(found.boxes, detections.boxes[: len(found.boxes)])


def test_nobody_above_the_threshold(detector: RTMDetInsDetector) -> None:
    found = detector.detect(Frame(IMAGE), score_threshold=0.999)
    assert found.boxes.shape == (0, 4) and found.scores.shape == (0,)
    assert found.masks(np.array([], int)).shape == (0, 180, 320)


@pytest.mark.parametrize("shape", [(1, 1), (3000, 4000), (2, 3000)])
def test_extreme_image_sizes(detector: RTMDetInsDetector, shape: tuple[int, int]) -> None:
    height, width = shape
    image = cv2.resize(IMAGE, (width, height))
    found = detector.detect(Frame(image), score_threshold=0.05)
    assert len(found.boxes) > 0
    assert np.isfinite(found.boxes).all()
    assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()
    assert found.masks(np.array([0])).shape == (1, height, width)


def test_bf16_finds_roughly_the_same_people(network: RTMDetIns, detections: Detections) -> None:
    rough = RTMDetInsDetector.from_network(network, input_size=CANVAS, precision="bf16")
    found = rough.detect(Frame(IMAGE), score_threshold=0.3)
    best = detections.boxes[:10]
    overlaps = [max(box_iou(box, other) for other in found.boxes) for box in best]
    assert np.median(overlaps) > 0.5
    assert found.masks(np.arange(2)).shape == (2, 180, 320)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "fp16 needs a GPU.*fp32.*bf16"),
        ({"precision": "int8"}, "'int8', allowed: fp32, fp16, bf16"),
        ({"input_size": 500}, "multiple of 32.*500"),
        ({"input_size": 0}, "multiple of 32.*got 0"),
        ({"input_size": (320, 250)}, r"multiple of 32.*got \(320, 250\)"),
    ],
)
def test_refusals(network: RTMDetIns, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RTMDetInsDetector.from_network(network, device="cpu", **options)


@pytest.mark.parametrize("shape", [(180, 320), (180, 200), (320, 180)])
def test_a_canvas_that_is_no_square(network: RTMDetIns, shape: tuple[int, int]) -> None:
    """The best person of the detector is the one that the plain network finds."""
    image = IMAGE if shape == (180, 320) else drawn_image(*shape, seed=6)
    lean = RTMDetInsDetector.from_network(network, input_size=(320, 192))
    lean.max_people = 1000
    found = lean.detect(Frame(image), score_threshold=0.3)
    letterbox = Letterbox.fit(*shape, (320, 192))
    canvas = (letterbox.apply(image) - np.array(BGR_MEAN)) / np.array(BGR_STD)
    with torch.inference_mode():
        output = network(torch.from_numpy(canvas).float().permute(2, 0, 1)[None])
    priors = torch.from_numpy(grid_priors((320, 192)))
    best = int(output.class_logits[0, :, 0].argmax())
    low, high = output.distances[0, best].split(2)
    box = torch.cat([priors[best, :2] - low, priors[best, :2] + high]).clamp(min=0)
    box = letterbox.clip_to_image(letterbox.boxes_to_image(box[None].numpy()))[0]
    np.testing.assert_allclose(found.boxes[0], box, atol=0.01)
    logits = mask_logits(output.prototypes[0], output.kernels[0, [best]], priors[[best]])
    rows, columns = (torch.tensor(m) for m in mask_resampling(letterbox))
    logits = rows @ (logits[:, : rows.shape[1], : columns.shape[1]] @ columns.T)
    clear = np.abs(logits.numpy()) > 1e-3
    mask = found.masks(np.array([0]))
    assert mask.shape == (1, *shape) and clear.mean() > 0.99
    np.testing.assert_array_equal(mask[clear], (logits.numpy() > 0)[clear])


def test_network_given_is_left_alone(network: RTMDetIns) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    RTMDetInsDetector.from_network(network, precision="bf16", input_size=CANVAS)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("branch", "value"),
    [("rtm_cls", float("nan")), ("rtm_reg", float("nan")), ("rtm_reg", float("inf"))],
)
def test_broken_output_is_visible(network: RTMDetIns, branch: str, value: float) -> None:
    """The finest level answers nonsense; what the others find is still there."""
    weights = dict(network.state_dict())
    name = f"bbox_head.{branch}.0.bias"
    weights[name] = torch.full_like(weights[name], value)
    detector = RTMDetInsDetector.from_network(
        RTMDetIns.from_state_dict(weights), input_size=CANVAS
    )
    detector.max_people = 1000
    broken = detector.detect(Frame(IMAGE), score_threshold=0.3)

    finite = np.isfinite(np.column_stack([broken.boxes, broken.scores])).all(axis=1)
    assert (~finite).sum() > 10
    assert finite.any()
    assert broken.masks(np.array([0, len(finite) - 1])).shape == (2, 180, 320)
