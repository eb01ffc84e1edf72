# SPDX-License-Identifier: Apache-2.0
"""What the camera of the demo shows: the clip, live scenes, a video, a folder, an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from bmp_ros.offline.image_files import IMAGE_SUFFIXES, read_image
from bmp_ros.synthetic.clip_file import open_clip
from bmp_ros.synthetic.ground_truth import PeopleTruth

CLIP, SCENES = "clip", "scenes"
_SCENE_SECONDS = 20.0
_SCENE_FPS = 10.0
_IMAGE_FPS = 1.0
_UNKNOWN_VIDEO_FPS = 25.0


@dataclass(frozen=True)
class Shot:
    """One picture. image: BGR uint8 (H, W, 3). truth: where it is known."""

    image: np.ndarray
    truth: PeopleTruth | None = None


@dataclass(frozen=True)
class Source:
    """Pictures to show. fps: at which they are meant to be shown.

    play: starts at the beginning, each time. endless: it has no end.
    camera_matrix: (3, 3) intrinsics in pixels, None where unknown.
    """

    name: str
    fps: float
    play: Callable[[], Iterator[Shot]]
    endless: bool = False
    camera_matrix: np.ndarray | None = None
    has_truth: bool = False


def open_source(name: str) -> Source:
    """Open ``clip`` (the demo clip), ``scenes`` (rendered as they are shown), or a path.

    A path is that of a clip (a video with its ground truth beside it), a video, an image, or a
    folder of images, which are shown in the order of their names.
    Raises FileNotFoundError, ValueError or ImportError saying what is wrong.
    """
    if name == CLIP:
        return _clip(None)
    if name == SCENES:
        return _scenes()
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{name!r} is no file or folder; a source is {CLIP}, {SCENES}, or the path of a "
            "video, an image or a folder of images"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Source(str(path), _IMAGE_FPS, lambda: iter([Shot(read_image(path))]))
    if path.with_suffix(".npz").is_file():
        return _clip(path)
    return _video(path)


def _clip(path: Path | None) -> Source:
    clip = open_clip(path)

    def play() -> Iterator[Shot]:
        for frame in clip:
            yield Shot(frame.image, frame.people)

    name = CLIP if path is None else str(path)
    return Source(name, clip.fps, play, camera_matrix=clip.camera_matrix, has_truth=True)


def _scenes() -> Source:
    from bmp_ros.synthetic.clip import render_clip
    from bmp_ros.synthetic.generator import shared_renderer

    try:
        shared_renderer()
    except (ImportError, RuntimeError) as error:
        raise ImportError(f"live scenes cannot be rendered here: {error}") from error
    first = next(render_clip(0, 1 / _SCENE_FPS, _SCENE_FPS))

    def play() -> Iterator[Shot]:
        for seed in count():
            for sample in render_clip(seed, _SCENE_SECONDS, _SCENE_FPS):
                yield Shot(sample.image, sample.people)

    return Source(
        SCENES, _SCENE_FPS, play, endless=True, camera_matrix=first.camera.matrix, has_truth=True
    )


def _folder(path: Path) -> Source:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise FileNotFoundError(
            f"{path} holds no image ({', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES)})"
        )

    def play() -> Iterator[Shot]:
        for file in files:
            yield Shot(read_image(file))

    return Source(str(path), _IMAGE_FPS, play)


def _video(path: Path) -> Source:
    fps = _video_fps(path)

    def play() -> Iterator[Shot]:
        video = cv2.VideoCapture(str(path))
        try:
            while True:
                good, image = video.read()
                if not good:
                    return
                yield Shot(image)
        finally:
            video.release()

    return Source(str(path), fps, play)


def _video_fps(path: Path) -> float:
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened() or not video.read()[0]:
            raise ValueError(
                f"{path} is no image or video that OpenCV {cv2.__version__} can decode"
            )
        fps = float(video.get(cv2.CAP_PROP_FPS))
        return fps if 0 < fps <= 1000 else _UNKNOWN_VIDEO_FPS
    finally:
        video.release()
