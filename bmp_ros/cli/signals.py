# SPDX-License-Identifier: Apache-2.0
"""Signals by which systems end a program (docker stop, logging out), for verbs that write."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit, so that what is unfinished is put away, or finished
    with what there is until then, as after Ctrl+C."""

    def end(number: int, _: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # the cleaning up is not to be interrupted
        raise SystemExit(128 + number)

    signals = (signal.SIGTERM, signal.SIGHUP)
    # Signals that are ignored already (nohup) stay so.
    before = {each for each in signals if signal.getsignal(each) == signal.SIG_DFL}
    for each in before:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
