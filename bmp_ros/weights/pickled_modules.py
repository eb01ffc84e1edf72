# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that hold a whole network as a pickled object, as YOLOv5 saves it, read as tensors.

Such a file asks for the classes of its repository. Here they stay names (`inert_pickle`): of every
module the parameters, the buffers and the modules below it are read, which gives the state dict
that the object would have had. Both containers of ``torch.save`` are read, the zip archive and the
format from before torch 1.6.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmp_ros.weights.errors import BadCheckpoint, UnsafeCheckpoint
from bmp_ros.weights.inert_pickle import (
    LONGEST_PICKLE,
    Called,
    DamagedPickle,
    Global,
    Made,
    Reference,
    RefusedName,
    read_pickle,
)

if TYPE_CHECKING:
    from torch import Tensor

MOST_MODULES = 20_000
"""Modules and tensors of a network each; YOLOv5-l has some 600 of either."""
MOST_LEVELS = 32
"""Of modules in modules."""
MOST_AXES = 8
_DAMAGES = (ValueError, zipfile.BadZipFile, NotImplementedError, EOFError, OverflowError,
            struct.error)  # fmt: skip
"""What the standard library's reader raises for an archive that was altered, and our own."""
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

_STORAGES = {
    "HalfStorage": "float16", "FloatStorage": "float32", "DoubleStorage": "float64",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_HARMLESS = {
    "collections.OrderedDict", "__builtin__.set", "builtins.set", "_codecs.encode",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "numpy.ndarray", "numpy.dtype", "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter", "torch.Size", "torch.device",
    "pathlib.PosixPath", "pathlib.WindowsPath", *(f"torch.{name}" for name in _STORAGES),
}  # fmt: skip
_MODULE_PREFIXES = ("models.yolo.", "models.common.", "models.experimental.", "torch.nn.modules.")


def is_module(name: str) -> bool:
    """Whether a name is that of a module, which such a checkpoint has and others have not."""
    return name.startswith(_MODULE_PREFIXES)


def is_known(name: str) -> bool:
    """Whether a name may occur in such a checkpoint: it is never more than a name here."""
    return name in _HARMLESS or is_module(name)


def load_pickled_module(path: Path) -> dict[str, Any]:
    """Read a file with a pickled network: ``{"state_dict": ..., "meta": ..., other keys}``.

    The network is the entry ``ema`` (the average that is used after training), else ``model``,
    else the whole object. Tensors have the type and the values that were stored, on the CPU.
    meta: ``names`` of the classes and ``yaml`` where the network has them, ``layers``: names of
    the classes of its layers in order, ``module_types``: of all its modules, ``norm_eps`` of its
    batch norms where they agree.

    Raises UnsafeCheckpoint for a name that is not known (see `is_known`), BadCheckpoint for a file
    that is damaged or holds no network.
    """
    try:
        container = _zip_archive if zipfile.is_zipfile(path) else _old_format
        with container(path) as (top, tensor):
            network, rest = _network_in(top)
            tensors = {name: tensor(found) for name, found in _tensors_of(network)}
        return {**rest, "state_dict": tensors, "meta": _facts(network)}
    except RefusedName as error:
        raise UnsafeCheckpoint(
            f"{path} requests {_shown(error.args[0])}, which could run code; it was refused and "
            "nothing of it was run. No network of YOLOv5 needs it: get the file from its origin "
            "again"
        ) from error
    except _DAMAGES as error:
        raise BadCheckpoint(
            f"{path} ({path.stat().st_size} bytes) is not a checkpoint of torch, or was cut short "
            f"or altered: {error}; download or copy it again"
        ) from error


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) < 100 else repr(name[:100])


# ---------------------------------------------------------------- a tensor, before it is read


@dataclass(frozen=True)
class _Stored:
    """A tensor by where it lies: storage, its number type and length, and the view of it."""

    key: str
    dtype: str
    length: int
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def view(self, data: bytearray) -> Tensor:
        """The tensor, sharing the bytes of its storage."""
        import torch

        if not self.length:
            return torch.empty(self.size, dtype=getattr(torch, self.dtype))
        flat = torch.frombuffer(data, dtype=getattr(torch, self.dtype), count=self.length)
        return flat.as_strided(self.size, self.stride, self.offset)


