# SPDX-License-Identifier: Apache-2.0
"""The C++ decoder of bmp_msgs, compiled here, against the Python codec."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bmp_ros.loop.masks import decode_runs, encode_runs

CHECKOUT = Path(__file__).resolve().parent.parent
HEADERS = CHECKOUT / "bmp_msgs" / "include"
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]


def compiler() -> str:
    found = shutil.which("c++")
    if found is None:
        pytest.skip("no C++ compiler (apt: build-essential)")
    return found


class Decoder:
    """A running decode_masks process, see test/cpp/decode_masks.cpp."""

    def __init__(self, requests: IO[bytes], answers: IO[bytes]) -> None:
        self.requests = requests
        self.answers = answers

    def __call__(self, image_size: tuple[int, int], rectangle, counts):  # type: ignore[no-untyped-def]
        """Return (area, crop bool, image uint8), or raise ValueError with the decoder's text."""
        x, y, width, height = rectangle
        header = [*image_size, x, y, width, height, len(counts)]
        self.requests.write(np.array(header, np.uint32).tobytes())
        self.requests.write(np.asarray(counts, np.uint32).tobytes())
        self.requests.flush()
        if self.answers.read(1) == b"\x01":
            length = int.from_bytes(self.answers.read(4), "little")
            raise ValueError(self.answers.read(length).decode())
        area = int.from_bytes(self.answers.read(8), "little")
        crop = np.frombuffer(self.answers.read(height * width), np.uint8)
        image = np.frombuffer(self.answers.read(image_size[0] * image_size[1]), np.uint8)
        return area, crop.reshape(height, width), image.reshape(image_size)


@contextmanager
def run_decoder(executable: Path) -> Iterator[Decoder]:
    with subprocess.Popen([executable], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        yield Decoder(process.stdin, process.stdout)
        process.stdin.close()
        assert process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoder]:
    """The decoder with a plain struct as message: needs no ROS. Reading out of bounds ends it."""
    executable = tmp_path_factory.mktemp("cpp") / "decode_masks"
    source = CHECKOUT / "test" / "cpp" / "decode_masks.cpp"
    checks = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(
        [compiler(), "-std=c++14", *WARNINGS, *checks, f"-I{HEADERS}", source]
        + ["-o", executable],
        check=True,
    )
    with run_decoder(executable) as running:
        yield running


masks_in_images = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=24))


@settings(max_examples=100, deadline=None)
@given(st.lists(masks_in_images, min_size=1, max_size=8))
def test_equal_to_python(decoder: Decoder, masks: list[np.ndarray]) -> None:
    for mask in masks:
        rectangle, counts = encode_runs(mask)
        area, crop, image = decoder(mask.shape, rectangle, counts)
        _, _, width, height = rectangle
        assert area == np.count_nonzero(mask)
        np.testing.assert_array_equal(crop, decode_runs(counts, width, height))
        # What is not the person's keeps the 7 that was there.
        np.testing.assert_array_equal(image, np.where(mask, 1, 7))


def test_a_person_of_a_camera_image(decoder: Decoder) -> None:
    rows, columns = np.mgrid[:720, :1280]
    mask = ((rows - 400) / 300) ** 2 + ((columns - 900) / 90) ** 2 < 1
    mask[350:380, 880:940] = False
    rectangle, counts = encode_runs(mask)
    area, _, image = decoder(mask.shape, rectangle, counts)
    assert area == np.count_nonzero(mask)
    np.testing.assert_array_equal(image == 1, mask)


@pytest.mark.parametrize(
    ("rectangle", "counts", "text"),
    [
        ((0, 0, 3, 2), [1, 2, 4], r"sum to width\*height = 3\*2 = 6, got 3 runs that sum to 7"),
        ((0, 0, 3, 2), [1, 2], r"sum to 3"),
        ((0, 0, 3, 2), [2**32 - 1, 7], r"sum to 4294967302"),
        ((0, 0, 0, 0), [1], r"sum to 1"),
        ((2, 0, 3, 2), [6], r"x=2 y=0 width=3 height=2 leaves the image of 4x4 pixels"),
        ((0, 3, 3, 2), [6], r"leaves the image"),
        ((2**32 - 1, 0, 3, 2), [6], r"leaves the image"),
    ],
)
def test_a_corrupt_message_is_refused(
    decoder: Decoder, rectangle: tuple[int, int, int, int], counts: list[int], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        decoder((4, 4), rectangle, counts)
    area, _, _ = decoder((1, 1), (0, 0, 1, 1), [0, 1])
    assert area == 1, "the decoder goes on after a refusal"


def test_decodes_the_generated_message(tmp_path: Path) -> None:
    """A C++ node links bmp_msgs and has both headers."""
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    if not any((p / "include/bmp_msgs/bmp_msgs/msg/mask.hpp").is_file() for p in prefixes):
        pytest.skip("bmp_msgs is not built; run `make test`")
    includes = [f"-I{folder}" for p in prefixes for folder in (p / "include").glob("*")]
    executable = tmp_path / "decode_masks"
    source = CHECKOUT / "test" / "cpp" / "decode_masks.cpp"
    subprocess.run(
        [compiler(), "-std=c++17", "-DWITH_ROS_MESSAGE", *includes, source, "-o", executable],
        check=True,
    )
    mask = np.zeros((6, 5), np.bool_)
    mask[1:4, 2:] = True
    mask[2, 3] = False
    with run_decoder(executable) as decode:
        area, _, image = decode(mask.shape, *encode_runs(mask))
        assert area == 8
        np.testing.assert_array_equal(image == 1, mask)


def test_opencv_overloads(tmp_path: Path) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("pkg-config is not installed, which finds OpenCV")
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "opencv4"], capture_output=True, text=True
    )
    if flags.returncode != 0:
        pytest.skip("OpenCV for C++ is not installed (apt: libopencv-dev)")
    executable = tmp_path / "decode_masks"
    source = CHECKOUT / "test" / "cpp" / "decode_masks.cpp"
    subprocess.run(
        [compiler(), "-std=c++17", "-DWITH_OPENCV", f"-I{HEADERS}", source, "-o", executable]
        + flags.stdout.split(),
        check=True,
    )
    random = np.random.default_rng(3)
    with run_decoder(executable) as decode:
        for density in (0.0, 0.1, 0.9, 1.0):
            mask = random.random((9, 7)) < density
            _, _, image = decode(mask.shape, *encode_runs(mask))
            np.testing.assert_array_equal(image == 1, mask)
