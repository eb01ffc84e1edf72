# SPDX-License-Identifier: Apache-2.0
"""Videos, cameras and streams frame by frame, through OpenCV: one frame in memory at a time."""

from __future__ import annotations

import math
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from bmp_ros.image_files import shown_name, turned
from bmp_ros.offline.video_orientation import video_orientation
from bmp_ros.offline.video_packets import LOOK_AHEAD, PacketScanner
from bmp_ros.writing import held

FALLBACK_FPS = 30.0
"""Taken where a file or camera does not say."""
_MOST_FPS = 1000.0
_CODEC = "mp4v"  # MPEG-4 part 2: the one that every FFmpeg build writes
_LEAST_SIDE, _MOST_SIDE = 16, 8190
"""Pixels of a written video: FFmpeg's MPEG-4 encoder writes beyond its buffers for narrow ones,
and the format has no more."""
_MOST_PIXELS = 1 << 26
"""Of a frame: 67 million, 200 MB, and FFmpeg keeps several."""
_STEP_BACK_S, _LEAP_S, _NO_TIME_S = 1.0, 3600.0, 1e9
_WHOLE, _DECODED = 0.9, 0.8
"""Shares of the duration and of the packets with less than which a video counts as broken: both
are estimates (some packets hold no image that is shown)."""


class UnreadableVideoError(ValueError):
    """A file, camera or stream gives no (more) frames; the message names it."""


