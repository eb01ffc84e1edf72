# SPDX-License-Identifier: Apache-2.0
"""Reading checkpoints without running them.

A .pth file is a pickle, and a pickle is a program. Only tensors, plain containers and the few
inert types that MMEngine writes beside the weights are allowed; any other type is refused by name
before it is touched. Files of YOLOv5 hold their network as an object: `pickled_modules` reads its
tensors without the classes that it asks for. A .safetensors file with the same stem is read
instead if there is one; it cannot contain a program at all.
"""

from __future__ import annotations

import logging
import pickle
import re
import threading
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bmp_ros.weights import pickled_modules
from bmp_ros.weights.errors import (
    BadCheckpoint,
    UnsafeCheckpoint,
    WeightsError,
    in_place_of_weights,
)

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

MOST_SPARE_BYTES = 1 << 26
"""That all tensors together may have more than their storages: with a step of 0 a file of a
kilobyte holds one of any size, which fills the memory when it is used."""
_LOADING = threading.Lock()  # torch keeps its list of allowed types in one global set
_WANTED_TYPE = re.compile(r"GLOBAL (\S+)|`add_safe_globals`\S* but got (.+)|function (.+)")


@dataclass(frozen=True)
class Checkpoint:
    """What a file contained.

    state_dict: every entry as stored, tensors on the CPU (memory-mapped where the format permits).
    meta: MMEngine's ``meta`` (``dataset_meta``, config, versions), the metadata of a safetensors
        file, or what a pickled network says of itself (`load_pickled_module`); empty when there is
        none.
    left_out: the other top-level entries (optimizer, ema_state_dict ...), which were not kept.
    path: the file that was read, the .safetensors twin if there was one.
    """

    state_dict: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    path: Path = Path()


