# SPDX-License-Identifier: Apache-2.0
"""RTMDet-Ins at work: boxes, and masks of the people who are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bmp_ros.engines import options
from bmp_ros.engines.registry import Engine, Runtime
from bmp_ros.fields import size_field


@dataclass(frozen=True)
class RTMDetInsOptions:
    """Native RTMDet-Ins (boxes and instance masks)."""

    weights: str = options.weights()
    input_size: int | tuple[int, int] = size_field(
        640, low=32, high=2048, multiple=32, text="canvas in pixels: a side, or [width, height]"
    )
    nms_iou: float = options.nms_iou()


def _build(settings: RTMDetInsOptions, weights: Any, runtime: Runtime) -> Any:
    from bmp_ros.engines.torch.devices import state_dict_of
    from bmp_ros.engines.torch.rtmdet_ins_detector import RTMDetInsDetector
    from bmp_ros.networks.rtmdet_ins import RTMDetIns

    return RTMDetInsDetector(
        RTMDetIns.from_state_dict(state_dict_of(weights)),
        input_size=settings.input_size,
        nms_iou=settings.nms_iou,
        device=runtime.device,
        precision=runtime.precision,
        compile=runtime.compile,
    )


def _random_weights(settings: RTMDetInsOptions) -> Mapping[str, Any]:
    from bmp_ros.engines.torch.devices import size_by_name
    from bmp_ros.networks.rtmdet_ins import PUBLISHED_SIZES, RTMDetIns, RTMDetInsSize

    size = size_by_name(settings.weights, r"rtmdet-ins-(tiny|s|m|l|x)\b")
    classes = 80  # of COCO
    return RTMDetIns(RTMDetInsSize.scaled(*PUBLISHED_SIZES[size]), classes).state_dict()


def _export(settings: RTMDetInsOptions, state_dict: Mapping[str, Any]) -> Any:
    from bmp_ros.engines.export.rtmdet_ins import rtmdet_ins_source

    return rtmdet_ins_source(settings, state_dict)


ENGINE = Engine(
    "rtmdet_ins",
    "detector",
    RTMDetInsOptions,
    _build,
    runtime="torch",
    precisions=("fp32", "fp16", "bf16"),
    compiles=True,
    random_weights=_random_weights,
    export=_export,
)