def _stored(value: Any, what: str) -> _Stored:
    """Where the tensor ``value`` lies. Raises DamagedPickle unless it lies inside its storage."""
    while isinstance(value, Called) and value.function.endswith("._rebuild_parameter"):
        value = value.arguments[0] if value.arguments else None
    if not isinstance(value, Called) or not value.function.endswith("._rebuild_tensor_v2"):
        raise DamagedPickle(f"{what} is no tensor")
    if len(value.arguments) < 4 or not isinstance(value.arguments[0], Reference):
        raise DamagedPickle(f"{what} has no storage")
    storage, offset, size, stride = value.arguments[:4]
    key = storage.key
    if (
        not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage"
        or not isinstance(key[1], Global) or not isinstance(key[2], str)
        or key[1].name.removeprefix("torch.") not in _STORAGES or not _is_count(key[4])
        or (len(key) > 5 and key[5] is not None)
    ):  # fmt: skip
        raise DamagedPickle(f"{what} has a storage that torch.save does not write")
    plain = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
    if not plain or len(size) > MOST_AXES or not all(map(_is_count, (offset, *size, *stride))):
        raise DamagedPickle(f"{what} has no valid shape")
    length, elements = key[4], math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # More elements than the storage has: expanded, which no parameter is, and a way to ask for
    # terabytes with a small file.
    if elements and (elements > length or last >= length):
        raise DamagedPickle(
            f"{what} of shape {size} reaches beyond its storage of {length} elements"
        )
    dtype = _STORAGES[key[1].name.removeprefix("torch.")]
    return _Stored(key[2], dtype, length, offset, size, stride)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _item_bytes(dtype: str) -> int:
    import torch

    size: int = getattr(torch, dtype).itemsize
    return size


TensorReader = Callable[[_Stored], "Tensor"]

# ---------------------------------------------------------------- containers


@contextmanager
def _zip_archive(path: Path) -> Iterator[tuple[Any, TensorReader]]:
    """The pickled object of a zip archive, and what reads the tensors that it mentions."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise DamagedPickle("the archive has no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in names and _entry(archive, order, 16).strip() != b"little":
            raise DamagedPickle("it was written by a machine of another byte order")
        top, _ = read_pickle(_entry(archive, pickles[0], LONGEST_PICKLE), is_known)
        data: dict[str, bytearray] = {}
        left = path.stat().st_size  # entries that overlap would add up to more than the file

        def tensor(found: _Stored) -> Tensor:
            nonlocal left
            if found.key not in data:
                wanted = found.length * _item_bytes(found.dtype)
                left -= wanted
                if left < 0:
                    raise DamagedPickle("its storages are longer than the file")
                name = f"{folder}data/{found.key}"
                data[found.key] = bytearray(_entry(archive, name, wanted, exact=True))
            return _checked_view(found, data[found.key])

        yield top, tensor


def _entry(archive: zipfile.ZipFile, name: str, limit: int, exact: bool = False) -> bytes:
    """The bytes of an entry that is stored as it is and not longer than ``limit``."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise DamagedPickle(f"the archive has no {_shown(name)}") from None
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise DamagedPickle(f"{_shown(name)} is compressed, which torch.save does not do")
    if info.file_size > limit or (exact and info.file_size != limit):
        raise DamagedPickle(f"{_shown(name)} has {info.file_size} bytes, expected {limit}")
    try:
        return archive.read(info)
    except RuntimeError as error:  # it is said to be encrypted
        raise DamagedPickle(str(error)) from error


@contextmanager
def _old_format(path: Path) -> Iterator[tuple[Any, TensorReader]]:
    """As `_zip_archive`, of a file from before torch 1.6: five pickles, then the storages."""
    content = memoryview(path.read_bytes())
    position = 0
    parts = []
    for part in range(5):
        value, position = read_pickle(content[: position + LONGEST_PICKLE], is_known, position)
        parts.append(value)
        if part == 0 and value != _LEGACY_MAGIC:
            raise DamagedPickle("it does not begin as torch's files do")
    _, protocol, system, top, keys = parts
    if protocol != _LEGACY_PROTOCOL or not isinstance(system, dict):
        raise DamagedPickle("it has another version of torch's old format")
    if system.get("little_endian") is not True:
        raise DamagedPickle("it was written by a machine of another byte order")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise DamagedPickle("the list of its storages is damaged")
    sizes = {found.key: found for _, found in _tensors_of(_network_in(top)[0])}
    data: dict[str, bytearray] = {}
    for key in keys:
        length = int.from_bytes(content[position : position + 8], "little")
        position += 8
        if key not in sizes:
            # Of the optimizer, or of an attribute: its number type stands in the pickle only, so
            # what lies behind it cannot be found unless it is read from there.
            sizes.update(_other_storages(top))
        if key not in sizes or sizes[key].length != length:
            raise DamagedPickle(f"the storage {_shown(key)} has a length that nothing mentions")
        end = position + length * _item_bytes(sizes[key].dtype)
        if end > len(content):
            raise DamagedPickle(f"the storage {_shown(key)} ends too early")
        data[key] = bytearray(content[position:end])
        position = end

    def tensor(found: _Stored) -> Tensor:
        if found.key not in data:
            raise DamagedPickle(f"the storage {_shown(found.key)} is missing")
        return _checked_view(found, data[found.key])

    yield top, tensor


