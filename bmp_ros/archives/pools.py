# SPDX-License-Identifier: Apache-2.0
"""Workers in processes of this machine, and as actors of a Ray cluster, behind one face.

A pool tells of each worker what happened, `Event` by event; a worker that died is replaced by
`replace`. The pool knows nothing of files that are to be tried again: `run_archive` does.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from bmp_ros.archives.files import ArchiveFile
from bmp_ros.archives.work import Answer, Orders, Worker, end_with_parent, share_processors
from bmp_ros.fork_server import start_fork_server

READY, ANSWER, DIED, UNUSABLE = "ready", "answer", "died", "unusable"
INSTALL_RAY = "--ray needs Ray: `pip install -r requirements/archives.txt`"


@dataclass(frozen=True)
class Event:
    """worker: its number. kind: `READY` (its loop is there), `ANSWER`, `DIED` (``text`` says how)
    or `UNUSABLE`: its loop cannot be built, for the reason ``text``."""

    worker: int
    kind: str
    answer: Answer | None = None
    text: str = ""


class Pool(Protocol):
    """size: number of workers, from 0 on."""

    size: int

    def give(self, worker: int, file: ArchiveFile) -> None:
        """Let an idle worker process a file."""
        ...

    def events(self, patience_s: float) -> Iterator[Event]:
        """What happened since the last call; waits for something for ``patience_s`` at most."""
        ...

    def replace(self, worker: int) -> None:
        """Start a worker anew, ending it where it still runs."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


class ProcessPool:
    """Workers as processes, forked from one that holds the modules and no network yet."""

    def __init__(self, orders: Orders, output: Path, size: int) -> None:
        self.size = size
        self._orders, self._output = orders, output
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([Worker.__module__])
        self._processes: dict[int, Any] = {}
        self._pipes: dict[int, Connection] = {}
        for number in range(size):
            self.replace(number)

    def give(self, worker: int, file: ArchiveFile) -> None:
        try:
            self._pipes[worker].send(file)
        except OSError:
            pass  # it died while it was idle: `events` tells

    def events(self, patience_s: float) -> Iterator[Event]:
        numbers = {pipe: number for number, pipe in self._pipes.items()}
        for pipe in wait(list(numbers), patience_s):
            assert isinstance(pipe, Connection)
            number = numbers[pipe]
            try:
                yield pipe.recv()
            except (EOFError, OSError):
                self._processes[number].join()
                yield Event(number, DIED, text=_ending(self._processes[number].exitcode))

    def replace(self, worker: int) -> None:
        self._end(worker)
        mine, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._orders, self._output, worker, self.size),
            daemon=True,
        )  # fmt: skip
        start_fork_server()
        process.start()
        theirs.close()
        self._processes[worker], self._pipes[worker] = process, mine

    def close(self) -> None:
        for number in list(self._processes):
            self._end(number)

    def _end(self, worker: int) -> None:
        process, pipe = self._processes.pop(worker, None), self._pipes.pop(worker, None)
        if process is not None and pipe is not None:
            pipe.close()
            process.kill()
            process.join()


def _serve(pipe: Connection, orders: Orders, output: Path, number: int, workers: int) -> None:
    """The life of a worker's process."""
    import signal

    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started it
    share_processors(workers)
    try:
        worker = Worker(orders, output, number)
    except Exception as error:
        pipe.send(Event(number, UNUSABLE, text=f"{type(error).__name__}: {error}"))
        return
    try:
        pipe.send(Event(number, READY))
        while True:
            pipe.send(Event(number, ANSWER, worker.process(pipe.recv())))
    except (EOFError, OSError):
        return


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        import signal

        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


# ---------------------------------------------------------------- Ray


def import_ray() -> Any:
    """Import ray. Raises ModuleNotFoundError that says what to install."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{INSTALL_RAY} ({error})", name="ray") from error
    return ray


class RayPool:
    """Workers as actors of a Ray cluster, one processor each, and one GPU where there are any.

    address: ``local`` starts a cluster on this machine and ends it with the pool. Of another one
    every machine has to see the archive and the outputs under the same paths, and to have this
    package. size: number of workers; None: as many as the cluster has processors, or GPUs where
    the device is not the CPU and there are some.
    """

    def __init__(
        self, orders: Orders, output: Path, size: int | None, address: str = "local"
    ) -> None:
        self._ray = ray = import_ray()
        self._orders, self._output = orders, output
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, tuple[int, str]] = {}
        options: dict[str, Any] = {"logging_level": "warning", "log_to_driver": False}
        if address == "local":
            options |= {"num_cpus": size, "include_dashboard": False}
        else:
            options |= {"address": address}
        self._mine = not ray.is_initialized()
        if self._mine:
            ray.init(**options)
        there = ray.cluster_resources()
        gpus = 0 if orders.device == "cpu" else int(there.get("GPU", 0))
        self._gpus = min(1, gpus)
        self.size = size or gpus or max(1, int(there.get("CPU", 1)))
        self._actor = ray.remote(_RayWorker)
        for number in range(self.size):
            self.replace(number)

    def give(self, worker: int, file: ArchiveFile) -> None:
        self._pending[self._actors[worker].process.remote(file)] = worker, ANSWER

    def events(self, patience_s: float) -> Iterator[Event]:
        ray = self._ray
        done, _ = ray.wait(list(self._pending), num_returns=1, timeout=patience_s)
        for reference in done:
            number, kind = self._pending.pop(reference)
            try:
                value = ray.get(reference)
            except ray.exceptions.RayActorError as error:
                yield Event(number, DIED, text=str(error).strip().splitlines()[0])
            except ray.exceptions.RayTaskError as error:
                yield Event(number, UNUSABLE, text=str(error.cause or error))
            else:
                if kind == ANSWER:
                    yield Event(number, ANSWER, value)
                else:
                    yield Event(number, UNUSABLE if value else READY, text=value)

    def replace(self, worker: int) -> None:
        self._end(worker)
        actor = self._actor.options(num_cpus=1, num_gpus=self._gpus, max_restarts=0)
        # On a GPU that Ray has chosen for it there is no other to see.
        self._actors[worker] = actor.remote(self._orders, self._output, worker)
        self._pending[self._actors[worker].problem.remote()] = worker, READY

    def close(self) -> None:
        for number in list(self._actors):
            self._end(number)
        if self._mine:
            self._ray.shutdown()

    def _end(self, worker: int) -> None:
        actor = self._actors.pop(worker, None)
        if actor is not None:
            self._ray.kill(actor)
            mine = [each for each, (number, _) in self._pending.items() if number == worker]
            for reference in mine:
                del self._pending[reference]


class _RayWorker:
    """A worker whose loop cannot be built says so instead of dying of it."""

    def __init__(self, orders: Orders, output: Path, number: int) -> None:
        self._problem = ""
        try:
            self._worker = Worker(orders, output, number)
        except Exception as error:
            self._problem = f"{type(error).__name__}: {error}"

    def problem(self) -> str:
        return self._problem

    def process(self, file: ArchiveFile) -> Answer:
        return self._worker.process(file)
