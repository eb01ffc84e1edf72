# SPDX-License-Identifier: Apache-2.0
"""What ``--source`` means, and what of a folder counts."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from bmp_ros.image_files import IMAGE_SUFFIXES
from bmp_ros.offline.sources import VIDEO_SUFFIXES, ImageSource, VideoSource, open_source


def names(folder: Path, said: list[str] | None = None) -> list[str]:
    warn = [].append if said is None else said.append
    return [source.name for source in open_source(str(folder), warn)]


def test_what_counts_in_a_folder_and_what_is_left_out(tmp_path: Path) -> None:
    for name in (
        "b.PNG", "a.jpg", "clip.MOV", "c.jfif", "d.JPE", "e.3gp", "notes.txt", "results.json",
        "more.txt", "f.heic", "README", "._a.jpg", ".hidden.png", "._clip.mov",
    ):  # fmt: skip
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "looks.jpg").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.jpg")
    said: list[str] = []
    assert names(tmp_path, said) == [
        "a.jpg", "b.PNG", "c.jfif", "clip.MOV", "d.JPE", "e.3gp", "gone.png",
    ]  # fmt: skip
    (line,) = said
    assert "left out 1 *.heic, 1 *.json, 2 *.txt, 1 device or pipe, 2 subfolder, 1 without" in line


def test_order_is_natural(tmp_path: Path) -> None:
    for number in (10, 2, 1, 11):
        (tmp_path / f"frame{number}.jpg").write_bytes(b"x")
    assert names(tmp_path) == [f"frame{number}.jpg" for number in (1, 2, 10, 11)]


def test_names_that_are_no_text(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"f\xfc")
    folder.mkdir()
    for name in (b"caf\xe9.png", b"v\xefd.mp4", b"x.\xe9"):
        (folder / os.fsdecode(name)).write_bytes(b"x")
    said: list[str] = []
    assert names(folder, said) == ["caf\\xe9.png", "v\\xefd.mp4"]
    said[0].encode("utf-8")
    assert "f\\xfc: left out 1 *.\\xe9" in said[0]
    for name in (b"caf\xe9", b"caf\xe9.png"):
        (folder / os.fsdecode(name)).write_bytes(cv2.imencode(".png", np.zeros((9, 9)))[1])
        (source,) = open_source(str(folder / os.fsdecode(name)))
        assert isinstance(source, ImageSource)


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, *VIDEO_SUFFIXES])
def test_a_single_file_counts_as_in_a_folder(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix.upper()}").write_bytes(b"x")
    kind = ImageSource if suffix in IMAGE_SUFFIXES else VideoSource
    assert open_source(str(tmp_path)) == open_source(str(tmp_path / f"a{suffix.upper()}"))
    assert isinstance(open_source(str(tmp_path))[0], kind)


def test_single_files_of_other_names_are_told_by_their_content(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm"):
        path = tmp_path / f"like{suffix}.orig"
        path.write_bytes(cv2.imencode(suffix, np.zeros((9, 9, 3), np.uint8))[1])
        assert open_source(str(path)) == [ImageSource(path)]
    (tmp_path / "notes.txt").write_bytes(b"x")
    assert open_source(str(tmp_path / "notes.txt")) == [VideoSource(tmp_path / "notes.txt")]


def test_what_exists_on_disk_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_source("2") == [VideoSource(2)]
    demo = open_source("demo")
    assert isinstance(demo[0], VideoSource) and demo[0].length() == 240
    (tmp_path / "2").write_bytes(b"x")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "a.jpg").write_bytes(b"x")
    (tmp_path / "rtsp:").mkdir()
    (tmp_path / "rtsp:" / "a.mp4").write_bytes(b"x")
    assert open_source("2") == [VideoSource(Path("2"))]
    assert open_source("demo") == [ImageSource(Path("demo/a.jpg"))]
    assert open_source("rtsp://a.mp4") == [VideoSource(Path("rtsp:/a.mp4"))]
    assert open_source((tmp_path / "2").as_uri()) == [VideoSource(tmp_path / "2")]


def test_addresses_keep_their_slashes_and_their_secrets() -> None:
    for text in ("rtsp://127.0.0.1/stream", "http://camera.local:8080/video?x=1", "udp://@:1234"):
        assert open_source(text) == [VideoSource(text)]
    (source,) = open_source("rtsp://user:secret@host.example:554/live/ch1")
    assert isinstance(source, VideoSource) and source.live and source.length() is None
    assert source.name == "rtsp://host.example:554/live/ch1"
    assert source.drawn_name == "host.example-live-ch1.mp4"
    with pytest.raises(ValueError, match="gopher://a/b.*streams begin with rtsp://") as error:
        open_source("gopher://user:secret@a/b")
    assert "secret" not in str(error.value)
    for text in ("rtsp://", "http://ä.example/", "http://a b/"):
        with pytest.raises(ValueError, match="is no address"):
            open_source(text)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", FileNotFoundError, "is empty; give an image"),
        ("gone.jpg", FileNotFoundError, "'gone.jpg' is not there; give an image"),
        ("a\0b", FileNotFoundError, "is not there"),
        ("x" * 5000, FileNotFoundError, "is not there"),
        ("100", ValueError, "0 to 99, got 100"),
        ("9" * 30, ValueError, "0 to 99"),
        ("٣", FileNotFoundError, "is not there"),
        ("file:///gone/a.jpg", FileNotFoundError, "'/gone/a.jpg' is not there"),
    ],
)
def test_what_is_no_source(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        open_source(text)


def test_a_folder_of_other_things(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no image or video in .* \(it is empty\)"):
        open_source(str(tmp_path))
    (tmp_path / "a.txt").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"\(1 \*.txt\); names must end with .jpg, [^;]*$"):
        open_source(str(tmp_path))

    (tmp_path / "below").mkdir()
    with pytest.raises(FileNotFoundError, match="--workers 1 goes through subfolders, too"):
        open_source(str(tmp_path))


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # tests may run as root
    with pytest.raises(PermissionError, match=f"{tmp_path}: no permission to look into"):
        open_source(str(tmp_path / "a.png"))


def test_names_of_what_is_drawn() -> None:
    assert ImageSource(Path("in/a.JPG")).drawn_name == "a.JPG"
    assert ImageSource(Path("in/a.jfif")).drawn_name == "a.jfif"
    assert ImageSource(Path("in/grey.pgm")).drawn_name == "grey.pgm.png"
    assert ImageSource(Path("in/a.heic")).drawn_name == "a.heic.png"
    assert VideoSource(Path("in/a.mp4")).drawn_name == "a.mp4"
    assert VideoSource(Path("in/a.mov")).drawn_name == "a.mov.mp4"
    assert VideoSource(0).drawn_name == "camera0.mp4"
