# SPDX-License-Identifier: Apache-2.0
"""Videos frame by frame: how they stand, when their frames are due, what breaks them."""

from __future__ import annotations

import os
import resource
import struct
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.offline.sources import VideoSource
from bmp_ros.offline.video import UnreadableVideoError, VideoFile, VideoFrames
from bmp_ros.offline.video_orientation import video_orientation
from bmp_ros.writing import BeingWrittenError

SIZE = (64, 48)


def grey(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def write_video(path: Path, levels: list[int], fps: float = 10.0) -> Path:
    video = VideoFile(path, fps, *SIZE)
    for level in levels:
        video.write(grey(level))
    video.close()
    return path


def encoded(path: Path, code: str, levels: list[int], size: tuple[int, int] = SIZE) -> bytes:
    """A video of ten frames a second in the container of the path's suffix."""
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), 10.0, size
    )  # fmt: skip
    if not writer.isOpened():
        pytest.skip(f"this build of FFmpeg writes no {code}")
    for level in levels:
        writer.write(grey(level, size[1], size[0]))
    writer.release()
    return path.read_bytes()


def levels_of(video: VideoFrames) -> list[int]:
    return [int(np.median(image)) for image in video]


def test_round_trip_below_any_name(tmp_path: Path) -> None:
    levels = [20, 60, 100, 140, 180, 220]
    path = write_video(tmp_path / "Straße 人 %02d.mp4", levels, 12.5)
    with VideoFrames(path) as video:
        assert (video.expected, video.fps, video.read) == (6, 12.5, 0)
        seen = levels_of(video)
        assert video.broken() is None
    assert video.read == 6
    np.testing.assert_allclose(seen, levels, atol=4)


@pytest.mark.parametrize("name", [b"v\xefd.mp4", b"\xff\xfe.mp4", b"a\n\xe9 b.mp4"])
def test_names_that_are_no_text(tmp_path: Path, name: bytes) -> None:
    """OpenCV would crash."""
    folder = tmp_path / os.fsdecode(b"folder\xfc")
    folder.mkdir()
    path = write_video(folder / os.fsdecode(name), [20, 200])
    assert path.stat().st_size > 500 and not path.is_symlink()
    with VideoFrames(path) as video:
        np.testing.assert_allclose(levels_of(video), [20, 200], atol=4)
    path.write_bytes(b"x")
    with pytest.raises(UnreadableVideoError) as error:
        VideoFrames(path)
    str(error.value).encode("utf-8")
    with pytest.raises(OSError) as missing:
        VideoFile(folder / "gone" / os.fsdecode(name), 10, *SIZE)
    str(missing.value).encode("utf-8")


def test_a_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rtsp:a.mp4", "concat:b.mp4", "-i.mp4"):
        write_video(Path(name), [20, 200])
        with VideoFrames(Path(name)) as video:
            assert len(list(video)) == 2


# Display matrices (a, b, c, d) with the turns that they mean.
TURNS = {
    (1, 0, 0, 1): lambda image: image,
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (0, 1, 1, 0): lambda image: image.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda image: np.rot90(image, 2).transpose(1, 0, 2),
}


def set_matrix(path: Path, box: bytes, place: int, matrix: tuple[int, int, int, int]) -> None:
    content = bytearray(path.read_bytes())
    start = content.index(box) + 4 + place
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", content, start, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


@pytest.mark.parametrize("matrix", TURNS)
@pytest.mark.parametrize("box", ["tkhd", "mvhd"])
def test_videos_are_turned_as_their_container_says(
    tmp_path: Path, matrix: tuple[int, int, int, int], box: str
) -> None:
    path = tmp_path / "phone.mp4"
    picture = grey(60)
    picture[:24, :32], picture[32:, 32:] = 250, 160
    writer = VideoFile(path, 10, *SIZE)
    for _ in range(3):
        writer.write(picture)
    writer.close()
    set_matrix(path, box.encode(), {"tkhd": 40, "mvhd": 36}[box], matrix)
    upright = TURNS[matrix](picture)
    with VideoFrames(path) as video:
        for image in video:
            assert image.shape == upright.shape
            assert np.abs(image.astype(int) - upright).mean() < 3
    assert video.read == 3


