# SPDX-License-Identifier: Apache-2.0
"""Presets: which networks the loop runs with, and how it is set. One YAML file each.

A preset has a ``description``, a section ``loop`` (see `LoopSettings`; what is left out keeps its
default) and the sections ``detector``, ``pose_estimator`` and ``segmenter`` (may be null), each
with an ``engine`` and its options (see `bmp_ros.engines.settings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bmp_ros.engines.auto_preset import resolve_preset
from bmp_ros.fields import SettingsError, settings_from_mapping
from bmp_ros.loop.settings import LoopSettings
from bmp_ros.resources import find_preset

_ROLES = ("detector", "pose_estimator", "segmenter")


@dataclass(frozen=True)
class EngineChoice:
    """An engine by name, e.g. ``sam2``, and its options, e.g. a `Sam2Settings`."""

    engine: str
    settings: Any


@dataclass(frozen=True)
class Preset:
    """A checked preset.

    name: the stem of its file. reference: the name or path it was loaded by.
    """

    name: str
    reference: str
    description: str
    loop: LoopSettings
    detector: EngineChoice
    pose_estimator: EngineChoice
    segmenter: EngineChoice | None


def load_preset(
    name_or_path: str | Path, overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> Preset:
    """Read and check a preset: the name of one that comes with the package, a path, or ``auto``.

    overrides: replaces keys of sections before the check, e.g. ``{"loop": {"iterations": 1},
    "detector": {"weights": "my.pth"}}``.
    Raises SettingsError naming the file, the key and the allowed values.
    """
    name_or_path = resolve_preset(name_or_path)
    path = find_preset(name_or_path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{path}: a preset is a mapping of sections, got {data!r}")
    known = ("description", "loop", *_ROLES)
    for section in [*data, *(overrides or {})]:
        if section not in known:
            raise SettingsError(
                f"{path}: unknown section {section!r}; known sections: {', '.join(known)}"
            )
    for section, replaced in (overrides or {}).items():
        data[section] = {**_mapping(data.get(section), f"{path}: {section}"), **replaced}
    description = data.get("description")
    if not isinstance(description, str):
        raise SettingsError(f"{path}: description must be a text, got {description!r}")
    engines = {role: _engine(data.get(role), role, str(path)) for role in _ROLES}
    detector, pose_estimator = engines["detector"], engines["pose_estimator"]
    if detector is None or pose_estimator is None:
        raise SettingsError(f"{path}: a preset needs a detector and a pose_estimator")
    return Preset(
        name=path.stem,
        reference=str(name_or_path),
        description=" ".join(description.split()),
        loop=settings_from_mapping(
            LoopSettings, _mapping(data.get("loop"), f"{path}: loop"), f"{path}: loop"
        ),
        detector=detector,
        pose_estimator=pose_estimator,
        segmenter=engines["segmenter"],
    )


def _engine(section: Any, role: str, path: str) -> EngineChoice | None:
    if section is None:
        return None
    known = _known_engines(role)
    options = dict(_mapping(section, f"{path}: {role}"))
    engine = options.pop("engine", None)
    if not isinstance(engine, str) or engine not in known:
        raise SettingsError(f"{path}: {role}.engine is {engine!r}, allowed: {', '.join(known)}")
    return EngineChoice(engine, settings_from_mapping(known[engine], options, f"{path}: {role}"))


def _known_engines(role: str) -> dict[str, type]:
    # Imported late: it declares its fields with `bmp_ros.loop.settings`, so importing it first
    # imports this package.
    from bmp_ros.engines.settings import DETECTORS, POSE_ESTIMATORS, SEGMENTERS

    return {
        "detector": DETECTORS, "pose_estimator": POSE_ESTIMATORS, "segmenter": SEGMENTERS,
    }[role]  # fmt: skip


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Return a section of a preset; an empty one is no mapping to YAML, but one to its reader."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where} must be a mapping of keys to values, got {value!r}")
    return value
