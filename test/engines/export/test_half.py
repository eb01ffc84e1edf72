# SPDX-License-Identifier: Apache-2.0
"""Graphs that compute in fp16: which operation in which format, and how near they are to fp32."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

sys.path.insert(0, str(Path(__file__).parents[1]))

from random_sam2 import SMALL as HIERA  # noqa: E402
from random_tiny import random_conv_pose, random_point_segmenter  # noqa: E402
from random_vit import random_state_dict  # noqa: E402
from random_weights import SMALL, drawn_image, random_rtmdet_ins  # noqa: E402

from bmp_ros.engines import build_loop, point_segmenter, rtmdet_ins, sam2  # noqa: E402
from bmp_ros.engines.export.check import compare  # noqa: E402
from bmp_ros.engines.export.half import compute_in_half  # noqa: E402
from bmp_ros.engines.export.int8 import Calibration  # noqa: E402
from bmp_ros.engines.export.preset import export_preset  # noqa: E402
from bmp_ros.engines.export.source import GraphSource, NetworkSource  # noqa: E402
from bmp_ros.engines.export.write import write_graph  # noqa: E402
from bmp_ros.engines.onnx.card import Card, part_path  # noqa: E402
from bmp_ros.engines.presets import load_preset  # noqa: E402
from bmp_ros.engines.top_down_pose import export_source  # noqa: E402
from bmp_ros.networks.conv_pose import ConvPose  # noqa: E402
from bmp_ros.networks.hrnet import PoseHRNet, TrunkSize  # noqa: E402
from bmp_ros.networks.vit_pose import VitPose  # noqa: E402

FP32, FP16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
EXACT = ("LayerNormalization", "Softmax", "ReduceMean", "ReduceSum", "Exp", "Log", "Sin", "Cos",
         "Sqrt", "Pow")  # fmt: skip
UNWANTED = ("OneHot", "NonMaxSuppression", "If", "Loop", "NonZero")
"""What TensorRT cannot build, or builds for fixed shapes only."""


def pose(network: Any) -> NetworkSource:
    used = {"decoding": "udp", "crop": "udp", "shift_flipped": False, "background_factor": 0.75,
            "flip_test": True, "extra_keypoints": False}  # fmt: skip
    return export_source(network, used, network.state_dict())


def sources(name: str) -> NetworkSource:
    torch.manual_seed(0)
    if name == "rtmdet_ins":
        weights = random_rtmdet_ins(SMALL, 1, seed=5, input_size=160)
        return rtmdet_ins.export_source(rtmdet_ins.RTMDetInsOptions("x", input_size=160), weights)
    if name == "sam2":
        pytest.importorskip("sam2", reason="the sam2 package is not installed")
        from random_sam2 import SMALL_IMAGE_SIZE, small_random_sam2

        from bmp_ros.networks.sam2 import Sam2Network, image_tensors

        network = Sam2Network(HIERA, SMALL_IMAGE_SIZE)
        network.load_state_dict(image_tensors(small_random_sam2().state_dict()))
        return sam2.export_source(network, sam2.Sam2Options("x"))
    if name == "point_segmenter":
        return point_segmenter.ENGINE.export(
            point_segmenter.PointSegmenterOptions("x"), random_point_segmenter()
        )
    networks = {
        "vit_pose": lambda: VitPose.from_state_dict(random_state_dict(), "heatmap", 4),
        "pmpose": lambda: VitPose.from_state_dict(random_state_dict(head="pmpose"), "pmpose", 4),
        "conv_pose": lambda: ConvPose.from_state_dict(random_conv_pose()),
        "hrnet": lambda: PoseHRNet(TrunkSize((8, 16, 24, 32), (1, 1, 1), 1)),
    }
    return pose(networks[name]())


NAMES = ("rtmdet_ins", "sam2", "point_segmenter", "vit_pose", "pmpose", "conv_pose", "hrnet")


@pytest.mark.parametrize("name", NAMES)
def test_graphs_in_half_precision(name: str, tmp_path: Path) -> None:
    source = sources(name)
    for graph in source.graphs:
        path = part_path(tmp_path / f"{name}.onnx", source.kind, graph.part)
        write_graph(graph, Card(source.kind, graph.part, source.weights, source.facts), path,
                    half=True)  # fmt: skip
        # The gate of every export, with other numbers of people and points than were traced.
        assert min(compare(graph, path).values()) > 0.9995
        check_formats(onnx.load(path), graph)


def check_formats(model: Any, source: GraphSource) -> None:
    formats = value_formats(model)
    half, exact = Counter[str](), Counter[str]()
    for node in model.graph.node:
        assert node.op_type not in UNWANTED
        floats = {formats.get(name) for name in [*node.input, *node.output]} & {FP32, FP16}
        if node.op_type in EXACT:
            assert floats <= {FP32}, f"{node.name} computes in half precision"
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            assert len(floats) == 1
            (half if floats == {FP16} else exact)[node.op_type] += 1
            named = any(part in used for used in node.input for part in source.exact)
            assert not named or floats == {FP32}
    assert half.total() >= 5 and half.total() > exact.total(), "most of the work is in fp16"
    for value in [*model.graph.input, *model.graph.output]:
        assert value.type.tensor_type.elem_type != FP16
    assert model.opset_import[0].version >= 17
    big = [t for t in model.graph.initializer if t.data_type == FP32 and np.prod(t.dims) > 20_000]
    assert not [t.name for t in big if t.name.endswith("weight")], "weights are stored in fp16"


def value_formats(model: Any) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    formats = {tensor.name: tensor.data_type for tensor in graph.initializer}
    typed = [*graph.input, *graph.value_info, *graph.output]
    return formats | {value.name: value.type.tensor_type.elem_type for value in typed}


def test_norms_of_transformers_are_one_operation(tmp_path: Path) -> None:
    source = sources("vit_pose")
    path = tmp_path / "pose.onnx"
    write_graph(source.graphs[0], Card(source.kind, source.graphs[0].part, "", source.facts), path,
                half=True)  # fmt: skip
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert kinds["LayerNormalization"] == 2 * 2 + 1, "two per block, and the last one"


class Large(torch.nn.Module):
    """A sum beyond fp16 between two layers that are not, and a weight that is."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
        self.place = torch.nn.Parameter(torch.full((4, 8), 70_000.0))
        torch.nn.init.constant_(self.second.weight, weight)

    def forward(self, x: Any) -> Any:
        stream = self.first(x) + self.place
        return self.second(stream - 70_000.0)


