# SPDX-License-Identifier: Apache-2.0
"""People in metres from the depth images of a bag, whenever these were recorded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (requirements/bags.txt)")
from rosbags.rosbag2 import StoragePlugin, Writer
from test_bag import SIZE, STORE, header, image, loop, messages, pixels

from bmp_ros.bags.depth_of_bag import AHEAD_NS, DepthSelection, Lookahead
from bmp_ros.bags.messages import CAMERA_INFO, IMAGE, PERSON_ARRAY_3D
from bmp_ros.bags.process import BagError, Selection, process_bag
from bmp_ros.cli.main import main

SECOND = 10**9
DEPTH = Selection(depth=DepthSelection("/camera/depth"))


def depth_image(seconds: float, metres: float) -> bytes:
    values = np.full(SIZE, metres * 1000, np.uint16)
    message = STORE.types[IMAGE](
        header=header(seconds), height=SIZE[0], width=SIZE[1], encoding="16UC1", is_bigendian=0,
        step=2 * SIZE[1], data=values.view(np.uint8).reshape(-1),
    )  # fmt: skip
    return bytes(STORE.serialize_cdr(message, IMAGE))


def camera_info(seconds: float, width: int = SIZE[1]) -> bytes:
    types = STORE.types
    region = types["sensor_msgs/msg/RegionOfInterest"](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    k = np.array([60, 0, 31.5, 0, 60, 23.5, 0, 0, 1.0])
    message = types[CAMERA_INFO](
        header=header(seconds), height=SIZE[0], width=width, distortion_model="plumb_bob",
        d=np.zeros(5), k=k, r=np.eye(3).reshape(-1), p=np.zeros(12), binning_x=0, binning_y=0,
        roi=region,
    )  # fmt: skip
    return bytes(STORE.serialize_cdr(message, CAMERA_INFO))


def depth_bag(
    path: Path,
    *,
    images: int = 4,
    depth_late_s: float = 0.02,
    stamps_apart_s: float = 0.0,
    info_at_s: float = 0.05,
    width: int = SIZE[1],
    broken: int = -1,
    back_at: int = -1,
) -> Path:
    """Images at 10 Hz, depth of 1 m and 0.1 m more for each image, one calibration.

    broken: number of the depth image that is cut short, -1: none, -2: all are missing.
    """
    written: list[tuple[float, str, bytes]] = [(info_at_s, "camera_info", camera_info(1, width))]
    for number in range(images):
        log = number / 10
        stamp = 100 + log if back_at < 0 or number < back_at else 50 + log
        written.append((log, "image", image(stamp, pixels(number))))
        data = depth_image(stamp + stamps_apart_s, 1 + 0.1 * number)
        data = data[: 60 if number == broken else len(data)]
        if broken != -2:
            written.append((log + depth_late_s, "depth", data))
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kinds = {"image": IMAGE, "depth": IMAGE, "camera_info": CAMERA_INFO}
        topics = {
            name: writer.add_connection(f"/camera/{name}", kind, typestore=STORE)
            for name, kind in kinds.items()
        }
        for log, name, data in sorted(written, key=lambda each: each[0]):
            writer.write(topics[name], 10 * SECOND + round(log * SECOND), data)
    return path


def depths(path: Path) -> list[float]:
    """Of the first person's centroid, each image."""
    return [
        round(float(STORE.deserialize_cdr(data, PERSON_ARRAY_3D).people[0].centroid.z), 3)
        for _, data in messages(path).get("/bmp/poses_3d", [])
    ]


