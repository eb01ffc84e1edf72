# SPDX-License-Identifier: Apache-2.0
"""The decoders that benchmarks/fuzz.py feeds: valid inputs of each, how to alter and read them.

A target has ``make(dice)``, which gives one case, ``feed(case)``, which has to return or to raise
one of ``allowed``, the exceptions that the docstrings name.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fuzz_mutations import ODD, altered, mutated, with_checksums

ROOT = Path(__file__).resolve().parent.parent
HEIGHT, WIDTH = 24, 32


def picture(channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    """A small image with smooth and rough parts."""
    dice = np.random.default_rng(1)
    ramp = np.linspace(0, np.iinfo(dtype).max, WIDTH)[None, :, None]
    image = np.broadcast_to(ramp, (HEIGHT, WIDTH, channels)).copy()
    image[8:16] = dice.integers(0, np.iinfo(dtype).max, (8, WIDTH, channels))
    return np.squeeze(image.astype(dtype))


def encoded_pictures() -> list[bytes]:
    """One of every format and kind that OpenCV writes."""
    found = []
    for suffix, image, options in (
        (".jpg", picture(), []), (".jpg", picture(1), []),
        (".jpg", picture(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".jpg", picture(), [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
        (".png", picture(), []), (".png", picture(4), []), (".png", picture(1), []),
        (".png", picture(3, np.uint16), []), (".png", picture(1, np.uint16), []),
        (".webp", picture(), []), (".webp", picture(4), [cv2.IMWRITE_WEBP_QUALITY, 101]),
        (".bmp", picture(), []), (".tiff", picture(), []), (".tiff", picture(3, np.uint16), []),
        (".jp2", picture(), []), (".ppm", picture(), []), (".pgm", picture(1), []),
        (".ras", picture(), []),
    ):  # fmt: skip
        if suffix == ".jp2":  # too small for the levels that its encoder makes
            image = cv2.resize(image, (64, 64))
        written, data = cv2.imencode(suffix, image, options)
        assert written, suffix
        found.append(data.tobytes())
    return found


class Target:
    """Bytes of one of ``seeds``, altered."""

    allowed: tuple[type[BaseException], ...] = ()
    seeds: list[bytes]

    def make(self, dice: random.Random) -> Any:
        return mutated(dice.choice(self.seeds), dice, dice.choice(self.seeds))

    def feed(self, case: Any) -> None:
        raise NotImplementedError


class OfFiles(Target):
    """Files in a folder of their own. suffix: of their names."""

    suffix = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bmp-fuzz-files-"))

    def path(self, case: bytes, suffix: str = "") -> Path:
        path = self.folder / f"case{suffix or self.suffix}"
        path.write_bytes(case)
        return path


class ImageMessage(Target):
    """A serialised sensor_msgs/Image, as a subscription receives it."""

    def __init__(self) -> None:
        from rclpy.serialization import serialize_message
        from sensor_msgs.msg import Image

        from bmp_ros.pixels import ENCODINGS, ImageError

        self.allowed = (ImageError,)
        self.seeds = []
        for number, encoding in enumerate(ENCODINGS):
            step = WIDTH * (8 if "16" in encoding else 4)
            message = Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=step)
            message.is_bigendian, message.header.frame_id = number % 2, "camera"
            message.data = array("B", bytes(range(256)) * (step * HEIGHT * 3 // 256))
            self.seeds.append(bytes(serialize_message(message)))

    def feed(self, case: bytes) -> None:
        from bmp_ros.ros.image_messages import decode_image, read_image

        image = decode_image(read_image(case)).image
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
        int(image.sum())


class CompressedMessage(Target):
    """Format and bytes of a sensor_msgs/CompressedImage."""

    def __init__(self) -> None:
        from bmp_ros.pixels import ImageError

        self.allowed = (ImageError,)
        self.seeds = encoded_pictures()
        self.forms = (
            "jpeg", "png", "", "rgb8; jpeg compressed bgr8", "bayer_rggb8; png compressed mono8",
            "mono16; png compressed ", "rgba8; png compressed bgra8", "h264", "16UC1; tiff",
            "bayer_grbg16; jpeg", "\0;;\0",
        )  # fmt: skip

    def make(self, dice: random.Random) -> Any:
        data = super().make(dice)
        if data.startswith(b"\x89PNG") and dice.random() < 0.7:
            data = with_checksums(data)
        return dice.choice(self.forms), data

    def feed(self, case: Any) -> None:
        from bmp_ros.compressed_images import decode_compressed

        image = decode_compressed(case[1], case[0]).image
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


class CameraInfoMessage(Target):
    """A serialised sensor_msgs/CameraInfo, and odd numbers in one."""

    def __init__(self) -> None:
        from rclpy.serialization import serialize_message
        from sensor_msgs.msg import CameraInfo

        from bmp_ros.depth.calibration import CalibrationError

        self.allowed = (CalibrationError,)
        self.seeds = []
        for model, count in (("plumb_bob", 5), ("rational_polynomial", 8), ("equidistant", 4)):
            info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model=model, d=[0.01] * count)
            info.k = [30.0, 0.0, 16.0, 0.0, 30.0, 12.0, 0.0, 0.0, 1.0]
            info.p = [30.0, 0.0, 16.0, 0.0, 0.0, 30.0, 12.0, 0.0, 0.0, 0.0, 1.0, 0.0]
            self.seeds.append(bytes(serialize_message(info)))

    def make(self, dice: random.Random) -> Any:
        data = bytearray(super().make(dice))
        if dice.random() < 0.5 and len(data) > 64:
            value = dice.choice((0.0, -1.0, 1e300, 1e-300, float("nan"), float("inf"), 0.5))
            struct.pack_into("<d", data, 4 + 8 * dice.randrange(2, len(data) // 8 - 1), value)
        return bytes(data), dice.random() < 0.5

    def feed(self, case: Any) -> None:
        from rclpy.serialization import deserialize_message
        from sensor_msgs.msg import CameraInfo

        from bmp_ros.depth.calibration import Calibration

        calibration = Calibration(
            "/camera_info", rectified=case[1], parameter="camera_info_topic",
            deserialise=lambda data: deserialize_message(data, CameraInfo),
        )  # fmt: skip
        calibration.keep(case[0])
        camera = calibration.model()
        corners = np.array([[0, 0], [WIDTH, HEIGHT], [np.nan, 1], [1e9, -1e9]], np.float64)
        with np.errstate(all="ignore"):
            camera.project(camera.rays(corners))


class PeopleMessage(Target):
    """A serialised bmp_msgs/PersonArray: as boxes of another node, and as results."""

    def __init__(self) -> None:
        from rclpy.serialization import serialize_message

        sys.path.append(str(ROOT / "test" / "ros"))
        from twenty_people import masks_of_twenty_people, twenty_people

        from bmp_ros.pixels import ImageError
        from bmp_ros.ros.boxes_input import BoxesError
        from bmp_ros.ros.interfaces import BoundingBox, Mask, Person, PersonArray

        self.allowed = (ValueError, BoxesError, ImageError)
        small = PersonArray(height=HEIGHT, width=WIDTH)
        for x in (2, 12):
            mask = Mask(x_offset=x, y_offset=3, width=4, height=5, counts=array("I", [2, 15, 3]))
            box = BoundingBox(x=float(x), y=3.0, width=4.0, height=5.0)
            small.people.append(Person(score=0.9, bbox=box, mask=mask))
        large = twenty_people(masks_of_twenty_people())
        large.people = large.people[:2]
        self.seeds = [bytes(serialize_message(small))] * 9 + [bytes(serialize_message(large))]

    def feed(self, case: bytes) -> None:
        from bmp_ros.received_people import people_from_message
        from bmp_ros.ros.boxes_input import BoxesError, ReceivedBoxes, detections_of
        from bmp_ros.ros.image_messages import read_message
        from bmp_ros.ros.interfaces import PersonArray

        try:
            found = detections_of(ReceivedBoxes(case, PersonArray, "/boxes"), HEIGHT, WIDTH, "")
        except BoxesError:
            pass
        else:
            if found is not None and found.masks is not None and len(found.boxes):
                found.masks(np.arange(len(found.boxes)))
        people_from_message(read_message(case, PersonArray))


class MasksInCpp(Target):
    """Run lengths for the C++ decoder, built here with the address sanitiser."""

    allowed = (ValueError,)

    def __init__(self) -> None:
        compiler = shutil.which("c++")
        if compiler is None:
            raise SystemExit("no C++ compiler (apt: build-essential)")
        program = Path(tempfile.mkdtemp(prefix="bmp-fuzz-cpp-")) / "decode_masks"
        subprocess.run(
            [compiler, "-std=c++17", "-O1", "-g", "-fsanitize=address,undefined",
             "-fno-sanitize-recover=all", f"-I{ROOT / 'bmp_msgs' / 'include'}",
             str(ROOT / "test" / "cpp" / "decode_masks.cpp"), "-o", str(program)],
            check=True,
        )  # fmt: skip
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def make(self, dice: random.Random) -> Any:
        numbers = (0, 1, 2, 3, 5, 20, 24, 32, 2**31, 2**32 - 1)
        width, height = dice.randrange(0, 40), dice.randrange(0, 40)
        counts, left = [], width * height
        while left > 0 and len(counts) < 50:
            counts.append(min(left, dice.randrange(0, 60)))
            left -= counts[-1]
        # Sizes stay small: the program itself makes images of them.
        sizes = [HEIGHT, WIDTH, dice.choice(numbers), dice.choice(numbers), width, height]
        if dice.random() < 0.5:
            sizes[2:4] = dice.randrange(0, 8), dice.randrange(0, 8)
        for _ in range(dice.choice((0, 0, 1, 2))):
            if counts:
                counts[dice.randrange(len(counts))] = dice.choice(numbers)
        return sizes, counts

    def feed(self, case: Any) -> None:
        sizes, counts = case
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None and self.process.stderr is not None
        stdin.write(np.array([*sizes, len(counts), *counts], np.uint32).tobytes())
        stdin.flush()
        answer = stdout.read(1)
        if not answer:
            raise RuntimeError(self.process.stderr.read(2000).decode("utf-8", "replace"))
        if answer == b"\x01":
            stdout.read(int.from_bytes(stdout.read(4), "little"))
            raise ValueError
        stdout.read(8 + sizes[4] * sizes[5] + sizes[0] * sizes[1])


class CompressedDepth(Target):
    """A depth image as compressed_depth_image_transport writes it: PNG and RVL."""

    def __init__(self) -> None:
        from bmp_ros.depth.compressed_depth import CompressedDepthError

        self.allowed = (CompressedDepthError,)
        depth = picture(1, np.uint16)
        header = struct.pack("<iff", 0, 100.0, 1.0)
        rvl = struct.pack("<II", 8, 2) + bytes(range(64))
        self.seeds = [header + cv2.imencode(".png", depth)[1].tobytes(), header + rvl]

    def make(self, dice: random.Random) -> Any:
        data = super().make(dice)
        if dice.random() < 0.7 and data[12:16] == b"\x89PNG":
            data = data[:12] + with_checksums(data[12:])
        codec = "png" if data[12:16] == b"\x89PNG" else "rvl"
        return data, dice.choice(("16UC1", "32FC1", "")), codec

    def feed(self, case: Any) -> None:
        from bmp_ros.depth.compressed_depth import decode_compressed_depth

        decode_compressed_depth(*case)


class Checkpoint(OfFiles):
    """Weights: torch's archive and old format, a pickled network, safetensors."""

    def __init__(self) -> None:
        super().__init__()
        import torch
        from safetensors.torch import save

        from bmp_ros.weights.errors import WeightsError

        self.allowed = (WeightsError,)
        weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2).half()}
        content = {"state_dict": weights, "meta": {"epoch": 3, "names": ["person"]}}
        new, old = io.BytesIO(), io.BytesIO()
        torch.save(content, new)
        torch.save(content, old, _use_new_zipfile_serialization=False)
        fixture = ROOT / "test" / "data" / "seed_networks"
        yolo = (fixture / "yolov5_tiny_checkpoint_fixture.pt").read_bytes()
        self.seeds = [new.getvalue(), old.getvalue(), yolo]
        self.safetensors = save(weights)

    def make(self, dice: random.Random) -> Any:
        if dice.random() < 0.2:
            return mutated(self.safetensors, dice), ".safetensors"
        seed = dice.choices(self.seeds, (6, 6, 1))[0]
        if seed.startswith(b"PK") and dice.random() < 0.6:
            return _with_altered_entry(seed, dice), ".pth"
        return mutated(seed, dice, dice.choice(self.seeds)), ".pth"

    def feed(self, case: Any) -> None:
        from bmp_ros.weights.checkpoint import load_checkpoint

        for tensor in load_checkpoint(self.path(*case)).state_dict.values():
            float(tensor.reshape(-1)[:1].sum())
        for left in self.folder.iterdir():
            left.unlink()


