# SPDX-License-Identifier: Apache-2.0
"""One resumable HTTP(S) transfer: a URL into a part file that survives cuts and interrupts.

The Hugging Face library starts every download from zero in a new process; on a robot's wireless
link that is gigabytes. This file asks for the rest of a part file with a Range request.
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
from pathlib import Path
from typing import BinaryIO

import bmp_ros
from bmp_ros.weights.errors import DiskFull, DownloadCancelled, DownloadFailed

Progress = Callable[[int, "int | None"], None]  # bytes that are here, bytes in all if known
Cancelled = Callable[[], bool]

TIMEOUT_S = 30.0
# Waits before trying again when an attempt brought nothing new; one that did starts over at once.
RETRY_WAITS_S = (1.0, 3.0, 10.0)
_BLOCK = 1 << 18
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class _PassingError(Exception):
    """The connection or the server failed in a way that may pass."""


def fetch(
    url: str,
    part: Path,
    *,
    size: int | None = None,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> None:
    """Make ``part`` hold all bytes of ``url``, going on from what it holds already.

    size: bytes in all where known beforehand; otherwise the server's word is taken.
    Raises DownloadFailed (part kept), DownloadCancelled (part kept), DiskFull (part removed).
    """
    waits = list(RETRY_WAITS_S)
    while True:
        before = _held(part)
        try:
            _fetch_rest(url, part, size, progress, cancelled)
            return
        except _PassingError as trouble:
            if _held(part) > before:
                waits = list(RETRY_WAITS_S)
            elif waits:
                _wait(waits.pop(0), part, cancelled)
            else:
                raise DownloadFailed(
                    f"{url}: {trouble}; {_held(part)} bytes are kept in {part}: "
                    "repeat the command to go on from there"
                ) from trouble


def check_room(directory: Path, needed: int) -> None:
    """Raise DiskFull when ``directory`` cannot take ``needed`` more bytes."""
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DiskFull(
            f"{directory} has {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB are needed: free "
            "some space or let BMP_MODELS name a folder on another disk"
        )


@contextmanager
def full_disk_told(part: Path) -> Iterator[None]:
    """Turn a write that found no room into DiskFull, and remove the part it was written to."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        # A full disk hurts the whole robot more than downloading again does.
        part.unlink(missing_ok=True)
        raise DiskFull(
            f"{part.parent} is full ({error.strerror}); what had come was removed: free some "
            "space or let BMP_MODELS name a folder on another disk"
        ) from error


def _fetch_rest(
    url: str,
    part: Path,
    size: int | None,
    progress: Progress | None,
    cancelled: Cancelled | None,
) -> None:
    held = _held(part)
    if size is not None and held >= size:
        if held == size:
            return
        part.unlink()  # longer than the whole: the rest of some other file
        held = 0
    with _open(url, held) as response:
        if response.status == 416:  # nothing beyond what we hold, or we hold too much
            if _total_of_range(response) == held:
                return
            part.unlink()
            raise _PassingError("the part that was kept does not fit the file")
        offset = held if response.status == 206 else 0
        if response.status == 206 and _start_of_range(response) != held:
            raise DownloadFailed(f"{url}: the server answered another range than was asked for")
        length = response.headers.get("Content-Length")
        announced = offset + int(length) if length and length.isdigit() else None
        if size is not None and announced is not None and announced != size:
            raise DownloadFailed(f"{url}: is {announced} bytes long, should be {size}")
        total = size if size is not None else announced
        if total is not None:
            check_room(part.parent, total - offset)
        with full_disk_told(part), part.open("ab" if offset else "wb") as file:
            _copy(response, file, offset, total, progress, cancelled)
    if total is not None and _held(part) < total:
        raise _PassingError(f"the connection was cut at {_held(part)} of {total} bytes")


def _copy(
    response: http.client.HTTPResponse,
    file: BinaryIO,
    done: int,
    total: int | None,
    progress: Progress | None,
    cancelled: Cancelled | None,
) -> None:
    while True:
        if progress is not None:
            progress(done, total)
        if cancelled is not None and cancelled():
            raise DownloadCancelled(f"cancelled at {done} bytes, kept for the next time")
        try:
            block = response.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _PassingError(
                f"the connection was cut ({error or type(error).__name__})"
            ) from error
        if not block:
            break
        file.write(block)
        done += len(block)
    file.flush()
    os.fsync(file.fileno())  # the name must not outlive a power loss without the bytes


def _open(url: str, held: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"bmp_ros/{bmp_ros.__version__}", "Accept-Encoding": "identity"}
    if held:
        headers["Range"] = f"bytes={held}-"
    try:
        return urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S
        )
    except urllib.error.HTTPError as error:
        if error.code == 416:
            return error  # type: ignore[return-value]  # it is a response as well
        with error:
            if error.code in _TRY_AGAIN:
                raise _PassingError(f"the server answered {error.code} {error.reason}") from error
            raise DownloadFailed(
                f"{url}: the server answered {error.code} {error.reason}"
            ) from error
    except urllib.error.URLError as error:
        raise _PassingError(f"no connection ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(f"no connection ({error or type(error).__name__})") from error


def _start_of_range(response: http.client.HTTPResponse) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found.group(1)) if found else None


def _total_of_range(response: http.client.HTTPResponse) -> int | None:
    found = re.match(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
    return int(found.group(1)) if found else None


def _held(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _wait(seconds: float, part: Path, cancelled: Cancelled | None) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if cancelled is not None and cancelled():
            raise DownloadCancelled(f"cancelled; what is here is kept in {part}")
        time.sleep(min(0.1, seconds))
