# SPDX-License-Identifier: Apache-2.0
"""Quantised exports: what is quantised, what decides, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exports come from torch")
onnx = pytest.importorskip("onnx", reason="writing ONNX files needs onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="quantising needs onnxruntime")
from random_weights import drawn_image  # noqa: E402

from bmp_ros.cli.main import main  # noqa: E402
from bmp_ros.engines import build_loop  # noqa: E402
from bmp_ros.engines.export.agreement import Calls, agreement  # noqa: E402
from bmp_ros.engines.export.check import ExportRefused  # noqa: E402
from bmp_ros.engines.export.int8 import (  # noqa: E402
    FIRST_LAYERS,
    MOST_IMAGES,
    Calibration,
    calibration_images,
    last_layers,
    layers_in_int8,
    quantise,
)
from bmp_ros.engines.export.preset import export_preset  # noqa: E402
from bmp_ros.engines.export.write import widen_weights  # noqa: E402
from bmp_ros.engines.onnx.card import METADATA_KEY  # noqa: E402
from bmp_ros.engines.presets import load_preset  # noqa: E402
from bmp_ros.loop.frame import Frame  # noqa: E402
from bmp_ros.loop.protocols import Detections, Poses, Segments  # noqa: E402
from bmp_ros.loop.skeletons import COCO_17  # noqa: E402
from bmp_ros.resources import find_preset  # noqa: E402


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four, in which the random networks of `native` find "people"."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed in (3, 4, 5, 6):
        cv2.imwrite(str(folder / f"{seed}.png"), drawn_image(120, 160, seed))
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def quantised(native: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    export_preset(
        load_preset(native), folder, precision="int8", calibration=Calibration(pictures, least=0)
    )
    return folder


def test_quantised_networks_run_and_are_a_quarter_of_the_size(
    quantised: Path, exported: Path
) -> None:
    names = {path.name for path in exported.parent.iterdir()}
    assert {path.name for path in quantised.iterdir()} == names
    loop = build_loop(quantised / "random.yaml", "cpu")
    people = loop(drawn_image(120, 160, 3))
    assert len(people) and people.masks.any() and np.isfinite(people.keypoints).all()
    assert "in int8" in load_preset(quantised / "random.yaml").description
    for name in ("detector.onnx", "segmenter.onnx"):
        sizes = [(folder / name).stat().st_size for folder in (quantised, exported.parent)]
        assert sizes[0] < 0.7 * sizes[1], name


@pytest.mark.parametrize(
    ("file", "first"),
    [
        ("detector.onnx", FIRST_LAYERS["detector"]),
        ("detector.masks.onnx", 0),
        ("pose_estimator.onnx", 0),
        ("segmenter.onnx", 0),
    ],
)
def test_every_layer_but_the_outer_ones_is_quantised(
    quantised: Path, file: str, first: int
) -> None:
    """With all of its inputs: one tensor in float keeps the whole layer in float."""
    graph = onnx.load(str(quantised / file)).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    last = last_layers(graph)
    layers = [node for node in graph.node if node.op_type == "Conv"]
    assert layers and last
    last += [node.name for node in layers[:first]]
    for node in layers:
        sources = {made_by.get(name, "a stored tensor") for name in node.input if name}
        expected = node.name not in last
        assert (sources == {"DequantizeLinear"}) == expected, (node.name, sources)
    done, layers = layers_in_int8(graph)
    assert done == layers - len(last) > 0
    zero_points = {
        tensor.data_type for tensor in graph.initializer if tensor.name.endswith("_zero_point")
    }
    assert onnx.TensorProto.UINT8 in zero_points, "activations"


def test_a_network_can_stay_as_it_is(native: Path, pictures: Path, tmp_path: Path) -> None:
    """And images that cannot be read cost themselves only."""
    roles, told = ("detector", "segmenter"), []
    images = Path(shutil.copytree(pictures, tmp_path / "images"))
    (images / "0000 broken.png").write_bytes(b"no image")
    (images / "zz gone.png").symlink_to("nowhere")
    calibration = Calibration(images, least=0, keep_fp32=roles)
    export_preset(
        load_preset(native), tmp_path / "out", precision="int8", calibration=calibration,
        tell=told.append,
    )  # fmt: skip
    left_out = [line for line in told if "left out" in line]
    assert len(left_out) == 2 and "broken.png" in left_out[0] and "gone.png" in left_out[1]
    quantised = {
        path.name: any(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)
        for path in (tmp_path / "out").glob("*.onnx")
    }
    assert [name for name, value in quantised.items() if value] == ["pose_estimator.onnx"]


def test_too_little_agreement_is_refused_with_figures_and_remedies(
    native: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(native), "--output", str(tmp_path), "--precision", "int8"]
    arguments += ["--calibrate", str(pictures), "--least-agreement", "1"]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert "agrees too little with fp32: " in printed.err and "needs at least 1" in printed.err
    assert "--keep-fp32" in printed.err and printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_images_without_people_are_refused(native: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "black", tmp_path / "out"
    folder.mkdir()
    for number in range(4):
        cv2.imwrite(str(folder / f"{number}.png"), np.zeros((64, 64, 3), np.uint8))
    preset = load_preset(native, {"loop": {"detection_threshold": 1.0}})
    with pytest.raises(ExportRefused, match="never asked .* no one was found there; nothing was"):
        export_preset(preset, output, precision="int8", calibration=Calibration(folder))
    assert not list(output.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int8"], "precision int8 needs --calibrate FOLDER"),
        (["--calibrate", "."], "--calibrate is for --precision int8"),
        (["--keep-fp32", "detector"], "are for --precision int8"),
        (["--least-agreement", "2"], "--least-agreement is 2, must be between 0 and 1"),
        (["--precision", "int8", "--calibrate", "nowhere"], "there is no such folder"),
        (["--precision", "int8", "--calibrate", "test/data"], "holds 0 images, needs at least 4"),
    ],
)
def test_what_does_not_fit_together(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "tiny", "--output", str(tmp_path / "out"), *arguments]) == 1
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_many_images_are_thinned_out_evenly(tmp_path: Path) -> None:
    for number in range(MOST_IMAGES * 2):
        (tmp_path / f"{number}.jpg").touch()
        (tmp_path / f"._{number}.jpg").touch()  # of macOS
    chosen = [int(path.stem) for path in calibration_images(tmp_path)]
    assert len(chosen) == MOST_IMAGES and chosen[0] == 0 and chosen[-1] == MOST_IMAGES * 2 - 1
    assert set(np.diff(chosen)) <= {1, 2, 3}


def test_shared_and_halved_weights_become_weights_of_their_own() -> None:
    """A Cast of a half tensor, and an Identity of it, as torch writes equal tensors."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.arange(6, dtype=np.float16).reshape(2, 3)
    nodes = [
        helper.make_node("Cast", ["w.fp16"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["w"], ["again"]),
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["x", "again"], ["b"], name="second"),
        helper.make_node("Cast", ["a"], ["c"], to=TensorProto.FLOAT16),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [1, 2])],
        [value("c", TensorProto.FLOAT16, [1, 3]), value("b", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(weight, "w.fp16")],
    )  # fmt: skip
    model = helper.make_model(graph)
    widen_weights(model)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "MatMul", "Cast"]
    tensors = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    assert set(tensors) == {"w", "again"}
    for values in tensors.values():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, weight)
    assert last_layers(model.graph) == ["second", "first"]


