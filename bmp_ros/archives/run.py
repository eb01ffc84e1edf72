# SPDX-License-Identifier: Apache-2.0
"""``run_archive``: every file once, whatever happens to workers; the next start goes on."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bmp_ros.archives.files import ArchiveFile
from bmp_ros.archives.pools import ANSWER, DIED, READY, UNUSABLE, Event, Pool
from bmp_ros.archives.work import (
    STAGE_NAME,
    FileReport,
    Orders,
    is_in_the_way,
    read_report,
)
from bmp_ros.image_files import shown_name

ATTEMPTS = 3
"""A file that so many workers have died of, or failed at, is recorded as failed."""
JOURNAL_NAME = "attempts.jsonl"
_LOCK_NAME = ".lock"
_PATIENCE_S = 0.5
_SAY_EVERY_S = 30.0
_LOADING_DEATHS = 3


class ArchiveError(RuntimeError):
    """The work cannot begin, or go on; the message says why."""


@dataclass
class ArchiveOutcome:
    """reports: of every file that is done, those of earlier starts (skipped) included. failed: why
    there is no result, by the file's name. deaths: of workers. seconds: of this start."""

    reports: list[FileReport] = field(default_factory=list)
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    deaths: int = 0
    seconds: float = 0.0


def run_archive(
    files: Sequence[ArchiveFile],
    orders: Orders,
    output: Path,
    make_pool: Callable[[int], Pool],
    *,
    progress: bool = False,
    retry_failed: bool = False,
) -> ArchiveOutcome:
    """Process what is not done yet; each file's outputs lie in ``output / file.name``.

    A file is done when its folder is there, written for the same orders, and the file has not been
    changed since. A worker that dies costs the present attempt at its file; after `ATTEMPTS` of
    them the file is recorded as failed, in this start and the next ones. retry_failed: try these
    again, and files that could not be read to their end.
    make_pool: makes the workers, at most as many as its argument says there are files.
    Raises ArchiveError when no worker can build its loop, when ``output`` has results of other
    orders or other things where results belong, and when another process writes there.
    """
    output.mkdir(parents=True, exist_ok=True)
    outcome = ArchiveOutcome()
    begun = time.monotonic()
    with _only_one(output):
        shutil.rmtree(output / STAGE_NAME, ignore_errors=True)
        journal = _Journal(output / JOURNAL_NAME, orders.fingerprint(), forget=retry_failed)
        waiting = _waiting(files, orders, output, journal, outcome, retry_failed)
        if waiting:
            pool = make_pool(len(waiting))
            try:
                with _told(files, waiting, progress) as tell:
                    _Shift(pool, waiting, journal, outcome, tell).work()
            finally:
                pool.close()
                shutil.rmtree(output / STAGE_NAME, ignore_errors=True)
    outcome.seconds = time.monotonic() - begun
    return outcome


def _waiting(
    files: Sequence[ArchiveFile],
    orders: Orders,
    output: Path,
    journal: _Journal,
    outcome: ArchiveOutcome,
    retry_failed: bool,
) -> list[ArchiveFile]:
    """What is to be done; what is done or has failed before goes to the outcome."""
    waiting = []
    for file in files:
        if is_in_the_way(output / file.name):
            raise ArchiveError(
                f"{shown_name(output / file.name)} is there and was not written by this command, "
                "and outputs would take its place; choose another --output"
            )
        report = read_report(output / file.name)
        if report is not None and report.orders != orders.fingerprint():
            raise ArchiveError(
                f"{shown_name(output / file.name)} was written with other options or another "
                "version; choose another --output, or remove what is there"
            )
        same = report is not None and (
            (report.source_bytes, report.source_changed_ns) == (file.bytes, file.changed_ns)
        )
        again = retry_failed and report is not None and report.failures
        if same and report is not None and not again:
            outcome.reports.append(report)
            outcome.skipped += 1
        elif (reason := journal.verdict(file)) is not None:
            outcome.failed[file.name] = reason
        else:
            waiting.append(file)
    # The largest first: none of them is left for the end, when other workers have nothing to do.
    return sorted(waiting, key=lambda each: -each.bytes)


