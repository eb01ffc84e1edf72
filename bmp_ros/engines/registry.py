# SPDX-License-Identifier: Apache-2.0
"""Which engines there are. One file declares one: name, role, options, builder, export.

A file declares an engine in the variable ``ENGINE`` (several: a tuple ``ENGINES``). It is found

* here, where it comes with the package;
* in a file or folder that a preset names under ``engine_files``;
* in a file or folder of the environment variable ``BMP_ENGINES``;
* behind an entry point of group ``bmp_ros.engines`` that has the engine's name.

Declarations are found without importing a network library: builders import what they need.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from bmp_ros.fields import SettingsError

log = logging.getLogger(__name__)

ROLES = ("detector", "pose_estimator", "segmenter")
RUNTIMES = ("none", "torch", "onnxruntime")
GROUP = "bmp_ros.engines"
VARIABLE = "BMP_ENGINES"

_BUILT_IN = ("rtmdet_ins", "yolov5", "heatmap_pose", "hrnet", "rtmpose", "sam2", "point_segmenter",
             "openmmlab.engines", "onnx.engines")  # fmt: skip


@dataclass(frozen=True)
class Runtime:
    """Where and how networks run: cpu or cuda:N; fp32, fp16 or bf16; through torch.compile.

    Engines that declare no runtime get the caller's words, ``auto`` included.
    """

    device: str
    precision: str = "fp32"
    compile: bool = False


@dataclass(frozen=True)
class Engine:
    """The declaration of one engine.

    name: what a preset says after ``engine:``. role: one of `ROLES`.
    options: dataclass of what else a preset may say, its fields declared with `bmp_ros.fields`.
    An option ``weights`` is looked up in the zoo or as a path, beside the preset first.
    build: (options, weights, runtime) -> an object with the role's method
    (`bmp_ros.loop.protocols`). weights is the Path of the local file, None without such an option;
    in a benchmark what ``random_weights`` returned.
    runtime: the library that ``build`` needs, one of `RUNTIMES`. precisions, compiles: what
    ``build`` can do beside fp32 and plain execution; anything else is refused before it is called.
    random_weights: options -> state dict of a network as large as the one that the options name,
    for `bmp bench --random-weights`. export: (options, state dict) ->
    `bmp_ros.engines.export.source.NetworkSource`, for `bmp export`.
    needs: packages to install beside the runtime, with their licence.
    """

    name: str
    role: str
    options: type
    build: Callable[[Any, Any, Runtime], Any]
    runtime: str = "none"
    precisions: tuple[str, ...] = ("fp32",)
    compiles: bool = False
    random_weights: Callable[[Any], Any] | None = None
    export: Callable[[Any, Any], Any] | None = None
    needs: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", self.name):
            raise ValueError(f"an engine's name is letters, digits, _ . -, got {self.name!r}")
        for what, allowed in (("role", ROLES), ("runtime", RUNTIMES)):
            value = getattr(self, what)
            if value not in allowed:
                raise ValueError(
                    f"engine {self.name}: {what} is {value!r}, allowed: {', '.join(allowed)}"
                )
        if not (isinstance(self.options, type) and is_dataclass(self.options)):
            raise ValueError(
                f"engine {self.name}: options must be a dataclass, not {self.options}"
            )
        if not callable(self.build):
            raise ValueError(f"engine {self.name}: build must be a function, not {self.build!r}")


@dataclass(frozen=True)
class Found:
    """A declaration, and the file or package that it was found in."""

    engine: Engine
    origin: str


@lru_cache(maxsize=1)
def built_in() -> tuple[Found, ...]:
    """The engines that come with the package."""
    modules = [importlib.import_module(f"bmp_ros.engines.{name}") for name in _BUILT_IN]
    return tuple(Found(engine, "bmp_ros") for module in modules for engine in _declared(module))


def find_engine(
    role: str, name: Any, own: Sequence[Found] = (), looked_in: str = "none"
) -> Engine:
    """Return the engine that a preset means by ``name``.

    own: what the preset's ``engine_files`` declare; looked_in: these files, for the message.
    Raises SettingsError: unknown (with the names there are, and where was looked), declared
    twice, or a file that does not load.
    """
    broken: list[str] = []
    folders = [Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    found = [*built_in(), *own, *_from_files(folders, VARIABLE, broken)]
    points = installed_points(tuple(sys.path))
    for point in points:
        if point.name == name:  # the others' packages are not imported
            found += _from_entry_point(point)
    # A file may be named by preset and variable alike: that is one declaration.
    places = {each.origin: each.engine for each in found
              if (each.engine.role, each.engine.name) == (role, name)}  # fmt: skip
    if len(places) > 1:
        raise SettingsError(
            f"{name!r}, which is declared twice, by {' and by '.join(places)}; rename or remove "
            "one of them"
        )
    for problem in broken if places else ():
        log.warning("%s", problem)
    if places:
        return next(iter(places.values()))
    known = {each.engine.name: each.engine.role for each in found if each.engine.role == role}
    known |= {point.name: role for point in points if point.name != name}
    near = get_close_matches(str(name), known, n=1)
    other = next((each.engine.role for each in found if each.engine.name == name), None)
    hints = [f"did you mean {near[0]!r}?"] if near else []
    hints += [f"{name!r} is a {other}"] if other else []
    hints.append(
        f"looked in the package, in engine_files of the preset ({looked_in}), in {VARIABLE} "
        f"({', '.join(map(str, folders)) or 'not set'}) and at entry points of {GROUP}"
    )
    raise SettingsError("; ".join([f"{name!r}, allowed: {', '.join(known)}", *hints, *broken]))


def load_engine_files(names: Iterable[Any], beside: Path) -> list[Found]:
    """Run the files that a preset names (of a folder: all .py files); return what they declare.

    Relative names are looked for in ``beside``. Raises SettingsError naming the file.
    """
    return _from_files([beside / Path(str(name)).expanduser() for name in names], "engine_files")


def _from_files(paths: Iterable[Path], where: str, broken: list[str] | None = None) -> list[Found]:
    """Load files and folders. Errors are raised, or with ``broken`` collected there."""
    found = []
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.glob("*.py") if file.name[0] not in "._")
        for file in files:
            try:
                engines = _load(file.resolve(), where)
            except SettingsError as error:
                if broken is None:
                    raise
                broken.append(str(error))
            else:
                found += [Found(engine, str(file.resolve())) for engine in engines]
    return found


_loaded: dict[Path, tuple[int, list[Engine]]] = {}


def _load(file: Path, where: str) -> list[Engine]:
    """Run one file, again only when it has changed, and return what it declares."""
    if not file.is_file():
        raise SettingsError(f"{where}: {file} is neither a file nor a folder")
    changed = file.stat().st_mtime_ns
    if file in _loaded and _loaded[file][0] == changed:
        return _loaded[file][1]
    # A name of its own: two files of one name in different folders are two modules.
    name = f"bmp_ros_engine_{file.stem}_{zlib.crc32(os.fsencode(file)):08x}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise SettingsError(f"{where}: {file} is not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        engines = _declared(module)
    except (Exception, SystemExit) as error:  # scripts end themselves
        del sys.modules[name]
        raise SettingsError(
            f"{where}: {file} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    _loaded[file] = changed, engines
    return engines


@lru_cache(maxsize=1)
def installed_points(_path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Entry points of our group, read again when ``sys.path`` changes; nothing is imported."""
    return tuple(entry_points(group=GROUP))


def _from_entry_point(point: EntryPoint) -> list[Found]:
    package = point.dist.name if point.dist is not None else point.value
    origin = f"{package} (entry point {point.name} = {point.value})"
    try:
        loaded = point.load()
        engines = [loaded] if isinstance(loaded, Engine) else _declared(loaded)
        if point.name not in {engine.name for engine in engines}:
            raise ValueError(f"it declares {', '.join(engine.name for engine in engines)}")
    except Exception as error:
        raise SettingsError(
            f"the engine of {origin} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return [Found(engine, origin) for engine in engines]


def _declared(module: Any) -> list[Engine]:
    """The engines that a module declares; ValueError when there are none."""
    declared = getattr(module, "ENGINES", None) or [getattr(module, "ENGINE", None)]
    if not all(isinstance(engine, Engine) for engine in declared):
        raise ValueError(
            "it declares no engine: `ENGINE = Engine(name, role, options, build)` is missing, see "
            "docs/adding_a_network.md"
        )
    names = [(engine.role, engine.name) for engine in declared]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"it declares the {twice[0]} {twice[1]!r} twice")
    return list(declared)
