# SPDX-License-Identifier: Apache-2.0
"""Declarations of the engines that run detectors of MMDetection and estimators of MMPose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bmp_ros.engines import options
from bmp_ros.engines.registry import Engine, Runtime
from bmp_ros.fields import str_field


@dataclass(frozen=True)
class MMDetOptions:
    """Any MMDetection detector."""

    config: str = str_field(text="path of a config, or the name of one that MMDetection ships")
    weights: str = options.weights()


@dataclass(frozen=True)
class MMPoseOptions:
    """Any MMPose top-down pose estimator."""

    config: str = str_field(text="path of a config, or the name of one that MMPose ships")
    weights: str = options.weights()
    background_factor: float | None = options.background_factor()
    flip_test: bool = options.flip_test()
    extra_keypoints: bool = options.extra_keypoints()


def _mmdet(settings: MMDetOptions, weights: Any, runtime: Runtime) -> Any:
    from bmp_ros.engines.openmmlab.mmdet_detector import MMDetDetector

    return MMDetDetector(settings.config, weights, device=runtime.device)


def _mmpose(settings: MMPoseOptions, weights: Any, runtime: Runtime) -> Any:
    from bmp_ros.engines.openmmlab.mmpose_estimator import MMPoseEstimator

    return MMPoseEstimator(
        settings.config,
        weights,
        device=runtime.device,
        background_factor=settings.background_factor,
        flip_test=settings.flip_test,
        extra_keypoints=settings.extra_keypoints,
    )


ENGINES = (
    Engine("mmdet", "detector", MMDetOptions, _mmdet, runtime="torch", needs="mmdet (Apache-2.0)"),
    Engine("mmpose", "pose_estimator", MMPoseOptions, _mmpose, runtime="torch",
           needs="mmpose (Apache-2.0)"),
)  # fmt: skip
