# SPDX-License-Identifier: Apache-2.0
"""A file on a server: what the Hugging Face hub says about it, and a resumable HTTP transfer.

huggingface_hub tells commit, size and SHA-256; the bytes are fetched here with Range requests,
because the library (2.4) starts every download from zero in a new process, which on a robot's
wireless link costs gigabytes. ``HF_ENDPOINT``, ``HF_HUB_OFFLINE`` and ``HF_HOME`` work as usual.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import bmp_ros
from bmp_ros.weights.errors import DiskFull, DownloadCancelled, DownloadFailed, WeightsError
from bmp_ros.weights.zoo import HubFile

Progress = Callable[[int, "int | None"], None]  # bytes on this machine, bytes in all if known
Cancelled = Callable[[], bool]

TIMEOUT_S = 30.0
# Waits before the next attempt when an attempt brought no bytes; otherwise it follows at once.
RETRY_WAITS_S = (1.0, 3.0, 10.0)
_BLOCK = 1 << 18
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FREE_SPACE = "free some space, or set BMP_MODELS to a folder on another disk"


# ---------------------------------------------------------------- the Hugging Face hub


@dataclass(frozen=True)
class HubAnswer:
    """url: the file at the commit, forever the same bytes. size: bytes.

    sha256: 64 hex digits, or None for a small file, of which the hub states no SHA-256.
    """

    url: str
    commit: str
    size: int | None
    sha256: str | None


def is_offline() -> bool:
    """Return True where ``HF_HUB_OFFLINE`` forbids the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def ask_hub(file: HubFile) -> HubAnswer:
    """Ask the hub about a file; one HEAD request.

    Raises DownloadFailed: no connection, no such repository, revision or file, no permission.
    """
    hub = _huggingface_hub()
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    url = hub.hf_hub_url(file.repo, file.file, revision=file.revision, endpoint=endpoint)
    try:
        metadata = hub.get_hf_file_metadata(url)
    except Exception as error:
        # The hub's HTTP library has changed between its versions (requests, httpx): the errors of
        # a lost connection share no base class.
        raise DownloadFailed(_explain(file, url, error)) from error
    commit, etag = metadata.commit_hash, metadata.etag
    if commit is None or etag is None:
        raise DownloadFailed(
            f"{url}: the answer is not that of a Hugging Face hub; check HF_ENDPOINT and the proxy"
        )
    at_commit = hub.hf_hub_url(file.repo, file.file, revision=commit, endpoint=endpoint)
    # Large files have their SHA-256 as etag, small ones a git hash, which does not help here.
    return HubAnswer(at_commit, commit, metadata.size, etag if _SHA256.fullmatch(etag) else None)


def cached_copy(file: HubFile, commit: str | None = None) -> tuple[Path, str | None] | None:
    """Return (path, SHA-256 in its name) of a copy that another program downloaded, or None.

    The cache of the hub (``HF_HOME``) stores a large file under the SHA-256 the hub gave for it.
    """
    found = _huggingface_hub().try_to_load_from_cache(
        file.repo, file.file, revision=commit or file.revision
    )
    if not isinstance(found, str):
        return None
    blob = Path(found).resolve()
    return blob, blob.name if _SHA256.fullmatch(blob.name) else None


def _huggingface_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise WeightsError(
            "downloads from the Hugging Face hub need `pip install huggingface_hub`"
        ) from error
    return huggingface_hub