class VideoFrames:
    """The frames of a video file (a path), camera (its index) or stream (its address), once.

    BGR uint8 (H, W, 3), turned as the file says, as viewers do. fps: as the file or camera says.
    expected: frames that the file promises, duration: seconds, None when unknown. read: frames
    given so far. seconds: time of the last of them: that of the file or stream, of a camera since
    it was opened.
    Raises UnreadableVideoError when it cannot be opened, and where the resolution changes: OpenCV
    cannot follow.
    """

    def __init__(self, source: Path | int | str) -> None:
        self._source = source
        self._resources = ExitStack()
        self._scanner: PacketScanner | None = None
        self._orientation = 1
        try:
            self._open()
        except BaseException:
            self._resources.close()
            raise
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and 0 < fps <= _MOST_FPS else FALLBACK_FPS
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        known = not isinstance(source, int) and math.isfinite(count) and 0 < count < 1e9
        self.expected = int(count) if known else None
        self.duration = count / fps if known and self.fps == fps else None
        self.read = 0
        self.seconds = 0.0
        self._opened = time.monotonic()
        self._shift = 0.0

    def _open(self) -> None:
        source = self._source
        if isinstance(source, int):
            self._capture = cv2.VideoCapture(source)
            problem = (
                f"camera {source} cannot be opened; is it connected (ls /dev/video*), and free?"
            )
        elif isinstance(source, str):
            self._capture = cv2.VideoCapture(source, _file_backend())
            problem = (
                f"{without_password(source)} cannot be opened as a stream by OpenCV "
                f"{cv2.__version__}; is the address right, and does its host answer?"
            )
        else:
            size = source.stat().st_size  # raises OSError before OpenCV hides the reason
            source.open("rb").close()
            text = self._resources.enter_context(utf8_path(source))
            self._capture = cv2.VideoCapture(text, _file_backend())
            self._orientation = video_orientation(source, self._capture)
            problem = (
                f"{shown_name(source)} ({size} bytes) is no video that OpenCV {cv2.__version__} "
                "can read"
            )
            if self._capture.isOpened():
                self._scanner = PacketScanner(text)
                self._resources.callback(self._scanner.close)
        self._resources.callback(self._capture.release)
        if not self._capture.isOpened():
            raise UnreadableVideoError(problem)
        sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        width, height = (self._capture.get(side) for side in sides)
        if width * height > _MOST_PIXELS:
            raise UnreadableVideoError(
                f"{shown_name(str(source))} announces frames of {width:.0f}x{height:.0f} pixels, "
                f"at most {_MOST_PIXELS} are decoded: make it smaller"
            )

    @property
    def steady_fps(self) -> float:
        """Frames per second at which none of the first frames would be skipped."""
        if self._scanner is None:
            return self.fps
        self._scanner.advance(LOOK_AHEAD)
        shortest = min((step for step in self._scanner.intervals if step > 1e-3), default=math.inf)
        # Times are rounded in many containers; that is no other rate.
        return 1 / shortest if shortest < 0.8 / self.fps else self.fps

    def __iter__(self) -> Iterator[np.ndarray]:
        previous = None
        while True:
            if self._scanner is not None:
                self._scanner.advance(self.read + LOOK_AHEAD)
            good, image = self._capture.read()
            if not good or image is None:
                return
            seconds = self._time()
            self._refuse_another_size(image, previous, seconds)
            previous = image
            self.read += 1
            self.seconds = seconds
            yield turned(image, self._orientation)

    def broken(self) -> str | None:
        """After the last frame: why this was not the whole video; None when it was."""
        name = shown_name(self._source) if isinstance(self._source, Path) else "the source"
        if self.read == 0:
            return f"{name} opens as a video and gives no frame"
        end = self.seconds + 1 / self.fps
        if self.duration is not None and self.expected is not None:
            if self.read < _WHOLE * self.expected and end < _WHOLE * self.duration:
                return (
                    f"{name} broke off after {self.read} of {self.expected} frames, at "
                    f"{end:.2f} of {self.duration:.2f} s; what was read has been processed"
                )
        if self._scanner is not None:
            self._scanner.advance()
            if self.read < _DECODED * self._scanner.packets:
                return (
                    f"{name} is damaged: {self.read} of {self._scanner.packets} frames could be "
                    "decoded; they have been processed"
                )
        return None

    def _time(self) -> float:
        """Seconds of the frame that has just been read; times that do not rise are replaced."""
        if isinstance(self._source, int):
            return time.monotonic() - self._opened
        next_one = self.seconds + 1 / self.fps if self.read else 0.0
        said = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        if not abs(said) < _NO_TIME_S:
            return next_one
        seconds = said + self._shift
        leap = _LEAP_S if self.duration is None else self.duration + 1
        step = seconds - self.seconds
        if not -_STEP_BACK_S <= step <= leap:  # the times begin anew, such as in joined files
            self._shift += next_one - seconds
            return next_one
        return seconds if step > 0 or not self.read else next_one

    def _refuse_another_size(
        self, image: np.ndarray, previous: np.ndarray | None, seconds: float
    ) -> None:
        change = None if self._scanner is None else self._scanner.change
        if change is None:
            return
        reached = self.read >= change.frame or (
            change.seconds is not None and seconds - self._shift >= change.seconds
        )
        # Decoders may drop frames where the size changes; a last row that stays is the sign.
        near = self.read >= change.frame - 2
        stale = near and previous is not None and np.array_equal(image[-1], previous[-1])
        if reached or stale:
            before, after = ("x".join(map(str, size)) for size in (change.before, change.after))
            name = shown_name(self._source) if isinstance(self._source, Path) else "the video"
            raise UnreadableVideoError(
                f"{name} changes from {before} to {after} pixels after {self.read} frames, which "
                "OpenCV cannot follow; what came before has been processed. Split it there, or "
                "bring it to one size (ffmpeg -i FILE -vf scale=W:H OUT)"
            )

    def __enter__(self) -> VideoFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()


