# SPDX-License-Identifier: Apache-2.0
"""The catalogue of weights files: what exists, where it comes from, under which licence.

It is written down in ``models/zoo.yaml`` and validated when it is read.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from bmp_ros.weights.errors import InvalidZoo, UnknownWeights

ROLES = ("detector", "pose", "segmenter")

LICENCE_TERMS = {
    "Apache-2.0": "free to use, keep the notices",
    "GPL-3.0": (
        "using these weights puts GPL-3.0 terms on the combination with them; "
        "the code of bmp_ros itself is Apache-2.0"
    ),
}

# OpenMMLab writes the first 8 hex digits of the file's SHA-256 into its name:
# ...-81c58e40_20220909.pth (MMPose) or ..._20221124_103237-78d1d652.pth (MMDetection).
_HASH_IN_FILE_NAME = re.compile(r"-([0-9a-f]{8})(?:_\d{8})?\.pth$")


@dataclass(frozen=True)
class HubFile:
    """A file in a Hugging Face model repository at a revision (branch, tag or commit)."""

    repo: str
    file: str
    revision: str

    @property
    def file_name(self) -> str:
        return PurePosixPath(self.file).name

    def __str__(self) -> str:
        return f"Hugging Face {self.repo}: {self.file} at {self.revision}"


@dataclass(frozen=True)
class UrlFile:
    """A file behind a plain https URL."""

    url: str

    @property
    def file_name(self) -> str:
        return PurePosixPath(unquote(urlsplit(self.url).path)).name

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class WeightsFile:
    """One row of the catalogue.

    size: bytes, or None where the publisher's figure is not known.
    sha256: 64 hex digits, or None until somebody has vouched for the bytes in the catalogue; the
        hash is then taken from the server and pinned on this machine at the first download.
    presets: names of the presets that load this file.
    """

    name: str
    role: str
    network: str
    licence: str
    origin: HubFile | UrlFile
    size: int | None = None
    sha256: str | None = None
    presets: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """Name of the file in the models folder."""
        return self.origin.file_name

    @property
    def sha256_prefix(self) -> str | None:
        """What is known of the SHA-256 in advance: all of it, or 8 digits of the file name."""
        if self.sha256:
            return self.sha256
        found = _HASH_IN_FILE_NAME.search(self.file_name)
        return found.group(1) if found and isinstance(self.origin, UrlFile) else None

    @property
    def licence_notice(self) -> str:
        """The line to show before a download."""
        terms = LICENCE_TERMS[self.licence]
        return f"{self.name}: licence {self.licence} ({terms}), from {self.origin}"


class Zoo:
    """The catalogue: ``zoo[name]``, iteration in file order, ``zoo.for_preset(preset)``."""

    def __init__(self, weights: list[WeightsFile]) -> None:
        self._by_name = {file.name: file for file in weights}

    def __iter__(self) -> Iterator[WeightsFile]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> WeightsFile:
        """Raise UnknownWeights, naming the nearest names, when there is no such entry."""
        if name not in self._by_name:
            raise self.unknown(name)
        return self._by_name[name]

    @property
    def presets(self) -> tuple[str, ...]:
        """Presets that need at least one file, sorted."""
        return tuple(sorted({preset for file in self for preset in file.presets}))

    def for_preset(self, preset: str) -> list[WeightsFile]:
        """Return what a preset loads; empty for one that needs no download, such as ``tiny``."""
        return [file for file in self if preset in file.presets]

    def resolve(self, preset_or_name: str) -> list[WeightsFile]:
        """Return the files meant by the name of a preset or of a weights file."""
        if preset_or_name in self:
            return [self[preset_or_name]]
        files = self.for_preset(preset_or_name)
        if not files:
            raise self.unknown(preset_or_name)
        return files

    def unknown(self, name: str) -> UnknownWeights:
        """Return the error for a name that means nothing here, with the nearest names."""
        known = [*self._by_name, *self.presets]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"the nearest names are {', '.join(near)}; " if near else ""
        return UnknownWeights(
            f"no weights are called {name!r}: {hint}`bmp models list` shows all of them"
        )


def load_zoo(path: str | Path | None = None) -> Zoo:
    """Read a catalogue; the one shipped with bmp_ros when no path is given.

    Raises InvalidZoo naming file, entry, key and what is allowed.
    """
    if path is None:
        from bmp_ros.resources import zoo_path

        path = zoo_path()
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidZoo(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("weights"), dict):
        raise InvalidZoo(f"{path}: needs one top-level key, `weights`, a table name -> entry")
    _check_keys(document, {"weights"}, set(), str(path))
    weights = [_parse(str(name), e, f"{path}: {name}") for name, e in document["weights"].items()]
    _check_file_names_differ(weights, path)
    return Zoo(weights)


def _parse(name: str, entry: Any, where: str) -> WeightsFile:
    if not isinstance(entry, dict):
        raise InvalidZoo(f"{where}: must be a table, not {entry!r}")
    required = {"role", "network", "licence"}
    _check_keys(entry, required, {"hub", "url", "size", "sha256", "presets"}, where)
    if not isinstance(entry["network"], str):
        raise InvalidZoo(f"{where}: network must be a text, not {entry['network']!r}")
    return WeightsFile(
        name=name,
        role=_one_of(entry["role"], ROLES, f"{where}: role"),
        network=entry["network"],
        licence=_one_of(entry["licence"], tuple(LICENCE_TERMS), f"{where}: licence"),
        origin=_parse_origin(entry, where),
        size=_parse_size(entry.get("size"), where),
        sha256=_parse_sha256(entry.get("sha256"), where),
        presets=_parse_presets(entry.get("presets", []), where),
    )


def _parse_origin(entry: dict[str, Any], where: str) -> HubFile | UrlFile:
    if ("hub" in entry) == ("url" in entry):
        raise InvalidZoo(f"{where}: needs exactly one of the keys `hub` and `url`")
    if "hub" in entry:
        hub = entry["hub"]
        if not isinstance(hub, dict):
            raise InvalidZoo(f"{where}: hub must be a table, not {hub!r}")
        _check_keys(hub, {"repo", "file", "revision"}, set(), f"{where}: hub")
        if not all(isinstance(value, str) and value for value in hub.values()):
            raise InvalidZoo(f"{where}: hub: repo, file and revision must be texts, not {hub!r}")
        return HubFile(hub["repo"], hub["file"], hub["revision"])
    url = entry["url"]
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    # Plain http is for a stand-in server on this very machine (tests, mirrors through a tunnel).
    loopback = parts.scheme == "http" and parts.hostname in (
        "127.0.0.1",
        "localhost",
        "::1",
    )
    if not (parts.scheme == "https" or loopback) or not UrlFile(str(url)).file_name:
        raise InvalidZoo(f"{where}: url must be https://host/.../file, not {url!r}")
    return UrlFile(url)


def _parse_size(size: Any, where: str) -> int | None:
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size <= 0):
        raise InvalidZoo(f"{where}: size must be a positive number of bytes, not {size!r}")
    return size


def _parse_sha256(sha256: Any, where: str) -> str | None:
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", str(sha256)):
        raise InvalidZoo(f"{where}: sha256 must be 64 lower-case hex digits, not {sha256!r}")
    return sha256


def _parse_presets(presets: Any, where: str) -> tuple[str, ...]:
    if not isinstance(presets, list) or not all(isinstance(preset, str) for preset in presets):
        raise InvalidZoo(f"{where}: presets must be a list of preset names, not {presets!r}")
    return tuple(presets)


def _check_keys(table: dict[str, Any], required: set[str], optional: set[str], where: str) -> None:
    allowed = ", ".join(sorted(required | optional))
    for key in table:
        if key not in required | optional:
            raise InvalidZoo(f"{where}: unknown key {key!r}; allowed are {allowed}")
    for key in sorted(required - table.keys()):
        raise InvalidZoo(f"{where}: key {key!r} is missing; allowed are {allowed}")


def _one_of(value: Any, allowed: tuple[str, ...], where: str) -> str:
    if value not in allowed:
        raise InvalidZoo(f"{where} is {value!r}; allowed are {', '.join(allowed)}")
    return str(value)


def _check_file_names_differ(weights: list[WeightsFile], path: str | Path) -> None:
    owner: dict[str, str] = {}
    for file in weights:
        other = owner.setdefault(file.file_name, file.name)
        if other != file.name:
            raise InvalidZoo(f"{path}: {other} and {file.name} both are {file.file_name}")
