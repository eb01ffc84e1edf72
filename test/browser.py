# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium for tests of what is looked at; skips where there is none."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pytest

# Mesa's software OpenGL; SwiftShader, Chromium's own, has fewer attachments than Rerun asks for.
_ARGUMENTS = ("--no-sandbox", "--ignore-gpu-blocklist", "--use-angle=gl-egl")


@contextmanager
def page(width: int = 1400, height: int = 800) -> Iterator[Any]:
    """A page of playwright."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (requirements/view-test.txt)"
    )
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()


def screenshot(shown: Any) -> np.ndarray:
    """What a page shows: BGR uint8 (H, W, 3)."""
    return cv2.imdecode(np.frombuffer(shown.screenshot(), np.uint8), cv2.IMREAD_COLOR)


def wait_for(shown: Any, condition: Callable[[], bool], what: str, limit_s: float = 150.0) -> None:
    """Wait until the page is as wanted; fails naming what did not come."""
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, f"{what} did not come in {limit_s:.0f} s"
        shown.wait_for_timeout(500)
