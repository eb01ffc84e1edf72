# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in a training: the step at hand is finished, so that there is a state to keep."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bmp_ros.training import processes

_NOTED = (
    b"\nstopping after this step (Ctrl-C again: at once, which loses the steps since the save)\n"
)


@contextmanager
def interruption_noted() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C be asked for: yields a function that tells whether there was one.

    It raises KeyboardInterrupt when the block is left. A second one raises at once, but not where
    several processes train: ``torchrun`` and the terminal may both send the same one. A program
    that has a handler of its own for SIGINT, or is not in its main thread, keeps it.
    """
    noted = threading.Event()

    def note(*_: object) -> None:
        if noted.is_set() and processes.count() == 1:
            raise KeyboardInterrupt
        noted.set()
        if processes.rank() == 0:
            os.write(2, _NOTED)  # not print, in whose midst the signal may have come

    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted.is_set
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield noted.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if noted.is_set():
        raise KeyboardInterrupt