def _with_altered_entry(archive: bytes, dice: random.Random) -> bytes:
    """The archive with one entry altered, lost, or compressed, checksums as they should be."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen = dice.choice([name for name in names if name.endswith("pkl")] * 3 + names)
        how = dice.randrange(8)
        for name in names:
            content = old.read(name)
            kind = zipfile.ZIP_STORED
            if name == chosen:
                if how == 0:
                    continue
                if how == 1:
                    kind = zipfile.ZIP_DEFLATED
                if how > 1:
                    content = mutated(content, dice)
            new.writestr(name, content, kind)
    return out.getvalue()


class PresetFile(OfFiles):
    """The presets that come with the package, as YAML and as documents."""

    suffix = ".yaml"

    def __init__(self) -> None:
        super().__init__()
        import yaml

        from bmp_ros.fields import SettingsError

        self.allowed = (SettingsError,)
        files = sorted((ROOT / "config" / "presets").glob("*.yaml"))
        self.seeds = [file.read_bytes() for file in files]
        self.documents = [yaml.safe_load(seed) for seed in self.seeds]

    def make(self, dice: random.Random) -> Any:
        import yaml

        if dice.random() < 0.5:
            return super().make(dice)
        document = altered(dice.choice(self.documents), dice)
        try:
            return yaml.safe_dump(document).encode("utf-8", "replace")
        except ValueError:  # a number with too many digits to be written
            return b"description: " + b"9" * 5000

    # The networks themselves are not loaded here.
    def feed(self, case: bytes) -> None:
        from bmp_ros.engines.presets import load_preset

        load_preset(self.path(case))


class Bag(OfFiles):
    """Bags with images, depth and a type that nobody knows, processed and written anew."""

    def __init__(self) -> None:
        super().__init__()
        sys.path[:0] = [str(ROOT / "test" / part) for part in ("bags", "loop")]
        from rosbags.rosbag2 import StoragePlugin
        from test_bag import loop, write_bag
        from test_depth_of_bag import DEPTH, depth_bag

        from bmp_ros.bags.process import BagError, Selection

        self.allowed = (BagError,)
        self.loop = loop()
        with_depth = depth_bag(self.folder / "depth", images=2)
        plain = write_bag(self.folder / "sqlite", images=2, plugin=StoragePlugin.SQLITE3)
        jpegs = write_bag(self.folder / "jpegs", images=2, compressed=True)
        self.files = [next(bag.glob(f"*{suffix}")).read_bytes() for bag, suffix in (
            (with_depth, ".mcap"), (plain, ".db3"), (jpegs, ".mcap"))]  # fmt: skip
        self.selections = (
            Selection(), Selection("/camera/image", anonymise="bodies"),
            Selection("/camera/image", depth=DEPTH.depth, smooth=True),
        )  # fmt: skip

    def make(self, dice: random.Random) -> Any:
        number = dice.randrange(3)
        return (
            mutated(self.files[number], dice, self.files[dice.randrange(3)]),
            ".db3" if number == 1 else ".mcap",
            self.selections[dice.randrange(3)],
        )

    def feed(self, case: Any) -> None:
        from bmp_ros.bags.process import process_bag

        data, suffix, selection = case
        target = self.folder / "out"
        try:
            process_bag(self.loop, self.path(data, suffix), target, selection)
        finally:
            shutil.rmtree(target, ignore_errors=True)
            left = [path for path in self.folder.iterdir() if path.name.startswith(".bmp")]
        assert not left, left


class PictureFile(OfFiles):
    """Image files of every format, some with an orientation."""

    def __init__(self) -> None:
        super().__init__()
        from bmp_ros.image_files import UnreadableImageError

        self.allowed = (UnreadableImageError,)
        self.seeds = encoded_pictures()
        tiff = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
        exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
        self.seeds.append(self.seeds[0][:2] + exif + self.seeds[0][2:])

    def make(self, dice: random.Random) -> Any:
        data = super().make(dice)
        if data.startswith(b"\0\0\0\x0cjP") and dice.random() < 0.9:
            data = mutated(self.seeds[0], dice)  # a process for each JPEG 2000 takes its time
        if data.startswith(b"\x89PNG") and dice.random() < 0.7:
            data = with_checksums(data)
        return data

    def feed(self, case: bytes) -> None:
        from bmp_ros.image_files import read_image

        image = read_image(self.path(case, ".img"))
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


class VideoFile(OfFiles):
    """Short videos in the containers that OpenCV writes."""

    def __init__(self) -> None:
        super().__init__()
        from bmp_ros.offline.video import UnreadableVideoError

        self.allowed = (UnreadableVideoError,)
        self.files = []
        frame = cv2.resize(picture(), (96, 64))
        for suffix, codec in ((".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "mp4v")):
            path = self.folder / f"seed{suffix}"
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (96, 64))
            for number in range(6):
                writer.write(np.roll(frame, 5 * number, axis=1))
            writer.release()
            self.files.append((path.read_bytes(), suffix))

    def make(self, dice: random.Random) -> Any:
        data, suffix = dice.choice(self.files)
        return mutated(data, dice, dice.choice(self.files)[0]), suffix

    def feed(self, case: Any) -> None:
        from bmp_ros.offline.video import VideoFrames

        frames = VideoFrames(self.path(*case))
        for image in frames:
            assert image.ndim == 3 and image.dtype == np.uint8
            if frames.read > 50:
                break
        frames.broken()


class BoxDocument(OfFiles):
    """Boxes of another program, as JSON."""

    suffix = ".json"

    def __init__(self) -> None:
        super().__init__()
        from bmp_ros.offline.box_file import BoxFileError

        self.allowed = (BoxFileError,)
        self.document = {
            "images": [
                {"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "v.mp4", "frame": 0}
            ],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [
                {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5,
                 "segmentation": [[1, 1, 5, 1, 5, 5]]},
                {"image_id": 2, "bbox": [1, 2, 3, 4],
                 "segmentation": {"size": [24, 32], "counts": [5, 10, 753]}},
                {"file_name": "a.jpg", "bbox": [1, 2, 3, 4]},
            ],
        }  # fmt: skip

    def make(self, dice: random.Random) -> Any:
        document = altered(self.document, dice)
        try:
            text = json.dumps(document).encode("utf-8", "replace")
        except ValueError:
            text = b"[" + b"9" * 5000 + b"]"
        return mutated(text, dice) if dice.random() < 0.4 else text

    def feed(self, case: bytes) -> None:
        from bmp_ros.offline.box_file import BoxFile

        boxes = BoxFile(self.path(case))
        boxes.of(Path("a.jpg"), HEIGHT, WIDTH)
        boxes.of(Path("v.mp4"), HEIGHT, WIDTH, 0)
        boxes.not_asked_for()


class Zones(Target):
    """Zones as they stand in parameters and files."""

    seeds = [  # noqa: RUF012
        b"door: 0.1 0.5; 0.4 0.5; 0.4 1.0; 0.1 1.0", b"desk in map: 1.0 0.0; 3.0 0.0; 3.0 2.0"
    ]  # fmt: skip

    def __init__(self) -> None:
        from bmp_ros.interaction.zones import ZoneError

        self.allowed = (ZoneError,)

    def make(self, dice: random.Random) -> Any:
        texts = [mutated(dice.choice(self.seeds), dice) for _ in range(dice.choice((1, 2, 200)))]
        return [text.decode("utf-8", "replace") for text in texts] + [
            str(odd)[:9999] for odd in dice.sample(ODD[:9], dice.choice((0, 0, 1)))
        ]

    def feed(self, case: Any) -> None:
        from bmp_ros.interaction.zones import parse_zones

        parse_zones(case)


TARGETS: dict[str, Callable[[], Target]] = {
    "image": ImageMessage, "compressed_image": CompressedMessage,
    "camera_info": CameraInfoMessage, "people": PeopleMessage, "masks_cpp": MasksInCpp,
    "compressed_depth": CompressedDepth, "checkpoint": Checkpoint, "preset": PresetFile,
    "bag": Bag, "picture": PictureFile, "boxes": BoxDocument, "zones": Zones, "video": VideoFile,
}  # fmt: skip