class VideoFile:
    """Writes frames of one size to an MP4 file; the file is complete after ``close``.

    The file has a constant rate, ``fps``: a frame is shown again until the time of the next, and
    left out when the next is due already. Odd widths and heights are rounded up by repeating the
    last column or row, sides below 16 pixels filled up in black, above 8190 the image is scaled
    down: the format, or FFmpeg's encoder, can do no other.
    Raises OSError when OpenCV cannot write MPEG-4 there, BeingWrittenError while another run does.
    """

    def __init__(self, path: Path, fps: float, width: int, height: int) -> None:
        self._path, self._size, self._fps = path, (width, height), fps
        self._scale = min(1.0, _MOST_SIDE / max(width, height))
        inner = tuple(max(1, round(side * self._scale)) for side in self._size)
        self._inner = (inner[0], inner[1])
        self.written_size = tuple(max(_LEAST_SIDE, side + side % 2) for side in inner)
        self._written = 0
        self._start: float | None = None
        self._last: np.ndarray | None = None
        self._resources = ExitStack()
        self._resources.enter_context(held(path))
        self._text = text = self._resources.enter_context(utf8_path(path))
        code = cv2.VideoWriter_fourcc(*_CODEC)
        self._writer = cv2.VideoWriter(text, _file_backend(), code, fps, self.written_size)
        self._resources.callback(self._writer.release)
        if not self._writer.isOpened():
            self._resources.close()
            with suppress(FileNotFoundError):
                path.lstat()  # raises what may be the reason: a name that is too long
            raise OSError(
                f"OpenCV {cv2.__version__} cannot write MPEG-4 video to {shown_name(path)}"
            )

    def write(self, image: np.ndarray, seconds: float | None = None) -> None:
        """Append a BGR uint8 image, shown at ``seconds``; by default right after the last one.

        Raises ValueError when its size is another one.
        """
        if image.shape[1::-1] != self._size:  # OpenCV would drop it without a word
            raise ValueError(
                f"{shown_name(self._path)} has {self._size[0]}x{self._size[1]} pixels, got a "
                f"frame of {image.shape[1]}x{image.shape[0]}"
            )
        if seconds is not None:
            self._start = seconds if self._start is None else self._start
            due = math.floor((seconds - self._start) * self._fps + 0.5)
            while self._last is not None and self._written < due:
                self._append(self._last)
            if due < self._written - 1:  # one frame early is a rounded time
                return
        self._last = self._fitted(image)
        self._append(self._last)

    def close(self) -> None:
        """Write what the container needs at its end.

        Raises OSError when not all frames are in the file: OpenCV is silent about a full disk.
        """
        if not self._writer.isOpened():
            return
        with self._resources:
            self._writer.release()
            there = self._frames_there() if self._written else 0
        if there != self._written:
            raise OSError(
                f"{shown_name(self._path)}: of {self._written} frames {there} could be written; "
                "is the disk full?"
            )

    def _frames_there(self) -> int:
        capture = cv2.VideoCapture(self._text, _file_backend())
        try:
            return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        finally:
            capture.release()

    def _append(self, image: np.ndarray) -> None:
        self._writer.write(image)
        self._written += 1

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        if self._scale < 1:
            image = cv2.resize(image, self._inner, interpolation=cv2.INTER_AREA)
        height, width = image.shape[:2]
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        right, below = (
            full - side for full, side in zip(self.written_size, image.shape[1::-1], strict=True)
        )
        return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT)


@contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """A path as text that OpenCV, FFmpeg and ROS take: absolute, so that nothing looks like a
    protocol, and UTF-8: for names that are not (OpenCV would crash), that of a temporary link."""
    absolute = path.absolute()
    if _is_utf8(absolute):
        yield str(absolute)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / (f"video{path.suffix}" if _is_utf8(Path(path.suffix)) else "video")
        if not _is_utf8(link):
            raise OSError(
                f"{shown_name(path)} is no UTF-8, nor is the folder for temporary files, "
                f"{shown_name(folder)}; set TMPDIR to another one"
            )
        link.symlink_to(absolute)
        yield str(link)


def without_password(address: str) -> str:
    """An address as it may be shown and stored: without user and password."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/?#]*@", r"\1", address)


def _is_utf8(path: Path) -> bool:
    try:
        os.fsencode(path).decode("utf-8")
        str(path).encode("utf-8")
    except UnicodeError:
        return False
    return True


def _file_backend() -> int:
    """FFmpeg where OpenCV has it: others may take a file's name for a pattern of images."""
    there = cv2.videoio_registry.getBackends()
    return int(cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in there else cv2.CAP_ANY)