def _explain(file: HubFile, url: str, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        why = f"{file.repo} requires a login and accepted terms"
    elif isinstance(error, errors.RevisionNotFoundError):
        why = f"{file.repo} has no revision {file.revision}"
    elif isinstance(error, errors.EntryNotFoundError):
        why = f"{file.repo} has no file {file.file} at {file.revision}"
    elif isinstance(error, errors.RepositoryNotFoundError):
        why = f"there is no repository {file.repo} (or it is private)"
    else:
        why = f"no answer from the hub ({str(error).splitlines()[0] if str(error) else error!r})"
    return f"{url}: {why}; a file that you have can be given by its path instead of the name"


# ---------------------------------------------------------------- the transfer


class _TransientError(Exception):
    """The connection or the server failed in a way that may pass."""


@dataclass(frozen=True)
class _Transfer:
    """One file on its way. part: receives the bytes. size: bytes in all where known."""

    url: str
    part: Path
    size: int | None
    progress: Progress
    cancelled: Cancelled


def fetch(
    url: str,
    part: Path,
    *,
    size: int | None = None,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> None:
    """Fetch ``url`` into ``part``, resuming after the bytes that it already holds.

    size: bytes in all where known beforehand; otherwise the server's figure counts.
    Raises DownloadFailed (part kept), DownloadCancelled (part kept), DiskFull (part removed).
    """
    transfer = _Transfer(
        url, part, size, progress or (lambda here, total: None), cancelled or (lambda: False)
    )
    waits = list(RETRY_WAITS_S)
    while True:
        before = _size_of(part)
        try:
            _fetch_rest(transfer)
            return
        except _TransientError as error:
            if _size_of(part) > before:
                waits = list(RETRY_WAITS_S)
            elif waits:
                _wait(waits.pop(0), transfer)
            else:
                raise DownloadFailed(
                    f"{url}: {error}; {_size_of(part)} bytes are kept in {part}: repeat the "
                    "command to resume"
                ) from error


def check_free_space(directory: Path, needed: int) -> None:
    """Raise DiskFull when ``directory`` cannot take ``needed`` more bytes."""
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DiskFull(
            f"{directory} has {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB are needed: "
            f"{_FREE_SPACE}"
        )


@contextmanager
def full_disk_reported(part: Path) -> Iterator[None]:
    """Turn a write that found no space into DiskFull, and remove the part it was written to."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        # A full disk hurts the whole robot more than downloading again does.
        part.unlink(missing_ok=True)
        raise DiskFull(
            f"{part.parent} is full ({error.strerror}); the partial file was removed: "
            f"{_FREE_SPACE}"
        ) from error


def _fetch_rest(transfer: _Transfer) -> None:
    url, part, size = transfer.url, transfer.part, transfer.size
    have = _size_of(part)
    if have and have == size:
        return
    if size is not None and have > size:
        part.unlink()  # longer than the whole: the rest of some other file
        have = 0
    with _open(url, have) as response:
        if response.status == 416:  # nothing beyond what we have, or we have too much
            if _number_in_range(response, r"bytes \*/(\d+)") == have:
                return
            part.unlink()
            raise _TransientError("the partial file on this machine does not fit the file")
        offset = have if response.status == 206 else 0
        if response.status == 206 and _number_in_range(response, r"bytes (\d+)-") != have:
            raise DownloadFailed(f"{url}: the server sent another range than was requested")
        length = response.headers.get("Content-Length")
        announced = offset + int(length) if length and length.isdigit() else None
        if size is not None and announced is not None and announced != size:
            raise DownloadFailed(f"{url}: has {announced} bytes, should have {size}")
        total = announced if size is None else size
        if total is not None:
            check_free_space(part.parent, total - offset)
        with full_disk_reported(part), part.open("ab" if offset else "wb") as file:
            _copy(response, file, offset, total, transfer)
    if total is not None and _size_of(part) < total:
        raise _TransientError(f"the connection was cut at {_size_of(part)} of {total} bytes")


def _copy(
    response: http.client.HTTPResponse,
    file: BinaryIO,
    done: int,
    total: int | None,
    transfer: _Transfer,
) -> None:
    while True:
        transfer.progress(done, total)
        if transfer.cancelled():
            raise DownloadCancelled(f"cancelled; {done} bytes are kept in {transfer.part}")
        try:
            block = response.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError(
                f"the connection was cut ({error or type(error).__name__})"
            ) from error
        if not block:
            break
        file.write(block)
        done += len(block)
    file.flush()
    os.fsync(file.fileno())  # the name must not outlive a power loss without the bytes


def _open(url: str, have: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"bmp_ros/{bmp_ros.__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            return error  # type: ignore[return-value]  # it is a response as well
        with error:
            answer = f"the server answered {error.code} {error.reason}"
            if error.code in _TRANSIENT:
                raise _TransientError(answer) from error
            raise DownloadFailed(
                f"{url}: {answer}; a file that you have can be given by its path instead of the "
                "name"
            ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error) or type(error).__name__
        raise _TransientError(f"no connection ({reason})") from error


def _number_in_range(response: http.client.HTTPResponse, pattern: str) -> int | None:
    found = re.match(pattern, response.headers.get("Content-Range", ""))
    return int(found.group(1)) if found else None


def _size_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _wait(seconds: float, transfer: _Transfer) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if transfer.cancelled():
            raise DownloadCancelled(f"cancelled; what was fetched is kept in {transfer.part}")
        time.sleep(min(0.1, seconds))
