# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C or SIGTERM in a training: the step at hand is finished, so that its state is kept."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

from bmp_ros.training import processes

_NOTED = b"\nstopping after this step (once more: at once, which loses the steps since the save)\n"


@contextmanager
def interruption_noted() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C be asked for: yields a function that tells whether there was one.

    It raises KeyboardInterrupt when the block is left. So do SIGTERM and SIGHUP (docker stop,
    logging out) with SystemExit, where one process trains; of several they end those that wait for
    one that failed. A second signal raises at once, but not of several processes: ``torchrun`` and
    the terminal may both send the same one. What is ignored (nohup) or handled by the program
    stays so, and a thread that is not the main one has no signals.
    """
    noted: list[BaseException] = []

    def note(number: int, _: FrameType | None) -> None:
        end = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        if noted and processes.count() == 1:
            raise end
        noted.append(end)
        if processes.rank() == 0:
            os.write(2, _NOTED)  # not print, in whose midst the signal may have come

    defaults: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}
    if processes.count() == 1:
        defaults |= {signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    taken = [number for number, own in defaults.items() if signal.getsignal(number) == own]
    if current_thread() is not main_thread():
        taken = []
    for number in taken:
        signal.signal(number, note)
    try:
        yield lambda: bool(noted)
    finally:
        for number in taken:
            signal.signal(number, defaults[number])
    if noted:
        raise noted[0]
