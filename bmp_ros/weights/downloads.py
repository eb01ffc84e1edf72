# SPDX-License-Identifier: Apache-2.0
"""``download(name)``: weights into the models folder, checked before they are installed.

A file appears under its name only when it is complete and its hash is right, in one atomic step;
until then an older file stays as it is. The SHA-256 of every installed file is pinned in
``pinned.json`` beside the files: ``verify`` finds damaged files, and a download of other bytes is
refused. (The catalogue has a hash for few files only, so the pin is the hash of all others.)
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bmp_ros.weights.errors import DownloadCancelled, DownloadFailed, WeightsError, WrongHash
from bmp_ros.weights.remote import (
    Cancelled,
    Progress,
    ask_hub,
    cached_copy,
    check_free_space,
    fetch,
    full_disk_reported,
    is_offline,
)
from bmp_ros.weights.zoo import (
    HubFile,
    ManualFile,
    WeightsFile,
    Zoo,
    load_zoo,
    locate,
    models_dir,
)

log = logging.getLogger(__name__)

PINS_FILE = "pinned.json"
_BLOCK = 4 << 20


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
    """Fetch one weights file and return its path; at once if it is on this machine already.

    name: as in the catalogue. progress(bytes_here, bytes_in_all or None) and cancelled() -> bool
    are called every 256 KiB. on_licence(line) is called before the first byte (default: logged);
    whether the licence is acceptable is the caller's decision, nothing is asked here.
    repin: accept bytes other than those pinned on this machine (the publisher has replaced them).

    Safe to call from several processes at once. Raises UnknownWeights, DownloadFailed,
    DownloadCancelled, DiskFull, WrongHash. After a cut connection, a cancellation or
    KeyboardInterrupt the partial file is kept and the next call resumes; after a wrong hash or a
    full disk it is removed. DownloadFailed also for a file that no program may fetch, with the
    steps by hand.
    """
    weights = (load_zoo() if zoo is None else zoo)[name]
    directory = models_dir()
    with _one_at_a_time(directory, cancelled):
        target = directory / weights.file_name
        trusted = weights.sha256 or (None if repin else _pinned(directory, name))
        if target.is_file() and trusted == sha256_of(target, cancelled=cancelled):
            return target
        if target.is_file() and trusted is None and isinstance(weights.origin, ManualFile):
            return target  # put there by hand: nobody knows its hash
        if target.is_file() and trusted is None and is_offline():
            log.warning("%s: its hash cannot be checked while offline", target)
            return target
        (on_licence or log.info)(weights.licence_notice)
        source = _expect(weights, _find(weights), trusted)
        sha256 = _hash_if_right(target, source, cancelled)
        if sha256 is None:
            sha256 = _install(weights, source, target, progress, cancelled)
        write_pin(directory, name, Pin(target.name, target.stat().st_size, sha256, source.url))
        return target


def _find(weights: WeightsFile) -> _Source:
    origin = weights.origin
    if isinstance(origin, ManualFile):
        raise DownloadFailed(f"{weights.name}: {weights.how_to_get}")
    if is_offline():
        copy = cached_copy(origin) if isinstance(origin, HubFile) else None
        if copy is None:
            raise DownloadFailed(
                f"{weights.name}: HF_HUB_OFFLINE forbids downloads; unset it, or copy "
                f"{weights.file_name} into {models_dir()} from a machine that has it"
            )
        return _Source(str(copy[0]), copy[0].stat().st_size, copy[1], copy[0])
    if isinstance(origin, HubFile):
        answer = ask_hub(origin)
        copy = cached_copy(origin, answer.commit)
        return _Source(answer.url, answer.size, answer.sha256, copy[0] if copy else None)
    return _Source(origin.url, None, None)


def _expect(weights: WeightsFile, source: _Source, trusted: str | None) -> _Source:
    """Return the source with the hash that its bytes must have; refuse now if it has another."""
    if trusted and source.sha256 and source.sha256 != trusted:
        remedy = (
            "The expected hash is that of models/zoo.yaml; a newer bmp_ros may have the new one"
            if weights.sha256
            else "If the publisher has replaced the file, "
            f"`bmp models download --repin {weights.name}` accepts it"
        )
        raise WrongHash(
            f"{weights.name}: {source.url} has SHA-256 {source.sha256}, expected {trusted}; "
            f"nothing was changed. {remedy}"
        )
    if weights.size and source.size and weights.size != source.size:
        raise DownloadFailed(
            f"{weights.name}: {source.url} has {source.size} bytes, the catalogue says "
            f"{weights.size}; nothing was changed. A newer bmp_ros may know the new file"
        )
    return replace(
        source,
        size=source.size or weights.size,
        sha256=source.sha256 or trusted or weights.sha256_prefix,
    )


def _hash_if_right(target: Path, source: _Source, cancelled: Cancelled | None) -> str | None:
    """Return the hash of an installed but unpinned (copied) file if its bytes are right."""
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
    """Fetch the bytes, check them, put them in place; return their SHA-256."""
    part = target.with_name(f".{target.name}.{(source.sha256 or 'unpinned')[:8]}.part")
    if source.copy is None:
        fetch(source.url, part, size=source.size, progress=progress, cancelled=cancelled)
    else:
        check_free_space(part.parent, source.copy.stat().st_size)
        with full_disk_reported(part):
            shutil.copyfile(source.copy, part)
    sha256 = sha256_of(part, cancelled=cancelled)
    if source.sha256 is None:
        log.warning("%s: no hash is published for it; pinned as received", weights.name)
    elif not sha256.startswith(source.sha256):
        part.unlink()
        raise WrongHash(
            f"{weights.name}: the bytes from {source.url} have SHA-256 {sha256}, expected "
            f"{source.sha256}; they were deleted and nothing was changed. Try again; if it "
            "happens again, the file or the connection has been tampered with"
        )
    os.replace(part, target)
    for other in target.parent.glob(f".{target.name}.*.part"):  # of bytes published earlier
        other.unlink()
    return sha256


def install_file(weights: WeightsFile, file: Path, *, repin: bool = False) -> Path:
    """Copy a file that was fetched by hand into the models folder and pin its hash.

    It gets the name that the catalogue gives it (a .safetensors file keeps its suffix); what is
    inside is for the caller to check. repin: accept bytes other than those pinned before.
    Raises WrongHash when the catalogue or an earlier pin has another hash, DiskFull.
    """
    directory = models_dir()
    with _one_at_a_time(directory, None):
        target = directory / weights.file_name
        if file.suffix == ".safetensors":
            target = target.with_suffix(file.suffix)
        sha256, size = sha256_of(file), file.stat().st_size
        published = weights.sha256_prefix if target.name == weights.file_name else None
        trusted = published or (None if repin else _pinned(directory, weights.name))
        if trusted and not sha256.startswith(trusted):
            source = "the catalogue" if published else "the pin of an earlier file"
            remedy = "" if published else "; --repin accepts the new one"
            raise WrongHash(
                f"{file} has SHA-256 {sha256}, {source} says {trusted} for {weights.name}; "
                f"nothing was changed{remedy}"
            )
        if not (target.exists() and target.samefile(file)):
            part = target.with_name(f".{target.name}.import.part")
            check_free_space(directory, size)
            with full_disk_reported(part):
                shutil.copyfile(file, part)
            os.replace(part, target)
        if target.name == weights.file_name:
            write_pin(directory, weights.name, Pin(target.name, size, sha256, "imported by hand"))
        return target


@contextmanager
def _one_at_a_time(directory: Path, cancelled: Cancelled | None) -> Iterator[None]:
    """Let one process at a time download into a folder: several nodes may start together."""
    import fcntl

    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("w")
    except OSError as error:
        raise DownloadFailed(
            f"{directory} cannot be written to ({error.strerror}): set BMP_MODELS to a folder "
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
                        "cancelled while waiting for another download; nothing was fetched"
                    ) from None
                time.sleep(0.1)
        yield


# ---------------------------------------------------------------- pins


@dataclass(frozen=True)
class Pin:
    """One installed file. source: URL it was fetched from, a hub URL with the commit in it."""

    file: str
    size: int
    sha256: str
    source: str


@dataclass(frozen=True)
class Verified:
    """A file whose bytes were read. against: what its hash was compared with, or None."""

    path: Path
    sha256: str
    against: str | None


def verify(name: str, zoo: Zoo | None = None) -> Verified:
    """Read the installed file and compare its SHA-256 with the pin and with the catalogue.

    Raises WeightsMissing when it is not on this machine, WrongHash when the bytes differ.
    """
    zoo = load_zoo() if zoo is None else zoo
    weights = zoo[name]
    path = locate(name, zoo)
    actual = sha256_of(path)
    if path.name != weights.file_name:
        return Verified(path, actual, None)  # converted here: no hash is published for it
    known = {"the pin": _pinned(models_dir(), name), "the catalogue": weights.sha256_prefix}
    against = {source: expected for source, expected in known.items() if expected}
    for source, expected in against.items():
        if not actual.startswith(expected):
            raise WrongHash(
                f"{path} has SHA-256 {actual}, {source} says {expected}; "
                f"`bmp models download {name}` replaces it"
            )
    return Verified(path, actual, " and ".join(against) or None)


def sha256_of(path: Path, *, cancelled: Cancelled | None = None) -> str:
    """Return the SHA-256 of a file as 64 hex digits (about a second per gigabyte)."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if cancelled is not None and cancelled():
                raise DownloadCancelled(f"the check of {path} was cancelled; the file is kept")
            digest.update(block)
    return digest.hexdigest()


def read_pins(directory: Path) -> dict[str, Pin]:
    """Read name -> pin of a models folder; empty where nothing has been pinned yet."""
    path = directory / PINS_FILE
    try:
        return {name: Pin(**pin) for name, pin in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} is damaged ({error}); delete it, then run `bmp models download` for each "
            "weights file to pin it again"
        ) from error


def write_pin(directory: Path, name: str, pin: Pin) -> None:
    """Add or replace one pin; the file is replaced in one step, never half-written."""
    pins = {**read_pins(directory), name: pin}
    text = json.dumps({name: asdict(pins[name]) for name in sorted(pins)}, indent=2) + "\n"
    temporary = directory / (PINS_FILE + ".new")
    temporary.write_text(text)
    os.replace(temporary, directory / PINS_FILE)


def _pinned(directory: Path, name: str) -> str | None:
    pin = read_pins(directory).get(name)
    return pin.sha256 if pin else None
