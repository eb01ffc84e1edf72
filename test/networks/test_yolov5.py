# SPDX-License-Identifier: Apache-2.0
"""YOLOv5 gives the published numbers; what is another network says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_yolov5 import DATA, MEDIUM, SIZES, TINY, arrays, state_dict

from bmp_ros.engines.yolov5_boxes import decode
from bmp_ros.networks.yolov5 import YOLOv5, YOLOv5Size, prepare_for_inference
from bmp_ros.weights.checkpoint import load_checkpoint

FIXTURE = DATA / "yolov5_tiny_checkpoint_fixture.pt"


@pytest.mark.parametrize("folded", [False, True], ids=["as loaded", "norms folded"])
@pytest.mark.parametrize("name", [TINY, MEDIUM])
@torch.inference_mode()
def test_maps_and_boxes_equal_the_published_ones(name: str, folded: bool) -> None:
    golden = arrays(name)
    network = YOLOv5.from_state_dict(state_dict(name))
    assert network.classes == 2 and network.names is None
    run = prepare_for_inference(network, torch.float32) if folded else network
    maps = [values.numpy() for values in run(torch.from_numpy(golden["input"]).float())]
    for found, level in zip(maps, ("raw_p3", "raw_p4", "raw_p5"), strict=True):
        expected = golden[level][0]  # anchor, row, column, value
        found = found.reshape(3, 7, *found.shape[2:]).transpose(0, 2, 3, 1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * abs(expected).max())
    decoded = decode(maps, network.anchor_sizes.numpy())
    np.testing.assert_allclose(decoded[:, :4], golden["decoded"][0, :, :4], rtol=0, atol=1e-3)
    np.testing.assert_allclose(decoded[:, 4:], golden["decoded"][0, :, 4:], rtol=0, atol=1e-5)


def test_published_medium_size() -> None:
    network = YOLOv5(YOLOv5Size.scaled(*SIZES[MEDIUM]), 2)
    assert len(network.state_dict()) == 506
    assert sum(parameter.numel() for parameter in network.parameters()) == 21_060_447
    assert YOLOv5Size.of_state_dict(network.state_dict()) == YOLOv5Size.scaled(*SIZES[MEDIUM])


def test_checkpoint_in_half_precision_is_loaded_as_float32() -> None:
    checkpoint = load_checkpoint(FIXTURE)
    network = YOLOv5.from_state_dict(checkpoint.state_dict, checkpoint.meta)
    assert network.names == ("person", "head") and not network.training
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    weight = checkpoint.state_dict["model.9.cv2.conv.weight"].float()
    assert torch.equal(network.state_dict()["model.9.cv2.conv.weight"], weight)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}


def test_norms_have_the_eps_that_the_file_says() -> None:
    network = YOLOv5.from_state_dict(state_dict(), {"norm_eps": 1e-5})
    assert network.model["0"].conv.bn.eps == 1e-5


def test_anchors_come_from_the_file() -> None:
    weights = state_dict()
    weights["model.24.anchor_grid"] = weights["model.24.anchor_grid"] + 7
    sizes = YOLOv5.from_state_dict(weights).anchor_sizes
    assert sizes[0, 1].tolist() == [23, 37] and sizes[2, 2].tolist() == [380, 333]
    weights["model.24.anchor_grid"] = weights["model.24.anchor_grid"] * float("nan")
    with pytest.raises(ValueError, match="anchors .* are not positive"):
        YOLOv5.from_state_dict(weights)


@pytest.mark.parametrize("prefix", ["model.", "module."])
def test_wrapped_names(prefix: str) -> None:
    weights = {f"{prefix}{name}": value for name, value in state_dict().items()}
    assert YOLOv5.from_state_dict(weights).classes == 2
    bare = {name.removeprefix("model."): value for name, value in state_dict().items()}
    assert YOLOv5.from_state_dict(bare).classes == 2


def test_other_numbers_of_classes() -> None:
    assert YOLOv5.from_state_dict(state_dict(classes=80)).classes == 80
    one = YOLOv5.from_state_dict(state_dict(classes=1), {"names": ["person"]})
    assert one.names == ("person",)
    assert YOLOv5.from_state_dict(state_dict(), {"names": ["person"]}).names is None


def changed(**entries: torch.Tensor) -> dict:
    return state_dict() | {name.replace("_", "."): value for name, value in entries.items()}


def fused() -> dict:
    weights = {name: value for name, value in state_dict().items() if ".bn." not in name}
    return weights | {"model.0.conv.conv.bias": torch.zeros(8)}


def of_release_6() -> dict:
    weights = {k: v for k, v in state_dict().items() if not k.startswith("model.0.")}
    return weights | {"model.0.conv.weight": torch.zeros(8, 3, 6, 6)}


@pytest.mark.parametrize(
    ("weights", "facts", "message"),
    [
        (state_dict(), {"module_types": ["C3", "Hardswish"]}, "before release 4.0.*Hardswish"),
        (state_dict(), {"module_types": ["BottleneckCSP", "LeakyReLU"]}, "BottleneckCSP, Leaky"),
        (changed(model_2_cv4_conv_weight=torch.zeros(8, 8, 1, 1)), {}, "before release 4.0"),
        (fused(), {}, "folded into its convolutions"),
        (of_release_6(), {}, "release 6.0 or later"),
        (changed(model_33_m_0_bias=torch.zeros(21)), {}, r"layers up to 33.*\(P6\)"),
        ({"backbone.conv1.weight": torch.zeros(1)}, {}, "'model.0.conv.conv.weight' is missing"),
        ({}, {}, "entries found: none"),
        (changed(model_24_m_0_bias=torch.zeros(20)), {}, "20 outputs per position"),
        (changed(model_8_cv1_conv_weight=torch.zeros(3, 3)), {}, r"another shape .model\.8\.cv1"),
        (changed(model_8_cv7_weight=torch.zeros(3)), {}, "1 not part of the network .*cv7"),
    ],
    ids=["hardswish", "csp", "csp tensors", "fused", "v6", "P6", "foreign", "empty", "outputs",
         "shape", "unexpected"],
)  # fmt: skip
def test_what_cannot_be_loaded_says_what_it_is(weights: dict, facts: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        YOLOv5.from_state_dict(weights, facts)
