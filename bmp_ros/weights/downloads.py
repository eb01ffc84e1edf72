# SPDX-License-Identifier: Apache-2.0
"""``download(name)``: weights into the models folder, checked before they are installed.

A file appears under its name only when it is whole and its hash is right, in one atomic step; an
older file stays untouched until then, whatever happens.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bmp_ros.weights import hub
from bmp_ros.weights.errors import DownloadCancelled, DownloadFailed, WrongHash
from bmp_ros.weights.pins import Pin, read_pins, sha256_of, write_pin
from bmp_ros.weights.transfer import Cancelled, Progress, check_room, fetch, full_disk_told
from bmp_ros.weights.zoo import HubFile, WeightsFile, Zoo, load_zoo, models_dir

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """Where the bytes are, and what is known of them. copy: a local file that has them already."""

    url: str
    size: int | None
    sha256: str | None
    copy: Path | None = None


def download(
    name: str,
    *,
    zoo: Zoo | None = None,
    progress: Progress | None = None,
    on_licence: Callable[[str], None] | None = None,
    cancelled: Cancelled | None = None,
    repin: bool = False,
) -> Path:
    """Bring one weights file to this machine and return its path; at once if it is here already.

    name: as in the catalogue. progress(bytes_here, bytes_in_all or None) and cancelled() -> bool
    are called every 256 KiB. on_licence(line) is called before the first byte (default: logged).
    repin: accept bytes other than those pinned on this machine (the publisher has replaced them).

    Nothing is asked; safe to call from several processes at once. Raises UnknownWeights,
    DownloadFailed, DownloadCancelled, DiskFull, WrongHash. After a cut, a cancellation or
    KeyboardInterrupt the part is kept and the next call goes on from there; after a wrong hash
    or a full disk it is removed.
    """
    weights = (load_zoo() if zoo is None else zoo)[name]
    directory = models_dir()
    with _one_at_a_time(directory, cancelled):
        target = directory / weights.file_name
        trusted = weights.sha256 or (None if repin else _pinned(directory, name))
        if target.is_file() and trusted == sha256_of(target, cancelled=cancelled):
            return target
        if target.is_file() and trusted is None and hub.is_offline():
            log.warning("%s: nothing to check it with while offline", target)
            return target
        (on_licence or log.info)(weights.licence_notice)
        source = _expect(weights, _find(weights), trusted)
        sha256 = _hash_if_right(target, source, cancelled)
        if sha256 is None:
            sha256 = _install(weights, source, target, progress, cancelled)
        write_pin(directory, name, Pin(target.name, target.stat().st_size, sha256, source.url))
        return target


def _pinned(directory: Path, name: str) -> str | None:
    pin = read_pins(directory).get(name)
    return pin.sha256 if pin else None


def _find(weights: WeightsFile) -> _Source:
    origin = weights.origin
    if hub.is_offline():
        copy = hub.cached_copy(origin) if isinstance(origin, HubFile) else None
        if copy is None:
            raise DownloadFailed(
                f"{weights.name}: HF_HUB_OFFLINE forbids downloads; unset it, or copy "
                f"{weights.file_name} into {models_dir()} from a machine that has it"
            )
        return _Source(str(copy[0]), copy[0].stat().st_size, copy[1], copy[0])
    if isinstance(origin, HubFile):
        answer = hub.ask_hub(origin)
        copy = hub.cached_copy(origin, answer.commit)
        return _Source(answer.url, answer.size, answer.sha256, copy[0] if copy else None)
    return _Source(origin.url, None, None)


def _expect(weights: WeightsFile, source: _Source, trusted: str | None) -> _Source:
    """Return the source with the hash that its bytes must have; refuse now if it has another."""
    if trusted and source.sha256 and source.sha256 != trusted:
        remedy = (
            "The catalogue vouches for the other bytes; a newer bmp_ros may know these"
            if weights.sha256
            else "If the publisher has replaced the file, "
            f"`bmp models download --repin {weights.name}` accepts it"
        )
        raise WrongHash(
            f"{weights.name}: {source.url} has SHA-256 {source.sha256}, but {trusted} was "
            f"expected; nothing was changed. {remedy}"
        )
    if weights.size and source.size and weights.size != source.size:
        raise DownloadFailed(
            f"{weights.name}: {source.url} is {source.size} bytes long, the catalogue says "
            f"{weights.size}; nothing was changed"
        )
    return replace(
        source,
        size=source.size or weights.size,
        sha256=source.sha256 or trusted or weights.sha256_prefix,
    )


def _hash_if_right(target: Path, source: _Source, cancelled: Cancelled | None) -> str | None:
    """Return the hash of a file that lies there unpinned with the right bytes, e.g. copied."""
    if not (source.sha256 and target.is_file()):
        return None
    sha256 = sha256_of(target, cancelled=cancelled)
    return sha256 if sha256.startswith(source.sha256) else None


def _install(
    weights: WeightsFile,
    source: _Source,
    target: Path,
    progress: Progress | None,
    cancelled: Cancelled | None,
) -> str:
    """Bring the bytes, check them, put them in place; return their SHA-256."""
    part = target.with_name(f".{target.name}.{(source.sha256 or 'unpinned')[:8]}.part")
    if source.copy is None:
        fetch(source.url, part, size=source.size, progress=progress, cancelled=cancelled)
    else:
        check_room(part.parent, source.copy.stat().st_size)
        with full_disk_told(part):
            shutil.copyfile(source.copy, part)
    sha256 = sha256_of(part, cancelled=cancelled)
    _check(sha256, part, weights, source)
    os.replace(part, target)
    for other in target.parent.glob(f".{target.name}.*.part"):  # of bytes published earlier
        other.unlink()
    return sha256


def _check(sha256: str, part: Path, weights: WeightsFile, source: _Source) -> None:
    if source.sha256 is None:
        log.warning("%s: nobody gives a hash for it; pinned as it came", weights.name)
    elif not sha256.startswith(source.sha256):
        part.unlink()
        raise WrongHash(
            f"{weights.name}: the bytes from {source.url} have SHA-256 {sha256}, not "
            f"{source.sha256}; they were thrown away and nothing was changed. Try again; if it "
            "stays so, the file or the way to it has been tampered with"
        )


@contextmanager
def _one_at_a_time(directory: Path, cancelled: Cancelled | None) -> Iterator[None]:
    """Let one process at a time download into a folder: several nodes may start together."""
    import fcntl

    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("w")
    except OSError as error:
        raise DownloadFailed(
            f"{directory} cannot be written to ({error.strerror}): let BMP_MODELS name a folder "
            "that can"
        ) from error
    with file as lock:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    log.info("waiting: another process is downloading into %s", directory)
                    told = True
                if cancelled is not None and cancelled():
                    raise DownloadCancelled(
                        "cancelled while waiting for another download"
                    ) from None
                time.sleep(0.1)
        yield
