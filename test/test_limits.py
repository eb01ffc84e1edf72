# SPDX-License-Identifier: Apache-2.0
"""What files and messages may ask for, without ROS: a clear refusal before memory is taken."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

from bmp_ros import image_files, reading
from bmp_ros.compressed_images import decode_compressed
from bmp_ros.engines.presets import load_preset
from bmp_ros.fields import SettingsError, shown
from bmp_ros.image_files import UnreadableImageError, read_image
from bmp_ros.image_size import announced_size
from bmp_ros.interaction.zones import MAX_CORNERS, MAX_ZONES, ZoneError, parse_zones
from bmp_ros.loop.masks import paste_runs
from bmp_ros.offline import video
from bmp_ros.offline.box_file import BoxFile, BoxFileError
from bmp_ros.offline.results_reading import ResultsError, open_results
from bmp_ros.offline.video import UnreadableVideoError, VideoFrames
from bmp_ros.pixels import MAX_PIXELS, ImageError, RawImage, decode_raw
from bmp_ros.received_people import MAX_PEOPLE, people_from_message
from bmp_ros.resources import is_preset_path
from bmp_ros.stamp_buffer import StampBuffer

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 64, 3), dtype=np.uint8)
SUFFIXES = (".jpg", ".png", ".webp", ".bmp", ".tiff", ".jp2", ".ppm", ".ras")


def encoded(suffix: str, image: np.ndarray = IMAGE) -> bytes:
    return bytes(cv2.imencode(suffix, image)[1])


def claiming(data: bytes, width: int, height: int) -> bytes:
    """An encoded image of 64x40 whose header says another size."""
    order = "<" if data[:2] in (b"BM", b"II") else ">"
    code, old = "HH", (40, 64)
    if data.startswith((b"\x89PNG", b"BM")):
        code, old = "II", (64, 40)
    if code == "HH" and data.startswith(b"\xff\xd8"):
        return data.replace(struct.pack(">HH", *old), struct.pack(">HH", height, width), 1)
    return data.replace(
        struct.pack(order + code, *old), struct.pack(order + code, width, height), 1
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_announced_sizes_are_those_of_the_pixels(suffix: str) -> None:
    data = encoded(suffix)
    assert announced_size(data) == (64, 40)
    for kept in range(0, min(len(data), 64) if suffix != ".ppm" else 0):  # text, not numbers
        assert announced_size(data[:kept]) in (None, (64, 40))


def test_announced_sizes_of_the_other_kinds_of_webp() -> None:
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101]
    assert announced_size(bytes(cv2.imencode(".webp", IMAGE, lossless)[1])) == (64, 40)
    extended = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + bytes([63, 0, 0, 39, 0, 0])
    assert announced_size(extended) == (64, 40)
    assert announced_size(b"GIF89a" + struct.pack("<HH", 64, 40)) == (64, 40)
    assert announced_size(b"P5\n# of a scanner\n64 40\n255\n") == (64, 40)


@pytest.mark.parametrize("filler", [b" ", b"\n", b"#\n", b"# \n "])
def test_time_for_the_header_of_a_pnm_grows_with_its_length(filler: bytes) -> None:
    """A header of 40 spaces that no number follows once took hours."""
    start = time.process_time()
    for header in (b"P5" + filler * 4000 + b"x", b"P5 64" + filler * 4000 + b"x"):
        assert announced_size(header) is None
    assert announced_size(b"P5" + filler * 400 + b"64" + filler * 400 + b"40\n") == (64, 40)
    assert time.process_time() - start < 5.0


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_small_files_that_claim_gigabytes(tmp_path: Path, suffix: str) -> None:
    data = claiming(encoded(suffix), 30_000, 30_000)
    with pytest.raises(
        ImageError, match=f"30000x30000 are 900000000 pixels, at most {MAX_PIXELS}"
    ):
        decode_compressed(data, "jpeg")
    path = tmp_path / f"claims{suffix}"
    path.write_bytes(data)
    with pytest.raises(UnreadableImageError, match="claims.* announces 30000x30000 pixels, at m"):
        read_image(path)


def test_a_frame_header_behind_noise_is_seen() -> None:
    """Decoders skip bytes between segments; whoever looks only at segments sees no size."""
    data = claiming(encoded(".jpg"), 30_000, 30_000)
    data = data[:20] + b"\0\0\0" + data[20:]  # after the first segment
    with pytest.raises(ImageError, match="900000000 pixels"):
        decode_compressed(data, "jpeg")


def test_a_png_whose_part_claims_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV reads zeros for the length that is claimed: seconds, and as much memory."""
    data = bytearray(encoded(".png"))
    struct.pack_into(">I", data, data.index(b"IDAT") - 4, 2**31 - 1)

    def decode(*_: object) -> None:
        raise AssertionError("OpenCV was asked")

    monkeypatch.setattr(cv2, "imdecode", decode)
    with pytest.raises(ImageError, match="a PNG that ends too early"):
        decode_compressed(bytes(data), "png")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(UnreadableImageError, match="the PNG ends too early"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".jp2", ".ppm", ".ras"])