def test_both_matrices_count(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [20, 200])
    set_matrix(path, b"mvhd", 36, (0, 1, -1, 0))
    set_matrix(path, b"tkhd", 40, (0, -1, 1, 0))
    with VideoFrames(path) as video:
        assert next(iter(video)).shape == (48, 64, 3), "there and back"


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_any_file_may_be_asked_how_it_stands(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h264"
        for start in (b"", bytes(3) + b"\1moov" + bytes(8), b"\0\0\0\1moov" + b"\xff" * 8):
            path.write_bytes(start + content)
            assert video_orientation(path, cv2.VideoCapture()) == 1


def ivf(path: Path, times: list[int], promised: int) -> Path:
    """VP8 at the given times, tenths of a second; ``promised``: length that the header says."""
    content = encoded(path, "VP80", [10 * number for number in range(len(times))])
    header = bytearray(content[:32])
    rate, scale = struct.unpack_from("<II", header, 16)
    struct.pack_into("<III", header, 16, 10, 1, promised)
    assert rate == 10 * scale
    out, place = bytes(header), 32
    for time in times:
        (size,) = struct.unpack_from("<I", content, place)
        frame = content[place + 12 : place + 12 + size]
        out += struct.pack("<IQ", size, time) + frame
        place += 12 + size
    path.write_bytes(out)
    return path


VARIABLE = [*range(11), 14, 18, 22, 26]


def test_times_are_those_of_the_file(tmp_path: Path) -> None:
    path = ivf(tmp_path / "a.ivf", VARIABLE, 27)
    with VideoFrames(path) as video:
        seconds = [round(video.seconds, 4) for _ in video]
        assert video.expected == 27, "more than there are, and nothing is missing"
        assert video.broken() is None
    assert seconds == [time / 10 for time in VARIABLE]


def test_times_that_do_not_rise_are_replaced(tmp_path: Path) -> None:
    """Such as in files that were joined, or with twice the same stamp."""
    times = [0, 1, 2, 2, 4, 500000, 500001, 3, 4]
    with VideoFrames(ivf(tmp_path / "a.ivf", times, 9)) as video:
        seconds = [round(video.seconds, 3) for _ in video]
    assert seconds == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]


def test_a_stream_without_times_counts_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.mjpeg"
    path.write_bytes(b"".join(cv2.imencode(".jpg", grey(n))[1].tobytes() for n in (20, 90, 200)))
    with VideoFrames(path) as video:
        fps = video.fps
        seconds = [video.seconds for _ in video]
    np.testing.assert_allclose(seconds, np.arange(3) / fps, atol=1e-6)