class _Shift:
    """The workers at work."""

    def __init__(
        self,
        pool: Pool,
        waiting: Sequence[ArchiveFile],
        journal: _Journal,
        outcome: ArchiveOutcome,
        tell: Callable[[ArchiveFile, int, int], object],
    ) -> None:
        self._pool, self._journal, self._outcome, self._tell = pool, journal, outcome, tell
        self._waiting = deque(waiting)
        self._left = len(waiting)
        self._held: dict[int, ArchiveFile] = {}
        self._ready: set[int] = set()
        self._deaths_before_work = 0

    def work(self) -> None:
        while self._left:
            for worker in sorted(self._ready - self._held.keys()):
                if self._waiting:
                    self._held[worker] = self._waiting.popleft()
                    self._pool.give(worker, self._held[worker])
            for event in self._pool.events(_PATIENCE_S):
                self._hear(event)

    def _hear(self, event: Event) -> None:
        worker = event.worker
        if event.kind == READY:
            self._ready.add(worker)
            self._deaths_before_work = 0
        elif event.kind == UNUSABLE:
            raise ArchiveError(f"a worker cannot build its networks: {event.text}")
        elif event.kind == ANSWER:
            file, answer = self._held.pop(worker), event.answer
            assert answer is not None
            if answer.report is not None:
                self._outcome.reports.append(answer.report)
                self._finish(file)
            elif answer.may_go_well:
                self._fail_once(file, answer.error)
            else:
                self._fail(file, answer.error)
        elif event.kind == DIED:
            self._bury(worker, event.text)

    def _bury(self, worker: int, how: str) -> None:
        self._outcome.deaths += 1
        was_ready = worker in self._ready
        self._ready.discard(worker)
        file = self._held.pop(worker, None)
        if file is not None:
            self._fail_once(file, how)
        elif not was_ready:
            self._deaths_before_work += 1
            if self._deaths_before_work >= _LOADING_DEATHS:
                raise ArchiveError(f"workers die while they load their networks: {how}")
        if self._left:
            self._pool.replace(worker)

    def _fail_once(self, file: ArchiveFile, reason: str) -> None:
        if self._journal.add(file, reason) < ATTEMPTS:
            self._waiting.append(file)  # last, so that it costs the others little
        else:
            self._outcome.failed[file.name] = f"{reason} (attempt {ATTEMPTS} of {ATTEMPTS})"
            self._finish(file)

    def _fail(self, file: ArchiveFile, reason: str) -> None:
        self._journal.add(file, reason, last=True)
        self._outcome.failed[file.name] = reason
        self._finish(file)

    def _finish(self, file: ArchiveFile) -> None:
        self._left -= 1
        people = sum(report.people for report in self._outcome.reports)
        self._tell(file, people, len(self._outcome.failed))


class _Journal:
    """Attempts that failed, one line each, so that the next start knows of them."""

    def __init__(self, path: Path, orders: str, *, forget: bool) -> None:
        self._path, self._orders = path, orders
        self._attempts: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
        if forget:
            path.unlink(missing_ok=True)
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                entry = json.loads(line)
                if entry["orders"] == orders:
                    key = entry["file"], entry["bytes"], entry["changed_ns"]
                    self._attempts.setdefault(key, []).append(entry)
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a start that was cut short

    def add(self, file: ArchiveFile, reason: str, *, last: bool = False) -> int:
        """Keep an attempt; returns how many there were. last: there will be no other."""
        entry = {
            "file": file.name, "bytes": file.bytes, "changed_ns": file.changed_ns,
            "orders": self._orders, "reason": reason, "last": last,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }  # fmt: skip
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(json.dumps(entry) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        attempts = self._attempts.setdefault(self._key(file), [])
        attempts.append(entry)
        return len(attempts)

    def verdict(self, file: ArchiveFile) -> str | None:
        """Why a file is not tried any more; None while it is."""
        attempts = self._attempts.get(self._key(file), [])
        if len(attempts) >= ATTEMPTS or any(each["last"] for each in attempts):
            return f"{attempts[-1]['reason']} (in an earlier start; --retry-failed tries again)"
        return None

    def _key(self, file: ArchiveFile) -> tuple[str, int, int]:
        return file.name, file.bytes, file.changed_ns


@contextmanager
def _only_one(output: Path) -> Iterator[None]:
    """Two starts at once would remove each other's work. Raises ArchiveError."""
    with (output / _LOCK_NAME).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArchiveError(
                f"another process writes into {shown_name(output)}; wait for it, or choose "
                "another --output"
            ) from error
        yield


@contextmanager
def _told(
    files: Sequence[ArchiveFile], waiting: Sequence[ArchiveFile], wanted: bool
) -> Iterator[Callable[[ArchiveFile, int, int], object]]:
    """Progress over all files, by bytes; a bar on a terminal, else a line now and then."""
    total = sum(file.bytes for file in files)
    done = total - sum(file.bytes for file in waiting)
    count = len(files) - len(waiting)
    if not wanted:
        yield lambda file, people, failed: None
        return
    live = sys.stderr.isatty()
    from tqdm import tqdm

    begun = said = time.monotonic()
    with tqdm(
        desc="files", total=total, initial=done, unit="B", unit_scale=True, disable=not live
    ) as bar:

        def tell(file: ArchiveFile, people: int, failed: int) -> None:
            nonlocal count, said, done
            count += 1
            done += file.bytes
            words = f"{count} of {len(files)} files, {people} people, {failed} failed"
            bar.set_postfix_str(words, refresh=False)
            bar.update(file.bytes)
            now = time.monotonic()
            if not live and (now - said > _SAY_EVERY_S or count == len(files)):
                said = now
                share = 100 * done / total if total else 100.0
                print(f"{now - begun:7.1f} s  {words} ({share:.0f} %)", file=sys.stderr)

        yield tell
