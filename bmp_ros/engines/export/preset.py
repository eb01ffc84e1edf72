# SPDX-License-Identifier: Apache-2.0
"""A whole preset to ONNX: three networks, each checked, and a preset that uses them."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bmp_ros.engines.build import locate_weights
from bmp_ros.engines.export.check import compare
from bmp_ros.engines.export.int8 import (
    Calibration,
    calibration_images,
    graph_files,
    quantise_preset,
)
from bmp_ros.engines.export.write import import_onnx, widen_weights, write_graph
from bmp_ros.engines.onnx.card import Card, part_path
from bmp_ros.engines.registry import ROLES, built_in
from bmp_ros.resources import find_preset
from bmp_ros.weights.checkpoint import load_state_dict

if TYPE_CHECKING:
    from bmp_ros.engines.export.source import NetworkSource
    from bmp_ros.engines.presets import EngineChoice, Preset
    from bmp_ros.loop.settings import LoopSettings

log = logging.getLogger(__name__)

PRECISIONS = ("fp16-weights", "fp32", "fp16", "int8")


@dataclass(frozen=True)
class ExportedFile:
    """path: of the file. cosines: smallest cosine similarity to torch of every output, before it
    was quantised; empty where the file comes from an export of before."""

    path: Path
    cosines: dict[str, float]


def export_preset(
    preset: Preset,
    output: Path,
    *,
    precision: str = "fp16-weights",
    calibration: Calibration | None = None,
    weights_of: Callable[[EngineChoice], Any] | None = None,
    loop_settings: LoopSettings | None = None,
    tell: Callable[[str], None] = log.info,
) -> list[ExportedFile]:
    """Write ``<role>.onnx`` (and parts) for every network, and ``<preset>.yaml``, into ``output``.

    precision: fp16-weights, fp32: how weights are stored, the graphs compute in fp32; fp16: they
    compute in fp16 (`bmp_ros.engines.export.half`); int8: they are quantised, see `Calibration`.
    Engines ``onnx`` are taken as they are, if something else is exported or quantised.
    weights_of: a state dict, or the path of an ``onnx`` engine's file; None: the files that the
    preset names. loop_settings: of the loop that calibrates; None: the preset's. tell: called
    before each file.
    Files appear when all networks passed: an export that fails leaves ``output`` as it was.
    Raises ExportRefused (see `compare`, `quantise_preset`), ValueError (an engine without export,
    a folder with the export of another preset, an unknown precision, int8 without images, or
    images without int8), WeightsMissing.
    """
    _check(preset, precision, calibration)
    _refuse_other_presets(output, preset)
    if preset.reference:
        _refuse_input(output, find_preset(preset.reference))
    if weights_of is None:
        files = locate_weights(preset)
        for path in files.values():
            if path.suffix == ".onnx":
                _refuse_input(output, path)

        def weights_of(choice: EngineChoice) -> Any:
            return files[str(choice.weights)]

    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=output) as staging:
        folder = Path(staging)
        cosines = _write_networks(preset, weights_of, folder, precision, tell)
        if calibration is not None:
            quantise_preset(
                folder / f"{preset.name}.yaml", folder / "int8", calibration, tell, loop_settings
            )
            folder = folder / "int8"
        for file in sorted(folder.glob("*.*")):
            os.replace(file, output / file.name)
    return [ExportedFile(output / name, values) for name, values in cosines.items()]


def _check(preset: Preset, precision: str, calibration: Calibration | None) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, allowed: {', '.join(PRECISIONS)}")
    if (precision == "int8") != (calibration is not None):
        raise ValueError(
            "precision int8 needs --calibrate FOLDER, images like those of the camera"
            if calibration is None
            else f"--calibrate is for --precision int8, the precision is {precision}"
        )
    some = any(choice.declaration.export is not None for choice in preset.engines.values())
    for role, choice in preset.engines.items():
        taken = choice.engine == "onnx" and (some or precision == "int8")
        if choice.engine == "onnx" and not taken:
            raise ValueError(
                f"preset {preset.name}: its networks are ONNX files already; use it as it is, or "
                "have them quantised by --precision int8 (docs/export.md)"
            )
        if choice.declaration.export is None and not taken:
            can = sorted({each.engine.name for each in built_in() if each.engine.export})
            raise ValueError(
                f"preset {preset.name}: the {role} has engine {choice.engine!r}, which cannot be "
                f"exported; engines that can: {', '.join(can)}"
            )
    if calibration is None:
        return
    calibration_images(calibration.images)  # found out now rather than after the exports
    for role in calibration.keep_fp32:
        if role not in preset.engines:
            raise ValueError(
                f"--keep-fp32 {role}: preset {preset.name} has {', '.join(preset.engines)}"
            )


def _write_networks(
    preset: Preset,
    weights_of: Callable[[EngineChoice], Any],
    folder: Path,
    precision: str,
    tell: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """Write all graphs and the preset's file; return the cosines of every file by its name."""
    cosines: dict[str, dict[str, float]] = {}
    sections: dict[str, Any] = {}
    for role in ROLES:
        choice = preset.engines.get(role)
        if choice is None:
            sections[role] = None
            continue
        first = folder / f"{role}.onnx"
        weights = weights_of(choice)
        if choice.engine == "onnx":
            options = {k: v for k, v in asdict(choice.settings).items() if k != "weights"}
            cosines |= _copy_network(weights, first, precision, tell)
        else:
            assert choice.declaration.export is not None
            tensors = load_state_dict(weights) if isinstance(weights, Path) else weights
            source = choice.declaration.export(choice.settings, tensors)
            options = source.options
            cosines |= _write_network(source, first, precision, tell)
        sections[role] = {"engine": "onnx", "weights": first.name, **options}
    how = "Exported to ONNX, in int8." if precision == "int8" else "Exported to ONNX."
    _write_preset(folder / f"{preset.name}.yaml", preset, sections, how)
    return cosines