def test_products_with_weights_measure_their_input_and_the_others_stay(tmp_path: Path) -> None:
    """A patch of a transformer: convolution, two products with weights, attention, output."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(size=(8, 3, 2, 2)), "key": rng.normal(size=(8, 8)),
        "value": rng.normal(size=(8, 8)), "bias": rng.normal(size=8),
        "shape": np.array([1, 8, -1]), "out": rng.normal(size=(8, 4)),
    }  # fmt: skip
    stored = [
        onnx.numpy_helper.from_array(
            value.astype(np.int64 if name == "shape" else np.float32), name
        )
        for name, value in weights.items()
    ]
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["image", "kernel"], ["patches"], "patch", strides=[2, 2]),
        node("Reshape", ["patches", "shape"], ["rows"], "rows"),
        node("Transpose", ["rows"], ["tokens"], "tokens", perm=[0, 2, 1]),
        node("MatMul", ["tokens", "key"], ["keys"], "key"),
        node("Transpose", ["tokens"], ["turned"], "turned", perm=[0, 2, 1]),
        node("MatMul", ["keys", "turned"], ["likeness"], "attention"),
        node("Softmax", ["likeness"], ["weights"], "softmax", axis=-1),
        node("MatMul", ["weights", "keys"], ["mixed"], "mix"),
        node("MatMul", ["mixed", "value"], ["values"], "value"),
        node("MatMul", ["values", "out"], ["answer"], "last"),
    ]
    floats = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes, "patch",
        [onnx.helper.make_tensor_value_info("image", floats, [1, 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("answer", floats, [1, 16, 4])], stored,
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    model.metadata_props.add(key=METADATA_KEY, value="{}")
    source, target, sample = (tmp_path / name for name in ("a.onnx", "b.onnx", "0.npz"))
    onnx.save(model, str(source))
    image = rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
    np.savez(sample, image=image)
    assert quantise(source, target, [sample]) == (3, 6)
    kinds = Counter(each.op_type for each in onnx.load(str(target)).graph.node)
    assert (kinds["Conv"], kinds["MatMulInteger"], kinds["MatMul"]) == (1, 2, 3)
    answers = [
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
            None, {"image": image}
        )[0]
        for path in (source, target)
    ]
    difference = np.abs(answers[1] - answers[0]).max() / np.abs(answers[0]).max()
    assert 0 < difference < 0.05


# ---------------------------------------------------------------- agreement

FRAME = Frame(np.zeros((40, 60, 3), np.uint8))
BOXES = np.array([[0, 0, 20, 30], [30, 0, 50, 30], [5, 5, 15, 35]], np.float32)


def blocks(boxes: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:40, :60]
    x1, y1, x2, y2 = boxes.T[:, :, None, None]
    return (x >= x1) & (x < x2) & (y >= y1) & (y < y2)


class Says:
    """An engine that always says the same."""

    skeleton = COCO_17

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        kept = self.answer.scores > score_threshold
        boxes = self.answer.boxes[kept]
        return Detections(boxes, self.answer.scores[kept], lambda rows: blocks(boxes[rows]))

    def estimate(self, *_: Any) -> Poses:
        return self.answer

    def segment(self, *_: Any) -> Segments:
        return self.answer


def measured(role: str, first: Any, second: Any, calls: Calls) -> dict[str, tuple[float, int]]:
    found = agreement(role, Says(first), Says(second), calls)
    return {each.what: (round(each.value, 3), each.count) for each in found}


def test_agreement_of_detectors() -> None:
    calls = Calls(detect=[(FRAME, 0.4)])
    first = Detections(BOXES, np.array([0.9, 0.5, 0.1], np.float32))
    jittered = replace(first, scores=np.array([0.8, 0.3, 0.3], np.float32))
    assert measured("detector", first, first, calls)["people found"] == (1.0, 4)
    # Both are found; one of them below the threshold, but above half of it.
    assert measured("detector", first, jittered, calls)["people found"] == (1.0, 3)
    lost = replace(first, scores=np.array([0.8, 0.1, 0.1], np.float32))
    assert measured("detector", first, lost, calls)["people found"] == (round(2 / 3, 3), 3)
    shifted = replace(first, boxes=BOXES + np.float32([0, 10, 0, 10]))
    assert measured("detector", first, shifted, calls)["mask IoU"] == (0.5, 2)
    nobody = replace(first, scores=np.zeros(3, np.float32))
    assert measured("detector", nobody, nobody, calls) == {"people found": (0.0, 0)}


def test_agreement_of_poses_and_masks() -> None:
    calls = Calls(estimate=[(FRAME, BOXES[:2], None)], confidence_threshold=0.3)
    calls.segment.append((FRAME, np.zeros((2, 1, 2)), np.ones((2, 1)), None))
    points = np.random.default_rng(0).uniform(0, 30, (2, 17, 2)).astype(np.float32)
    scores = np.full((2, 17), 0.9, np.float32)
    scores[1] = 0.1  # not found: nothing to agree upon
    poses = Poses(points, scores)
    assert measured("pose_estimator", poses, poses, calls) == {"OKS": (1.0, 1)}
    moved = replace(poses, keypoints=points + 3)
    ((value, count),) = measured("pose_estimator", poses, moved, calls).values()
    assert 0.1 < value < 0.9 and count == 1
    masks = Segments(blocks(BOXES[:2]), np.ones(2, np.float32))
    smaller = Segments(blocks(BOXES[:2] - np.float32([0, 0, 0, 15])), np.ones(2, np.float32))
    assert measured("segmenter", masks, masks, calls) == {"mask IoU": (1.0, 2)}
    assert measured("segmenter", masks, smaller, calls) == {"mask IoU": (0.5, 2)}


PROGRAM = """
import sys

sys.modules["torch"] = None  # importing it fails
from bmp_ros.cli.main import main

sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_tiny_networks_agree_with_themselves_in_int8_without_torch(tmp_path: Path) -> None:
    """Trained networks, from the files of the package, on frames of the clip that comes along."""
    from bmp_ros.offline.video import VideoFrames

    folder = tmp_path / "frames"
    folder.mkdir()
    clip = find_preset("tiny").parents[2] / "models" / "demo" / "people.mp4"
    for number, frame in enumerate(VideoFrames(clip)):
        if number % 20 == 0 and number < 200:
            cv2.imwrite(str(folder / f"{number:03}.png"), frame)
    arguments = ["export", "tiny", "--output", str(tmp_path / "out"), "--precision", "int8"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments, "--calibrate", str(folder)],
        capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" people)\n") == 4, done.stdout
    image = cv2.imread(str(folder / "040.png"))
    people = build_loop(tmp_path / "out" / "tiny.yaml", "cpu")(image)
    wanted = build_loop("tiny", "cpu")(image)
    assert abs(len(people) - len(wanted)) <= 1 and len(wanted) > 1
