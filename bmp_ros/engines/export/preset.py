# SPDX-License-Identifier: Apache-2.0
"""A whole preset to ONNX: three networks, each checked, and a preset that uses them."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bmp_ros.engines.build import locate_weights
from bmp_ros.engines.export.check import compare
from bmp_ros.engines.export.source import NetworkSource
from bmp_ros.engines.export.write import write_graph
from bmp_ros.engines.onnx.card import Card, part_path
from bmp_ros.engines.registry import ROLES, built_in
from bmp_ros.weights.checkpoint import load_state_dict

if TYPE_CHECKING:
    from bmp_ros.engines.presets import Preset

log = logging.getLogger(__name__)

PRECISIONS = ("fp16-weights", "fp32")


@dataclass(frozen=True)
class ExportedFile:
    """path: of the file. cosines: smallest cosine similarity to torch of every output."""

    path: Path
    cosines: dict[str, float]


def export_preset(
    preset: Preset,
    output: Path,
    *,
    precision: str = "fp16-weights",
    tell: Callable[[str], None] = log.info,
) -> list[ExportedFile]:
    """Write ``<role>.onnx`` (and parts) for every network, and ``<preset>.yaml``, into ``output``.

    precision: how weights are stored; the graphs compute in fp32. tell: called before each file.
    Files appear when all networks passed: an export that fails leaves ``output`` as it was.
    Raises ExportRefused (see `compare`), ValueError (an engine without export, a folder with the
    export of another preset, an unknown precision), WeightsMissing.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, allowed: {', '.join(PRECISIONS)}")
    for role, choice in preset.engines.items():
        if choice.declaration.export is None:
            can = sorted({each.engine.name for each in built_in() if each.engine.export})
            raise ValueError(
                f"preset {preset.name}: the {role} has engine {choice.engine!r}, which cannot be "
                f"exported; engines that can: {', '.join(can)}"
            )
    _refuse_other_presets(output, preset)
    weights = locate_weights(preset)
    output.mkdir(parents=True, exist_ok=True)
    exported: list[ExportedFile] = []
    sections: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix=".export-", dir=output) as staging:
        for role in ROLES:
            chosen = preset.engines.get(role)
            if chosen is None:
                sections[role] = None
                continue
            assert chosen.declaration.export is not None and chosen.weights is not None
            source = chosen.declaration.export(
                chosen.settings, load_state_dict(weights[chosen.weights])
            )
            first = Path(staging, f"{role}.onnx")
            for path, cosines in _write_network(source, first, precision, tell):
                exported.append(ExportedFile(output / path.name, cosines))
            sections[role] = {"engine": "onnx", "weights": first.name, **source.options}
        _write_preset(Path(staging, f"{preset.name}.yaml"), preset, sections)
        for file in sorted(Path(staging).iterdir()):
            os.replace(file, output / file.name)
    return exported


def _write_network(
    source: NetworkSource, first: Path, precision: str, tell: Callable[[str], None]
) -> list[tuple[Path, dict[str, float]]]:
    written = []
    for graph in source.graphs:
        path = part_path(first, source.kind, graph.part)
        tell(f"{path.name}: {source.kind}, {graph.part}")
        card = Card(source.kind, graph.part, source.weights, source.facts)
        write_graph(graph, card, path, half_weights=precision == "fp16-weights")
        written.append((path, compare(graph, path)))
    return written


def _write_preset(path: Path, preset: Preset, sections: dict[str, Any]) -> None:
    description = f"{preset.description} Exported to ONNX."
    content = {"description": description, **sections, "loop": asdict(preset.loop)}
    path.write_text(
        yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=95), encoding="utf-8"
    )


def _refuse_other_presets(output: Path, preset: Preset) -> None:
    others = [path.name for path in sorted(output.glob("*.y*ml")) if path.stem != preset.name]
    if others:
        raise ValueError(
            f"{output} holds {others[0]}: the networks of two presets would overwrite each other; "
            "choose a folder of its own"
        )
