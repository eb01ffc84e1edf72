# SPDX-License-Identifier: Apache-2.0
"""The viewer in a headless browser: image, masks, skeletons, people in space, plots."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import page, screenshot, wait_for

pytest.importorskip("rerun", reason="rerun is not installed (requirements/view.txt)")

from bmp_ros.cli.main import main
from bmp_ros.drawing import person_color

CLIP = Path(__file__).parents[2] / "models" / "demo" / "people.mp4"
KEPT = os.environ.get("BMP_SCREENSHOTS")
"""Folder in which screenshots are kept for looking at."""
LIMIT_S = 150.0


def free_ports() -> int:
    """The first of two that follow each other, chosen by chance: others may ask as well."""
    for port in random.sample(range(19090, 29990, 2), 400):
        try:
            for number in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("", number))
        except OSError:
            continue
        return port
    pytest.fail("no two ports are free")


@contextmanager
def served(results: Path, log: Path) -> Iterator[str]:
    """Address of a page with results, all of which have been sent to the viewer's server."""
    command = [sys.executable, "-m", "bmp_ros", "view", str(results), "--web"]
    with log.open("wb") as sink:
        server = subprocess.Popen([*command, "--port", str(free_ports())], stdout=sink)
    try:
        until = time.monotonic() + LIMIT_S
        while "Ctrl-C ends it" not in (said := log.read_text(encoding="utf-8")):
            assert server.poll() is None, f"bmp view has ended: {said}"
            assert time.monotonic() < until, f"nothing is served after {LIMIT_S:.0f} s: {said}"
            time.sleep(0.1)
        found = re.search(r"http://\S+", said)
        assert found is not None, said
        yield found[0]
    finally:
        server.kill()
        server.wait()


def near(picture: np.ndarray, color: tuple[int, int, int], tolerance: int = 12) -> np.ndarray:
    return (np.abs(picture.astype(int) - color) <= tolerance).all(axis=-1)


def test_results_of_the_demo_clip(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with page() as shown:
        command = ["infer", "--source", str(CLIP), "--count", "24", "--track", "--no-draw"]
        assert main([*command, "--json", "--output", str(out)]) == 0
        with served(out, tmp_path / "view.log") as address:
            shown.goto(f"{address}&renderer=webgl")
            wait_for(shown, lambda: colors_are_there(screenshot(shown)), "people and image")
            picture = screenshot(shown)
        if KEPT:
            cv2.imwrite(str(Path(KEPT) / "view.png"), picture)


def colors_are_there(picture: np.ndarray) -> bool:
    """Lines in the colours of several tracks, and the floor of the clip's room below them."""
    tracks = [near(picture[:, :840], person_color(number)).sum() > 150 for number in range(1, 8)]
    floor = near(picture[560:700, :830], (155, 190, 165), 25).mean()
    return sum(tracks) >= 2 and floor > 0.2
