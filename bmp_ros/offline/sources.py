# SPDX-License-Identifier: Apache-2.0
"""What ``--source`` means: an image, a folder, a video, a camera, an address or the demo clip."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bmp_ros.image_files import IMAGE_SUFFIXES, holds_colors, natural_key, shown_name
from bmp_ros.offline.video import UnreadableVideoError, VideoFrames, without_password

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".avi", ".divx", ".mkv", ".webm", ".mpg",
    ".mpeg", ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".wmv", ".asf", ".flv", ".f4v",
    ".ogv", ".mxf", ".ivf", ".mjpg", ".mjpeg", ".h264", ".264", ".h265", ".265", ".hevc", ".gif",
)  # fmt: skip
"""Of containers and streams that FFmpeg opens and that hold video."""
DEMO = "demo"
SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "rtp")
"""Of addresses that are handed to FFmpeg."""
LAST_CAMERA = 99
"""OpenCV takes 100 and above for the number of a backend."""
_ALLOWED = (
    "give an image, a folder, a video file, the index of a camera, the address of a stream "
    f"(rtsp://, http:// …) or {DEMO!r}"
)
_SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM", b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"\x59\xa6\x6a\x95",
)  # fmt: skip
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageSource:
    """An image file."""

    path: Path

    @property
    def name(self) -> str:
        """Of the file; bytes that are no UTF-8 escaped."""
        return shown_name(self.path.name)

    @property
    def drawn_name(self) -> str:
        """Name of the drawn image: that of the file, or a PNG where its format has no colours."""
        name = self.path.name
        return name if holds_colors(self.path.suffix) else f"{name}.png"

    @property
    def stem(self) -> str:
        """What names of further outputs begin with."""
        return self.path.name

    def length(self) -> int:
        return 1


@dataclass(frozen=True)
class VideoSource:
    """A video file (its path), a camera (its index) or a stream (its address)."""

    path: Path | int | str

    @property
    def name(self) -> str:
        """Of the file, ``camera0``, or the address without a password."""
        return without_password(self.path) if isinstance(self.path, str) else shown_name(self.stem)

    @property
    def stem(self) -> str:
        """What names of outputs begin with; of an address, its host and path."""
        if isinstance(self.path, Path):
            return self.path.name
        if isinstance(self.path, int):
            return f"camera{self.path}"
        parts = urlsplit(self.path)
        return re.sub(r"[^A-Za-z0-9.]+", "-", f"{parts.hostname}{parts.path}").strip("-.")

    @property
    def drawn_name(self) -> str:
        """Name of the drawn video, which is always an MP4."""
        return self.stem if self.stem.lower().endswith(".mp4") else f"{self.stem}.mp4"

    @property
    def live(self) -> bool:
        """Whether it may have no end: Ctrl-C is how one ends it then, not a failure."""
        return not isinstance(self.path, Path)

    def length(self) -> int | None:
        """Frames that the file promises, None when it does not say or has no end."""
        if self.live:
            return None
        try:
            with VideoFrames(self.path) as video:
                return video.expected
        except (UnreadableVideoError, OSError):
            return 0  # named when its turn comes


Source = ImageSource | VideoSource


def open_source(text: str, warn: Callable[[str], object] = _log.warning) -> list[Source]:
    """List what there is to process: images and videos of a folder, else one item.

    text: what exists on disk comes first: the path of an image, a video, a folder (see
    `list_folder`) or a camera's device (``/dev/video0``). Else ``demo``, the index of a camera,
    or the address of a stream. warn: is told what is left out.
    Raises FileNotFoundError or ValueError saying what is allowed.
    """
    if not text:  # an empty variable of a shell; as a path it would be the current folder
        raise FileNotFoundError(f"the source is empty; {_ALLOWED}")
    scheme, separator, rest = text.partition("://")
    path = Path(text).expanduser()
    if separator and scheme.lower() == "file":
        path = Path(unquote(urlsplit(text).path))
    elif not _exists(path):
        if separator:
            return [_stream(text, scheme.lower(), rest)]
        if text == DEMO:
            from bmp_ros.synthetic.clip_file import demo_clip_path

            path = demo_clip_path()
        elif text.isascii() and text.isdecimal():
            return [VideoSource(_camera(text))]
    if not _exists(path):
        above = next((each for each in path.absolute().parents if os.path.isdir(each)), None)
        if above is not None and not os.access(above, os.X_OK):
            raise PermissionError(f"{shown_name(above)}: no permission to look into this folder")
        raise FileNotFoundError(f"source {shown_name(path)!r} is not there; {_ALLOWED}")
    if path.is_dir():
        files, left_out = list_folder(path, (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
        if not files:
            below = "; --workers 1 goes through subfolders, too" if "subfolder" in left_out else ""
            raise FileNotFoundError(
                f"no image or video in {shown_name(path)} ({left_out or 'it is empty'}); names "
                f"must end with .jpg, .png, .mp4 or another of docs/offline.md{below}"
            )
        if left_out:
            warn(f"{shown_name(path)}: left out {left_out}")
        return [_of_file(file) for file in files]
    if path.is_char_device() and (device := re.fullmatch(r"/dev/video(\d+)", str(path.resolve()))):
        return [VideoSource(_camera(device[1]))]
    if not path.is_file():
        raise FileNotFoundError(f"source {shown_name(path)!r} is no file or folder; {_ALLOWED}")
    return [_of_file(path)]


def list_folder(folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], str]:
    """Files of a folder whose suffix is among ``suffixes``, and in words what else is there.

    In natural order (frame2 before frame10), upper case like lower case. Hidden files (``._a.jpg``
    of macOS) do not count and are not mentioned. Links whose target is gone do count, so that
    reading them says so.
    """
    files: list[Path] = []
    others: Counter[str] = Counter()
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            others["subfolder"] += 1
        elif entry.suffix.lower() not in suffixes:
            others[f"*{shown_name(entry.suffix)}" if entry.suffix else "without suffix"] += 1
        elif entry.is_file() or entry.is_symlink():
            files.append(entry)
        else:
            others["device or pipe"] += 1
    words = [f"{count} {kind}" for kind, count in sorted(others.items())]
    return sorted(files, key=natural_key), ", ".join(words)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # such as a name that is too long, or has a NUL character
        return False


def _camera(index: str) -> int:
    if len(index) > 9 or int(index) > LAST_CAMERA:
        raise ValueError(f"the index of a camera is 0 to {LAST_CAMERA}, got {index}")
    return int(index)


def _stream(text: str, scheme: str, rest: str) -> VideoSource:
    shown = without_password(text)
    if scheme not in SCHEMES:
        raise ValueError(
            f"source {shown!r} is the address of a kind that cannot be read; streams begin with "
            f"{', '.join(f'{name}://' for name in SCHEMES)}"
        )
    if not rest or not text.isascii() or any(ord(letter) <= 32 for letter in text):
        raise ValueError(
            f"source {shown!r} is no address; other characters than ASCII are written as %XX"
        )
    return VideoSource(text)


def _of_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return VideoSource(path)
    if suffix in IMAGE_SUFFIXES or _looks_like_an_image(path):
        return ImageSource(path)
    return VideoSource(path)


def _looks_like_an_image(path: Path) -> bool:
    """By its first bytes, for names that say nothing."""
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError:
        return False
    return start.startswith(_SIGNATURES) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
