# SPDX-License-Identifier: Apache-2.0
"""YOLOv5 as a detector, in PyTorch and as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is not installed")
from golden_yolov5 import DATA, state_dict  # noqa: E402
from random_weights import drawn_image  # noqa: E402

from bmp_ros.engines import build_loop, yolov5  # noqa: E402
from bmp_ros.engines.presets import load_preset  # noqa: E402
from bmp_ros.engines.yolov5 import YOLOv5Detector, YOLOv5Options, class_index  # noqa: E402
from bmp_ros.loop.frame import Frame  # noqa: E402
from bmp_ros.loop.protocols import Detector  # noqa: E402
from bmp_ros.networks.yolov5 import YOLOv5  # noqa: E402
from bmp_ros.weights.checkpoint import load_checkpoint, load_state_dict  # noqa: E402

IMAGE = drawn_image(120, 160, seed=2)
THRESHOLD = 0.35


def calibrated(classes: int = 2) -> dict[str, Any]:
    """Random weights that find some people in `IMAGE`, and about as many of a second class."""
    weights = state_dict(gain=1.7, classes=classes)
    for level in range(3):
        bias = weights[f"model.24.m.{level}.bias"].view(3, -1)
        bias[:, 4] -= 1.0
        bias[:, 5:7] += 1.5
        bias[:, 7:] -= 3.0
    return weights


@pytest.fixture(scope="module")
def network() -> YOLOv5:
    return YOLOv5.from_state_dict(calibrated())


def detect(network: YOLOv5, image: np.ndarray = IMAGE, **how: Any) -> Any:
    detector = YOLOv5Detector.from_network(network, 160, **how)
    assert isinstance(detector, Detector)
    return detector.detect(Frame(image), score_threshold=THRESHOLD)


def test_people_are_found_inside_the_image(network: YOLOv5) -> None:
    found = detect(network)
    assert found.masks is None and len(found.scores) > 3
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert (np.diff(found.scores) <= 0).all() and (found.scores > THRESHOLD).all()
    assert (found.boxes >= 0).all() and (found.boxes <= [160, 120, 160, 120]).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_heads_are_another_class(network: YOLOv5) -> None:
    people, heads = detect(network, label=0), detect(network, label=1)
    assert len(heads.scores) > 3
    assert not set(map(tuple, people.boxes)) & set(map(tuple, heads.boxes))


def test_full_canvas_and_small_images(network: YOLOv5) -> None:
    sizes = []
    anchors = np.ones((3, 3, 2), np.float32)

    class Noting:
        def run(self, inputs: Any) -> Any:
            sizes.append(inputs["canvas"].shape[2:])
            return dict.fromkeys(yolov5.MAPS, np.zeros((1, 21, 1, 1), np.float32))

    for canvas, enlarge in (("minimal", True), ("full", True), ("minimal", False)):
        detector = YOLOv5Detector(Noting(), anchors, 320, canvas=canvas, enlarge=enlarge)
        detector.detect(Frame(IMAGE), score_threshold=0.5)
    assert sizes == [(256, 320), (320, 320), (128, 160)]


def test_an_image_of_twice_the_size_gives_boxes_of_twice_the_size(network: YOLOv5) -> None:
    """It comes back to nearly the same canvas."""
    twice = IMAGE.repeat(2, axis=0).repeat(2, axis=1)
    found, doubled = detect(network), detect(network, twice)
    assert len(found.scores) and abs(len(found.scores) - len(doubled.scores)) <= 2
    near = np.abs(doubled.boxes[:, None] / 2 - found.boxes[None]).max(axis=2).min(axis=1)
    assert np.median(near) < 1.5


def test_broken_networks_are_noticed(network: YOLOv5) -> None:
    weights = calibrated()
    weights["model.24.m.1.bias"] = weights["model.24.m.1.bias"] * float("nan")
    found = detect(YOLOv5.from_state_dict(weights))
    assert np.isnan(found.scores).sum() == 3 * 8 * 10
    assert np.isfinite(found.scores[: np.isfinite(found.scores).sum()]).all()
    assert np.isnan(found.boxes[np.isnan(found.scores)]).all()


def test_half_precision_finds_about_the_same(network: YOLOv5) -> None:
    exact, rounded = detect(network), detect(network, precision="bf16")
    assert abs(len(exact.scores) - len(rounded.scores)) <= max(3, len(exact.scores) // 3)


@pytest.mark.parametrize(
    ("wanted", "names", "classes", "index"),
    [
        ("person", None, 2, 0), ("head", None, 2, 1), ("person", None, 80, 0),
        ("Person", ["helmet", "person"], 2, 1), ("1", ["a", "b"], 2, 1), ("7", None, 80, 7),
    ],
)  # fmt: skip
def test_classes_by_name_or_number(
    wanted: str, names: list[str] | None, classes: int, index: int
) -> None:
    assert class_index(wanted, names, classes) == index


@pytest.mark.parametrize("wanted", ["face", "2", "-1", ""])
def test_class_that_is_not_there(wanted: str) -> None:
    with pytest.raises(ValueError, match=f"box_class is '{wanted}'.*2 classes: person, head"):
        class_index(wanted, None, 2)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this detector, in its published container, and a small random pose network."""
    from random_tiny import random_conv_pose

    folder = tmp_path_factory.mktemp("yolov5")
    torch.save(calibrated(80), folder / "yolo.pt")
    torch.save(random_conv_pose(), folder / "pose.pth")
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({
        "description": "For a test.",
        "detector": {"engine": "yolov5", "weights": "yolo.pt", "input_size": 160},
        "pose_estimator": {"engine": "conv_pose", "weights": "pose.pth", "flip_test": False},
        "segmenter": None,
        "loop": {"iterations": 1, "detection_threshold": THRESHOLD, "box_nms_iou": 1.0},
    }))  # fmt: skip
    return path


