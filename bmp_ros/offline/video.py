# SPDX-License-Identifier: Apache-2.0
"""Videos and cameras frame by frame, through OpenCV: one frame in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

FALLBACK_FPS = 30.0
"""Taken where a file or camera does not say."""
_CODEC = "mp4v"  # MPEG-4 part 2: the one that every FFmpeg build writes


class UnreadableVideoError(ValueError):
    """A file or camera gives no frames; the message names it."""


class VideoFrames:
    """The frames of a video file (a path) or camera (its index), BGR uint8 (H, W, 3), once.

    fps: as the file or camera says. expected: frames that the file promises, None when unknown.
    read: frames given so far. Raises UnreadableVideoError when it cannot be opened.
    """

    def __init__(self, source: Path | int) -> None:
        if isinstance(source, int):
            self._capture = cv2.VideoCapture(source)
        else:
            self._capture = cv2.VideoCapture(str(source), _file_backend())
        if not self._capture.isOpened():
            self._capture.release()
            if isinstance(source, int):
                raise UnreadableVideoError(
                    f"camera {source} cannot be opened; is it connected (ls /dev/video*), and "
                    "free?"
                )
            raise UnreadableVideoError(
                f"{source} ({source.stat().st_size} bytes) is no video that OpenCV "
                f"{cv2.__version__} can read"
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else FALLBACK_FPS
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        known = not isinstance(source, int) and math.isfinite(count) and count > 0
        self.expected = int(count) if known else None
        self.read = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            good, image = self._capture.read()
            if not good:
                return
            self.read += 1
            yield image

    def __enter__(self) -> VideoFrames:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._capture.release()


class VideoFile:
    """Writes frames of one size to an MP4 file; the file is complete after ``close``.

    Raises OSError when OpenCV cannot write MPEG-4 there.
    """

    def __init__(self, path: Path, fps: float, width: int, height: int) -> None:
        code = cv2.VideoWriter_fourcc(*_CODEC)
        self._size = (width, height)
        self._path = path
        self._writer = cv2.VideoWriter(str(path), _file_backend(), code, fps, self._size)
        if not self._writer.isOpened():
            raise OSError(f"OpenCV {cv2.__version__} cannot write MPEG-4 video to {path}")

    def write(self, image: np.ndarray) -> None:
        """Append a BGR uint8 image; raises ValueError when its size is another one."""
        if image.shape[1::-1] != self._size:  # OpenCV would drop it without a word
            raise ValueError(
                f"{self._path} has {self._size[0]}x{self._size[1]} pixels, got a frame of "
                f"{image.shape[1]}x{image.shape[0]}"
            )
        self._writer.write(image)

    def close(self) -> None:
        """Write what the container needs at its end."""
        self._writer.release()


def _file_backend() -> int:
    """FFmpeg where OpenCV has it: others may take a file's name for a pattern of images."""
    there = cv2.videoio_registry.getBackends()
    return int(cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in there else cv2.CAP_ANY)
