# SPDX-License-Identifier: Apache-2.0
"""What a preset may say about each engine. Plain data: nothing here imports a network library.

``DETECTORS``, ``POSE_ESTIMATORS`` and ``SEGMENTERS`` map the word after ``engine:`` in a preset to
the dataclass of its options; `bmp_ros.engines.build` turns the options into an engine.
"""

from __future__ import annotations

from dataclasses import dataclass

from bmp_ros.loop.settings import number, size, switch, word

_WEIGHTS = "name in models/zoo.yaml, or the path of a checkpoint"
_ONNX_WEIGHTS = (
    "tiny/NAME for a network that comes with the package, or the path of the first .onnx file of "
    "an export"
)
_THREADS = "CPU threads of this network; null: as many as there are cores to use"
_TENSORRT = "run through TensorRT, where onnxruntime has it and the device is a GPU"
_BACKGROUND = (
    "factor of the pixels outside of a person's mask in what the network sees; null: the network "
    "was not trained on masks"
)


@dataclass(frozen=True)
class RTMDetInsSettings:
    """Native RTMDet-Ins (boxes and instance masks)."""

    weights: str = word(text=_WEIGHTS)
    input_size: int | tuple[int, int] = size(
        640, low=32, high=2048, multiple=32, text="canvas in pixels: a side, or [width, height]"
    )
    nms_iou: float = number(0.6, low=0.0, high=1.0, text="IoU of the network's own box NMS")


@dataclass(frozen=True)
class MMDetSettings:
    """Any MMDetection detector."""

    config: str = word(text="path of a config, or the name of one that MMDetection ships")
    weights: str = word(text=_WEIGHTS)


@dataclass(frozen=True)
class VitPoseSettings:
    """Native ViTPose, MaskPose or PMPose."""

    weights: str = word(text=_WEIGHTS)
    head: str = word("heatmap", text="heatmap (ViTPose, MaskPose) or pmpose")
    background_factor: float | None = number(
        None, low=0.0, high=1.0, optional=True, text=_BACKGROUND
    )
    flip_test: bool = switch(True, text="average with the mirrored crop: better, twice the work")
    extra_keypoints: bool = switch(
        False, text="keep the keypoints beyond COCO's 17 that the network has"
    )


@dataclass(frozen=True)
class ConvPoseSettings:
    """Native ConvPose: the small heatmap network that comes with the package."""

    weights: str = word(text=_WEIGHTS)
    background_factor: float | None = number(
        None, low=0.0, high=1.0, optional=True, text=_BACKGROUND
    )
    flip_test: bool = switch(True, text="average with the mirrored crop: better, twice the work")
    extra_keypoints: bool = switch(
        False, text="keep the keypoints beyond COCO's 17 that the network has"
    )


@dataclass(frozen=True)
class MMPoseSettings:
    """Any MMPose top-down pose estimator."""

    config: str = word(text="path of a config, or the name of one that MMPose ships")
    weights: str = word(text=_WEIGHTS)
    background_factor: float | None = number(
        None, low=0.0, high=1.0, optional=True, text=_BACKGROUND
    )
    flip_test: bool = switch(True, text="average with the mirrored crop: better, twice the work")
    extra_keypoints: bool = switch(
        False, text="keep the keypoints beyond COCO's 17 that the network has"
    )


@dataclass(frozen=True)
class Sam2Settings:
    """SAM 2.1 or SAM-pose2seg through the sam2 package."""

    weights: str = word(text=_WEIGHTS)
    dynamic_multimask: bool = switch(
        False, text="use one of the three other masks when the first one is unstable"
    )
    max_hole_area: int = number(
        10, low=0, high=65536, integer=True,
        text="holes up to this area (pixels of the 256x256 logits) are closed; 0: off",
    )  # fmt: skip
    max_speck_area: int = number(
        50, low=0, high=65536, integer=True,
        text="specks up to this area (pixels of the 256x256 logits) are dropped; 0: off",
    )  # fmt: skip


@dataclass(frozen=True)
class PointSegmenterSettings:
    """Native PointSegmenter: the small segmenter that comes with the package."""

    weights: str = word(text=_WEIGHTS)
    max_hole_area: int = number(
        2, low=0, high=65536, integer=True,
        text="holes up to this area (cells of the logits) are closed; 0: off",
    )  # fmt: skip
    max_speck_area: int = number(
        6, low=0, high=65536, integer=True,
        text="specks up to this area (cells of the logits) are dropped; 0: off",
    )  # fmt: skip


@dataclass(frozen=True)
class OnnxDetectorSettings:
    """RTMDet-Ins in ONNX files, written by ``bmp export``."""

    weights: str = word(text=_ONNX_WEIGHTS)
    nms_iou: float = number(0.6, low=0.0, high=1.0, text="IoU of the network's own box NMS")
    threads: int | None = number(
        None, low=1, high=1024, integer=True, optional=True, text=_THREADS
    )
    tensorrt: bool = switch(False, text=_TENSORRT)


@dataclass(frozen=True)
class OnnxPoseSettings:
    """ViTPose, MaskPose, PMPose or ConvPose in an ONNX file, written by ``bmp export``."""

    weights: str = word(text=_ONNX_WEIGHTS)
    flip_test: bool = switch(True, text="average with the mirrored crop: better, twice the work")
    extra_keypoints: bool = switch(
        False, text="keep the keypoints beyond COCO's 17 that the network has"
    )
    threads: int | None = number(
        None, low=1, high=1024, integer=True, optional=True, text=_THREADS
    )
    tensorrt: bool = switch(False, text=_TENSORRT)


@dataclass(frozen=True)
class OnnxSegmenterSettings:
    """PointSegmenter or SAM 2.1 in ONNX files, written by ``bmp export``."""

    weights: str = word(text=_ONNX_WEIGHTS)
    max_hole_area: int = number(
        2, low=0, high=65536, integer=True,
        text="holes up to this area (cells of the logits) are closed; 0: off",
    )  # fmt: skip
    max_speck_area: int = number(
        6, low=0, high=65536, integer=True,
        text="specks up to this area (cells of the logits) are dropped; 0: off",
    )  # fmt: skip
    threads: int | None = number(
        None, low=1, high=1024, integer=True, optional=True, text=_THREADS
    )
    tensorrt: bool = switch(False, text=_TENSORRT)


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
