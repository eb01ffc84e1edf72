# SPDX-License-Identifier: Apache-2.0
"""The decoders of messages that benchmarks/fuzz.py feeds: valid inputs, altering, reading them.

A target has ``make(dice)``, which gives one case, ``feed(case)``, which has to return or to raise
one of ``allowed``, the exceptions that the docstrings name.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fuzz_mutations import mutated, with_checksums

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


OF_MESSAGES: dict[str, Callable[[], Target]] = {
    "image": ImageMessage, "compressed_image": CompressedMessage,
    "camera_info": CameraInfoMessage, "people": PeopleMessage, "masks_cpp": MasksInCpp,
    "compressed_depth": CompressedDepth,
}  # fmt: skip
