# SPDX-License-Identifier: Apache-2.0
"""Malformed and unusual images: a warning says what is wrong, and the next good one counts."""

from __future__ import annotations

from array import array
from typing import Any

import cv2
import numpy as np
import pytest
from node_harness import Lab, image, stamp_of, wait_for
from sensor_msgs.msg import CompressedImage

from bmp_ros.ros import frame_remarks

BAD = {
    "truncated_data": (lambda: image(data=array("B", b"\0" * 100)), ["100 bytes", "9216 bytes"]),
    "no_data": (lambda: image(data=array("B")), ["0 bytes"]),
    "wrong_step": (lambda: image(step=64), ["step 64", "192 bytes"]),
    "unknown_encoding": (lambda: image(encoding="sepia9"), ["'sepia9'"]),
    "no_encoding": (lambda: image(encoding=""), ["encoding ''"]),
    "0x0": (lambda: image(0, 0), ["0x0 pixels", "no pixels"]),
    "big_step": (lambda: image(step=2**31), ["step 2147483648"]),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_image(lab: Lab, name: str) -> None:
    make, words = BAD[name]
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    statistics = lab.node._cameras["camera"].statistics

    def refused_often() -> bool:
        camera.send(make())
        return statistics.refused >= 10

    wait_for(refused_often, "refusals")
    lab.wait_for_log("/camera/image_raw: image refused", *words)
    status = lab.diagnosis(": camera", lambda s: s.level == b"\1", "WARN")
    assert "refused" in status.message
    stamp = camera.send()
    wait_for(lambda: poses, "the next good frame")
    assert [stamp_of(message) for message in poses] == [stamp]
    lab.diagnosis(": camera", lambda s: s.level == b"\0", "OK by itself")
    assert lab.log().count("image refused") < statistics.refused  # throttled


@pytest.mark.parametrize(
    ("encoding", "fields"),
    [
        ("rgb8", {}),
        ("bgra8", {}),
        ("rgba8", {}),
        ("mono8", {}),
        ("bgr8", {"is_bigendian": 1}),  # single bytes have no order
        ("bgr8", {"step": 200, "data": array("B", b"\7" * (200 * 48))}),  # row padding
        ("bgr8", {"step": 200, "data": array("B", b"\7" * (200 * 47 + 192))}),  # not in the last
    ],
)
def test_image_of_another_kind(lab: Lab, encoding: str, fields: dict[str, Any]) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    camera.send(image(encoding=encoding, **fields))
    wait_for(lambda: poses, "people")
    assert (poses[0].height, poses[0].width) == (48, 64)


@pytest.mark.parametrize("big_endian", [0, 1])
def test_12_bits_in_16(lab: Lab, big_endian: int) -> None:
    """The network sees the brightness, whatever the order of the bytes."""
    seen: list[int] = []
    lab.networks.before = lambda image: seen.append(int(image.max()))
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    for count, value in enumerate((0x0ABC, 0x0100), start=1):  # a bright image, then a dark one
        data = array("B", value.to_bytes(2, "big" if big_endian else "little") * (64 * 48))
        camera.send(image(encoding="mono16", is_bigendian=big_endian, data=data))
        wait_for(lambda count=count: len(poses) == count, "people")
    expected = [round(value / 4095 * 255) for value in (0x0ABC, 0x0100)]
    assert seen[-len(seen) // 2 - 1] == expected[0] and seen[-1] == expected[1]
    bright = array("B", b"\xff\xff" * (64 * 48))  # of a damaged image, for one
    camera.send(image(encoding="mono16", is_bigendian=big_endian, data=bright))
    lab.wait_for_log("/camera/image_raw: values of 16 bits now, of 12 before", "reset")


def test_16uc1_is_said_once(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    for count in (1, 2):
        camera.send(image(encoding="16UC1", step=128, data=array("B", bytes(128 * 48))))
        wait_for(lambda count=count: len(poses) == count, "people")
    lab.wait_for_log("16UC1 is read as a grey image", "depth_topic")
    assert lab.log().count("16UC1 is read") == 1


def test_damaged_jpeg_is_processed_said_and_counted(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_remarks, "_REPEAT_S", 3600.0)
    scene = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", scene)[1].tobytes()
    broken = jpeg[: len(jpeg) // 2] + jpeg[len(jpeg) // 2 + 20_000 :]
    lab.start_active(image_transport="compressed")
    poses = lab.listen("/bmp/poses")
    camera = lab.camera("/camera/image_raw/compressed", kind=CompressedImage)
    camera.wait_for_subscriber()
    for count in (1, 2):
        camera.send(CompressedImage(format="jpeg", data=array("B", broken)))
        wait_for(lambda count=count: len(poses) == count, "people")
    lab.wait_for_log("/camera/image_raw/compressed: image damaged", "JPEG")
    assert lab.log().count("image damaged") == 1  # throttled
    status = lab.diagnosis(": camera", lambda s: "damaged" in s.message, "WARN")
    assert status.level == b"\1"
    assert {pair.key: pair.value for pair in status.values}["frames damaged"] == "2"
    camera.send(CompressedImage(format="jpeg", data=array("B", jpeg)))
    lab.diagnosis(": camera", lambda s: s.level == b"\0", "OK by itself")


def test_size_changes_mid_stream(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    sizes = [(64, 48), (48, 64), (320, 200), (1, 1), (64, 48)]
    for count, (width, height) in enumerate(sizes, start=1):
        camera.send(image(width, height))
        wait_for(lambda count=count: len(poses) == count, f"{width}x{height}")
    assert [(message.width, message.height) for message in poses] == sizes


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0 not a JPEG", b"GIF89a"])
def test_corrupt_jpeg(lab: Lab, data: bytes) -> None:
    lab.start_active(image_transport="compressed")
    poses = lab.listen("/bmp/poses")
    camera = lab.camera("/camera/image_raw/compressed", kind=CompressedImage)
    camera.wait_for_subscriber()
    statistics = lab.node._cameras["camera"].statistics

    def refused() -> bool:
        camera.send(CompressedImage(format="jpeg", data=array("B", data)))
        return statistics.refused > 0

    wait_for(refused, "refusals")
    lab.wait_for_log("/compressed: image refused", f"{len(data)} bytes", "'jpeg'")
    _, jpeg = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))
    stamp = camera.send(CompressedImage(format="jpeg", data=array("B", jpeg.tobytes())))
    wait_for(lambda: poses, "the next good frame")
    assert [stamp_of(message) for message in poses] == [stamp]