@pytest.mark.parametrize("late", [-0.01, 0.02, 0.3, 0.9])
@pytest.mark.parametrize("info_at", [-0.5, 0.05, 0.35])
def test_depth_and_calibration_may_come_after_the_image(tmp_path, late, info_at) -> None:
    source = depth_bag(tmp_path / "in", depth_late_s=late, info_at_s=info_at)
    outcome = process_bag(loop(), source, tmp_path / "out", DEPTH)
    assert not outcome.without_depth and outcome.added["/bmp/poses_3d", PERSON_ARRAY_3D] == 4
    assert depths(tmp_path / "out") == [1.0, 1.1, 1.2, 1.3]
    before, after = messages(source), messages(tmp_path / "out")
    assert after["/camera/depth"] == before["/camera/depth"]
    assert [at for at, _ in after["/bmp/poses_3d"]] == [at for at, _ in before["/camera/image"]]


def test_smooth_and_results_only_and_anonymised(tmp_path) -> None:
    source = depth_bag(tmp_path / "in", images=6)
    every = Selection(depth=DEPTH.depth, smooth=True, copy=False)
    process_bag(loop(), source, tmp_path / "alone", every)
    names = ("poses", "poses_smooth", "poses_3d", "poses_3d_smooth")
    after = messages(tmp_path / "alone")
    assert set(after) == {f"/bmp/{name}" for name in names}
    assert {len(each) for each in after.values()} == {6}
    hidden = Selection(depth=DEPTH.depth, anonymise="bodies")
    outcome = process_bag(loop(), source, tmp_path / "hidden", hidden)
    assert outcome.left_out == ["/camera/depth"]
    assert depths(tmp_path / "hidden") == depths(tmp_path / "alone")


def test_part_of_a_bag_has_the_calibration_from_before_it(tmp_path) -> None:
    source = depth_bag(tmp_path / "in", images=20, info_at_s=0.0)
    part = Selection(depth=DEPTH.depth, start_s=1.0, duration_s=0.55)
    process_bag(loop(), source, tmp_path / "out", part)
    assert depths(tmp_path / "out") == [2.0, 2.1, 2.2, 2.3, 2.4, 2.5]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stamps_apart_s": 0.049}, ""),
        ({"stamps_apart_s": 0.5}, "within 50 ms"),
        ({"broken": -2}, "no depth image on /camera/depth up to then"),
        ({"width": 32}, "the calibration on /camera/camera_info is of images of 32x48"),
    ],
)
def test_why_there_is_no_depth(tmp_path, capsys, options, reason, monkeypatch) -> None:
    source = depth_bag(tmp_path / "in", **options)
    monkeypatch.setattr("bmp_ros.engines.build_loop", lambda *_, **__: loop())
    arguments = ["bag", str(source), str(tmp_path / "out"), "--depth", "/camera/depth"]
    assert main(arguments) == (1 if reason else 0)
    captured = capsys.readouterr()
    assert len(messages(tmp_path / "out")["/bmp/poses"]) == 4, "people all the same"
    assert ("images have no poses_3d" in captured.err) == bool(reason)
    assert reason in captured.err
    found = depths(tmp_path / "out")
    assert found == [] if reason else len(found) == 4
    assert "/bmp/poses_3d" in captured.out


