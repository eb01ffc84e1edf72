# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium for tests of what is looked at; skips where there is none."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

_CALL_S = 150.0
# Mesa's software OpenGL; SwiftShader, Chromium's own, has fewer attachments than Rerun asks for.
_ARGUMENTS = ("--no-sandbox", "--ignore-gpu-blocklist", "--use-angle=gl-egl")


@contextmanager
def page(width: int = 1400, height: int = 800, limit_s: float = 400.0) -> Iterator[Any]:
    """A page of playwright; AssertionError when it is still in use after ``limit_s``."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (requirements/view-test.txt)"
    )
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium (apt-get install chromium)")
    # Not all of playwright's calls have limits, but all fail when its driver is gone.
    is_late = threading.Event()

    def kill() -> None:
        is_late.set()
        _kill_drivers()

    watch = threading.Timer(limit_s, kill)
    watch.daemon = True
    watch.start()
    try:
        with api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=list(_ARGUMENTS), timeout=1000 * _CALL_S
            )
            try:
                shown = browser.new_page(viewport={"width": width, "height": height})
                shown.set_default_timeout(1000 * _CALL_S)
                yield shown
            finally:
                browser.close()
    except Exception as error:
        if is_late.is_set():
            raise AssertionError(f"the browser was killed after {limit_s:g} s: {error}") from error
        raise
    finally:
        watch.cancel()


def _kill_drivers() -> None:
    """Kill this process's playwright; the browser ends with it."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and "playwright" in (folder / "cmdline").read_text():
                os.kill(int(folder.name), signal.SIGKILL)
        except OSError:  # it has ended
            continue


def screenshot(shown: Any) -> np.ndarray:
    """What a page shows: BGR uint8 (H, W, 3)."""
    return cv2.imdecode(np.frombuffer(shown.screenshot(), np.uint8), cv2.IMREAD_COLOR)


def wait_for(shown: Any, condition: Callable[[], bool], what: str, limit_s: float = 150.0) -> None:
    """Wait until the page is as wanted; fails naming what did not come."""
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, f"{what} did not come in {limit_s:.0f} s"
        shown.wait_for_timeout(500)