@pytest.mark.parametrize(("weight", "layers"), [(0.5, 2), (1e5, 1)])
def test_what_fp16_cannot_hold_stays_in_fp32(weight: float, layers: int, tmp_path: Path) -> None:
    network = Large(weight).eval().requires_grad_(False)
    inputs = {"x": torch.rand(4, 8)}
    source = GraphSource("x", network, ("y",), [inputs])
    facts = sources("conv_pose").facts
    write_graph(source, Card("heatmaps", "heatmaps", "", facts), tmp_path / "x.onnx", half=True)
    assert compare(source, tmp_path / "x.onnx")["y"] > 0.9999
    halves = [t for t in onnx.load(tmp_path / "x.onnx").graph.initializer if t.data_type == FP16]
    assert len([t for t in halves if len(t.dims) == 2 and t.dims[0] == 8]) == layers


def test_subgraphs_are_refused() -> None:
    value = onnx.helper.make_tensor_value_info("x", FP32, [1])
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "then",
        [],
        [onnx.helper.make_tensor_value_info("y", FP32, [1])],
    )
    node = onnx.helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    condition = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [1])
    out = onnx.helper.make_tensor_value_info("z", FP32, [1])
    graph = onnx.helper.make_graph([node], "g", [value, condition], [out])
    with pytest.raises(ValueError, match="subgraphs of If"):
        compute_in_half(onnx.helper.make_model(graph))


def test_a_preset_in_fp16_finds_the_same_people(
    native: Path, exported: Path, tmp_path: Path
) -> None:
    export_preset(load_preset(native), tmp_path, precision="fp16")
    half, exact = build_loop(tmp_path / "random.yaml", "cpu"), build_loop(exported, "cpu")
    for engine in (half.detector, half.segmenter):
        assert {graph.card.precision for graph in engine.graphs.values()} == {"fp16"}
    assert half.pose_estimator.graph.card.precision == "fp16"
    one, other = (loop(drawn_image(120, 160, seed=3)) for loop in (half, exact))
    assert len(one) == len(other) >= 2
    assert not np.array_equal(one.scores, other.scores), "fp16 was not used"
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.5)
    # Untrained poses have no clear peaks: some prompts lie elsewhere, and so do the masks.
    assert np.median((one.masks == other.masks).mean(axis=(1, 2))) > 0.98
    # A file in fp16 is what precision fp16 asks for, and nothing to quantise.
    assert build_loop(tmp_path / "random.yaml", "cpu", precision="fp16")
    (tmp_path / "images").mkdir()
    for seed in range(4):
        cv2.imwrite(str(tmp_path / f"images/{seed}.png"), drawn_image(120, 160, seed))
    with pytest.raises(ValueError, match="detector.onnx computes in fp16 and cannot be quantised"):
        export_preset(
            load_preset(tmp_path / "random.yaml"), tmp_path / "int8", precision="int8",
            calibration=Calibration(tmp_path / "images"),
        )  # fmt: skip