def test_depth_images_that_measure_nothing_are_told(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(__name__ + ".depth_image", partial(blind, depth_image, 1.2))
    source = depth_bag(tmp_path / "in")
    monkeypatch.setattr("bmp_ros.engines.build_loop", lambda *_, **__: loop())
    arguments = ["bag", str(source), str(tmp_path / "out"), "--depth", "/camera/depth"]
    assert main(arguments) == 0
    assert "1 images have poses_3d of NaN: /camera/depth: not one of" in capsys.readouterr().err
    found = depths(tmp_path / "out")
    assert np.isnan(found[2]) and found[:2] + found[3:] == [1.0, 1.1, 1.3]


def test_depth_images_of_another_frame_are_told(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(__name__ + ".header", partial(header, frame="depth_optical_frame"))
    source = depth_bag(tmp_path / "in")
    monkeypatch.setattr("bmp_ros.engines.build_loop", lambda *_, **__: loop())
    arguments = ["bag", str(source), str(tmp_path / "out"), "--depth", "/camera/depth"]
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "4 images have poses_3d in doubt: /camera/depth: they are in the frame" in said
    assert "'depth_optical_frame', the images in 'camera'" in said
    assert "the calibration on /camera/camera_info is of the frame 'depth_optical_frame'" in said
    assert depths(tmp_path / "out") == [1.0, 1.1, 1.2, 1.3]


def blind(
    made: Callable[[float, float], bytes], at: float, seconds: float, metres: float
) -> bytes:
    """A depth image as ``made``, that of ``at`` metres without any measurement."""
    return made(seconds, 0.0 if abs(metres - at) < 0.01 else metres)


def test_a_damaged_depth_image_costs_itself_only(tmp_path) -> None:
    outcome = process_bag(loop(), depth_bag(tmp_path / "in", broken=2), tmp_path / "out", DEPTH)
    assert outcome.images == 4 and sum(outcome.without_depth.values()) == 1
    assert depths(tmp_path / "out") == [1.0, 1.1, 1.3]


def test_stamps_that_jump_back_find_their_depth(tmp_path) -> None:
    process_bag(loop(), depth_bag(tmp_path / "in", images=6, back_at=3), tmp_path / "out", DEPTH)
    assert depths(tmp_path / "out") == [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]


def test_compressed_depth(tmp_path) -> None:
    kind = "sensor_msgs/msg/CompressedImage"
    png = cv2.imencode(".png", np.full(SIZE, 2500, np.uint16))[1].tobytes()
    data = np.frombuffer(struct.pack("<iff", 1, 0.0, 0.0) + png, np.uint8)
    message = STORE.types[kind](header=header(1), format="16UC1; compressedDepth png", data=data)
    with Writer(tmp_path / "in", version=9) as writer:
        topics = {"/rgb/image": IMAGE, "/rgb/camera_info": CAMERA_INFO}
        topics["/depth/image/compressedDepth"] = kind
        made = {t: writer.add_connection(t, k, typestore=STORE) for t, k in topics.items()}
        writer.write(made["/rgb/image"], 1, image(1, pixels(0)))
        writer.write(made["/rgb/camera_info"], 2, camera_info(1))
        raw = bytes(STORE.serialize_cdr(message, kind))
        writer.write(made["/depth/image/compressedDepth"], 3, raw)
    selection = Selection(depth=DepthSelection("/depth/image/compressedDepth"))
    process_bag(loop(), tmp_path / "in", tmp_path / "out", selection)
    assert depths(tmp_path / "out") == [2.5]


def test_topics_that_are_not_there(tmp_path, capsys) -> None:
    source = depth_bag(tmp_path / "in")
    for depth, message in (
        (DepthSelection("/none"), "--depth: /none is not there .*/camera/depth"),
        (DepthSelection("/camera/camera_info"), "is of type sensor_msgs/msg/CameraInfo"),
        (DepthSelection("/camera/depth", "/info"), "--camera-info: /info is not there"),
        (DepthSelection("/camera/depth", None, "/info"), "--depth-camera-info: /info"),
    ):
        with pytest.raises(BagError, match=message):
            process_bag(loop(), source, tmp_path / "x", Selection(depth=depth))
    assert not (tmp_path / "x").exists()
    assert main(["bag", str(source), str(tmp_path / "x"), "--camera-info", "/a"]) == 1
    assert "are for --depth" in capsys.readouterr().err


def test_no_more_is_read_ahead_than_a_second() -> None:
    """Of whatever length a bag is, and even if no depth ever comes."""
    noticed: list[int] = []
    everything: list[Any] = [(None, n * SECOND // 10, b"") for n in range(1000)]
    messages = Lookahead(everything, lambda connection, data: noticed.append(1))
    most = 0
    for number, (_, log_ns, _) in enumerate(messages):
        messages.read_until(lambda: False, log_ns + AHEAD_NS)
        most = max(most, len(noticed) - number)
    assert len(noticed) == 1000 and 10 <= most <= 13
