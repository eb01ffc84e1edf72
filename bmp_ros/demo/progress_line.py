# SPDX-License-Identifier: Apache-2.0
"""``ProgressLine``: what is being waited for, on stderr."""

from __future__ import annotations

import sys
import time


class ProgressLine:
    """One line that changes; where stderr is no terminal, a line every few seconds."""

    def __init__(self, every_s: float = 5.0) -> None:
        self._start = time.monotonic()
        self._live = sys.stderr.isatty()
        self._every_s = every_s
        self._shown = -every_s

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away, for what shall stay."""
        if self._live and self._shown >= 0:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def show(self, text: str) -> None:
        """Say what is going on, with the seconds since the start."""
        seconds = time.monotonic() - self._start
        if not self._live and seconds - self._shown < self._every_s:
            return
        self._shown = seconds
        line = f"{seconds:5.1f} s  {text}"
        sys.stderr.write(f"\r\033[K{line}" if self._live else f"{line}\n")
        sys.stderr.flush()
