# SPDX-License-Identifier: Apache-2.0
"""From a preset to a loop that runs: find the weights, build the three engines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmp_ros.resources import find_preset
from bmp_ros.weights.checkpoint import load_state_dict
from bmp_ros.weights.errors import WeightsMissing
from bmp_ros.weights.zoo import load_zoo, locate, models_dir

if TYPE_CHECKING:
    from bmp_ros.engines.presets import EngineChoice, Preset
    from bmp_ros.engines.settings import (
        ConvPoseSettings,
        MMDetSettings,
        MMPoseSettings,
        PointSegmenterSettings,
        RTMDetInsSettings,
        Sam2Settings,
        VitPoseSettings,
    )
    from bmp_ros.engines.torch.heatmap_estimator import HeatmapNetwork
    from bmp_ros.loop import BMPLoop

log = logging.getLogger(__name__)

Section = Mapping[str, Any]


@dataclass(frozen=True)
class Runtime:
    """Where and how networks run: cpu or cuda:N; fp32, fp16 or bf16; through torch.compile."""

    device: str
    precision: str
    compile: bool


def build_loop(
    preset: str | Path,
    device: str = "auto",
    *,
    precision: str = "fp32",
    compile: bool = False,
    detector: Section | None = None,
    pose_estimator: Section | None = None,
    segmenter: Section | None = None,
    **loop_settings: Any,
) -> BMPLoop:
    """Build the loop that a preset describes, ready to be called with images.

    preset: a name such as ``bmp_d3`` (see config/presets), the path of a YAML file, or ``auto``
    (`bmp_ros.engines.auto_preset`).
    device: auto (CUDA if there is one, else the CPU; logged), cpu, cuda or cuda:N.
    precision: fp32, fp16 (GPU only) or bf16. compile: run the networks through torch.compile.
    A preset whose engines all are ``onnx`` needs no torch; these engines compute in fp32, with
    TensorRT also in fp16.
    detector, pose_estimator, segmenter: replace options of that section, for instance
    ``detector={"weights": "my_detector.pth"}``; everything else replaces settings of the loop,
    for instance ``iterations=1``.

    Raises SettingsError (a value out of range, an unknown key), WeightsMissing (naming the command
    that fetches them) or ValueError (a device or precision that cannot be had). Nothing is
    replaced by something else silently.
    """
    # Imported here, since the loop's own modules import this package for the protocols.
    from bmp_ros.engines.auto_preset import resolve_preset
    from bmp_ros.engines.presets import load_preset
    from bmp_ros.loop import BMPLoop

    sections = {
        "loop": loop_settings,
        "detector": detector,
        "pose_estimator": pose_estimator,
        "segmenter": segmenter,
    }
    preset = resolve_preset(preset, device)
    chosen = load_preset(preset, {name: part for name, part in sections.items() if part})
    files = locate_weights(chosen)
    choices = [chosen.detector, chosen.pose_estimator, chosen.segmenter]
    engines = {choice.engine for choice in choices if choice is not None}
    runtimes = {}
    if engines - {"onnx"}:
        runtimes["torch"] = _torch_runtime(device, precision, compile)
    if "onnx" in engines:
        runtimes["onnxruntime"] = _onnx_runtime(device, precision, compile)
    for backend, runtime in runtimes.items():
        where = f"{runtime.device} (auto)" if device == "auto" else runtime.device
        log.info("preset %s: %s on %s, %s", chosen.name, backend, where, precision)

    def build(role: str, choice: EngineChoice | None) -> Any:
        if choice is None:
            return None
        settings, weights = choice.settings, files[choice.settings.weights]
        if choice.engine == "onnx":
            return _onnx(role, settings, weights, runtimes["onnxruntime"])
        return _BUILDERS[choice.engine](settings, weights, runtimes["torch"])

    return BMPLoop(
        build("detector", chosen.detector),
        build("pose_estimator", chosen.pose_estimator),
        build("segmenter", chosen.segmenter),
        chosen.loop,
    )


def locate_weights(preset: Preset) -> dict[str, Path]:
    """Return the local file of every weights name in a preset.

    A relative path is looked for beside the preset's own file first.
    Raises WeightsMissing that names all missing ones at once, and the command that fetches them.
    """
    zoo = load_zoo()
    beside = find_preset(preset.reference).parent
    choices = [preset.detector, preset.pose_estimator, preset.segmenter]
    files: dict[str, Path] = {}
    missing: dict[str, WeightsMissing] = {}
    for choice in choices:
        if choice is not None:
            name = choice.settings.weights
            try:
                files[name] = locate(name, zoo, beside)
            except WeightsMissing as error:
                missing[name] = error
    if len(missing) == 1:
        raise next(iter(missing.values()))
    if missing:
        known = [name for name in missing if name in zoo]
        reasons = [str(error) for name, error in missing.items() if name not in zoo]
        if known:
            reasons.append(
                f"fetch {', '.join(known)} with `bmp models download {preset.reference}` (they go "
                f"to {models_dir()})"
            )
        raise WeightsMissing(
            f"preset {preset.name} needs weights that are not here: {'; '.join(reasons)}"
        )
    return files


def _torch_runtime(device: str, precision: str, compile: bool) -> Runtime:
    from bmp_ros.engines.torch.devices import torch_device, torch_dtype

    found = torch_device(device)
    torch_dtype(precision, found)
    return Runtime(str(found), precision, compile)


def _onnx_runtime(device: str, precision: str, compile: bool) -> Runtime:
    from bmp_ros.engines.onnx.target import onnx_device

    if compile or precision not in ("fp32", "fp16"):
        raise ValueError(
            f"engine onnx computes in fp32, or in fp16 with tensorrt: true, and has its own "
            f"compiler, got precision {precision!r}, compile={compile}"
        )
    return Runtime(onnx_device(device), precision, compile)


def _rtmdet_ins(settings: RTMDetInsSettings, weights: Path, runtime: Runtime) -> Any:
    from bmp_ros.engines.torch.rtmdet_ins_detector import RTMDetInsDetector
    from bmp_ros.networks.rtmdet_ins import RTMDetIns

    return RTMDetInsDetector(
        RTMDetIns.from_state_dict(load_state_dict(weights)),
        input_size=settings.input_size,
        nms_iou=settings.nms_iou,
        device=runtime.device,
        precision=runtime.precision,
        compile=runtime.compile,
    )


def _vit_pose(settings: VitPoseSettings, weights: Path, runtime: Runtime) -> Any:
    from bmp_ros.networks.vit_pose import VitPose

    network = VitPose.from_state_dict(load_state_dict(weights), head=settings.head)
    return _heatmap_estimator(network, settings, runtime)


def _conv_pose(settings: ConvPoseSettings, weights: Path, runtime: Runtime) -> Any:
    from bmp_ros.networks.conv_pose import ConvPose

    network = ConvPose.from_state_dict(load_state_dict(weights))
    return _heatmap_estimator(network, settings, runtime)


def _heatmap_estimator(
    network: HeatmapNetwork, settings: VitPoseSettings | ConvPoseSettings, runtime: Runtime
) -> Any:
    from bmp_ros.engines.torch.heatmap_estimator import HeatmapEstimator

    return HeatmapEstimator(
        network,
        background_factor=settings.background_factor,
        flip_test=settings.flip_test,
        extra_keypoints=settings.extra_keypoints,
        device=runtime.device,
        precision=runtime.precision,
        compile=runtime.compile,
    )


def _sam2(settings: Sam2Settings, weights: Path, runtime: Runtime) -> Any:
    from bmp_ros.engines.torch.sam2_segmenter import Sam2Segmenter

    return Sam2Segmenter.from_state_dict(
        load_state_dict(weights),
        dynamic_multimask=settings.dynamic_multimask,
        **_segmenter_options(settings, runtime),
    )


def _point_segmenter(settings: PointSegmenterSettings, weights: Path, runtime: Runtime) -> Any:
    from bmp_ros.engines.torch.point_segmenter_engine import PointSegmenterEngine

    return PointSegmenterEngine.from_state_dict(
        load_state_dict(weights), **_segmenter_options(settings, runtime)
    )


def _segmenter_options(
    settings: Sam2Settings | PointSegmenterSettings, runtime: Runtime
) -> dict[str, Any]:
    return {
        "max_hole_area": settings.max_hole_area,
        "max_speck_area": settings.max_speck_area,
        "device": runtime.device,
        "precision": runtime.precision,
        "compile_encoder": runtime.compile,
    }


def _mmdet(settings: MMDetSettings, weights: Path, runtime: Runtime) -> Any:
    from bmp_ros.engines.openmmlab.mmdet_detector import MMDetDetector

    _refuse_other_than_plain(runtime, "mmdet")
    return MMDetDetector(settings.config, weights, device=runtime.device)


def _mmpose(settings: MMPoseSettings, weights: Path, runtime: Runtime) -> Any:
    from bmp_ros.engines.openmmlab.mmpose_estimator import MMPoseEstimator

    _refuse_other_than_plain(runtime, "mmpose")
    return MMPoseEstimator(
        settings.config,
        weights,
        device=runtime.device,
        background_factor=settings.background_factor,
        flip_test=settings.flip_test,
        extra_keypoints=settings.extra_keypoints,
    )


def _onnx(role: str, settings: Any, weights: Path, runtime: Runtime) -> Any:
    from bmp_ros.engines.onnx import build
    from bmp_ros.engines.onnx.target import Target

    half_precision = runtime.precision == "fp16"
    if half_precision and not settings.tensorrt:
        raise ValueError(
            f"precision fp16 with engine onnx needs tensorrt: true, the {role} has tensorrt: "
            "false; set it there, or use fp32"
        )
    target = Target(runtime.device, settings.threads, settings.tensorrt, half_precision)
    builders: dict[str, Callable[..., Any]] = {
        "detector": build.detector,
        "pose_estimator": build.pose_estimator,
        "segmenter": build.segmenter,
    }
    return builders[role](settings, weights, target)


def _refuse_other_than_plain(runtime: Runtime, engine: str) -> None:
    if runtime.precision != "fp32" or runtime.compile:
        raise ValueError(
            f"engine {engine} runs in fp32 without compilation, got precision "
            f"{runtime.precision!r}, compile={runtime.compile}; a preset of native engines "
            "(rtmdet_ins, vit_pose) can do both"
        )


_BUILDERS: dict[str, Callable[[Any, Path, Runtime], Any]] = {
    "rtmdet_ins": _rtmdet_ins,
    "mmdet": _mmdet,
    "vit_pose": _vit_pose,
    "conv_pose": _conv_pose,
    "mmpose": _mmpose,
    "sam2": _sam2,
    "point_segmenter": _point_segmenter,
}
