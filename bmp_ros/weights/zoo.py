# SPDX-License-Identifier: Apache-2.0
"""The zoo on this machine: names of weights -> local files.

``locate("maskpose-b-1.0.0")`` never touches the network; a path to a file of your own is accepted
wherever a name is. ``bmp_ros.weights.downloads`` brings what is missing.
"""

from __future__ import annotations

import os
from pathlib import Path

from bmp_ros.resources import tiny_network
from bmp_ros.weights.catalogue import HubFile, UrlFile, WeightsFile, Zoo, load_zoo
from bmp_ros.weights.errors import WeightsMissing

__all__ = [
    "HubFile",
    "UrlFile",
    "WeightsFile",
    "Zoo",
    "installed_path",
    "load_zoo",
    "locate",
    "models_dir",
]

_TINY = "tiny/"
_CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors", ".onnx", ".bin", ".ckpt")


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
    """Return where the file lies in the models folder, or None.

    A converted ``.safetensors`` file beside or in place of the original counts as well.
    """
    original = models_dir() / weights.file_name
    for path in (original, original.with_suffix(".safetensors")):
        if path.is_file():
            return path
    return None


def locate(name_or_path: str | Path, zoo: Zoo | None = None, beside: Path | None = None) -> Path:
    """Return the local file of a catalogue name, or of a path to a file of your own.

    ``tiny/NAME`` is a network that comes with the package. beside: folder in which relative paths
    are looked for first, that of the preset that names them. Never downloads. Raises
    WeightsMissing (known, but not here: the message names the command) or UnknownWeights.
    """
    zoo = load_zoo() if zoo is None else zoo
    name = str(name_or_path)
    if name in zoo:
        path = installed_path(zoo[name])
        if path is None:
            raise WeightsMissing(
                f"weights {name} are not on this machine; fetch them with "
                f"`bmp models download {name}` (they go to {models_dir() / zoo[name].file_name})"
            )
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
        raise WeightsMissing(f"there is no weights file at {path}: check the path")
    raise zoo.unknown(name)
