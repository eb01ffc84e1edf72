# SPDX-License-Identifier: Apache-2.0
"""Videos frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bmp_ros.offline.sources import ImageSource, VideoSource, open_source
from bmp_ros.offline.video import UnreadableVideoError, VideoFile, VideoFrames


def grey(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def write_video(path: Path, levels: list[int], fps: float = 10.0) -> Path:
    video = VideoFile(path, fps, 64, 48)
    for level in levels:
        video.write(grey(level))
    video.close()
    return path


def test_round_trip_below_any_name(tmp_path: Path) -> None:
    levels = [20, 60, 100, 140, 180, 220]
    path = write_video(tmp_path / "Straße 人 %02d.mp4", levels, 12.5)
    with VideoFrames(path) as video:
        assert (video.expected, video.fps, video.read) == (6, 12.5, 0)
        seen = [int(np.median(image)) for image in video]
    assert video.read == 6
    np.testing.assert_allclose(seen, levels, atol=4)


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    video = VideoFile(tmp_path / "a.mp4", 10, 64, 48)
    with pytest.raises(ValueError, match="64x48 pixels, got a frame of 48x64"):
        video.write(grey(1, 64, 48))
    video.close()


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot write MPEG-4 video to .*gone/a.mp4"):
        VideoFile(tmp_path / "gone" / "a.mp4", 10, 64, 48)


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kein Vidéo.mp4"
    path.write_bytes(b"something else")
    with pytest.raises(UnreadableVideoError, match=r"kein Vidéo.mp4 \(14 bytes\) is no video"):
        VideoFrames(path)
    assert VideoSource(path).length() == 0
    with pytest.raises(UnreadableVideoError, match="camera 63 cannot be opened"):
        VideoFrames(63)


def test_what_a_source_is(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "clip.MOV", "notes.txt", "results.json"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "deeper").mkdir()
    names = [source.path.name for source in open_source(str(tmp_path)) if source.path]
    assert names == ["a.jpg", "b.PNG", "clip.MOV"]
    assert open_source(str(tmp_path / "a.jpg")) == [ImageSource(tmp_path / "a.jpg")]
    assert open_source("2") == [VideoSource(2)]
    assert open_source(str(tmp_path / "notes.txt")) == [VideoSource(tmp_path / "notes.txt")]
    with pytest.raises(FileNotFoundError, match="no image or video in .*deeper"):
        open_source(str(tmp_path / "deeper"))
    with pytest.raises(FileNotFoundError, match="source '.*gone.jpg' is not there; give an image"):
        open_source(str(tmp_path / "gone.jpg"))


def test_demo_is_the_demo_clip() -> None:
    (demo,) = open_source("demo")
    assert isinstance(demo, VideoSource) and demo.length() == 240


def test_names_of_what_is_drawn() -> None:
    assert ImageSource(Path("in/a.JPG")).drawn_name == "a.JPG"
    assert ImageSource(Path("in/grey.pgm")).drawn_name == "grey.pgm.png"
    assert VideoSource(Path("in/a.mp4")).drawn_name == "a.mp4"
    assert VideoSource(Path("in/a.mov")).drawn_name == "a.mov.mp4"
    assert VideoSource(0).drawn_name == "camera0.mp4"