def test_preset_with_a_published_file(preset: Path) -> None:
    detector = {"weights": str(DATA / "yolov5_tiny_checkpoint_fixture.pt"), "box_class": "head"}
    loop = build_loop(preset, "cpu", detector=detector, detection_threshold=0.05)
    assert loop.detector._label == 1
    people = loop(IMAGE)
    assert not people.has_mask.any()


def test_exported_network_finds_the_same_people(preset: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="writing ONNX files needs onnx")
    from bmp_ros.engines.export.preset import export_preset

    files = export_preset(load_preset(preset), tmp_path, precision="fp32")
    assert "detector.onnx" in {file.path.name for file in files}
    native, exported = build_loop(preset, "cpu"), build_loop(tmp_path / "own.yaml", "cpu")
    for image in (IMAGE, drawn_image(200, 90, seed=4)):  # canvases of two shapes
        wanted, found = (
            loop.detector.detect(Frame(image), score_threshold=THRESHOLD)
            for loop in (native, exported)
        )
        assert len(wanted.scores) > 1
        np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=0, atol=0.01)
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=0, atol=1e-4)


def test_exported_network_keeps_the_class_that_its_file_names(tmp_path: Path) -> None:
    """Of a training of one's own, whose second class are the people."""
    from bmp_ros.weights.checkpoint import StateDict

    weights = StateDict(calibrated(3), {"names": ["helmet", "worker", "vest"]})
    assert yolov5.ENGINE.export is not None
    for wanted, label in (("worker", 1), ("Vest", 2), ("0", 0)):
        settings = YOLOv5Options("own.pt", input_size=160, box_class=wanted)
        assert yolov5.ENGINE.export(settings, weights).facts.label == label
    with pytest.raises(ValueError, match="3 classes: helmet, worker, vest"):
        yolov5.ENGINE.export(YOLOv5Options("own.pt", input_size=160), weights)
    # And through the file: the reader of pickled networks hands the names on.
    names = load_checkpoint(DATA / "yolov5_tiny_checkpoint_fixture.pt").meta["names"]
    torch.save({"state_dict": calibrated(2), "meta": {"names": names[::-1]}}, tmp_path / "own.pt")
    source = yolov5.ENGINE.export(
        YOLOv5Options("own.pt", input_size=160), load_state_dict(tmp_path / "own.pt")
    )
    assert names == ["person", "head"] and source.facts.label == 1


@pytest.mark.parametrize(("name", "classes"), [("yolov5s-coco", 80), ("yolov5n-crowdhuman", 2)])
def test_random_weights_of_a_published_name_find_people(name: str, classes: int) -> None:
    torch.manual_seed(0)
    settings = YOLOv5Options(name, input_size=224)
    assert yolov5.ENGINE.random_weights is not None
    network = YOLOv5.from_state_dict(yolov5.ENGINE.random_weights(settings))
    assert network.classes == classes
    found = YOLOv5Detector.from_network(network, 224).detect(
        Frame(drawn_image(200, 224, seed=1)), score_threshold=0.1
    )
    assert len(found.scores) >= 5
    with pytest.raises(ValueError, match="cannot tell the size"):
        yolov5.ENGINE.random_weights(YOLOv5Options("mine.pt"))


@pytest.mark.slow
def test_td_crowdhuman_at_full_size_from_files_in_the_published_layouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline of sithu31296/pose-estimation, whose pose files have the prefix backbone."""
    from bmp_ros.engines.registry import find_engine
    from bmp_ros.weights.zoo import load_zoo

    monkeypatch.setenv("BMP_MODELS", str(tmp_path))
    zoo, preset = load_zoo(), load_preset("td_crowdhuman")
    torch.manual_seed(0)
    for role, choice in preset.engines.items():
        weights = find_engine(role, choice.engine).random_weights(choice.settings)
        if role == "pose_estimator":
            weights = {
                name if name.startswith("final_layer") else f"backbone.{name}": value
                for name, value in weights.items()
            }
        torch.save(weights, tmp_path / zoo[choice.weights].file_name)
    size = {"input_size": 160}  # the networks are as large as published, their canvas is not
    few = {"detection_threshold": 0.01, "max_people": 4}  # of the many that chance finds
    loop = build_loop("td_crowdhuman", "cpu", detector=size, **few)
    people, report = loop.run(IMAGE)
    assert 0 < len(people) <= 4 and report.not_finite == 0
    assert people.keypoints.shape[1:] == (17, 2) and not people.has_mask.any()
    assert people.iterations.tolist() == [1] * len(people)
