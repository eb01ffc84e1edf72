# SPDX-License-Identifier: Apache-2.0
"""What a preset may say about each engine. Plain data: nothing here imports a network library.

``DETECTORS``, ``POSE_ESTIMATORS`` and ``SEGMENTERS`` map the word after ``engine:`` in a preset to
the dataclass of its options; `bmp_ros.engines.build` turns the options into an engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bmp_ros.fields import bool_field, choice_field, number_field, size_field, str_field

_WEIGHTS = "name in models/zoo.yaml, or the path of a checkpoint"
_ONNX_WEIGHTS = (
    "tiny/NAME for a network that comes with the package, or the path of the first .onnx file of "
    "an export"
)


def _nms_iou() -> Any:
    return number_field(0.6, low=0.0, high=1.0, text="IoU of the network's own box NMS")


def _background_factor() -> Any:
    text = (
        "factor of the pixels outside of a person's mask in what the network sees; null: the "
        "network was not trained on masks"
    )
    return number_field(None, low=0.0, high=1.0, optional=True, text=text)


def _flip_test() -> Any:
    return bool_field(True, text="average with the mirrored crop: better, twice the work")


def _extra_keypoints() -> Any:
    return bool_field(False, text="keep the keypoints beyond COCO's 17 that the network has")


def _max_area(default: int, what: str) -> Any:
    text = f"{what}, up to this area in cells of the mask logits; 0: off"
    return number_field(default, low=0, high=65536, integer=True, text=text)


def _threads() -> Any:
    text = "CPU threads of this network; null: as many as there are cores to use"
    return number_field(None, low=1, high=1024, integer=True, optional=True, text=text)


def _tensorrt() -> Any:
    text = "run through TensorRT, where onnxruntime has it and the device is a GPU"
    return bool_field(False, text=text)


@dataclass(frozen=True)
class RTMDetInsSettings:
    """Native RTMDet-Ins (boxes and instance masks)."""

    weights: str = str_field(text=_WEIGHTS)
    input_size: int | tuple[int, int] = size_field(
        640, low=32, high=2048, multiple=32, text="canvas in pixels: a side, or [width, height]"
    )
    nms_iou: float = _nms_iou()


@dataclass(frozen=True)
class MMDetSettings:
    """Any MMDetection detector."""

    config: str = str_field(text="path of a config, or the name of one that MMDetection ships")
    weights: str = str_field(text=_WEIGHTS)


@dataclass(frozen=True)
class VitPoseSettings:
    """Native ViTPose, MaskPose or PMPose."""

    weights: str = str_field(text=_WEIGHTS)
    head: str = choice_field(
        "heatmap", choices=("heatmap", "pmpose"), text="heatmap (ViTPose, MaskPose) or pmpose"
    )
    background_factor: float | None = _background_factor()
    flip_test: bool = _flip_test()
    extra_keypoints: bool = _extra_keypoints()


@dataclass(frozen=True)
class ConvPoseSettings:
    """Native ConvPose: the small heatmap network that comes with the package."""

    weights: str = str_field(text=_WEIGHTS)
    background_factor: float | None = _background_factor()
    flip_test: bool = _flip_test()
    extra_keypoints: bool = _extra_keypoints()


@dataclass(frozen=True)
class MMPoseSettings:
    """Any MMPose top-down pose estimator."""

    config: str = str_field(text="path of a config, or the name of one that MMPose ships")
    weights: str = str_field(text=_WEIGHTS)
    background_factor: float | None = _background_factor()
    flip_test: bool = _flip_test()
    extra_keypoints: bool = _extra_keypoints()


@dataclass(frozen=True)
class Sam2Settings:
    """SAM 2.1 or SAM-pose2seg through the sam2 package; mask logits have 256x256 cells."""

    weights: str = str_field(text=_WEIGHTS)
    dynamic_multimask: bool = bool_field(
        False, text="use one of the three other masks when the first one is unstable"
    )
    max_hole_area: int = _max_area(10, "holes are closed")
    max_speck_area: int = _max_area(50, "specks are dropped")


@dataclass(frozen=True)
class PointSegmenterSettings:
    """Native PointSegmenter: the small segmenter that comes with the package."""

    weights: str = str_field(text=_WEIGHTS)
    max_hole_area: int = _max_area(2, "holes are closed")
    max_speck_area: int = _max_area(6, "specks are dropped")


@dataclass(frozen=True)
class OnnxDetectorSettings:
    """RTMDet-Ins in ONNX files, written by ``bmp export``."""

    weights: str = str_field(text=_ONNX_WEIGHTS)
    nms_iou: float = _nms_iou()
    threads: int | None = _threads()
    tensorrt: bool = _tensorrt()


@dataclass(frozen=True)
class OnnxPoseSettings:
    """ViTPose, MaskPose, PMPose or ConvPose in an ONNX file, written by ``bmp export``."""

    weights: str = str_field(text=_ONNX_WEIGHTS)
    flip_test: bool = _flip_test()
    extra_keypoints: bool = _extra_keypoints()
    threads: int | None = _threads()
    tensorrt: bool = _tensorrt()


@dataclass(frozen=True)
class OnnxSegmenterSettings:
    """PointSegmenter or SAM 2.1 in ONNX files, written by ``bmp export``."""

    weights: str = str_field(text=_ONNX_WEIGHTS)
    max_hole_area: int = _max_area(2, "holes are closed")
    max_speck_area: int = _max_area(6, "specks are dropped")
    threads: int | None = _threads()
    tensorrt: bool = _tensorrt()


DETECTORS: dict[str, type] = {
    "rtmdet_ins": RTMDetInsSettings,
    "mmdet": MMDetSettings,
    "onnx": OnnxDetectorSettings,
}
POSE_ESTIMATORS: dict[str, type] = {
    "vit_pose": VitPoseSettings,
    "conv_pose": ConvPoseSettings,
    "mmpose": MMPoseSettings,
    "onnx": OnnxPoseSettings,
}
SEGMENTERS: dict[str, type] = {
    "sam2": Sam2Settings,
    "point_segmenter": PointSegmenterSettings,
    "onnx": OnnxSegmenterSettings,
}
