# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C or SIGTERM in a training: the step at hand is finished, so that its state is kept."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

from bmp_ros.training import processes

_NOTED = b"\nstopping after this step (once more: at once, which loses the steps since the save)\n"
_ENDED = b"\nstopping at once; every step is saved, called again in the same way it goes on\n"


@dataclass
class Interruption:
    """noted: what ends the training, when its step is done. saved: nothing would be lost now."""

    noted: list[BaseException] = field(default_factory=list)
    saved: bool = False

    @contextmanager
    def nothing_to_lose(self) -> Iterator[None]:
        """In this block the first signal raises at once, unless several processes train."""
        self.saved = processes.count() == 1
        try:
            yield
        finally:
            self.saved = False


@contextmanager
def interruption_noted() -> Iterator[Interruption]:
    """Let the first Ctrl-C be asked for: yields what notes it.

    It raises KeyboardInterrupt when the block is left. So do SIGTERM and SIGHUP (docker stop,
    logging out) with SystemExit, where one process trains; of several they end those that wait for
    one that failed. A second signal raises at once, but not of several processes: ``torchrun`` and
    the terminal may both send the same one; nor does SIGHUP, which shell and kernel both send when
    a terminal is closed. What is ignored (nohup) or handled by the program
    stays so, and a thread that is not the main one has no signals.
    """
    interruption = Interruption()
    noted = interruption.noted
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none

    def note(number: int, _: FrameType | None) -> None:
        end = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        if noted and processes.count() == 1 and number != hangup:
            raise end
        noted.append(end)
        if processes.rank() == 0:
            # Not print, in whose midst the signal may have come. The terminal may have gone.
            with suppress(OSError):
                os.write(2, _ENDED if interruption.saved else _NOTED)
        if interruption.saved:
            raise end

    defaults: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}
    if processes.count() == 1:
        ends = (signal.SIGTERM, hangup)
        defaults |= {number: signal.SIG_DFL for number in ends if number is not None}
    taken = [number for number, own in defaults.items() if signal.getsignal(number) == own]
    if current_thread() is not main_thread():
        taken = []
    for number in taken:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        for number in taken:
            signal.signal(number, defaults[number])
    if noted:
        raise noted[0]
