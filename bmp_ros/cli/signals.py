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

    usual = (
        (signal.SIGTERM, signal.SIG_DFL), (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    # Signals that are ignored already (nohup) stay so.
    before = {each: handler for each, handler in usual if signal.getsignal(each) == handler}
    for each in before:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def ignore_interrupts() -> None:
    """For a process that is about to end: Python's own end is not to be interrupted, either."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
