# SPDX-License-Identifier: Apache-2.0
"""What ``--source`` means: an image, a folder, a video, a camera or the demo clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2

from bmp_ros.offline.image_files import IMAGE_SUFFIXES
from bmp_ros.offline.video import UnreadableVideoError, VideoFrames

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv",
    ".gif",
)  # fmt: skip
DEMO = "demo"
_ALLOWED = f"give an image, a folder, a video file, the index of a camera or {DEMO!r}"
_COLOR_FORMATS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


@dataclass(frozen=True)
class ImageSource:
    """An image file."""

    path: Path

    @property
    def drawn_name(self) -> str:
        """Name of the drawn image: that of the file, or a PNG where its format has no colours."""
        name = self.path.name
        return name if self.path.suffix.lower() in _COLOR_FORMATS else f"{name}.png"

    def length(self) -> int:
        return 1


@dataclass(frozen=True)
class VideoSource:
    """A video file, or a camera by its index."""

    path: Path | int

    @property
    def name(self) -> str:
        return f"camera{self.path}" if isinstance(self.path, int) else self.path.name

    @property
    def drawn_name(self) -> str:
        """Name of the drawn video, which is always an MP4."""
        return self.name if self.name.lower().endswith(".mp4") else f"{self.name}.mp4"

    def length(self) -> int | None:
        """Frames that the file promises, None for a camera or when it does not say."""
        if isinstance(self.path, int):
            return None
        try:
            with VideoFrames(self.path) as video:
                return video.expected
        except UnreadableVideoError:
            return 0  # named when its turn comes


Source = ImageSource | VideoSource


def open_source(text: str) -> list[Source]:
    """List what there is to process: images and videos of a folder by name, else one item.

    text: ``demo``, the index of a camera, or the path of an image, video or folder (its
    subfolders are not looked into). Raises FileNotFoundError naming what is allowed.
    """
    if not text:  # an empty variable of a shell; as a path it would be the current folder
        raise FileNotFoundError(f"the source is empty; {_ALLOWED}")
    if text == DEMO:
        from bmp_ros.synthetic.clip_file import demo_clip_path

        return [_existing(demo_clip_path())]
    if text.isdecimal():
        return [VideoSource(int(text))]
    path = Path(text).expanduser()
    if not path.is_dir():
        return [_existing(path)]
    known = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    files = sorted(file for file in path.iterdir() if file.is_file())
    found = [_of_file(file) for file in files if file.suffix.lower() in known]
    if not found:
        raise FileNotFoundError(
            f"no image or video in {path} ({len(files)} other files); names must end with one of "
            f"{' '.join(known)}"
        )
    return found


def _existing(path: Path) -> Source:
    if not path.is_file():
        raise FileNotFoundError(f"source {str(path)!r} is not there; {_ALLOWED}")
    return _of_file(path)


def _of_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return VideoSource(path)
    if suffix in IMAGE_SUFFIXES or cv2.haveImageReader(str(path)):
        return ImageSource(path)
    return VideoSource(path)
