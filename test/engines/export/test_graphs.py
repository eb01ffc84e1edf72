# SPDX-License-Identifier: Apache-2.0
"""The modules that are exported do what the networks do."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exports come from torch")
from random_weights import SMALL, random_rtmdet_ins  # noqa: E402

from bmp_ros.engines.letterbox import grid_priors  # noqa: E402
from bmp_ros.engines.rtmdet_ins import (  # noqa: E402
    RTMDetInsOptions,
    export_source,
)
from bmp_ros.networks.rtmdet_ins import RTMDetIns  # noqa: E402


@torch.inference_mode()
def test_boxes_and_mask_kernels_of_every_location() -> None:
    canvas = (128, 64)
    weights = random_rtmdet_ins(SMALL, 3, seed=2, input_size=canvas)
    source = export_source(RTMDetInsOptions("x.pth", input_size=canvas), weights)
    boxes_graph, masks_graph = (graph.module for graph in source.graphs)
    image = source.graphs[0].samples[0]["canvas"]
    output = RTMDetIns.from_state_dict(weights)(image)
    priors = torch.from_numpy(grid_priors(canvas))

    boxes, scores, *features = boxes_graph(image)
    low, high = output.distances[0].split(2, dim=1)
    wanted = torch.cat([priors[:, :2] - low, priors[:, :2] + high], dim=1)
    torch.testing.assert_close(boxes, wanted, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(scores, output.class_logits[0, :, 0].sigmoid(), rtol=0, atol=1e-4)

    prototypes, kernels = masks_graph(*features, torch.arange(len(priors)))
    torch.testing.assert_close(prototypes, output.prototypes[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(kernels, output.kernels[0], rtol=1e-3, atol=1e-3)


def test_facts_and_options_are_those_of_the_preset() -> None:
    weights = random_rtmdet_ins(SMALL, 1, seed=2, input_size=64)
    settings = RTMDetInsOptions("x.pth", input_size=64, nms_iou=0.4)
    source = export_source(settings, weights)
    assert source.facts.input_size == (64, 64) and source.options == {"nms_iou": 0.4}
    again = export_source(settings, weights)
    assert again.weights == source.weights
    name = "bbox_head.rtm_reg.0.bias"
    other = export_source(settings, {**weights, name: weights[name] + 1})
    assert other.weights != source.weights
    wider = export_source(RTMDetInsOptions("x.pth", input_size=[96, 64]), weights)
    assert wider.weights != source.weights
    assert np.isfinite(source.graphs[0].samples[0]["canvas"].numpy()).all()
