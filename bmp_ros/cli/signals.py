# SPDX-License-Identifier: Apache-2.0
"""Signals by which people and systems end a program (Ctrl-C, docker stop, logging out), for verbs
that write."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit, so that what is unfinished is put away, or finished
    with what there is until then, as after Ctrl-C. While that goes on, neither they nor another
    Ctrl-C, of somebody impatient, interrupt it."""

    def end(number: int, _: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    usual = (signal.SIG_DFL, signal.default_int_handler, _note)
    signals = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    # Signals that are ignored already (nohup) stay so.
    before = {each: handler for each in signals if (handler := signal.getsignal(each)) in usual}
    for each in before:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


interrupts: list[int] = []
"""Ctrl-C since `note_interrupts`: what is interrupted while it is imported may fail otherwise."""


def note_interrupts() -> None:
    """Keep every Ctrl-C in `interrupts`, which otherwise does what it did."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _note)


def _note(number: int, _: object) -> None:
    interrupts.append(number)
    raise KeyboardInterrupt


def ignore_interrupts() -> None:
    """For a process that is about to end: Python's own end is not to be interrupted, either."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
