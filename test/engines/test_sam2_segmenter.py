# SPDX-License-Identifier: Apache-2.0
"""What `Sam2Segmenter` promises beside the numbers of SAM 2.1 (see test_sam2_parity)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_sam2 import (
    SMALL,
    SMALL_IMAGE_SIZE,
    patchwork,
    random_sam2_checkpoint,
    small_random_sam2,
)
from torch.nn import functional

from bmp_ros.engines.registry import Runtime, find_engine
from bmp_ros.engines.sam2 import Sam2Segmenter
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.masks import remove_holes_and_sprinkles
from bmp_ros.loop.protocols import Segmenter
from bmp_ros.networks.sam2 import Sam2Network, image_tensors

pytest.importorskip("sam2", reason="needs the sam2 package")


def small_network() -> Sam2Network:
    network = Sam2Network(SMALL, SMALL_IMAGE_SIZE)
    network.load_state_dict(image_tensors(small_random_sam2().state_dict()), strict=True)
    return network


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture
def segmenter(network):
    return Sam2Segmenter.from_network(network)


def prompts(people: int, points: int, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(people)
    xy = rng.uniform(0, 1, (people, points, 2)) * [frame.width, frame.height]
    return xy.astype(np.float32), np.ones((people, points), np.int32)


def test_is_a_segmenter(segmenter):
    assert isinstance(segmenter, Segmenter)


def test_the_image_is_encoded_once_per_frame(network, segmenter):
    calls = []
    hook = network.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        frame = Frame(patchwork(160, 90))
        for people, points in ((3, 2), (1, 5), (3, 2)):
            segmenter.segment(frame, *prompts(people, points, frame))
        assert len(calls) == 1
        other = Frame(patchwork(160, 90))
        segmenter.segment(other, *prompts(1, 1, other))
        assert len(calls) == 2
    finally:
        hook.remove()


def test_a_few_people_pass_the_decoder_at_once_on_a_cpu(network, segmenter, monkeypatch):
    people = []
    decode = network.sam_mask_decoder.predict_masks

    def counting(**arguments):
        people.append(len(arguments["sparse_prompt_embeddings"]))
        return decode(**arguments)

    monkeypatch.setattr(network.sam_mask_decoder, "predict_masks", counting)
    frame = Frame(patchwork(160, 90))
    segmenter.segment(frame, *prompts(7, 2, frame))
    assert people == [2, 2, 3]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (257, 3)])
def test_any_image_size(segmenter, height, width):
    frame = Frame(patchwork(width, height))
    segments = segmenter.segment(frame, *prompts(2, 3, frame))
    assert segments.masks.shape == (2, height, width)
    assert np.isfinite(segments.scores).all()


def test_twelve_megapixels(segmenter):
    frame = Frame(patchwork(4000, 3000))
    segments = segmenter.segment(frame, *prompts(2, 4, frame))
    assert segments.masks.shape == (2, 3000, 4000)
    assert (0 < segments.masks.mean(axis=(1, 2))).all()
    assert (segments.masks.mean(axis=(1, 2)) < 1).all()


def test_points_outside_of_the_image_are_accepted(segmenter):
    frame = Frame(patchwork(160, 90))
    points = np.array([[[-400.0, -3.0], [1000.0, 5000.0]]], np.float32)
    segments = segmenter.segment(frame, points, np.ones((1, 2), np.int32))
    assert segments.masks.shape == (1, 90, 160)
    assert np.isfinite(segments.scores).all()


def test_arrays_that_torch_would_not_take(segmenter):
    upright = patchwork(160, 90)
    frame, same = Frame(upright), Frame(upright[::-1].copy()[::-1])
    same.image.flags.writeable = False
    xy, labels = prompts(2, 3, frame)
    wanted = segmenter.segment(frame, xy, labels)
    labels.flags.writeable = False
    got = segmenter.segment(same, xy[:, ::-1].copy()[:, ::-1], labels)
    np.testing.assert_array_equal(got.masks, wanted.masks)


def test_holes_and_sprinkles_are_removed_before_upsampling(network):
    frame = Frame(patchwork(160, 90))
    xy, labels = prompts(4, 2, frame)
    areas = {"max_hole_area": 200, "max_sprinkle_area": 400}
    plain = Sam2Segmenter.from_network(network, max_hole_area=0, max_sprinkle_area=0)
    cleaning = Sam2Segmenter.from_network(network, **areas)

    logits, _ = plain.decode(frame, xy, labels)
    cleaned = remove_holes_and_sprinkles(logits, **areas)

    assert (cleaned != logits).any(), "nothing to remove in this test"
    for segmenter, low in ((plain, logits), (cleaning, cleaned)):
        tensor = torch.from_numpy(low)[:, None]
        full = functional.interpolate(tensor, (90, 160), mode="bilinear")[:, 0].numpy()
        clear = np.abs(full) > 1e-3
        masks = segmenter.segment(frame, xy, labels).masks
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(masks[clear], (full > 0)[clear])


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        (np.zeros((3, 2), "f4"), np.ones(3, "i4"), r"got shape \(3, 2\)"),
        (np.zeros((1, 3, 3), "f4"), np.ones((1, 3), "i4"), r"got shape \(1, 3, 3\)"),
        (np.zeros((0, 3, 2), "f4"), np.ones((0, 3), "i4"), r"G >= 1"),
        (np.zeros((1, 0, 2), "f4"), np.ones((1, 0), "i4"), r"P >= 1"),
        (np.zeros((1, 3, 2), "i8"), np.ones((1, 3), "i4"), "dtype int64"),
        (np.zeros((1, 3, 2), "f4"), np.ones((1, 2), "i4"), r"labels must be int32 \(1, 3\)"),
        (np.zeros((1, 3, 2), "f4"), np.ones((1, 3), "f4"), "dtype float32"),
        (np.zeros((1, 2, 2), "f4"), np.array([[1, 2]], "i4"), r"got \[2\]"),
        (np.zeros((1, 1, 2), "f4"), np.array([[-1]], "i4"), r"got \[-1\]"),
        (np.full((1, 1, 2), np.nan, "f4"), np.ones((1, 1), "i4"), "nan.* for person 0"),
        (np.full((1, 1, 2), np.inf, "f4"), np.ones((1, 1), "i4"), "finite"),
    ],
)
def test_wrong_prompts_are_refused(segmenter, points, labels, message):
    with pytest.raises(ValueError, match=message):
        segmenter.segment(Frame(patchwork(160, 90)), points, labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"precision": "int8"}, "int8"),
        ({"max_hole_area": -1}, r"max_hole_area must be >= 0 \(0 = off\), got -1"),
        ({"max_sprinkle_area": -5}, "max_sprinkle_area.*got -5"),
    ],
)
def test_wrong_options_are_refused(network, options, message):
    with pytest.raises(ValueError, match=message):
        Sam2Segmenter.from_network(network, **options)


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """The smallest IoU of two stacks of masks, mask by mask."""
    return float(((one & other).sum((1, 2)) / (one | other).sum((1, 2))).min())


def test_bfloat16_agrees_roughly(network, segmenter):
    frame = Frame(patchwork(160, 90))
    xy, labels = prompts(4, 3, frame)
    exact = segmenter.segment(frame, xy, labels)
    rough = Sam2Segmenter.from_network(network, precision="bf16").segment(frame, xy, labels)
    assert rough.scores.dtype == np.float32
    assert not np.array_equal(rough.scores, exact.scores), "bf16 was not used"
    assert agreement(rough.masks, exact.masks) > 0.9
    np.testing.assert_allclose(rough.scores, exact.scores, atol=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.99), ("fp16", 0.95), ("bf16", 0.9)])
def test_the_gpu_agrees_with_the_cpu(segmenter, precision, least):
    frame = Frame(patchwork(160, 90))
    xy, labels = prompts(4, 3, frame)
    on_gpu = Sam2Segmenter.from_network(small_network(), device="cuda", precision=precision)
    got = on_gpu.segment(frame, xy, labels)
    assert agreement(got.masks, segmenter.segment(frame, xy, labels).masks) > least


@pytest.mark.slow
def test_the_encoder_compiles_in_one_graph(segmenter, monkeypatch):
    graphs = []

    def run_as_traced(graph, _inputs):  # generating code for it would take minutes on a CPU
        graphs.append(graph)
        return graph.forward

    compile_function = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function: compile_function(function, backend=run_as_traced)
    )
    frame = Frame(patchwork(160, 90))
    xy, labels = prompts(4, 3, frame)
    compiled = Sam2Segmenter.from_network(small_network(), compile=True)
    logits, _ = compiled.decode(frame, xy, labels)
    wanted, _ = segmenter.decode(frame, xy, labels)
    assert len(graphs) == 1
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-4)


def test_built_from_a_published_file(tmp_path):
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save(random_sam2_checkpoint("t"), path)
    declared = find_engine("segmenter", "sam2")
    segmenter = declared.build(declared.options("x.pt"), path, Runtime("cpu"))
    assert isinstance(segmenter, Sam2Segmenter)
    assert segmenter.graphs["encoder"].network.image_size == 1024
