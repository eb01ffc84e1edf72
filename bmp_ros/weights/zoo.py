# SPDX-License-Identifier: Apache-2.0
"""The weights zoo: which weights files exist, under which licence, and where they are on disk.

``load_zoo()`` reads the catalogue, ``models/zoo.yaml``. ``locate("maskpose-b-1.0.0")`` returns the
local file and never touches the network; a path to a file of your own is accepted wherever a name
is. `bmp_ros.weights.downloads` fetches what is missing.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from bmp_ros.fields import (
    SettingsError,
    choice_field,
    number_field,
    settings_from_mapping,
    str_field,
    strings_field,
)
from bmp_ros.resources import tiny_network, zoo_path
from bmp_ros.weights.errors import InvalidZoo, UnknownWeights, WeightsMissing

ROLES = ("detector", "pose_estimator", "segmenter")


@dataclass(frozen=True)
class Licence:
    """terms: what it asks, in one line. text: URL of the full text."""

    terms: str
    text: str


_KEEP_NOTICES = "free to use, keep the notices"
LICENCES = {  # by SPDX identifier where there is one
    "Apache-2.0": Licence(_KEEP_NOTICES, "https://www.apache.org/licenses/LICENSE-2.0"),
    "MIT": Licence(_KEEP_NOTICES, "https://spdx.org/licenses/MIT.html"),
    "BSD-2-Clause": Licence(_KEEP_NOTICES, "https://spdx.org/licenses/BSD-2-Clause.html"),
    "BSD-3-Clause": Licence(_KEEP_NOTICES, "https://spdx.org/licenses/BSD-3-Clause.html"),
    "GPL-3.0": Licence(
        "using these weights puts GPL-3.0 terms on the combination with them; "
        "the code of bmp_ros itself is Apache-2.0",
        "https://www.gnu.org/licenses/gpl-3.0.html",
    ),
    "OmniPose-non-commercial": Licence(
        "academic, non-commercial use only; adapted material may not be shared",
        "https://github.com/bmartacho/OmniPose/blob/master/LICENSE",
    ),
    "unlicensed": Licence(
        "published without a licence: nothing permits use or sharing, ask the authors",
        "https://choosealicense.com/no-permission/",
    ),
}
PERMISSIVE = ("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause")
"""Licences that need no consent of their own before a download."""

_ORIGINS = ("hub", "url", "manual")
_TINY = "tiny/"
_CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors", ".onnx", ".bin", ".ckpt")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# OpenMMLab writes the first 8 hex digits of the file's SHA-256 into its name:
# ...-81c58e40_20220909.pth (MMPose) or ..._20221124_103237-78d1d652.pth (MMDetection).
_HASH_IN_FILE_NAME = re.compile(r"-([0-9a-f]{8})(?:_\d{8})?\.pth$")


# ---------------------------------------------------------------- one file


@dataclass(frozen=True)
class HubFile:
    """A file in a Hugging Face model repository at a revision (branch, tag or commit)."""

    repo: str = str_field(text="owner/name of the repository")
    file: str = str_field(text="path inside the repository")
    revision: str = str_field(text="branch, tag or commit")

    @property
    def file_name(self) -> str:
        return PurePosixPath(self.file).name

    def __str__(self) -> str:
        return f"Hugging Face {self.repo}: {self.file} at {self.revision}"


@dataclass(frozen=True)
class UrlFile:
    """A file at a plain https URL."""

    url: str

    @property
    def file_name(self) -> str:
        return PurePosixPath(unquote(urlsplit(self.url).path)).name

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class ManualFile:
    """A file that no program may fetch (Drive, OneDrive): somebody with a browser has to."""

    page: str = str_field(text="https address of the page with the file, or the link to it")
    name: str = str_field(text="name of the file in the models folder")

    @property
    def file_name(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"{self.page}, by hand: no program may fetch it"


@dataclass(frozen=True)
class _Entry:
    """What an entry of zoo.yaml says beside its origin."""

    role: str = choice_field(choices=ROLES, text="what presets use it as")
    network: str = str_field(text="architecture, input size, training data, in words")
    licence: str = choice_field(choices=tuple(LICENCES), text="licence of the weights")
    size: int | None = number_field(
        None, low=1, high=1 << 40, integer=True, optional=True, text="bytes"
    )
    sha256: str | None = str_field(None, optional=True, text="64 lower-case hex digits")
    presets: tuple[str, ...] = strings_field((), text="presets that load this file")


@dataclass(frozen=True, kw_only=True)
class WeightsFile(_Entry):
    """One entry of the catalogue.

    engine: how to run it, the section of a preset without ``weights``: ``engine`` and its options
    as the network was trained; checked by `bmp_ros.engines`. None where no entry says it.
    size: bytes, None where it is not known. sha256: 64 hex digits, None where it is not known; the
    hash is then taken from the server and pinned on this machine at the first download.
    loop: settings of the loop that suit it.
    """

    name: str
    origin: HubFile | UrlFile | ManualFile
    engine: Mapping[str, Any] | None = None
    loop: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Name of the file in the models folder."""
        return self.origin.file_name

    @property
    def sha256_prefix(self) -> str | None:
        """The SHA-256 as far as it is known in advance: all of it, or 8 digits (OpenMMLab)."""
        if self.sha256:
            return self.sha256
        found = _HASH_IN_FILE_NAME.search(self.file_name)
        return found.group(1) if found and isinstance(self.origin, UrlFile) else None

    @property
    def licence_notice(self) -> str:
        """The line to show before a download."""
        terms = LICENCES[self.licence].terms
        return f"{self.name}: licence {self.licence} ({terms}), from {self.origin}"

    @property
    def by_program(self) -> bool:
        """Whether `bmp models download` can fetch it."""
        return not isinstance(self.origin, ManualFile)

    @property
    def how_to_get(self) -> str:
        """What fetches the file: a command, or the steps for somebody with a browser."""
        target = models_dir() / self.file_name
        if isinstance(self.origin, ManualFile):
            terms = LICENCES[self.licence].terms
            return (
                f"no program may fetch it: download it with a browser from {self.origin.page} "
                f"(licence {self.licence}: {terms}), then `bmp models import FILE` checks it and "
                f"puts it in place as {target}"
            )
        return f"fetch it with `bmp models download {self.name}` (into {target})"