def test_messages_have_only_what_ros_writes(suffix: str) -> None:
    with pytest.raises(ImageError, match="no whole JPEG, PNG, WebP, BMP or TIFF"):
        decode_compressed(encoded(suffix), "bgr8; jpeg")


def test_raw_images_beyond_the_limit() -> None:
    with pytest.raises(ImageError, match="at most 67108864 are processed: let the driver"):
        decode_raw(RawImage("mono8", 30_000, 30_000, 30_000, False, b""))


def test_jpeg_2000_is_decoded_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV's reader frees a pointer that it never set when it refuses a header: what happens
    then depends on what was decoded before, and is often the end of the process."""

    def decode(data: np.ndarray) -> None:
        raise AssertionError("decoded here")

    monkeypatch.setattr(image_files, "_decode_here", decode)
    data = bytearray(encoded(".jp2"))
    at = data.index(b"\xff\x4f\xff\x51")
    path = tmp_path / "a.jp2"
    path.write_bytes(data)
    assert read_image(path).shape == IMAGE.shape
    data[at + 42] = 43  # bits of the second component
    path.write_bytes(data)
    with pytest.raises(UnreadableImageError, match="is no whole image"):
        read_image(path)


@pytest.mark.parametrize("module", ["numpy", "cv2"])
def test_nothing_of_the_current_folder_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """Images of strangers come in folders of strangers."""
    (tmp_path / f"{module}.py").write_text("open('was_run', 'w').close()\n")
    (tmp_path / "a.jp2").write_bytes(encoded(".jp2"))
    monkeypatch.chdir(tmp_path)
    assert read_image(Path("a.jp2")).shape == IMAGE.shape
    assert not Path("was_run").exists()


def test_files_larger_than_what_they_are_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(encoded(".png"))
    monkeypatch.setattr(image_files, "MAX_IMAGE_BYTES", 100)
    with pytest.raises(UnreadableImageError, match="large.png has more than 100 bytes"):
        read_image(path)
    with pytest.raises(reading.FileTooLargeError, match="more than 7 bytes.*: split it"):
        reading.read_limited(path, 7, "split it")
    preset = tmp_path / "mine.yaml"
    preset.write_text("#" * (reading.MAX_SETTINGS_BYTES + 1))
    with pytest.raises(SettingsError, match="mine.yaml has more than 1048576 bytes"):
        load_preset(preset)


def test_reading_takes_no_more_memory_than_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    for content in (b"", b"[]", bytes(3 << 20)):
        path.write_bytes(content)
        tracemalloc.start()
        assert reading.read_limited(path, reading.MAX_JSON_BYTES, "split it") == content
        assert tracemalloc.get_traced_memory()[1] < 1e7
        tracemalloc.stop()
    assert reading.read_limited(path, 3 << 20, "split it") == content
    with pytest.raises(reading.FileTooLargeError):
        reading.read_limited(path, (3 << 20) - 1, "split it")


def test_lists_of_lists_in_yaml_are_not_written_out(tmp_path: Path) -> None:
    """Nine lines that are 10**9 words when an error message shows them."""
    lines = ["a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    bomb = tmp_path / "bomb.yaml"
    for key in ("description", "loop", "detector", "engine_files"):
        bomb.write_text("\n".join(lines).replace("i: &i", f"{key}: &i").replace("a: &a", "a: &a"))
        tracemalloc.start()
        with pytest.raises(SettingsError) as caught:
            load_preset(bomb)
        assert len(str(caught.value)) < 2000 and tracemalloc.get_traced_memory()[1] < 1e7
        tracemalloc.stop()
    assert len(shown(yaml.safe_load("\n".join(lines)))) < 2000


@pytest.mark.parametrize("text", ["description: {}", "? {}\n: 1"])
def test_numbers_of_thousands_of_digits(tmp_path: Path, text: str) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text(text.format(f"0x{'f' * 9000}"))
    with pytest.raises(SettingsError, match="a number of 36000 bits"):
        load_preset(preset)


def test_dates_that_are_none_and_deep_yaml(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    for text in ("description: 2001-99-99\n", "a: " + "[" * 5000):
        preset.write_text(text)
        with pytest.raises(SettingsError, match="not a YAML file"):
            load_preset(preset)


def test_deep_json(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text("[" * 200_000)
    with pytest.raises(ResultsError, match="is no JSON"):
        open_results(file)
    with pytest.raises(BoxFileError, match="is not JSON"):
        BoxFile(file)
    file.write_text(json.dumps([{"file_name": "a", "bbox": [1, 2, 3, 4]}]))
    BoxFile(file)


def test_archives_said_to_be_one_of_several(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from bmp_ros.weights.checkpoint import load_checkpoint
    from bmp_ros.weights.errors import BadCheckpoint

    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", b"")
    end = path.read_bytes()
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 9)
    path.write_bytes(end[:-22] + locator + end[-22:])
    with pytest.raises(BadCheckpoint, match=r"w\.pth .* is not a checkpoint"):
        load_checkpoint(path)


def test_tensors_larger_than_their_storage(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from bmp_ros.weights.checkpoint import load_checkpoint
    from bmp_ros.weights.errors import BadCheckpoint

    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(1).expand(3, 4)}, path)
    assert load_checkpoint(path).state_dict["a"].shape == (3, 4)
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, path)
    assert path.stat().st_size < 3000
    with pytest.raises(BadCheckpoint, match=r"a has 4398046511104 bytes .* and 4 are stored"):
        load_checkpoint(path)
    several = {name: torch.zeros(1).expand(1 << 23) for name in "abc"}  # 32 MiB each
    torch.save({name: several[name] for name in "ab"}, path)
    assert load_checkpoint(path).state_dict["b"].shape == (1 << 23,)
    torch.save(several, path)
    with pytest.raises(BadCheckpoint, match=r"c has 33554432 bytes .*, of all tensors together"):
        load_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr"])
def test_sparse_tensors_are_refused(tmp_path: Path, layout: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from bmp_ros.weights.checkpoint import load_checkpoint
    from bmp_ros.weights.errors import BadCheckpoint

    path = tmp_path / "w.pth"
    torch.save({"a": torch.eye(3).to_sparse(layout=getattr(torch, layout))}, path)
    with pytest.raises(BadCheckpoint, match=rf"w\.pth: a has the layout torch\.{layout}, only"):
        load_checkpoint(path)


def test_masks_are_measured_before_they_are_made() -> None:
    target = np.zeros((8, 8), np.bool_)
    with pytest.raises(ValueError, match=r"x=0 y=0 of 4294967295x1 pixels lies outside the i"):
        paste_runs(target, np.array([0, 2**32 - 1], np.uint32), (0, 0, 2**32 - 1, 1))
    with pytest.raises(ValueError, match="outside"):
        paste_runs(target, np.array([4], np.uint32), (7, 0, 2, 2))
    paste_runs(target, np.array([1, 3], np.uint32), (6, 6, 2, 2))
    assert target.sum() == 3 and not target[6, 6]


def test_videos_of_larger_frames_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 40))
    writer.write(IMAGE)
    writer.release()
    assert len(list(VideoFrames(path))) == 1
    monkeypatch.setattr(video, "_MOST_PIXELS", 2559)
    with pytest.raises(
        UnreadableVideoError, match=r"a\.avi announces frames of 64x40 pixels, at m"
    ):
        VideoFrames(path)


def test_messages_about_more_people_or_pixels_than_are_read() -> None:
    def message(people: int, height: int, width: int) -> SimpleNamespace:
        return SimpleNamespace(people=[None] * people, height=height, width=width)

    with pytest.raises(ValueError, match=f"1001 people, at most {MAX_PEOPLE} are read"):
        people_from_message(message(1001, 48, 64))
    for people, side in ((1, 2**31), (1, 9000), (1000, 4000)):
        with pytest.raises(ValueError, match=rf"{people} people in an image of {side}x{side} pix"):
            people_from_message(message(people, side, side))


def test_zones_without_end() -> None:
    zone = "z{}: 0 0; 1 0; 1 1"
    assert len(parse_zones([zone.format(n) for n in range(MAX_ZONES)])) == MAX_ZONES
    with pytest.raises(ZoneError, match=f"65 zones, at most {MAX_ZONES}"):
        parse_zones([zone.format(n) for n in range(MAX_ZONES + 1)])
    angles = np.linspace(0, 6.28, MAX_CORNERS + 1, endpoint=False)
    corners = [f"{0.5 + 0.4 * np.cos(a):.6f} {0.5 + 0.4 * np.sin(a):.6f}" for a in angles]
    assert len(parse_zones(["round: " + "; ".join(corners[:-1])])[0].points) == MAX_CORNERS
    with pytest.raises(ZoneError, match=f"65 corners, at most {MAX_CORNERS}"):
        parse_zones(["round: " + "; ".join(corners)])


def test_what_waits_has_no_more_bytes_than_allowed() -> None:
    buffer: StampBuffer[bytes] = StampBuffer(10, most_bytes=100)
    for stamp in range(10):
        buffer.put(stamp, bytes(30))
    assert len(buffer) == 3 and buffer.nearest(0, 0) is None
    buffer.put(11, bytes(1000))
    assert buffer.nearest(11, 0) == (11, bytes(1000)) and len(buffer) == 1


def test_what_is_the_path_of_a_preset() -> None:
    assert [is_preset_path(name) for name in ("tiny", "auto", "tiny.yaml", "a/b", "/x", "..")] == [
        False,
        False,
        True,
        True,
        True,
        False,
    ]
    assert all(map(is_preset_path, ("MINE.YML", "./mine", "mine/")))  # fmt: skip
