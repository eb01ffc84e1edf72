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
    """RTMDet-Ins or YOLOv5 in ONNX files, written by ``bmp export``."""

    weights: str = _weights()
    nms_iou: float = options.nms_iou()
    threads: int | None = options.threads()
    tensorrt: bool = options.tensorrt()


@dataclass(frozen=True)
class OnnxPoseOptions:
    """A top-down pose network in an ONNX file, written by ``bmp export``."""

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
    from bmp_ros.engines.onnx.graph import load_network
    from bmp_ros.engines.rtmdet_ins import RTMDetInsDetector
    from bmp_ros.engines.yolov5 import YOLOv5Detector, anchor_sizes

    graphs = load_network(path, "detector", _target(settings, runtime))
    if "maps" in graphs:
        facts = graphs["maps"].card.facts
        return YOLOv5Detector(
            graphs["maps"], anchor_sizes(facts.anchors), facts.input_size, runtime.device,
            label=facts.label, canvas=facts.canvas, enlarge=facts.enlarge,
            nms_iou=settings.nms_iou,
        )  # fmt: skip
    size = graphs["boxes"].card.facts.input_size
    return RTMDetInsDetector(graphs, size, runtime.device, nms_iou=settings.nms_iou)


def _pose_estimator(settings: OnnxPoseOptions, path: Path, runtime: Runtime) -> Any:
    from bmp_ros.engines.onnx.graph import load_network
    from bmp_ros.engines.top_down_pose import TopDownPoseEstimator
    from bmp_ros.loop.skeletons import SKELETONS

    (graph,) = load_network(path, "pose_estimator", _target(settings, runtime)).values()
    facts = graph.card.facts
    side = facts.input_size
    return TopDownPoseEstimator(
        graph,
        (side, side) if isinstance(side, int) else side,
        SKELETONS[facts.skeleton],
        runtime.device,
        decoding=facts.decoding,
        crop=facts.crop,
        shift_flipped=facts.shift_flipped,
        background_factor=facts.background_factor,
        flip_test=settings.flip_test,
        extra_keypoints=settings.extra_keypoints,
    )


def _segmenter(settings: OnnxSegmenterOptions, path: Path, runtime: Runtime) -> Any:
    from bmp_ros.engines.onnx.graph import load_network
    from bmp_ros.engines.point_segmenter import PointPromptSegmenter
    from bmp_ros.engines.sam2 import Sam2Segmenter

    graphs = load_network(path, "segmenter", _target(settings, runtime))
    card = graphs["encoder"].card
    areas = {"max_hole_area": settings.max_hole_area,
             "max_sprinkle_area": settings.max_sprinkle_area}  # fmt: skip
    if card.network == "sam2":
        return Sam2Segmenter(graphs, card.facts.image_size, runtime.device, **areas)
    return PointPromptSegmenter(graphs, card.facts.side, runtime.device, **areas)


def _target(settings: Any, runtime: Runtime) -> Any:
    from bmp_ros.engines.onnx.target import Target

    half = runtime.precision == "fp16"
    return Target(runtime.device, settings.threads, settings.tensorrt, half)


def _engine(role: str, settings: type, build: Any) -> Engine:
    return Engine(
        "onnx", role, settings, build, runtime="onnxruntime", precisions=("fp32", "fp16")
    )


ENGINES = (
    _engine("detector", OnnxDetectorOptions, _detector),
    _engine("pose_estimator", OnnxPoseOptions, _pose_estimator),
    _engine("segmenter", OnnxSegmenterOptions, _segmenter),
)
