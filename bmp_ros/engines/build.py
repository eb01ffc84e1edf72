# SPDX-License-Identifier: Apache-2.0
"""From a preset to a loop that runs: find the weights, build the three engines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmp_ros.engines.auto_preset import resolve_preset
from bmp_ros.engines.presets import load_preset
from bmp_ros.engines.registry import Runtime
from bmp_ros.loop.bmp_loop import BMPLoop
from bmp_ros.loop.protocols import Detector, PoseEstimator, Segmenter
from bmp_ros.resources import find_preset
from bmp_ros.weights.errors import WeightsMissing
from bmp_ros.weights.zoo import load_zoo, locate, models_dir

if TYPE_CHECKING:
    from bmp_ros.engines.presets import EngineChoice, Preset

log = logging.getLogger(__name__)

Section = Mapping[str, Any]

_PROTOCOLS: dict[str, type] = {
    "detector": Detector, "pose_estimator": PoseEstimator, "segmenter": Segmenter,
}  # fmt: skip

PRECISIONS = ("fp32", "fp16", "bf16")


def build_loop(
    preset: str | Path | Mapping[str, Any],
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

    preset: a name such as ``bmp_d3`` (see config/presets), the path of a YAML file, its content,
    or ``auto`` (`bmp_ros.engines.auto_preset`).
    device: auto (CUDA if there is one, else the CPU; logged), cpu, cuda or cuda:N.
    precision: fp32, fp16 (GPU only) or bf16. compile: run the networks through torch.compile.
    Each engine declares the library it needs (`Engine.runtime`): presets of ``onnx`` engines need
    no torch; these engines compute in fp32, with TensorRT also in fp16.
    detector, pose_estimator, segmenter: replace options of that section, for instance
    ``detector={"weights": "my_detector.pth"}`` (see `load_preset`); everything else replaces
    settings of the loop, for instance ``iterations=1``.

    Raises SettingsError (a value out of range, an unknown key), WeightsMissing (naming the command
    that fetches them) or ValueError (a device or precision that cannot be had). Nothing is
    replaced by something else silently.
    """
    sections = {
        "loop": loop_settings,
        "detector": detector,
        "pose_estimator": pose_estimator,
        "segmenter": segmenter,
    }
    if not isinstance(preset, Mapping):
        preset = resolve_preset(preset, device)
    chosen = load_preset(preset, {name: part for name, part in sections.items() if part})
    try:
        files = locate_weights(chosen)
    except WeightsMissing as error:
        wanted = missing_libraries(chosen)
        also = f". Also not installed: {', '.join(wanted)}" if wanted else ""
        raise WeightsMissing(f"{error}{also}") from error
    return assemble(
        chosen, lambda choice: files.get(choice.weights or ""), device, precision, compile
    )


def assemble(
    preset: Preset,
    weights_of: Callable[[EngineChoice], Any],
    device: str,
    precision: str,
    compile: bool,
) -> BMPLoop:
    """Build the engines of a checked preset. weights_of: what each builder is given as weights.

    Raises ValueError for a device, a precision or a compilation that an engine cannot do.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, allowed: {', '.join(PRECISIONS)}")
    choices = preset.engines
    for role, choice in choices.items():
        _refuse_what_it_cannot(role, choice, precision, compile)
    runtimes = {}
    for library in {choice.declaration.runtime: None for choice in choices.values()}:
        where = _DEVICES[library](device, precision)
        runtimes[library] = Runtime(where, precision, compile)
        if library != "none":
            said = f"{where} (auto)" if device == "auto" else where
            log.info("preset %s: %s on %s, %s", preset.name, library, said, precision)
    built = {
        role: choice.declaration.build(
            choice.settings, weights_of(choice), runtimes[choice.declaration.runtime]
        )
        for role, choice in choices.items()
    }
    for role, engine in built.items():
        if not isinstance(engine, _PROTOCOLS[role]):
            raise ValueError(
                f"engine {choices[role].engine} built a {type(engine).__name__}, which is no "
                f"{_PROTOCOLS[role].__name__} (bmp_ros/loop/protocols.py)"
            )
    return BMPLoop(built["detector"], built["pose_estimator"], built.get("segmenter"), preset.loop)


def locate_weights(preset: Preset) -> dict[str, Path]:
    """Return the local file of every weights name in a preset.

    A relative path is looked for beside the preset's own file first.
    Raises WeightsMissing that names all missing ones at once, and the command that fetches them.
    """
    zoo = load_zoo()
    beside = find_preset(preset.reference).parent if preset.reference else None
    files: dict[str, Path] = {}
    missing: dict[str, WeightsMissing] = {}
    for choice in preset.engines.values():
        name = choice.weights
        if name is not None:
            try:
                files[name] = locate(name, zoo, beside)
            except WeightsMissing as error:
                missing[name] = error
    if len(missing) == 1:
        raise next(iter(missing.values()))
    if missing:
        known = [name for name in missing if name in zoo and zoo[name].by_program]
        reasons = [str(error) for name, error in missing.items() if name not in known]
        if known:
            reasons.append(
                f"fetch {', '.join(known)} with `bmp models download {preset.reference}` (into "
                f"{models_dir()})"
            )
        raise WeightsMissing(
            f"preset {preset.name} needs weights that are not here: {'; '.join(reasons)}"
        )
    return files


def missing_libraries(preset: Preset) -> list[str]:
    """What has to be installed beside the weights: said before gigabytes are downloaded."""
    engines = [choice.declaration for choice in preset.engines.values()]
    wanted = []
    if any(each.runtime == "torch" for each in engines) and find_spec("torch") is None:
        wanted.append("PyTorch (`pip install -r requirements/torch.txt`)")
    for needs in dict.fromkeys(each.needs for each in engines if each.needs):
        if find_spec(needs.partition(" ")[0]) is None:
            wanted.append(needs)
    return wanted


def _refuse_what_it_cannot(role: str, choice: EngineChoice, precision: str, compile: bool) -> None:
    engine = choice.declaration
    if engine.runtime == "none":  # it has no networks of a library that these words are about
        return
    if precision not in engine.precisions or (compile and not engine.compiles):
        can = " or ".join(engine.precisions) + ("" if engine.compiles else " without compilation")
        raise ValueError(
            f"engine {engine.name} ({role}) runs in {can}, got precision {precision!r}, "
            f"compile={compile}: change them, or take a preset with other engines"
        )


def _torch_device(device: str, precision: str) -> str:
    from bmp_ros.engines.torch_networks import is_emulated, torch_device, torch_dtype

    found = torch_device(device)
    torch_dtype(precision, found)
    if is_emulated(precision, found):
        log.warning(
            "this processor has no instructions for bf16 (AVX-512 has): networks take some ten "
            "times as long as in fp32; use precision fp32"
        )
    return str(found)


def _onnx_device(device: str, precision: str) -> str:
    from bmp_ros.engines.onnx.target import onnx_device

    return onnx_device(device)


_DEVICES: dict[str, Callable[[str, str], str]] = {
    "none": lambda device, precision: device,
    "torch": _torch_device,
    "onnxruntime": _onnx_device,
}