def _other_storages(top: Any) -> dict[str, _Stored]:
    """Every storage that is mentioned anywhere in an object, by its key."""
    found: dict[str, _Stored] = {}
    waiting, seen = [top], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Called):
            if value.function.endswith("._rebuild_tensor_v2"):
                stored = _stored(value, "a tensor")
                found[stored.key] = stored
            waiting += [value.arguments, value.state]
        elif isinstance(value, Made):
            waiting.append(value.state)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return found


def _checked_view(found: _Stored, data: bytearray) -> Tensor:
    # One storage may be mentioned twice, with types or lengths that do not agree.
    if len(data) != found.length * _item_bytes(found.dtype):
        raise DamagedPickle(f"the storage {_shown(found.key)} has two lengths")
    return found.view(data)


# ---------------------------------------------------------------- the network in the object


def _network_in(top: Any) -> tuple[Made, dict[str, Any]]:
    """The network, and the other entries of the checkpoint."""
    if isinstance(top, Made):
        return top, {}
    if isinstance(top, dict):
        for key in ("ema", "model"):
            if isinstance(top.get(key), Made):
                rest = {str(k): v for k, v in top.items() if k not in (key, "meta")}
                return top[key], rest
    raise DamagedPickle("it has neither tensors by name nor a network under 'model' or 'ema'")


def _state(module: Made) -> Mapping[Any, Any]:
    if not isinstance(module.state, dict):
        raise DamagedPickle(f"a module {module.kind} has no state")
    return module.state


def _part(module: Made, key: str) -> Mapping[Any, Any]:
    part = _state(module).get(key, {})
    if not isinstance(part, dict):
        raise DamagedPickle(f"{key} of a module {module.kind} is no dict")
    return part


def _modules_of(network: Made) -> Iterator[tuple[str, Made]]:
    """Every module with its prefix, the network itself first, in the order of a state dict."""
    waiting = [("", network, 0)]
    count = 0
    while waiting:
        prefix, module, level = waiting.pop()
        count += 1
        if count > MOST_MODULES or level > MOST_LEVELS:
            raise DamagedPickle(
                f"it has more than {MOST_MODULES} modules, or more than {MOST_LEVELS} levels of "
                "them"
            )
        yield prefix, module
        below = [
            (f"{prefix}{name}.", each, level + 1)
            for name, each in _part(module, "_modules").items()
            if each is not None
        ]
        if not all(isinstance(each, Made) for _, each, _ in below):
            raise DamagedPickle(f"{prefix or 'the network'} has modules that are none")
        waiting += below[::-1]


def _tensors_of(network: Made) -> Iterator[tuple[str, _Stored]]:
    """Names and places of all tensors of a network's state dict, in its order."""
    count = 0
    for prefix, module in _modules_of(network):
        passing = _state(module).get("_non_persistent_buffers_set", [])
        passing = passing if isinstance(passing, list) else []
        for part in ("_parameters", "_buffers"):
            for name, value in _part(module, part).items():
                if value is None or (part == "_buffers" and name in passing):
                    continue
                count += 1
                if count > MOST_MODULES:
                    raise DamagedPickle(f"it has more than {MOST_MODULES} tensors")
                yield f"{prefix}{name}", _stored(value, f"{prefix}{name}")


def _facts(network: Made) -> dict[str, Any]:
    """What is known of a network beside its tensors; see `load_pickled_module`."""
    facts: dict[str, Any] = {}
    names = _state(network).get("names")
    if isinstance(names, dict):
        names = [names.get(index) for index in range(len(names))]
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        facts["names"] = names
    described = _state(network).get("yaml")
    if isinstance(described, dict):
        facts["yaml"] = {k: v for k, v in described.items() if isinstance(v, int | float | str)}
    modules = list(_modules_of(network))
    layers = [m for prefix, m in modules if prefix.startswith("model.") and prefix.count(".") == 2]
    facts["layers"] = [module.kind.rpartition(".")[2] for module in layers]
    facts["module_types"] = sorted({module.kind.rpartition(".")[2] for _, module in modules})
    norms = [module for _, module in modules if module.kind.endswith("BatchNorm2d")]
    eps = {_state(norm).get("eps") for norm in norms if isinstance(_state(norm).get("eps"), float)}
    if len(eps) == 1:
        facts["norm_eps"] = eps.pop()
    return facts
