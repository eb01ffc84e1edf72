# SPDX-License-Identifier: Apache-2.0
"""Presets: which networks the loop runs with, and how it is set. One YAML file each.

A preset has a ``description``, a section ``loop`` (see `LoopSettings`; what is left out keeps its
default) and the sections ``detector``, ``pose_estimator`` and ``segmenter`` (may be null), each
with an ``engine`` and its options (see `bmp_ros.engines.registry`). ``engine_files`` (a path or a
list of them, relative to the preset) names Python files or folders that declare engines of your
own. They are programs: loading the preset runs them. Nothing beside a preset is run unasked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmp_ros.engines.auto_preset import resolve_preset
from bmp_ros.engines.registry import ROLES, Engine, Found, find_engine, load_engine_files
from bmp_ros.fields import SettingsError, settings_from_mapping, shown
from bmp_ros.loop.settings import LoopSettings
from bmp_ros.reading import read_yaml
from bmp_ros.resources import find_preset


@dataclass(frozen=True)
class EngineChoice:
    """An engine by name, e.g. ``sam2``, its options, e.g. `Sam2Options`, and its declaration."""

    engine: str
    settings: Any
    declaration: Engine

    @property
    def weights(self) -> str | None:
        """Name or path of the weights; None for an engine that takes none."""
        weights: str | None = getattr(self.settings, "weights", None)
        return weights


@dataclass(frozen=True)
class Preset:
    """A checked preset.

    name: the stem of its file. reference: the name or path it was loaded by, empty without a file.
    """

    name: str
    reference: str
    description: str
    loop: LoopSettings
    detector: EngineChoice
    pose_estimator: EngineChoice
    segmenter: EngineChoice | None

    @property
    def engines(self) -> dict[str, EngineChoice]:
        """The engines by role, without the roles that have none."""
        choices = {role: getattr(self, role) for role in ROLES}
        return {role: choice for role, choice in choices.items() if choice is not None}


def load_preset(
    preset: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Preset:
    """Read and check a preset: the name of one that comes with the package, a path, or ``auto``.

    A mapping is taken as the content of such a file. overrides: replaces keys of sections before
    the check, e.g. ``{"loop": {"iterations": 1}, "detector": {"weights": "my.pth"}}``; with an
    ``engine`` among them the whole section, whose other options are those of another engine.
    Raises SettingsError naming the file, the key and the allowed values.
    """
    path, reference = Path("preset"), ""
    if isinstance(preset, Mapping):
        data: Any = dict(preset)
    else:
        preset = resolve_preset(preset)
        path, reference = find_preset(preset), str(preset)
        data = _read(path)
    if not isinstance(data, dict):
        raise SettingsError(f"{path}: a preset is a mapping of sections, got {shown(data)}")
    known = ("description", "loop", *ROLES, "engine_files")
    for section in [*data, *(overrides or {})]:
        if section not in known:
            raise SettingsError(
                f"{path}: unknown section {shown(section)}; known sections: {', '.join(known)}"
            )
    for section, replaced in (overrides or {}).items():
        before = _mapping(data.get(section), f"{path}: {section}")
        data[section] = replaced if "engine" in replaced else {**before, **replaced}
    description = data.get("description")
    if not isinstance(description, str):
        raise SettingsError(f"{path}: description must be a text, got {shown(description)}")
    files = _engine_files(data.get("engine_files"), path)
    own = load_engine_files(files, path.parent)
    engines = {role: _engine(data.get(role), role, str(path), own, files) for role in ROLES}
    detector, pose_estimator = engines["detector"], engines["pose_estimator"]
    if detector is None or pose_estimator is None:
        raise SettingsError(f"{path}: a preset needs a detector and a pose_estimator")
    return Preset(
        name=path.stem,
        reference=reference,
        description=" ".join(description.split()),
        loop=settings_from_mapping(
            LoopSettings, _mapping(data.get("loop"), f"{path}: loop"), f"{path}: loop"
        ),
        detector=detector,
        pose_estimator=pose_estimator,
        segmenter=engines["segmenter"],
    )


def _read(path: Path) -> Any:
    try:
        return read_yaml(path, "it is no preset")
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _engine(
    section: Any, role: str, path: str, own: list[Found], files: list[str]
) -> EngineChoice | None:
    if section is None:
        return None
    options = dict(_mapping(section, f"{path}: {role}"))
    name = options.pop("engine", None)
    try:
        engine = find_engine(role, name, own, ", ".join(files) or "none")
    except SettingsError as error:
        raise SettingsError(f"{path}: {role}.engine is {error}") from error
    checked: Any = settings_from_mapping(engine.options, options, f"{path}: {role}")
    return EngineChoice(engine.name, checked, engine)


def _engine_files(value: Any, path: Path) -> list[str]:
    files = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise SettingsError(
            f"{path}: engine_files must be a path or a list of paths, got {shown(value)}"
        )
    return files


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Return a section of a preset; an empty one is no mapping to YAML, but one to its reader."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where} must be a mapping of keys to values, got {shown(value)}")
    return value