@pytest.mark.parametrize("name", ["cut.avi", "cut.ivf"])
def test_a_video_that_breaks_off_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    random = np.random.default_rng(0)
    code = {"cut.avi": "MJPG", "cut.ivf": "VP80"}[name]
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), 10.0, SIZE
    )  # fmt: skip
    for _ in range(40):
        writer.write(random.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with VideoFrames(path) as video:
        read = len(list(video))
        problem = video.broken()
    assert 10 < read < 30
    assert problem is not None and f"{name} broke off after {read} of 40 frames" in problem


def test_a_video_whose_frames_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(encoded(path, "mp4v", [20 + 4 * number for number in range(40)]))
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    end = content.index(b"moov") - 4
    half = (start + end) // 2
    content[half:end] = bytes(end - half)
    path.write_bytes(content)
    with VideoFrames(path) as video:
        read = len(list(video))
        problem = video.broken()
    if read > 35:
        pytest.skip(f"this FFmpeg makes {read} frames of it")
    assert problem is not None and "a.mp4" in problem and f"{read} of 40" in problem


JOINED = {"VP80": ".ivf", "VP90": ".ivf", "MJPG": ".mjpeg", "MPG2": ".mpg", "mp4v": ".ts"}


@pytest.mark.parametrize("code", JOINED)
@pytest.mark.parametrize("sizes", [(SIZE, (96, 80)), ((96, 80), SIZE), (SIZE, (96, 48))])
def test_a_change_of_resolution_is_refused(
    tmp_path: Path, code: str, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    """OpenCV would go on with stale images."""
    suffix = JOINED[code]
    parts = [
        encoded(tmp_path / f"{number}{suffix}", code, [start + 10 * n for n in range(6)], size)
        for number, (start, size) in enumerate(zip((20, 150), sizes, strict=True))
    ]
    path = tmp_path / f"both{suffix}"
    path.write_bytes(parts[0] + parts[1][32 if suffix == ".ivf" else 0 :])
    images = []
    before, after = (f"{width}x{height}" for width, height in sizes)
    with VideoFrames(path) as video:
        with pytest.raises(UnreadableVideoError, match=f"both.* from {before} to {after} pixels"):
            images.extend(video)
    assert 4 <= len(images) <= 6
    assert all(image.shape[1::-1] == sizes[0] for image in images)
    np.testing.assert_allclose(
        [np.median(image) for image in images], [20 + 10 * n for n in range(len(images))], atol=6
    )


def test_a_still_picture_is_no_change(tmp_path: Path) -> None:
    with VideoFrames(write_video(tmp_path / "a.mp4", [90] * 150)) as video:
        assert len(list(video)) == 150


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    video = VideoFile(tmp_path / "a.mp4", 10, 64, 48)
    with pytest.raises(ValueError, match="64x48 pixels, got a frame of 48x64"):
        video.write(grey(1, 64, 48))
    video.close()


def test_written_videos_keep_the_time(tmp_path: Path) -> None:
    """Constant rate: held where the next frame is late, left out where it comes too early."""
    video = VideoFile(tmp_path / "a.mp4", 10, *SIZE)
    for level, seconds in ((20, 5.0), (60, 5.1), (100, 5.5), (140, 5.52), (180, 5.54), (220, 5.7)):
        video.write(grey(level), seconds)
    video.close()
    with VideoFrames(tmp_path / "a.mp4") as written:
        seen = levels_of(written)
    np.testing.assert_allclose(seen, [20, 60, 60, 60, 60, 100, 140, 220], atol=5)


def test_the_rate_fits_the_fastest_part(tmp_path: Path) -> None:
    with VideoFrames(ivf(tmp_path / "a.ivf", [0, 4, 8, 9, 10, 11, 15], 16)) as video:
        assert video.steady_fps == pytest.approx(10)
    with VideoFrames(write_video(tmp_path / "a.mp4", [20] * 8, 12.5)) as video:
        assert video.steady_fps == 12.5


@pytest.mark.parametrize(
    ("size", "written"),
    [
        ((1, 1), (16, 16)), ((2, 5000), (16, 5000)), ((5000, 1), (5000, 16)),
        ((3, 20000), (16, 8190)), ((20000, 3), (8190, 16)), ((641, 479), (642, 480)),
    ],
)  # fmt: skip
def test_tall_tiny_and_odd_videos(
    tmp_path: Path, size: tuple[int, int], written: tuple[int, int]
) -> None:
    """FFmpeg's encoder corrupts its memory for narrow ones, and the format ends at 8191."""
    video = VideoFile(tmp_path / "a.mp4", 10, *size)
    for level in (60, 200):
        video.write(grey(level, size[1], size[0]))
    video.close()
    assert video.written_size == written
    with VideoFrames(tmp_path / "a.mp4") as frames:
        images = list(frames)
    assert [image.shape[1::-1] for image in images] == [written] * 2
    assert abs(int(images[1][0, 0, 0]) - 200) < 12


def test_two_do_not_write_one_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    first = VideoFile(path, 10, *SIZE)
    first.write(grey(20))
    with pytest.raises(BeingWrittenError, match="another run writes .*a.mp4"):
        VideoFile(path, 10, *SIZE)
    first.write(grey(200))
    first.close()
    with VideoFrames(path) as video:
        assert len(levels_of(video)) == 2
    write_video(path, [20])
    with pytest.raises(OSError, match="cannot write MPEG-4"):
        VideoFile(tmp_path / "a.unknown", 10, *SIZE)
    assert [each.name for each in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_that_does_not_fit_on_the_disk(tmp_path: Path) -> None:
    """OpenCV says nothing; a limit on the size of files stands for the full disk."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), np.uint8)
    video = VideoFile(tmp_path / "a.mp4", 10, *SIZE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, before[1]))
    try:
        for image in noise:
            video.write(image)
        with pytest.raises(OSError, match=r"a.mp4: of 20 frames \d+ could be written"):
            video.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    video.close()  # nothing more to do


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
    with pytest.raises(FileNotFoundError):
        VideoFrames(tmp_path / "gone.mp4")


def test_a_stream_that_does_not_answer(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnreadableVideoError, match="http://127.0.0.1:1/a.mp4 cannot be opened"):
        VideoFrames("http://user:secret@127.0.0.1:1/a.mp4")
