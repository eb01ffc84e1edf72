# SPDX-License-Identifier: Apache-2.0
"""People covered in recordings: how much of them stays visible, and what else is left out."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (requirements/bags.txt)")
from rosbags.rosbag2 import Writer
from test_bag import SIZE, STORE, image, jpeg, loop, messages, pixels, write_bag
from test_covering import HEIGHT, WIDTH, patch_at, people_of, walker

from bmp_ros.bags.anonymise import GAP_S, WaitingFrames, shows_pictures
from bmp_ros.bags.process import BagError, Selection, process_bag
from bmp_ros.cli.main import main
from bmp_ros.covering import WINDOW_S, person_patches

RATE = 15


def visible_share(
    missing: float, seed: int = 0, window_s: float = WINDOW_S
) -> tuple[float, float]:
    """Share of the true person pixels that stay visible: mean, and that of the worst frame.

    Detections are the truth, shifted by up to 3 pixels; some are missing.
    """
    rng = np.random.default_rng(seed)
    frames: WaitingFrames[np.ndarray] = WaitingFrames(int(window_s * 1e9), int(window_s * 1e9))
    shares = []

    def note(truth: np.ndarray, covered: np.ndarray) -> None:
        shares.append((truth & ~covered).sum() / truth.sum())

    for number in range(90):
        truth = [walker(number, person) for person in range(3)]
        found = [
            np.roll(mask, rng.integers(-3, 4, 2), axis=(0, 1))
            for mask in truth
            if rng.random() >= missing
        ]
        patches = person_patches(people_of(found), "bodies")
        at = number * 10**9 // RATE
        for each in frames.add(
            at, np.any(truth, axis=0), (HEIGHT, WIDTH), patches, [-1] * len(patches)
        ):
            note(*each)
    for each in frames.rest():
        note(*each)
    assert len(shares) == 90
    return float(np.mean(shares)), float(np.max(shares))


def test_little_of_people_stays_visible_though_a_tenth_is_not_found() -> None:
    """The goal is 2 % of the pixels; the walkers turn back at once every second, a hard case."""
    mean, worst = visible_share(missing=0.1)
    assert mean <= 0.02, (mean, worst)
    often, _ = visible_share(missing=0.3)
    assert often <= 0.02
    alone, _ = visible_share(missing=0.1, window_s=0)
    assert alone > 0.05, "the frames around are what covers them"


def test_frames_come_out_in_order_and_once() -> None:
    frames: WaitingFrames[int] = WaitingFrames(100, 100)
    out = []
    for number in range(20):
        size = (2, 2) if number < 10 else (3, 3)
        found = [patch_at(0)] if number in (5, 15) else []
        out += list(frames.add(number * 50, number, size, found, [-1] * len(found)))
    out += list(frames.rest())
    assert [item for item, _ in out] == list(range(20))
    assert {covered.shape for item, covered in out if item >= 10} == {(3, 3)}
    covered = [number for number, total in out if total.any()]
    assert covered == [3, 4, 5, 6, 7, 13, 14, 15, 16, 17]


def test_few_images_a_second_are_covered_by_those_beside_them() -> None:
    frames: WaitingFrames[int] = WaitingFrames()
    out = []
    for number in range(9):
        found = [patch_at(0)] if number == 4 else []
        out += list(frames.add(number * 10**9 // 2, number, (2, 2), found, [-1] * len(found)))
    out += list(frames.rest())
    assert [number for number, total in out if total.any()] == [3, 4, 5]


def runner(missing: range, ids: bool) -> list[float]:
    """Visible share of somebody who runs 6 pixels a frame at 15 Hz, missed in some frames."""
    frames: WaitingFrames[np.ndarray] = WaitingFrames()
    shares = []

    def note(truth: np.ndarray, covered: np.ndarray) -> None:
        shares.append(float((truth & ~covered).sum() / truth.sum()))

    for number in range(40):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.ellipse(mask, (30 + 6 * number, 120), (12, 50), 0, 0, 360, 1, -1)
        truth = mask.astype(np.bool_)
        found = [] if number in missing else [truth]
        patches = person_patches(people_of(found), "bodies")
        at = number * 10**9 // RATE
        for each in frames.add(
            at, truth, (HEIGHT, WIDTH), patches, [7 if ids else -1] * len(patches)
        ):
            note(*each)
    for each in frames.rest():
        note(*each)
    return shares


def test_who_is_missed_for_longer_is_covered_on_the_way() -> None:
    """With an id before and after: 13 frames, 0.87 s. Without, the middle would be visible."""
    gap = range(12, 25)
    assert max(runner(gap, ids=False)) > 0.5
    assert max(runner(gap, ids=True)) < 0.01
    # The first image that knows them tells how they came, and the last how they went on.
    for missing in (range(4), range(36, 40)):
        assert max(runner(missing, ids=False)) > 0.1
        assert max(runner(missing, ids=True)) < 0.01
    too_long = range(10, 10 + int(GAP_S * RATE) + 1)
    assert max(runner(too_long, ids=True)) > 0.5, "nobody knows where they were"


def test_cuts_change_nothing() -> None:
    """Somebody who is missed just after a cut is covered by the frames that follow, and no id
    draws a line across it: the tracker begins anew."""
    frames: WaitingFrames[int] = WaitingFrames(100, 400)
    out = []
    for number in range(20):  # the cut is before frame 10; who is there is first found in 11
        found = [patch_at(0)] if number < 10 else [patch_at(9)] if number > 10 else []
        ids = [1 if number < 10 else 2] * len(found)
        out += list(frames.add(number * 50, number, (1, 10), found, ids))
    out += list(frames.rest())
    by_number = dict(out)
    assert by_number[10][0, 9] and by_number[11][0, 9], "of the new scene"
    assert not by_number[10][0, 1:9].any() and not by_number[13][0, 0]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_recording_without_faces_and_other_pictures(tmp_path, compressed, capsys) -> None:
    source = write_bag(tmp_path / "in", images=8, compressed=compressed)
    outcome = process_bag(loop(), source, tmp_path / "out", Selection(anonymise="bodies"))
    assert outcome.covered == outcome.images == 8
    before, after = messages(source), messages(tmp_path / "out")
    assert [at for at, _ in after["/camera/image"]] == [at for at, _ in before["/camera/image"]]
    assert after["/thing"] == before["/thing"]
    kind = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
    for number, (_, data) in enumerate(after["/camera/image"]):
        found = STORE.deserialize_cdr(data, kind)
        assert (
            found.header == STORE.deserialize_cdr(before["/camera/image"][number][1], kind).header
        )
        if compressed:
            assert found.format.startswith("bgr8; jpeg")
            continue
        picture = np.asarray(found.data).reshape(*SIZE, 3)
        changed = (picture != pixels(number)).any(axis=2)
        assert changed[10:40, 6:18].mean() > 0.9 and not changed[:, 60:].any()


def test_other_pictures_are_left_out_unless_named(tmp_path) -> None:
    with Writer(tmp_path / "in", version=9) as writer:
        kinds = {"/rgb": "Image", "/rgb/compressed": "CompressedImage", "/ir": "Image"}
        for topic, kind in kinds.items():
            connection = writer.add_connection(topic, f"sensor_msgs/msg/{kind}", typestore=STORE)
            make = jpeg if kind == "CompressedImage" else image
            writer.write(connection, 5, make(1.0, pixels(0)))
            if topic == "/rgb":
                writer.write(connection, 6, make(1.1, pixels(1))[:50])
    selection = Selection("/rgb", anonymise="faces", keep_pictures=("/ir",))
    outcome = process_bag(loop(), tmp_path / "in", tmp_path / "out", selection)
    after = messages(tmp_path / "out")
    assert outcome.left_out == ["/rgb/compressed"] and set(after) == {"/rgb", "/ir", "/bmp/poses"}
    # What cannot be read cannot be covered: it is not copied.
    assert len(after["/rgb"]) == 1 and sum(outcome.failures.values()) == 1
    for wrong in (("/none",), ("/rgb",)):
        with pytest.raises(BagError, match="no topic /none|cannot be kept"):
            bad = Selection("/rgb", anonymise="faces", keep_pictures=wrong)
            process_bag(loop(), tmp_path / "in", tmp_path / "x", bad)
    with pytest.raises(BagError, match="for every image"):
        bad = Selection("/rgb", anonymise="faces", every=2)
        process_bag(loop(), tmp_path / "in", tmp_path / "x", bad)
    assert not (tmp_path / "x").exists()


def test_ids_are_not_written_but_cover(tmp_path) -> None:
    """--no-track is about what is written; who is covered is the same."""
    source = write_bag(tmp_path / "in", images=6)
    for name, track in (("a", True), ("b", False)):
        process_bag(loop(), source, tmp_path / name, Selection(anonymise="bodies"), track=track)
    a, b = messages(tmp_path / "a"), messages(tmp_path / "b")
    assert a["/camera/image"] == b["/camera/image"] and a["/bmp/poses"] != b["/bmp/poses"]
    for _, data in b["/bmp/poses"]:
        people = STORE.deserialize_cdr(data, "bmp_msgs/msg/PersonArray").people
        assert {each.track_id for each in people} == {-1}


def test_types_that_show_pictures() -> None:
    for kind in (
        "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage",
        "sensor_msgs/msg/PointCloud", "sensor_msgs/msg/PointCloud2",
        "stereo_msgs/msg/DisparityImage", "point_cloud_interfaces/msg/CompressedPointCloud2",
        "foxglove_msgs/msg/PointCloud", "ouster_sensor_msgs/msg/PacketMsg",
        "theora_image_transport/msg/Packet", "ffmpeg_image_transport_msgs/msg/FFMPEGPacket",
        "foxglove_msgs/msg/CompressedVideo",
    ):  # fmt: skip
        assert shows_pictures(kind, "uint8[] data")
    for definition in (
        "sensor_msgs/Image image", "sensor_msgs/msg/CompressedImage[<=4] views",
        "int8 a\n====\nMSG: sensor_msgs/PointCloud2\nbyte[] data",
        "struct A { sensor_msgs::msg::Image image; };", None,  # and one that is not known
    ):  # fmt: skip
        assert shows_pictures("my_msgs/msg/Scene", definition)
    assert not shows_pictures("my_msgs/msg/Scene", "int8 a  # see sensor_msgs/Image")
    for kind in (
        "sensor_msgs/msg/CameraInfo",
        "bmp_msgs/msg/PersonArray",
        "tf2_msgs/msg/TFMessage",
    ):
        assert not shows_pictures(kind, STORE.generate_msgdef(kind, ros_version=2)[0])


def test_coloured_point_clouds_and_nested_pictures_are_left_out(tmp_path) -> None:
    source = tmp_path / "in"
    with Writer(source, version=9) as writer:
        camera = writer.add_connection("/rgb", "sensor_msgs/msg/Image", typestore=STORE)
        writer.write(camera, 5, image(1.0, pixels(0)))
        cloud = writer.add_connection("/points", "sensor_msgs/msg/PointCloud2", typestore=STORE)
        writer.write(cloud, 6, b"\0\1\0\0")
        for topic, definition in {
            "/scene": "sensor_msgs/Image image\n" + "=" * 80 + "\nMSG: sensor_msgs/Image\nint8 a",
            "/count": "int8 a",
        }.items():
            kind = f"my_msgs/msg/{topic[1:].title()}"
            nested = writer.add_connection(
                topic, kind, msgdef=definition, rihs01="RIHS01_" + "0" * 64
            )
            writer.write(nested, 7, b"\0\1\0\0\7")
        unknown = writer.add_connection(
            "/unknown", "my_msgs/msg/Unknown", msgdef="", rihs01="RIHS01_" + "0" * 64
        )
        writer.write(unknown, 8, b"\0\1\0\0\7")
        empty = writer.add_connection("/empty", "std_msgs/msg/Empty", typestore=STORE)
        writer.write(empty, 9, b"\0\1\0\0\0")
    outcome = process_bag(loop(), source, tmp_path / "out", Selection(anonymise="faces"))
    assert outcome.left_out == ["/points", "/scene", "/unknown"]
    assert set(messages(tmp_path / "out")) == {"/rgb", "/count", "/empty", "/bmp/poses"}


def test_more_people_than_max_people_are_covered(tmp_path) -> None:
    source = write_bag(tmp_path / "in", images=2)
    engine = loop()
    engine.settings = replace(engine.settings, max_people=1)
    outcome = process_bag(engine, source, tmp_path / "out", Selection(anonymise="bodies"))
    assert outcome.people == 4 and engine.settings.max_people == 1


def test_options_that_do_not_fit(tmp_path, capsys) -> None:
    for options, message in (
        (["--keep-pictures", "/a"], "--keep-pictures is for --anonymise"),
        (["--anonymise", "faces", "--every", "2"], "--anonymise goes without --every"),
    ):
        assert main(["bag", str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 1
        assert message in capsys.readouterr().err