def by_unaccepted_licence(
    files: Iterable[WeightsFile], accepted: Container[str]
) -> dict[str, list[WeightsFile]]:
    """Return licence -> files, for the licences that are not in ``accepted``."""
    found: dict[str, list[WeightsFile]] = {}
    for file in files:
        if file.licence not in accepted:
            found.setdefault(file.licence, []).append(file)
    return found


# ---------------------------------------------------------------- the catalogue


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
        """Raise UnknownWeights, naming similar names, when there is no such entry."""
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
        """Return the files of a preset, or the one weights file of that name."""
        if preset_or_name in self:
            return [self[preset_or_name]]
        files = self.for_preset(preset_or_name)
        if not files:
            raise self.unknown(preset_or_name)
        return files

    def unknown(self, name: str) -> UnknownWeights:
        """Return the error for an unknown name, with similar names."""
        known = [*self._by_name, *self.presets]
        similar = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(similar)}? " if similar else ""
        return UnknownWeights(
            f"no weights are called {name!r}: {hint}`bmp models list` shows all names"
        )


def load_zoo(path: str | Path | None = None) -> Zoo:
    """Read a catalogue; the one that comes with bmp_ros when no path is given.

    Raises InvalidZoo naming file, entry, key and what is allowed.
    """
    path = zoo_path() if path is None else Path(path)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidZoo(f"{path}: cannot be read as YAML: {error}") from error
    entries = document.get("weights") if isinstance(document, dict) else None
    if not isinstance(entries, dict) or len(document) != 1:
        raise InvalidZoo(f"{path}: needs one top-level key, `weights`, a mapping name -> entry")
    try:
        weights = [_parse(str(name), entry, f"{path}: {name}") for name, entry in entries.items()]
    except SettingsError as error:
        raise InvalidZoo(str(error)) from error
    owner: dict[str, str] = {}
    for file in weights:
        other = owner.setdefault(file.file_name, file.name)
        if other != file.name:
            raise InvalidZoo(f"{path}: {other} and {file.name} share the file {file.file_name}")
    return Zoo(weights)


