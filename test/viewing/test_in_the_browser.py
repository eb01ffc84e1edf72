# SPDX-License-Identifier: Apache-2.0
"""The viewer in a headless browser: image, masks, skeletons, people in space, plots."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
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


def free_ports() -> int:
    """The first of two that follow each other."""
    for port in range(19090, 19990, 2):
        try:
            for number in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("", number))
        except OSError:
            continue
        return port
    pytest.fail("no two ports are free")


def near(picture: np.ndarray, color: tuple[int, int, int], tolerance: int = 12) -> np.ndarray:
    return (np.abs(picture.astype(int) - color) <= tolerance).all(axis=-1)


def test_results_of_the_demo_clip(tmp_path: Path) -> None:
    with page() as shown:
        out = tmp_path / "out"
        command = ["infer", "--source", str(CLIP), "--count", "24", "--track", "--no-draw"]
        assert main([*command, "--json", "--output", str(out)]) == 0
        port = free_ports()
        server = subprocess.Popen(
            [sys.executable, "-m", "bmp_ros", "view", str(out), "--web", "--port", str(port)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            address = ""
            for line in server.stdout:
                found = re.search(r"http://\S+", line)
                address = found[0] if found else address
                if line.startswith("24 images"):
                    break
            shown.goto(f"{address}&renderer=webgl")
            wait_for(shown, lambda: colors_are_there(screenshot(shown)), "people and image")
            picture = screenshot(shown)
        finally:
            server.terminate()
            server.wait()
            server.stdout.close()
        if KEPT:
            cv2.imwrite(str(Path(KEPT) / "view.png"), picture)


def colors_are_there(picture: np.ndarray) -> bool:
    """Lines in the colours of several tracks, and the floor of the clip's room below them."""
    tracks = [near(picture[:, :840], person_color(number)).sum() > 150 for number in range(1, 8)]
    floor = near(picture[560:700, :830], (155, 190, 165), 25).mean()
    return sum(tracks) >= 2 and floor > 0.2
