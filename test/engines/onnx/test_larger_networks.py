# SPDX-License-Identifier: Apache-2.0
"""ViTPose, PMPose and SAM 2.1, small ones with random weights, exported and compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with torch")
pytest.importorskip("onnx", reason="writing ONNX files needs onnx")
from random_vit import random_state_dict  # noqa: E402
from random_weights import drawn_image  # noqa: E402

from bmp_ros.engines.export.check import compare  # noqa: E402
from bmp_ros.engines.export.source import NetworkSource  # noqa: E402
from bmp_ros.engines.export.write import write_graph  # noqa: E402
from bmp_ros.engines.onnx.card import Card, part_path  # noqa: E402
from bmp_ros.engines.registry import Runtime, find_engine  # noqa: E402
from bmp_ros.engines.sam2 import Sam2Options  # noqa: E402
from bmp_ros.engines.top_down_pose import TopDownPoseEstimator  # noqa: E402
from bmp_ros.loop.frame import Frame  # noqa: E402
from bmp_ros.loop.skeletons import COCO_17, MULTI_23  # noqa: E402
from bmp_ros.networks.vit_pose import VitPose  # noqa: E402


def write(source: NetworkSource, path: Path, *, half_weights: bool = False) -> None:
    for graph in source.graphs:
        file = part_path(path, source.kind, graph.part)
        card = Card(source.kind, graph.part, source.weights, source.facts)
        write_graph(graph, card, file, half_weights=half_weights)
        compare(graph, file)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small lose more to waiting threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("head", "extra_keypoints"), [("heatmap", False), ("heatmap", True), ("pmpose", True)]
)
def test_vit_pose(head: str, extra_keypoints: bool, tmp_path: Path) -> None:
    weights = random_state_dict(width=384, depth=1, hidden=96, head=head)
    declared = find_engine("pose_estimator", "vit_pose")
    settings = declared.options("x.pth", head=head, background_factor=0.75)
    path = tmp_path / "pose.onnx"
    write(declared.export(settings, weights), path)

    boxes = np.array([[10, 5, 60, 110], [50, 20.5, 150, 100]], np.float32)
    masks = np.zeros((2, 120, 160), bool)
    masks[0, 10:100, 20:90] = True  # the other one is empty: no mask
    frame = Frame(drawn_image(120, 160, seed=3))
    onnx = find_engine("pose_estimator", "onnx")
    options = onnx.options("x.onnx", extra_keypoints=extra_keypoints)
    estimator = onnx.build(options, path, Runtime("cpu"))
    found = estimator.estimate(frame, boxes, masks)
    network = VitPose.from_state_dict(weights, head=head)
    wanted = TopDownPoseEstimator.from_network(network, extra_keypoints=extra_keypoints).estimate(
        frame, boxes, masks
    )

    assert estimator.skeleton is (MULTI_23 if extra_keypoints else COCO_17)
    assert estimator.background_factor == 0.75
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-3)
    assert np.unique(found.scores).size > 10
    close = np.abs(found.keypoints - wanted.keypoints).max(axis=2) < 0.1
    assert close.mean() > 0.9
    for ours, theirs in (
        (found.visibility, wanted.visibility),
        (found.presence, wanted.presence),
    ):
        assert (ours is None) == (theirs is None) == (head == "heatmap")
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.fixture(scope="module")
def sam2_network():
    pytest.importorskip("sam2", reason="needs the sam2 package")
    from random_sam2 import SMALL, SMALL_IMAGE_SIZE, small_random_sam2

    from bmp_ros.networks.sam2 import Sam2Network, image_tensors

    network = Sam2Network(SMALL, SMALL_IMAGE_SIZE)
    network.load_state_dict(image_tensors(small_random_sam2().state_dict()), strict=True)
    return network


@pytest.mark.parametrize("dynamic_multimask", [False, True])
def test_sam2(sam2_network, dynamic_multimask: bool, tmp_path: Path) -> None:
    from bmp_ros.engines.sam2 import Sam2Segmenter, export_source

    path = tmp_path / "segmenter.onnx"
    settings = Sam2Options("x.pt", dynamic_multimask=dynamic_multimask)
    write(export_source(sam2_network, settings), path)
    onnx = find_engine("segmenter", "onnx")
    options = onnx.options("x.onnx", max_hole_area=10, max_sprinkle_area=50)
    exported = onnx.build(options, path, Runtime("cpu"))
    native = Sam2Segmenter.from_network(sam2_network, dynamic_multimask=dynamic_multimask)
    rng = np.random.default_rng(1)
    for shape in ((90, 160), (400, 300)):
        image = drawn_image(*shape, seed=4)
        ours, theirs = Frame(image), Frame(image)
        for people, points in ((4, 3), (1, 1), (2, 7)):
            xy = (rng.uniform(0, 1, (people, points, 2)) * shape[::-1]).astype(np.float32)
            labels = rng.integers(0, 2, (people, points)).astype(np.int32)
            found = exported.segment(ours, xy, labels)
            wanted = native.segment(theirs, xy, labels)
            assert found.masks.shape == (people, *shape) and 0 < found.masks.mean() < 1
            assert (found.masks ^ wanted.masks).mean() < 5e-3
            np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-3)
        assert len(ours._store) == 1, "one embedding for all prompts"


@pytest.mark.slow
def test_sam2_in_half_precision_passes_the_gate(sam2_network, tmp_path: Path) -> None:
    from bmp_ros.engines.sam2 import export_source

    source = export_source(sam2_network, Sam2Options("x.pt"))
    write(source, tmp_path / "half.onnx", half_weights=True)
    write(source, tmp_path / "full.onnx")
    half, full = ((tmp_path / f"{name}.onnx").stat().st_size for name in ("half", "full"))
    assert half < 0.6 * full
