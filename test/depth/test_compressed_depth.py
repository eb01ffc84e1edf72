# SPDX-License-Identifier: Apache-2.0
"""compressedDepth: what an encoder by the paper writes is read again, damage is refused."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmp_ros.depth.compressed_depth import (
    MOST_PIXELS,
    CompressedDepthError,
    decode_compressed_depth,
    decode_rvl,
)

HEADER = struct.pack("<iff", 1, 0.0, 0.0)


def encode_rvl(pixels: np.ndarray) -> bytes:
    """RVL pixel by pixel, as the paper writes it."""
    words, nibbles = [], []

    def put(number: int) -> None:
        while True:
            group, number = number & 7, number >> 3
            nibbles.append(group | (8 if number else 0))
            if len(nibbles) == 8:
                words.append(sum(n << (28 - 4 * i) for i, n in enumerate(nibbles)))
                nibbles.clear()
            if not number:
                return

    values, at, before = pixels.ravel().tolist(), 0, 0
    while at < len(values):
        zeros = at
        while zeros < len(values) and values[zeros] == 0:
            zeros += 1
        put(zeros - at)
        end = zeros
        while end < len(values) and values[end] != 0:
            end += 1
        put(end - zeros)
        for value in values[zeros:end]:
            difference = value - before
            put(2 * difference if difference >= 0 else -2 * difference - 1)
            before = value
        at = end
    while nibbles:  # the last word is filled up
        put(0)
    return struct.pack(f"<{len(words)}I", *words)


def rvl_message(image: np.ndarray, header: bytes = HEADER) -> bytes:
    return header + struct.pack("<II", image.shape[1], image.shape[0]) + encode_rvl(image)


def png_message(image: np.ndarray, header: bytes = HEADER) -> bytes:
    return header + cv2.imencode(".png", image)[1].tobytes()


def quantised(metres: np.ndarray, farthest: float = 10.0, steps: float = 100.0) -> tuple:
    """As compressed_depth_image_transport does it: the header and 16 bits of inverse depth."""
    a = steps * (steps + 1)
    b = 1 - a / farthest
    known = np.isfinite(metres) & (metres > 0) & (metres < farthest)
    inverse = np.where(known, a / np.where(known, metres, 1) + b, 0)
    return struct.pack("<iff", 1, a, b), inverse.astype(np.uint16)


def depth_like(seed: int, height: int, width: int, holes: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    steps = random.integers(-40, 41, height * width)
    jumps = np.where(random.random(height * width) < 0.01, random.integers(-60000, 60000), 0)
    depth = np.clip(np.abs(2000 + np.cumsum(steps) + jumps), 1, 65535).astype(np.uint16)
    depth[random.random(len(depth)) < holes] = 0
    return depth.reshape(height, width)


@settings(deadline=None)
@given(
    st.integers(1, 17), st.integers(1, 23), st.sampled_from([0.0, 0.1, 0.5, 0.97, 1.0]),
    st.integers(0, 2**31), st.sampled_from([rvl_message, png_message]),
)  # fmt: skip
def test_millimetres_survive(h: int, w: int, holes: float, seed: int, message: object) -> None:
    depth = depth_like(seed, h, w, holes)
    codec = "rvl" if message is rvl_message else "png"
    read = decode_compressed_depth(message(depth), "16UC1", codec)
    assert read.dtype == np.uint16 and np.array_equal(read, depth)


@settings(deadline=None)
@given(st.lists(st.integers(0, 65535), max_size=60))
def test_any_pixels_survive_rvl(values: list[int]) -> None:
    pixels = np.array(values, np.uint16)
    assert np.array_equal(decode_rvl(encode_rvl(pixels), len(pixels)), pixels)


def test_rvl_by_hand() -> None:
    # No zeros, two others: 3 (zigzag 6) and 2 (zigzag 1); then 2 zeros and none.
    # Nibbles 0 2 6 1 | 2 0 and two to fill up.
    assert decode_rvl(struct.pack("<I", 0x02612000), 4).tolist() == [3, 2, 0, 0]
    # 9 zeros take two groups: 1 with "more follow", then 1.
    assert decode_rvl(struct.pack("<I", 0x91000000), 9).tolist() == [0] * 9


@pytest.mark.parametrize("codec", ["png", "rvl"])
def test_metres_survive_within_their_steps(codec: str) -> None:
    random = np.random.default_rng(0)
    metres = random.uniform(0.5, 9.5, (30, 40)).astype(np.float32)
    metres[random.random(metres.shape) < 0.2] = np.nan
    header, inverse = quantised(metres)
    message = (rvl_message if codec == "rvl" else png_message)(inverse, header)
    read = decode_compressed_depth(message, "32FC1", codec)
    assert read.dtype == np.float32
    assert np.array_equal(np.isnan(read), np.isnan(metres))
    known = np.isfinite(metres)
    # One step of the inverse depth is depth² / a metres.
    step = metres[known] ** 2 / (100 * 101)
    assert (np.abs(read[known] - metres[known]) <= 1.01 * step + 1e-5).all()


def test_a_large_image_with_many_holes() -> None:
    depth = depth_like(1, 240, 320, 0.3)
    assert np.array_equal(decode_compressed_depth(rvl_message(depth), "16UC1", "rvl"), depth)


GOOD = depth_like(3, 6, 9, 0.3)


@pytest.mark.parametrize(
    ("data", "encoding", "codec", "words"),
    [
        (b"", "16UC1", "png", "0 bytes"),
        (HEADER, "16UC1", "rvl", "12 bytes"),
        (bytes(20), "16UC1", "png", "no PNG"),
        (bytes(40), "16UC1", "png", "no PNG"),
        (HEADER + bytes(4), "16UC1", "rvl", "no size"),
        (HEADER + bytes(8), "16UC1", "rvl", "0x0"),
        (HEADER + struct.pack("<II", 2**31, 2**31) + bytes(8), "16UC1", "rvl", "at most"),
        (HEADER + struct.pack("<II", 2**16, 2**10 + 1) + bytes(8), "16UC1", "rvl", "at most"),
        (rvl_message(GOOD)[:-4], "16UC1", "rvl", "RVL"),
        (rvl_message(GOOD), "8UC1", "rvl", "8UC1"),
        (rvl_message(GOOD), "16UC1", "zstd", "zstd"),
        (rvl_message(GOOD), "32FC1", "rvl", "quantisation"),
        (HEADER + struct.pack("<III", 1, 1, 0xFFFFFFFF), "16UC1", "rvl", "RVL"),
        (HEADER + struct.pack("<IIII", 1, 1, *[0xFFFFFFFF] * 2), "16UC1", "rvl", "RVL"),
        (png_message(GOOD)[:-7], "16UC1", "png", "breaks off"),
        (png_message(GOOD[:, :, None].repeat(3, 2)), "16UC1", "png", "colour type 2"),
        (png_message(GOOD.astype(np.uint8)), "16UC1", "png", "8 bits"),
    ],
)
def test_what_is_no_depth_is_refused(data: bytes, encoding: str, codec: str, words: str) -> None:
    with pytest.raises(CompressedDepthError, match=words):
        decode_compressed_depth(data, encoding, codec)


def test_a_png_that_claims_a_huge_size_is_refused_before_it_is_decoded() -> None:
    data = bytearray(png_message(GOOD))
    data[28:36] = struct.pack(">II", 2**30, 2**30)
    data[41:45] = struct.pack(">I", zlib.crc32(data[24:41]))
    with pytest.raises(CompressedDepthError, match=str(MOST_PIXELS)):
        decode_compressed_depth(bytes(data), "16UC1", "png")


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["png", "rvl"]), st.sampled_from(["16UC1", "32FC1"]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 300),
)  # fmt: skip
def test_damage_is_refused_or_read_never_worse(
    codec: str, encoding: str, changes: list[tuple[int, int]], cut: int
) -> None:
    header, _ = quantised(np.ones((1, 1)))
    data = bytearray((rvl_message if codec == "rvl" else png_message)(GOOD, header))
    for at, value in changes:
        data[at % len(data)] = value
    data = data[: max(len(data) - cut, 0)] if cut < 150 else data
    try:
        read = decode_compressed_depth(bytes(data), encoding, codec)
    except CompressedDepthError:
        return
    assert read.ndim == 2 and read.size <= MOST_PIXELS


@settings(deadline=None)
@given(st.binary(max_size=80), st.integers(0, 60))
def test_any_bytes_are_refused_or_read(data: bytes, pixels: int) -> None:
    try:
        assert decode_rvl(data, pixels).shape == (pixels,)
    except CompressedDepthError:
        pass
