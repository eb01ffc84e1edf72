# SPDX-License-Identifier: Apache-2.0
"""SAM 2.1 at work: all people of one frame from one embedding and one decoder call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bmp_ros.engines import options
from bmp_ros.engines.registry import Engine, Runtime
from bmp_ros.fields import bool_field


@dataclass(frozen=True)
class Sam2Options:
    """SAM 2.1 or SAM-pose2seg through the sam2 package; mask logits have 256x256 cells."""

    weights: str = options.weights()
    dynamic_multimask: bool = bool_field(
        False, text="use one of the three other masks when the first one is unstable"
    )
    max_hole_area: int = options.max_hole_area(10)
    max_sprinkle_area: int = options.max_sprinkle_area(50)


def _build(settings: Sam2Options, weights: Any, runtime: Runtime) -> Any:
    from bmp_ros.engines.torch.devices import state_dict_of
    from bmp_ros.engines.torch.sam2_segmenter import Sam2Segmenter

    return Sam2Segmenter.from_state_dict(
        state_dict_of(weights),
        dynamic_multimask=settings.dynamic_multimask,
        max_hole_area=settings.max_hole_area,
        max_sprinkle_area=settings.max_sprinkle_area,
        device=runtime.device,
        precision=runtime.precision,
        compile=runtime.compile,
    )


def _random_weights(settings: Sam2Options) -> Mapping[str, Any]:
    from bmp_ros.engines.torch.devices import size_by_name
    from bmp_ros.networks.sam2 import SAM2_SIZES, Sam2Network

    pattern = r"(?:sam2\.1-hiera-|sam-pose2seg-)(tiny|small|base-plus|large|b\+)"
    name = size_by_name(settings.weights, pattern)
    sizes = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}
    return Sam2Network(SAM2_SIZES[sizes.get(name, name)]).state_dict()


def _export(settings: Sam2Options, state_dict: Mapping[str, Any]) -> Any:
    from bmp_ros.engines.export.sam2 import sam2_source

    return sam2_source(settings, state_dict)


ENGINE = Engine(
    "sam2",
    "segmenter",
    Sam2Options,
    _build,
    runtime="torch",
    precisions=("fp32", "fp16", "bf16"),
    compiles=True,
    random_weights=_random_weights,
    export=_export,
    needs="sam2 (Apache-2.0)",
)
