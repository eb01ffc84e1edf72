# SPDX-License-Identifier: Apache-2.0
"""Nodes as child processes, in a DDS domain of their own: for the demo and for measurements."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

_PATIENCE_S = 15.0
_DOMAINS = range(1, 101)  # what Linux's ephemeral ports leave free


class ChildProcess:
    """A process of this package, with its output in a file; ends when the ``with`` block does.

    name: for messages. command: its arguments after ``python``.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = [sys.executable, *command]

    def __enter__(self) -> ChildProcess:
        # This process's own path, for a checkout that is not installed.
        path = os.pathsep.join(filter(None, sys.path))
        environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        self._sink = self.log.open("wb")
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=self._sink, stderr=self._sink,
            env=environment,
        )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def end(self) -> int:
        """Ask it to end, as Ctrl-C does, and insist in the end; returns the exit code."""
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
                if self._process.poll() is None:
                    self._process.send_signal(number)
                    try:
                        self._process.wait(_PATIENCE_S)
                    except subprocess.TimeoutExpired:
                        continue
        finally:  # interrupted while waiting
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._sink.close()
        return int(self._process.returncode)

    def last_words(self, lines: int = 15) -> str:
        """The end of its output."""
        text = self.log.read_text(encoding="utf-8", errors="replace").rstrip()
        return "\n".join(text.splitlines()[-lines:]) or "(it said nothing)"


@contextmanager
def private_domain(number: int | None = None) -> Iterator[int]:
    """Set the environment to a DDS domain that does not leave this machine.

    number: of the domain; by default one that no other program uses which takes its domain from
    ROS's domain_coordinator, as ROS's tests do. Where that is not installed, one at random.
    """
    with _domain(number) as domain:
        changed = {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        if os.environ.get("ROS_DISTRO") == "humble":
            changed["ROS_LOCALHOST_ONLY"] = "1"
        before = {name: os.environ.get(name) for name in changed}
        os.environ.update(changed)
        try:
            yield domain
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def _domain(number: int | None) -> Iterator[int]:
    if number is not None:
        yield number
        return
    try:
        import domain_coordinator
    except ImportError:
        yield random.choice(_DOMAINS)
        return
    with domain_coordinator.domain_id() as domain:
        yield int(domain)
