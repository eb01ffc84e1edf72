# SPDX-License-Identifier: Apache-2.0
"""Declarations of the engines that run files of ``bmp export`` through onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmp_ros.engines import options
from bmp_ros.engines.registry import Engine, Runtime
from bmp_ros.fields import str_field


def _weights() -> Any:
    text = (
        "tiny/NAME for a network that comes with the package, or the path of the first .onnx file "
        "of an export"
    )
    return str_field(text=text)


@dataclass(frozen=True)
class OnnxDetectorOptions:
    """RTMDet-Ins in ONNX files, written by ``bmp export``."""

    weights: str = _weights()
    nms_iou: float = options.nms_iou()
    threads: int | None = options.threads()
    tensorrt: bool = options.tensorrt()


@dataclass(frozen=True)
class OnnxPoseOptions:
    """A heatmap network in an ONNX file, written by ``bmp export``."""

    weights: str = _weights()
    flip_test: bool = options.flip_test()
    extra_keypoints: bool = options.extra_keypoints()
    threads: int | None = options.threads()
    tensorrt: bool = options.tensorrt()


@dataclass(frozen=True)
class OnnxSegmenterOptions:
    """PointSegmenter or SAM 2.1 in ONNX files, written by ``bmp export``."""

    weights: str = _weights()
    max_hole_area: int = options.max_hole_area(2)
    max_sprinkle_area: int = options.max_sprinkle_area(6)
    threads: int | None = options.threads()
    tensorrt: bool = options.tensorrt()


def _detector(settings: OnnxDetectorOptions, path: Path, runtime: Runtime) -> Any:
    from bmp_ros.engines.onnx.rtmdet_ins_detector import OnnxDetector

    return OnnxDetector(path, _target(settings, runtime), nms_iou=settings.nms_iou)


def _pose_estimator(settings: OnnxPoseOptions, path: Path, runtime: Runtime) -> Any:
    from bmp_ros.engines.onnx.pose_estimator import OnnxPoseEstimator

    return OnnxPoseEstimator(
        path,
        _target(settings, runtime),
        flip_test=settings.flip_test,
        extra_keypoints=settings.extra_keypoints,
    )


def _segmenter(settings: OnnxSegmenterOptions, path: Path, runtime: Runtime) -> Any:
    from bmp_ros.engines.onnx.graph import load_network
    from bmp_ros.engines.onnx.point_segmenter import OnnxPointSegmenter
    from bmp_ros.engines.onnx.sam2_segmenter import OnnxSam2Segmenter

    graphs = load_network(path, "segmenter", _target(settings, runtime))
    engines: dict[str, Any] = {"point_segmenter": OnnxPointSegmenter, "sam2": OnnxSam2Segmenter}
    return engines[graphs["encoder"].card.network](
        graphs,
        runtime.device,
        max_hole_area=settings.max_hole_area,
        max_sprinkle_area=settings.max_sprinkle_area,
    )


def _target(settings: Any, runtime: Runtime) -> Any:
    from bmp_ros.engines.onnx.target import Target

    half_precision = runtime.precision == "fp16"
    if half_precision and not settings.tensorrt:
        raise ValueError(
            f"precision fp16 with engine onnx needs tensorrt: true, {settings.weights} has "
            "tensorrt: false; set it in the preset, or use fp32"
        )
    return Target(runtime.device, settings.threads, settings.tensorrt, half_precision)


def _engine(role: str, settings: type, build: Any) -> Engine:
    return Engine(
        "onnx", role, settings, build, runtime="onnxruntime", precisions=("fp32", "fp16")
    )


ENGINES = (
    _engine("detector", OnnxDetectorOptions, _detector),
    _engine("pose_estimator", OnnxPoseOptions, _pose_estimator),
    _engine("segmenter", OnnxSegmenterOptions, _segmenter),
)
