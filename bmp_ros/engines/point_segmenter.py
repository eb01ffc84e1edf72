# SPDX-License-Identifier: Apache-2.0
"""The small point-prompted segmenter at work on the people of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bmp_ros.engines import options
from bmp_ros.engines.registry import Engine, Runtime


@dataclass(frozen=True)
class PointSegmenterOptions:
    """Native PointSegmenter: the small segmenter that comes with the package."""

    weights: str = options.weights()
    max_hole_area: int = options.max_hole_area(2)
    max_sprinkle_area: int = options.max_sprinkle_area(6)


def _build(settings: PointSegmenterOptions, weights: Any, runtime: Runtime) -> Any:
    from bmp_ros.engines.torch.devices import state_dict_of
    from bmp_ros.engines.torch.point_segmenter_engine import PointSegmenterEngine

    return PointSegmenterEngine.from_state_dict(
        state_dict_of(weights),
        max_hole_area=settings.max_hole_area,
        max_sprinkle_area=settings.max_sprinkle_area,
        device=runtime.device,
        precision=runtime.precision,
        compile=runtime.compile,
    )


def _random_weights(_: PointSegmenterOptions) -> Mapping[str, Any]:
    from bmp_ros.networks.point_segmenter import PointSegmenter

    return PointSegmenter().state_dict()


def _export(settings: PointSegmenterOptions, state_dict: Mapping[str, Any]) -> Any:
    from bmp_ros.engines.export.point_segmenter import point_segmenter_source

    return point_segmenter_source(settings, state_dict)


ENGINE = Engine(
    "point_segmenter",
    "segmenter",
    PointSegmenterOptions,
    _build,
    runtime="torch",
    precisions=("fp32", "fp16", "bf16"),
    compiles=True,
    random_weights=_random_weights,
    export=_export,
)