class StateDict(dict[str, Any]):
    """Tensors by name. meta: what their file says beside them, see `Checkpoint`."""

    def __init__(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        super().__init__(tensors)
        self.meta = dict(meta)


def load_state_dict(path: str | Path) -> StateDict:
    """Return the tensors of a checkpoint by name; see ``load_checkpoint`` for the rest."""
    checkpoint = load_checkpoint(path)
    return StateDict(checkpoint.state_dict, checkpoint.meta)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read .pth, .pt or .safetensors; tensors stay on the CPU.

    Layouts: {"state_dict": ..., "meta": ...} (OpenMMLab), {"model": ...} (SAM 2), the state dict
    itself, or a pickled network under ``ema`` or ``model`` (YOLOv5). torch's old format from
    before 1.6 is read as well, without memory-mapping.
    Raises BadCheckpoint (no such file, not a checkpoint, cut short, no state dict) and
    UnsafeCheckpoint (a pickle that requests types that are not allowed).
    """
    path = Path(path)
    twin = path.with_suffix(".safetensors")
    if twin.is_file():
        if path != twin:
            log.info("reading %s instead of %s", twin, path.name)
            _warn_when_older(twin, path)
        return _load_safetensors(twin)
    if not path.is_file():
        raise BadCheckpoint(f"there is no weights file {path}: check the path")
    return _checkpoint_of(_load_pickle(path), path)


def _load_safetensors(path: Path) -> Checkpoint:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise WeightsError(f"reading {path} needs `pip install safetensors`") from error
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return Checkpoint(tensors, dict(file.metadata() or {}), (), path)
    except SafetensorError as error:
        raise BadCheckpoint(
            f"{path} is not a safetensors file, or was cut short ({error})"
            f"{in_place_of_weights(path) or '; make or copy it again'}"
        ) from error


def _load_pickle(path: Path) -> Any:
    import torch

    if not hasattr(torch.serialization, "safe_globals"):
        raise WeightsError(
            f"reading {path} safely needs torch 2.5 or newer, this is {torch.__version__}; or put "
            f"a {path.with_suffix('.safetensors').name} beside it, which any torch reads"
        )
    # torch's current format is a zip archive, which can be memory-mapped; the old one cannot. The
    # archive's directory is at its end, so a file that was cut short is seen at once.
    mmap = _begins_like_zip(path)
    if mmap and not _is_whole_zip(path):
        raise _not_a_checkpoint(path, EOFError("the end of the archive is missing"))
    try:
        with _LOADING, torch.serialization.safe_globals(_allowed_types()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        wanted = _wanted_type(str(error))
        if wanted is None:
            raise _not_a_checkpoint(path, error) from error
        if pickled_modules.is_module(wanted):
            return pickled_modules.load_pickled_module(path)
        raise UnsafeCheckpoint(
            f"{path} requests {wanted}, which could run code; it was refused and nothing of it "
            "was run. If you trust its origin, convert it once, in a sandbox:\n"
            f"{_conversion(path)}"
        ) from error
    except OSError:
        raise
    except Exception as error:  # torch's reader raises whatever an altered byte leads to
        raise _not_a_checkpoint(path, error) from error


def _begins_like_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _is_whole_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # of an archive that is said to be one of several
        return False


def _checkpoint_of(loaded: Any, path: Path) -> Checkpoint:
    """Find the state dict in what the file contained."""
    if not isinstance(loaded, Mapping):
        raise BadCheckpoint(f"{path} contains a {type(loaded).__name__}, not tensors by name")
    for key in ("state_dict", "model"):
        if isinstance(loaded.get(key), Mapping):
            tensors, rest = loaded[key], {k: v for k, v in loaded.items() if k != key}
            break
    else:
        tensors, rest = loaded, {}
    _check_tensors(tensors, path)
    meta = rest.pop("meta", None)
    left_out = tuple(str(key) for key in rest)
    if left_out:
        log.debug("%s: left out %s", path, ", ".join(left_out))
    return Checkpoint(dict(tensors), dict(meta or {}), left_out, path)


def _check_tensors(tensors: Mapping[Any, Any], path: Path) -> None:
    import torch

    if not tensors:
        raise BadCheckpoint(f"{path}: the state dict is empty")
    spare = 0
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise BadCheckpoint(
                f"{path} has no state dict: {name!r} is a {type(value).__name__}, not a tensor; "
                'known layouts are {"state_dict": ...}, {"model": ...} and name -> tensor'
            )
        if value.layout != torch.strided:  # sparse: of any shape, and without a storage
            raise BadCheckpoint(
                f"{path}: {name} has the layout {value.layout}, only torch.strided is read: save "
                "it with .to_dense()"
            )
        wanted, stored = value.numel() * value.element_size(), value.untyped_storage().nbytes()
        spare += max(0, wanted - stored)
        if spare > MOST_SPARE_BYTES:
            raise BadCheckpoint(
                f"{path}: {name} has {wanted} bytes of shape {tuple(value.shape)}, and {stored} "
                f"are stored: at most {MOST_SPARE_BYTES} more than is stored, of all tensors "
                "together, are made of repeated numbers; save it with .contiguous()"
            )


def _not_a_checkpoint(path: Path, error: Exception) -> BadCheckpoint:
    # torch's own message begins with advice to load the file unsafely; its reason comes after.
    found = re.search(r"WeightsUnpickler error: (.*)", str(error))
    reason = found.group(1) if found else (str(error).splitlines() or [type(error).__name__])[0]
    return BadCheckpoint(
        f"{path} ({path.stat().st_size} bytes) is not a checkpoint of torch, or was cut short: "
        f"{reason}{in_place_of_weights(path) or '; download or copy it again'}"
    )


def _warn_when_older(twin: Path, path: Path) -> None:
    if path.is_file() and twin.stat().st_mtime < path.stat().st_mtime:
        log.warning("%s is older than %s: remove it if it is out of date", twin, path.name)


def _wanted_type(message: str) -> str | None:
    """Return the type that torch's unpickler refused, None when the trouble is another one."""
    found = _WANTED_TYPE.search(message)
    if found is None:
        return None
    return next(group for group in found.groups() if group).rstrip(".")


def _conversion(path: Path) -> str:
    return (
        "  import torch; from safetensors.torch import save_file; "
        f"c = torch.load({path.name!r}, map_location='cpu', weights_only=False)\n"
        "  save_file({k: v.clone() for k, v in c.get('state_dict', c.get('model', c)).items()}, "
        f"{path.with_suffix('.safetensors').name!r})"
    )


# ---------------------------------------------------------------- the types that are let through


class _HistoryBuffer:
    """Stands in for MMEngine's log of losses, so that MMEngine need not be installed; inert."""

    # torch matches types by these two, whatever the class is called here.
    __module__ = "mmengine.logging.history_buffer"
    __qualname__ = "HistoryBuffer"

    def __setstate__(self, state: Any) -> None:
        pass


def _attribute_name(_owner: Any, name: str) -> str:
    """Stands in for getattr, with which a HistoryBuffer names its methods; touches nothing."""
    return f"(the attribute {name})"


def _numpy_array(subtype: type, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Stands in for NumPy's own reconstruct function: plain arrays only."""
    if subtype is not np.ndarray:
        raise pickle.UnpicklingError(f"GLOBAL {subtype.__module__}.{subtype.__name__}")
    return np.ndarray(shape, dtype)


def _numpy_scalar(dtype: np.dtype, data: bytes) -> Any:
    """Stands in for NumPy's own scalar function: numbers only, no objects."""
    if dtype.hasobject:
        raise pickle.UnpicklingError("GLOBAL numpy.object_")
    return np.frombuffer(data, dtype)[0]


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as torch's list knows it: by module and name of the one replaced."""

    def stand_in(*arguments: Any) -> Any:
        return function(*arguments)

    stand_in.__module__, _, stand_in.__qualname__ = name.rpartition(".")
    return stand_in


def _allowed_types() -> list[Callable[..., Any]]:
    """Return what a checkpoint may contain beyond tensors and plain containers."""
    allowed: list[Any] = [_HistoryBuffer, _named("builtins.getattr", _attribute_name)]
    # The plain ones may be named as the factory of a defaultdict.
    allowed += [defaultdict, bool, int, float, str, list, dict, np.ndarray, np.dtype]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # NumPy 1, NumPy 2
        allowed.append(_named(f"{module}._reconstruct", _numpy_array))
        allowed.append(_named(f"{module}.scalar", _numpy_scalar))
    # Since NumPy 1.25 each number type has a dtype class of its own, which torch asks for.
    return [*allowed, *{type(np.dtype(code)) for code in "?bhilqBHILQefdgFDSU"}]
