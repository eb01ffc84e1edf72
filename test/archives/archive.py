# SPDX-License-Identifier: Apache-2.0
"""Archives for tests, and what came of them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import image_loops
import numpy as np

from bmp_ros.archives.files import ArchiveFile, find_files
from bmp_ros.archives.work import DONE_NAME, STAGE_NAME, Orders
from bmp_ros.offline.infer_files import Wanted

LIMIT_S = 120.0


def orders(**options: object) -> Orders:
    return Orders(options, wanted=Wanted(json=True), build=image_loops.build)


def write_image(path: Path, brightness: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((48, 64, 3), brightness, np.uint8))


def write_video(path: Path, frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), code, 10.0, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 60 + 10 * (number % 10), np.uint8))
    writer.release()


def make_archive(folder: Path) -> Path:
    """Five images in two folders and two videos; the first image is upright grey."""
    for number in range(5):
        write_image(folder / ("deep/er" if number % 2 else "") / f"i{number}.png", 60 + number)
    write_video(folder / "a.mp4", 12)
    write_video(folder / "deep" / "a.mp4", 8)
    (folder / "notes.txt").write_text("left out")
    return folder


def files_of(folder: Path) -> list[ArchiveFile]:
    return find_files(folder, folder / "out")[0]


def outputs(folder: Path) -> dict[str, bytes]:
    """All output files by their name below the folder; `DONE_NAME`, which has times, left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in (DONE_NAME, ".lock", "attempts.jsonl")
        and STAGE_NAME not in path.parts
    }


class Killer(threading.Thread):
    """Ends the first worker that is seen at work on a file, in the middle of it."""

    def __init__(self, output: Path, name: str) -> None:
        super().__init__(daemon=True)
        from hashlib import sha256

        self._pattern = sha256(name.encode()).hexdigest()[:12] + "-*"
        self._stages = output / STAGE_NAME
        self.killed = 0
        self.start()

    def run(self) -> None:
        import os
        import signal

        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            # Once there are frames in its results, it is in the middle.
            for stage in self._stages.glob(self._pattern):
                if any(stage.glob("*.mp4")):
                    self.killed = int(stage.name.rpartition("-")[2])
                    os.kill(self.killed, signal.SIGKILL)
                    return
            time.sleep(0.005)