def _write_network(
    source: NetworkSource, first: Path, precision: str, tell: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    written = {}
    for graph in source.graphs:
        path = part_path(first, source.kind, graph.part)
        tell(f"{path.name}: {source.kind}, {graph.part}")
        formats = "fp16" if precision == "fp16" else "fp32"
        card = Card(source.kind, graph.part, source.weights, source.facts, formats)
        write_graph(
            graph, card, path,
            half_weights=precision == "fp16-weights", half=precision == "fp16",
        )  # fmt: skip
        written[path.name] = compare(graph, path)
    return written


def _copy_network(
    origin: Path, first: Path, precision: str, tell: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Copy the files of an export to the names that they have here; to be quantised with their
    weights in fp32."""
    onnx = import_onnx()
    copied: dict[str, dict[str, float]] = {}
    for path in graph_files(origin):
        target = first.with_name(first.stem + path.name.removeprefix(origin.stem))
        copied[target.name] = {}
        if precision != "int8":
            tell(f"{target.name}: {path}, as it is")
            shutil.copyfile(path, target)
            continue
        model = onnx.load(str(path))
        facts = {item.key: item.value for item in model.metadata_props}
        if Card.from_metadata(facts, path).precision != "fp32":
            raise ValueError(
                f"{path} computes in fp16 and cannot be quantised; export it with --precision fp32"
            )
        widen_weights(model)
        onnx.save(model, str(target))
    return copied


def _write_preset(path: Path, preset: Preset, sections: dict[str, Any], how: str) -> None:
    description = f"{preset.description} {how}"
    content = {"description": description, **sections, "loop": asdict(preset.loop)}
    path.write_text(
        yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=95), encoding="utf-8"
    )


def _refuse_input(output: Path, file: Path) -> None:
    """A preset that is exported, and its networks, are not replaced by what comes of them."""
    if file.resolve().parent == output.resolve():
        raise ValueError(
            f"{output} holds {file.name} of the preset that is exported, which would be "
            "overwritten; choose another folder"
        )


def _refuse_other_presets(output: Path, preset: Preset) -> None:
    others = [path.name for path in sorted(output.glob("[!.]*.y*ml")) if path.stem != preset.name]
    if others:
        raise ValueError(
            f"{output} holds {others[0]}: the networks of two presets would overwrite each other; "
            "choose a folder of its own"
        )
