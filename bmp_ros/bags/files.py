# SPDX-License-Identifier: Apache-2.0
"""Bags as files: opened though damaged, written beside their place, topics taken over."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bmp_ros.bags.messages import BagError, import_rosbags
from bmp_ros.bags.recover import in_order, recover

_UNKNOWN_HASH = "RIHS01_" + "0" * 64


@contextmanager
def opened(source: Path, notes: list[str]) -> Iterator[Any]:
    """A reader of rosbags, open. That a file was cut short is noted.

    The whole part of such a file is read as a copy in the system's folder for temporary files,
    not beside the new bag, where it would be taken for that.
    Raises BagError.
    """
    with ExitStack() as stack:
        yield _open(source, notes, stack)


def _open(source: Path, notes: list[str], stack: ExitStack) -> Any:
    rosbag2 = import_rosbags("rosbag2")
    if not source.exists():
        raise BagError(f"there is no bag {source}")
    path = _storage_file(source)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bmp-bag-")))
    if path.is_file() and path.suffix != path.suffix.lower():  # which rosbags goes by
        link = folder / f"link{path.suffix.lower()}"
        link.symlink_to(path.absolute())
        path = link
    reader, error = _try_open(rosbag2.Reader, path)
    if reader is None and path.is_dir():
        files = _storage_files(path)
        if len(files) == 1:
            reader, reason = _try_open(rosbag2.Reader, files[0])
            if reader is not None:
                notes.append(
                    f"{path / 'metadata.yaml'} cannot be used ({error}): {files[0].name} was read "
                    "without it"
                )
            path, error = files[0], reason or error
    if reader is None:
        files = sorted(path.glob("[!.]*.mcap")) if path.is_dir() else [path]
        left_out = None
        if len(files) == 1 and files[0].suffix == ".mcap":
            whole = folder / "recovered.mcap"
            left_out = recover(files[0], whole)
        if left_out is not None:
            reader, _ = _try_open(rosbag2.Reader, whole)
            cut = source if source.is_file() else files[0]
            notes.append(
                f"{cut} was cut short ({error}): read up to the break, {left_out} bytes at the "
                "end were left out"
            )
    if reader is None:
        raise BagError(
            f"{source} cannot be read as a rosbag2: {error.rstrip('.')}. Give the folder of a "
            "bag, a .mcap or a .db3; `ros2 bag reindex` mends folders"
        )
    stack.callback(reader.close)
    return reader


def _storage_file(source: Path) -> Path:
    """The bag itself, or the only file of a folder without metadata.yaml."""
    if source.is_dir() and not (source / "metadata.yaml").is_file():
        files = _storage_files(source)
        if len(files) == 1:
            return files[0]
    return source


def _storage_files(folder: Path) -> list[Path]:
    names = (path for path in folder.iterdir() if path.name[0] != ".")
    return sorted(path for path in names if path.suffix.lower() in (".mcap", ".db3"))


def _try_open(kind: Any, path: Path) -> tuple[Any, str]:
    """An open reader, or None and why not: rosbags raises whatever a damaged byte leads to."""
    try:
        reader = kind(path)
        reader.open()
        _put_in_order(reader)
    except Exception as error:
        return None, str(error) or type(error).__name__
    return reader, ""


def _put_in_order(reader: Any) -> None:
    """Let files without an index be read by time: rosbags ends at the first message out of it."""
    for storage in (reader.storage, *getattr(reader.storage, "storages", ())):
        if hasattr(storage, "messages_scan") and not storage.chunks:
            scan = storage.messages_scan
            storage.messages = lambda *args, scan=scan: in_order(scan(*args))


def is_compressed(reader: Any) -> bool:
    """Whether messages, chunks or files of an open bag are compressed."""
    storages = (reader.storage, *getattr(reader.storage, "storages", ()))
    chunks = (chunk for each in storages for chunk in getattr(each, "chunks", ()))
    return bool(reader.compression_mode) or any(chunk.compression for chunk in chunks)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder beside the target that is gone in the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".bmp-bag-", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(written: Path, target: Path) -> None:
    """Move a written bag to its place: the folder, or its only file for a .mcap.

    Raises BagError when something has come there meanwhile.
    """
    taken = BagError(
        f"{target} has been written by another program meanwhile: nothing is overwritten, and "
        "nothing was written; choose another name"
    )
    if is_mcap(target):
        (file,) = written.glob("*.mcap")
        try:
            os.link(file, target)
        except FileExistsError:
            raise taken from None
        except OSError:  # file systems of cameras know no second name of a file
            if os.path.lexists(target):
                raise taken from None
            os.replace(file, target)
    else:
        if os.path.lexists(target):
            raise taken
        os.replace(written, target)


def is_mcap(path: Path) -> bool:
    """Whether a name is that of a bare file, not of a folder."""
    return path.suffix.lower() == ".mcap"


def copied_connection(writer: Any, origin: Any, store: Any) -> Any:
    """The same topic, type, definition and quality of service in the new bag.

    One for several that agree in topic, type and quality of service, as merged recordings have.
    Raises BagError for a topic without a type, which MCAP can have and ROS has not.
    """
    if not (isinstance(origin.topic, str) and isinstance(origin.msgtype, str)):
        raise BagError(
            f"topic {origin.topic} has the type {origin.msgtype}, which is no name, so it cannot "
            "be copied: write the results alone (--results-only)"
        )
    for known in writer.connections:
        if (known.topic, known.msgtype, known.ext) == (origin.topic, origin.msgtype, origin.ext):
            return known
    definition = definition_of(origin, store)
    return writer.add_connection(
        origin.topic,
        origin.msgtype,
        msgdef=definition or "",
        rihs01=origin.digest or _hash_of(origin.msgtype, definition),
        serialization_format=origin.ext.serialization_format,
        offered_qos_profiles=origin.ext.offered_qos_profiles,
    )


def definition_of(connection: Any, store: Any) -> str | None:
    """The type's definition; ours where the bag has none (.db3 of Humble), None if unknown.

    That of std_msgs/Empty is empty, and known. Ours of bmp_msgs has changed between versions: it
    counts only if the first message fits.
    """
    definition, kind = str(connection.msgdef.data), connection.msgtype
    if kind in store.types and not definition:
        if kind.startswith("bmp_msgs/") and not _fits(connection, store):
            return None
        return str(store.generate_msgdef(kind, ros_version=2)[0])
    return definition if definition.strip() or kind in store.types else None


def _fits(connection: Any, store: Any) -> bool:
    """Whether the first message of a connection is one of our type of that name."""
    try:
        for _, _, data in connection.owner.messages([connection]):
            store.deserialize_cdr(data, connection.msgtype)
            break
    except Exception:  # rosbags raises whatever bytes of another type lead to
        return False
    return True


def _hash_of(kind: str, definition: str | None) -> str:
    """The type's hash, which a bare .mcap does not tell; zeros where it cannot be computed."""
    if definition is None:
        return _UNKNOWN_HASH
    typesys = import_rosbags("typesys")
    try:
        store = typesys.get_typestore(typesys.Stores.EMPTY)
        store.register(typesys.get_types_from_msg(definition, kind))
        return str(store.hash_rihs01(kind))
    except (
        Exception
    ):  # a definition that rosbags cannot parse; the messages are copied all the same
        return _UNKNOWN_HASH