def _parse(name: str, entry: Any, where: str) -> WeightsFile:
    if not isinstance(entry, dict):
        raise InvalidZoo(f"{where}: must be a mapping of keys to values, not {entry!r}")
    rest = dict(entry)
    origin = _parse_origin({key: rest.pop(key) for key in _ORIGINS if key in rest}, where)
    engine = rest.pop("engine", None)
    if engine is not None and not (isinstance(engine, dict) and type(engine.get("engine")) is str):
        raise InvalidZoo(
            f"{where}: engine must be a mapping with the key `engine`, its name, and its options, "
            f"not {engine!r}"
        )
    loop = rest.pop("loop", {})
    if not isinstance(loop, dict):
        raise InvalidZoo(f"{where}: loop must be a mapping of settings, not {loop!r}")
    checked = settings_from_mapping(_Entry, rest, where)
    if checked.sha256 is not None and not _SHA256.fullmatch(checked.sha256):
        raise InvalidZoo(
            f"{where}: sha256 must be 64 lower-case hex digits, not {checked.sha256!r}"
        )
    return WeightsFile(name=name, origin=origin, engine=engine, loop=loop, **vars(checked))


def _parse_origin(origin: dict[str, Any], where: str) -> HubFile | UrlFile | ManualFile:
    if len(origin) != 1:
        raise InvalidZoo(f"{where}: needs exactly one of the keys `hub`, `url` and `manual`")
    ((kind, value),) = origin.items()
    if kind == "url":
        if not _is_secure(value) or not UrlFile(value).file_name:
            raise InvalidZoo(f"{where}: url must be https://host/.../file, not {value!r}")
        return UrlFile(value)
    if not isinstance(value, dict):
        raise InvalidZoo(f"{where}: {kind} must be a mapping, not {value!r}")
    if kind == "hub":
        return settings_from_mapping(HubFile, value, f"{where}: hub")
    manual = settings_from_mapping(ManualFile, value, f"{where}: manual")
    if not _is_secure(manual.page):
        raise InvalidZoo(f"{where}: manual: page must be https://..., not {manual.page!r}")
    if not manual.name.endswith(_CHECKPOINT_SUFFIXES) or Path(manual.name).name != manual.name:
        raise InvalidZoo(
            f"{where}: manual: name must be a file name that ends with "
            f"{' or '.join(_CHECKPOINT_SUFFIXES)}, not {manual.name!r}"
        )
    return manual


def _is_secure(url: Any) -> bool:
    parts = urlsplit(url if isinstance(url, str) else "")
    # Plain http is for a server on this machine (tests, mirrors through a tunnel).
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


# ---------------------------------------------------------------- names -> files on this machine


def models_dir() -> Path:
    """Return the folder of downloaded weights: ``$BMP_MODELS``, else ``~/.cache/bmp_ros/models``.

    ``$XDG_CACHE_HOME`` replaces ``~/.cache``. The folder need not exist yet.
    """
    chosen = os.environ.get("BMP_MODELS")
    if chosen:
        return Path(chosen).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "bmp_ros" / "models"


def installed_path(weights: WeightsFile) -> Path | None:
    """Return the path of the file in the models folder, or None.

    A converted ``.safetensors`` file beside or in place of the original counts as well.
    """
    original = models_dir() / weights.file_name
    for path in (original, original.with_suffix(".safetensors")):
        if path.is_file():
            return path
    return None


def locate(name_or_path: str | Path, zoo: Zoo | None = None, beside: Path | None = None) -> Path:
    """Return the local file of a catalogue name, or of a path to a file of your own.

    ``tiny/NAME`` is a network that comes with the package. beside: folder that relative paths are
    looked up in first, that of the preset that names them. Never downloads. Raises WeightsMissing
    (known, but not on this machine: the message names the command) or UnknownWeights.
    """
    zoo = load_zoo() if zoo is None else zoo
    name = str(name_or_path)
    if name in zoo:
        path = installed_path(zoo[name])
        if path is None:
            raise WeightsMissing(f"weights {name} are not on this machine: {zoo[name].how_to_get}")
        return path
    if name.startswith(_TINY) and not name.endswith(_CHECKPOINT_SUFFIXES):
        try:
            return tiny_network(name.removeprefix(_TINY))
        except FileNotFoundError as error:
            raise WeightsMissing(str(error)) from error
    path = Path(name_or_path).expanduser()
    if beside is not None and (beside / path).is_file():
        return (beside / path).absolute()
    path = path.absolute()
    if path.is_file():
        return path
    if isinstance(name_or_path, Path) or os.sep in name or name.endswith(_CHECKPOINT_SUFFIXES):
        raise WeightsMissing(f"there is no weights file {path}: check the path")
    raise zoo.unknown(name)
