# SPDX-License-Identifier: Apache-2.0
"""Networks at work: detectors, pose estimators and segmenters behind three small protocols.

Importing this package costs nothing: torch, onnxruntime, OpenMMLab and sam2 are imported only by
the files that need them, when an engine is built.
"""

from bmp_ros.engines.build import build_loop
from bmp_ros.engines.presets import Preset, load_preset
from bmp_ros.loop.protocols import (
    Detections,
    Detector,
    PoseEstimator,
    Poses,
    Segmenter,
    Segments,
)

__all__ = [
    "Detections",
    "Detector",
    "PoseEstimator",
    "Poses",
    "Preset",
    "Segmenter",
    "Segments",
    "build_loop",
    "load_preset",
]
