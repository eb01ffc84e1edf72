# SPDX-License-Identifier: Apache-2.0
"""Python's fork server, started so that it runs nothing of the current folder.

Processes of the start method ``spawn`` begin with ``python -c``, each of them, which looks for
modules in the current folder first, and that may be somebody's data with a socket.py. Of
``forkserver`` only the server begins so, and it may begin in another folder.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Windows has none
    from multiprocessing.context import ForkServerContext


def fork_server_context(*, outlives_terminal: bool = False) -> ForkServerContext:
    """The context ``forkserver``, its server running: what workers are to be made with.

    outlives_terminal: see `start_fork_server`.
    """
    start_fork_server(outlives_terminal=outlives_terminal)
    return get_context("forkserver")


def start_fork_server(*, outlives_terminal: bool = False) -> None:
    """Start the process that workers are forked from, unless it runs, in the folder /.

    The workers change to the folder of the process that wants them, and have the environment that
    it had when the server was started. outlives_terminal: server and workers ignore SIGHUP, which
    a terminal that is closed sends to all of them at once, so that the process that wants them can
    finish what it is at; called in the main thread only.
    """
    from multiprocessing import forkserver

    folder, path = os.getcwd(), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    os.chdir("/")
    try:
        with _hangup_ignored(outlives_terminal):
            forkserver.ensure_running()
    finally:
        os.chdir(folder)
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path


@contextmanager
def _hangup_ignored(wanted: bool) -> Iterator[None]:
    """What is ignored when a program is started stays so in it and in what is forked from it."""
    number = getattr(signal, "SIGHUP", None)  # Windows has none
    before = None if number is None else signal.getsignal(number)
    if not wanted or number is None or before is None or current_thread() is not main_thread():
        yield
        return
    signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)
