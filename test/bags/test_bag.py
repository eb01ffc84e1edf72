# SPDX-License-Identifier: Apache-2.0
"""Bags in, bags out: what is copied, what is added, what is refused; no ROS."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (requirements/bags.txt)")
from rosbags.rosbag2 import (
    CompressionFormat,
    CompressionMode,
    Reader,
    StoragePlugin,
    Writer,
)
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

sys.path.insert(0, str(Path(__file__).parents[1] / "loop"))
from scripted import Actor, stage

from bmp_ros.bags.depth_of_bag import DepthSelection
from bmp_ros.bags.files import copied_connection
from bmp_ros.bags.messages import PERSON_ARRAY, type_store
from bmp_ros.bags.process import POSES, BagError, Selection, process_bag
from bmp_ros.bags.recover import in_order, whole_part
from bmp_ros.bags.results import Results
from bmp_ros.cli.main import main
from bmp_ros.resources import message_files

STORE = type_store()
SIZE = (48, 64)
THING = "my_msgs/msg/Thing"
"""A type that nobody here knows."""


def header(seconds: float, frame: str = "camera") -> Any:
    whole = int(seconds)
    stamp = STORE.types["builtin_interfaces/msg/Time"](
        sec=whole, nanosec=round((seconds - whole) * 1e9)
    )
    return STORE.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame)


def image(seconds: float, pixels: np.ndarray) -> bytes:
    message = STORE.types["sensor_msgs/msg/Image"](
        header=header(seconds), height=pixels.shape[0], width=pixels.shape[1], encoding="bgr8",
        is_bigendian=0, step=pixels.shape[1] * 3, data=pixels.reshape(-1),
    )  # fmt: skip
    return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/Image"))


def jpeg(seconds: float, pixels: np.ndarray) -> bytes:
    import cv2

    _, data = cv2.imencode(".jpg", pixels)
    message = STORE.types["sensor_msgs/msg/CompressedImage"](
        header=header(seconds), format="bgr8; jpeg compressed bgr8", data=data.reshape(-1)
    )
    return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/CompressedImage"))


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)


def write_bag(
    path: Path, images: int = 5, plugin: StoragePlugin = StoragePlugin.MCAP, *, compressed=False
) -> Path:
    """Images at 10 Hz on /camera/image, and a message of an unknown type between two of them."""
    kind = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
    make = jpeg if compressed else image
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        camera = writer.add_connection("/camera/image", kind, typestore=STORE)
        thing = writer.add_connection(
            "/thing", THING, msgdef="float32[] values\nstring name\n", rihs01="RIHS01_" + "ab" * 32
        )
        for number in range(max(images, 2)):
            at = 10**9 * 100 + number * 10**8
            if number < images:
                writer.write(camera, at, make(100 + number / 10, pixels(number)))
            writer.write(thing, at + 5 * 10**7, bytes([0, 1, 0, 0, number, 0, 0, 0]))
    return path


def loop() -> Any:
    """Two people, who stand still, in every image."""
    people = [Actor((4, 4, 20, 44)), Actor((30, 6, 50, 40), score=0.7)]
    return stage(*[people] * 400, iterations=1).loop


def messages(path: Path) -> dict[str, list[tuple[int, bytes]]]:
    found: dict[str, list[tuple[int, bytes]]] = {}
    with Reader(path) as reader:
        for connection, log_ns, data in reader.messages():
            found.setdefault(connection.topic, []).append((log_ns, bytes(data)))
    return found


def test_hidden_people_are_looked_for_where_the_tracker_expects_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the node: what is left of a painted person is nobody, image after image."""
    people = [Actor((4, 4, 20, 44)), Actor((30, 6, 50, 40), score=0.7)]
    watched = stage(*[people] * 400, iterations=1, behind_threshold=0.2).loop
    told: list[Any] = []
    run = watched.run

    def note(*images: Any, **more: Any) -> Any:
        told.append(more.get("tracked"))
        return run(*images, **more)

    monkeypatch.setattr(watched, "run", note)
    process_bag(watched, write_bag(tmp_path / "in"), tmp_path / "out", Selection())
    assert told[0] is None and len(told) == 5
    for boxes in told[1:]:
        np.testing.assert_allclose(boxes, [[4, 4, 20, 44], [30, 6, 50, 40]], atol=0.5)


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("target", ["out", "out.mcap"])
@pytest.mark.parametrize("compressed", [False, True])
def test_everything_is_copied_and_people_are_added(tmp_path, plugin, target, compressed) -> None:
    source = write_bag(tmp_path / "in", plugin=plugin, compressed=compressed)
    outcome = process_bag(loop(), source, tmp_path / target, Selection())
    assert (outcome.images, outcome.people, outcome.failures) == (5, 10, {})
    before, after = messages(source), messages(tmp_path / target)
    poses = after.pop(POSES)
    assert after == before, "byte for byte, at the same times"
    with Reader(source) as old, Reader(tmp_path / target) as new:
        connections = {each.topic: each for each in new.connections}
        for each in old.connections:
            copied = connections[each.topic]
            assert (copied.msgtype, copied.msgdef) == (each.msgtype, each.msgdef)
            assert copied.ext == each.ext
        assert connections[POSES].ext.offered_qos_profiles[0].depth == 5
    assert [at for at, _ in poses] == [at for at, _ in before["/camera/image"]]
    for number, (_, data) in enumerate(poses):
        found = STORE.deserialize_cdr(data, PERSON_ARRAY)
        assert found.header == header(100 + number / 10)
        assert (found.height, found.width) == SIZE and len(found.people) == 2
        assert sorted(person.track_id for person in found.people) in ([1, 2], [-1, -1])
        assert found.skeleton.name == "coco_17" and len(found.people[0].keypoints) == 17
    assert {person.track_id for person in found.people} == {1, 2}, "with ids in the end"
    assert not list(tmp_path.glob(".bmp-bag-*"))


def test_the_same_bag_twice_gives_the_same_bytes(tmp_path) -> None:
    source = write_bag(tmp_path / "in")
    files = [tmp_path / folder / "out.mcap" for folder in ("a", "b")]  # its name is in it
    for file in files:
        process_bag(loop(), source, file, Selection())
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_part_of_a_bag(tmp_path) -> None:
    source = write_bag(tmp_path / "in", images=10)
    selection = Selection(start_s=0.2, duration_s=0.5, every=2)
    outcome = process_bag(loop(), source, tmp_path / "out", selection)
    after = messages(tmp_path / "out")
    assert outcome.images == 3 and len(after["/camera/image"]) == 5
    assert [at for at, _ in after[POSES]] == [at for at, _ in after["/camera/image"]][::2]
    process_bag(loop(), source, tmp_path / "alone", Selection(copy=False))
    assert set(messages(tmp_path / "alone")) == {POSES}


def test_a_bag_without_images_is_copied(tmp_path, capsys) -> None:
    source = write_bag(tmp_path / "in", images=0)
    # The topic is there, and has no message.
    assert process_bag(loop(), source, tmp_path / "a", Selection()).images == 0
    with Writer(tmp_path / "things", version=9) as writer:
        thing = writer.add_connection(
            "/thing", THING, msgdef="int8 a\n", rihs01="RIHS01_" + "0" * 64
        )
        writer.write(thing, 1, b"\0\1\0\0\7")
    assert main(["bag", str(tmp_path / "things"), str(tmp_path / "b")]) == 0
    assert "no topic with images: nothing was processed" in capsys.readouterr().out
    assert messages(tmp_path / "b") == messages(tmp_path / "things")


def test_a_bare_file_and_a_folder_without_metadata(tmp_path) -> None:
    source = write_bag(tmp_path / "in")
    (file,) = source.glob("*.mcap")
    process_bag(loop(), file, tmp_path / "a", Selection())
    (source / "metadata.yaml").unlink()
    (source / f"._{file.name}").write_bytes(b"of macOS")
    process_bag(loop(), source, tmp_path / "b", Selection())
    assert messages(tmp_path / "a") == messages(tmp_path / "b")
    assert len(messages(tmp_path / "a")[POSES]) == 5


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_endings_in_capitals_and_metadata_that_cannot_be_used(tmp_path, plugin) -> None:
    """As cameras and file systems name files, and as a recorder that was killed leaves them."""
    source = write_bag(tmp_path / "in", plugin=plugin)
    (file,) = (path for path in source.iterdir() if path.suffix != ".yaml")
    capitals = tmp_path / f"WALK{file.suffix.upper()}"
    capitals.write_bytes(file.read_bytes())
    assert process_bag(loop(), capitals, tmp_path / "OUT.MCAP", Selection()).notes == []
    assert (tmp_path / "OUT.MCAP").is_file()
    process_bag(loop(), source, tmp_path / "out.mcap", Selection())
    expected = messages(tmp_path / "out.mcap")
    (tmp_path / "OUT.MCAP").rename(tmp_path / "capitals.mcap")
    assert messages(tmp_path / "capitals.mcap") == expected
    for number, text in enumerate(("", "rosbag2_bagfile_information: [")):
        (source / "metadata.yaml").write_text(text)
        outcome = process_bag(loop(), source, tmp_path / f"{number}.mcap", Selection())
        assert len(outcome.notes) == 1 and "was read without it" in outcome.notes[0]
        assert "cut short" not in outcome.notes[0] and "metadata.yaml" in outcome.notes[0]
        assert messages(tmp_path / f"{number}.mcap") == expected


@pytest.mark.parametrize("name", ["out.mcap", "out"])
@pytest.mark.parametrize("linked", [True, False])
def test_what_comes_to_the_target_meanwhile_stays(tmp_path, monkeypatch, name, linked) -> None:
    """Of another run, say. Where files cannot have two names as well."""
    source, target = write_bag(tmp_path / "in"), tmp_path / name
    if not linked:

        def refuse(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    process_bag(loop(), source, tmp_path / f"first_{name}", Selection())

    def meanwhile(_: int) -> None:
        target.touch() if target.suffix else target.mkdir(exist_ok=True)

    with pytest.raises(BagError, match="by another program meanwhile: nothing is overwritten"):
        process_bag(loop(), source, target, Selection(), advance=meanwhile)
    assert not (any(target.iterdir()) if target.is_dir() else target.stat().st_size)
    assert not list(tmp_path.glob(".bmp-bag-*"))


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.99])
def test_a_file_that_was_cut_short_is_read_up_to_the_break(tmp_path, kept) -> None:
    source = write_bag(tmp_path / "in", images=40)
    (file,) = source.glob("*.mcap")
    content = file.read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(content[: int(len(content) * kept)])
    outcome = process_bag(loop(), cut, tmp_path / "out", Selection())
    assert len(outcome.notes) == 1 and "was cut short" in outcome.notes[0]
    whole, read = messages(source), messages(tmp_path / "out")
    for topic in ("/camera/image", "/thing"):
        assert read.get(topic, []) == whole[topic][: len(read.get(topic, []))]
    assert whole_part(cut) <= cut.stat().st_size
    assert len(read.get(POSES, [])) == len(read.get("/camera/image", []))


@pytest.mark.parametrize("anonymise", [None, "bodies"])
def test_a_file_without_an_index_is_read_by_time(tmp_path, anonymise) -> None:
    """Recorders write a little out of order; an image that is much too late is not tracked."""
    late = 25
    with Writer(tmp_path / "in", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        camera = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=STORE)
        empty = writer.add_connection("/empty", "std_msgs/msg/Empty", typestore=STORE)
        for number in range(40):
            at = 10**11 + number * 10**8
            writer.write(empty, at + 7 * 10**8, b"\0\1\0\0\0")
            writer.write(camera, at - 10**9 * 9 * (number == late), image(1.0, pixels(number)))
    (file,) = (tmp_path / "in").glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-50])
    out = tmp_path / "out.mcap"
    outcome = process_bag(loop(), file, out, Selection(anonymise=anonymise))
    after = messages(out)
    times = [10**11 + number * 10**8 for number in range(40)]
    assert [at for at, _ in after["/empty"]] == [at + 7 * 10**8 for at in times]
    del times[late]
    assert [at for at, _ in after[POSES]] == times
    assert sum(outcome.failures.values()) == 1
    (reason,) = outcome.failures
    assert "more than 2 s late" in reason and "networks" not in reason
    copied = [at for at, _ in after["/image"]]
    assert copied == (times if anonymise else sorted([*times, 10**11 + late * 10**8 - 9 * 10**9]))


def test_what_waits_to_be_put_in_order_is_not_lost_where_a_file_is_damaged() -> None:
    def broken() -> Any:
        for at in (5, 3, 9, 7, 200, 1, 150):
            yield None, at, b""
        raise OSError("damaged")

    times = []
    with pytest.raises(OSError, match="damaged"):
        for _, at, _ in in_order(broken(), 100):
            times.append(at)
    assert times == [3, 5, 7, 9, 1, 150, 200]


def test_images_that_cannot_be_read_are_said_and_copied(tmp_path) -> None:
    with Writer(tmp_path / "in", version=9) as writer:
        camera = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=STORE)
        writer.write(camera, 1, image(1.0, pixels(0)))
        writer.write(camera, 2, image(1.1, pixels(0))[:60])
        writer.write(camera, 3, b"\0\1\0\0")
        writer.write(camera, 4, image(1.2, pixels(0)))
    outcome = process_bag(loop(), tmp_path / "in", tmp_path / "out", Selection())
    assert outcome.images == 2 and sum(outcome.failures.values()) == 2
    assert all("sensor_msgs/msg/Image" in reason for reason in outcome.failures)
    after = messages(tmp_path / "out")
    assert len(after["/image"]) == 4 and [at for at, _ in after[POSES]] == [1, 4]


def test_what_is_refused(tmp_path, capsys) -> None:
    source = write_bag(tmp_path / "in")
    before = {path: path.read_bytes() for path in source.iterdir()}
    two = tmp_path / "two"
    with Writer(two, version=9) as writer:
        for topic in ("/left/image", "/right/image", "/left/depth_image"):
            writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=STORE)
    mixed = tmp_path / "mixed"
    with Writer(mixed, version=9) as writer:
        for kind in ("Image", "CompressedImage"):
            writer.add_connection("/image", f"sensor_msgs/msg/{kind}", typestore=STORE)
    (tmp_path / "text.mcap").write_text("no bag")
    process_bag(loop(), source, tmp_path / "done", Selection())
    for given, target, selection, message in (
        (source, source, Selection(), "is there already: nothing is overwritten"),
        (tmp_path / "none", tmp_path / "x", Selection(), "there is no bag"),
        (tmp_path / "text.mcap", tmp_path / "x", Selection(), "cannot be read as a rosbag2"),
        (source, tmp_path / "x", Selection("/rgb"), "topics of images: /camera/image"),
        (two, tmp_path / "x", Selection(), "choose one with --image: /left/image, /right/image"),
        (mixed, tmp_path / "x", Selection(), "messages of several types"),
        (tmp_path / "done", tmp_path / "x", Selection(), "it was processed before"),
        (source, tmp_path / "x", Selection(prefix="bmp"), "must be a namespace"),
        (source, source / "x.mcap", Selection(), "in the folder of the bag that is read"),
        (source, tmp_path / "x.db3", Selection(), "written as MCAP"),
        (source, tmp_path / "x", Selection(depth=DepthSelection("/d")), "--depth: /d is not"),
    ):
        with pytest.raises(BagError, match=message):
            process_bag(loop(), given, target, selection)
    assert not (tmp_path / "x").exists() and not list(tmp_path.glob(".bmp-bag-*"))
    assert {path: path.read_bytes() for path in source.iterdir()} == before
    assert main(["bag", str(source), str(tmp_path / "y"), "--every", "0"]) == 1
    assert "--every is 0, must be at least 1" in capsys.readouterr().err


def test_an_interrupted_run_leaves_nothing(tmp_path) -> None:
    source = write_bag(tmp_path / "in")
    calls = []

    def interrupt(count: int) -> None:
        calls.append(count)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process_bag(loop(), source, tmp_path / "out", Selection(), advance=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_ended_leaves_nothing(tmp_path, monkeypatch, number) -> None:
    """The input is cut short: its whole part is copied, but not beside the output."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "system"))
    (tmp_path / "system").mkdir()
    (file,) = write_bag(tmp_path / "in").glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-100])
    engine, seen = loop(), []

    class Ending:
        settings = engine.settings

        def run(self, image: np.ndarray, *known: Any, **more: Any) -> Any:
            seen.append([each.name for each in tmp_path.rglob("recovered.mcap")])
            seen.append([each.name for each in (tmp_path / "target").rglob("recovered.mcap")])
            os.kill(os.getpid(), number)
            return engine.run(image, *known, **more)

    monkeypatch.setattr("bmp_ros.engines.build_loop", lambda *_, **__: Ending())
    before = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    try:
        with pytest.raises(SystemExit) as ended:
            main(["bag", str(file), str(tmp_path / "target" / "out")])
        assert ended.value.code == 128 + number
        assert seen == [["recovered.mcap"], []] and signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert not list((tmp_path / "target").iterdir())
    assert not list((tmp_path / "system").iterdir())


@pytest.mark.parametrize("anonymise", [None, "bodies"])
def test_an_image_on_which_the_networks_fail_has_no_result(tmp_path, anonymise) -> None:
    source, engine = write_bag(tmp_path / "in"), loop()
    detect, calls = engine.detector.detect, []
    errors = {1: RuntimeError("CUDA out of memory\nof 3 GiB"), 2: ValueError("(0, 4)")}

    def failing(frame: Any, **kwargs: Any) -> Any:
        calls.append(frame)
        if error := errors.get(len(calls)):
            raise error
        return detect(frame, **kwargs)

    engine.detector.detect = failing
    outcome = process_bag(engine, source, tmp_path / "out", Selection(anonymise=anonymise))
    assert outcome.images == 3 and outcome.failures == {
        "the networks failed: RuntimeError: CUDA out of memory": 1,
        "the networks failed: ValueError: (0, 4)": 1,
    }
    after = messages(tmp_path / "out")
    assert len(after[POSES]) == 3 and len(after["/thing"]) == 5
    # In what is anonymised, an image without known people must not be.
    assert len(after["/camera/image"]) == (3 if anonymise else 5)


def test_two_channels_of_one_topic(tmp_path) -> None:
    """As merged recordings have them; rosbags does not write such a file."""
    with Writer(tmp_path / "in", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for number, topic in enumerate(("/camera1", "/camera2")):
            camera = writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=STORE)
            writer.write(camera, number, image(1.0 + number, pixels(number)))
    (file,) = (tmp_path / "in").glob("*.mcap")
    file.write_bytes(file.read_bytes().replace(b"/camera2", b"/camera1"))
    for anonymise in (None, "bodies"):
        out = tmp_path / f"{anonymise}.mcap"
        outcome = process_bag(loop(), file, out, Selection(anonymise=anonymise))
        assert outcome.images == 2
        assert [at for at, _ in messages(out)["/camera1"]] == [0, 1]


def test_a_dark_image_of_a_camera_of_12_bits_stays_dark(tmp_path) -> None:
    def deep(value: int) -> bytes:
        message = STORE.types["sensor_msgs/msg/Image"](
            header=header(1.0), height=48, width=64, encoding="mono16", is_bigendian=0,
            step=128, data=np.full(48 * 64, value, "<u2").view(np.uint8),
        )  # fmt: skip
        return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/Image"))

    with Writer(tmp_path / "in", version=9) as writer:
        camera = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=STORE)
        for at, value in enumerate((4095, 200)):
            writer.write(camera, at, deep(value))
    engine, levels = loop(), []
    detect = engine.detector.detect

    def seeing(frame: Any, **kwargs: Any) -> Any:
        levels.append(int(frame.image.max()))
        return detect(frame, **kwargs)

    engine.detector.detect = seeing
    process_bag(engine, tmp_path / "in", tmp_path / "out", Selection())
    assert levels == [255, 12]


@pytest.mark.parametrize(("back_s", "anew"), [(0.75, False), (1.0, True), (60.0, True)])
def test_a_second_back_begins_anew_as_the_tracker_does(back_s: float, anew: bool) -> None:
    results = Results(None, STORE, "/people", in_space=False, smooth=False)
    went_back: list[int] = []
    depth: Any = SimpleNamespace(go_back=went_back.append)
    for log_ns, seconds in enumerate((100.0, 100.0 - back_s)):
        results.read(image(seconds, pixels(0)), "sensor_msgs/msg/Image", log_ns, depth)
    assert went_back == ([round((100.0 - back_s) * 1e9)] if anew else [])


def test_a_bag_of_humble_has_no_definitions(tmp_path) -> None:
    source = write_bag(tmp_path / "in", plugin=StoragePlugin.SQLITE3)
    (file,) = source.glob("*.db3")
    (source / "metadata.yaml").unlink()
    with sqlite3.connect(file) as database:
        database.execute("DELETE FROM message_definitions")
        database.execute("UPDATE topics SET type_description_hash = ''")
    process_bag(loop(), source, tmp_path / "out", Selection())
    with Reader(tmp_path / "out") as reader:
        found = {each.topic: each for each in reader.connections}
    definition, _ = STORE.generate_msgdef("sensor_msgs/msg/Image", ros_version=2)
    assert found["/camera/image"].msgdef.data == definition
    assert found["/camera/image"].digest == STORE.hash_rihs01("sensor_msgs/msg/Image")
    assert found["/thing"].digest == "RIHS01_" + "0" * 64


def old_people(number: int) -> tuple[Any, bytes]:
    """The types of version 0.1.0, in which people had no age, and a message of them."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for file in message_files():
        text = file.read_text().replace("float32 track_age\n", "")
        types |= get_types_from_msg(text, f"bmp_msgs/msg/{file.stem}")
    store.register(types)
    made = store.types
    person = made["bmp_msgs/msg/Person"](
        track_id=number, score=0.5, pose_score=0.25, mask_score=0.0,
        bbox=made["bmp_msgs/msg/BoundingBox"](x=1.0, y=2.0, width=3.0, height=4.0), keypoints=[],
        mask=made["bmp_msgs/msg/Mask"](
            x_offset=0, y_offset=0, width=0, height=0, counts=np.zeros(0, np.uint32)
        ),
    )  # fmt: skip
    message = made[PERSON_ARRAY](
        header=header(1.0), height=48, width=64, people=[person, person],
        skeleton=made["bmp_msgs/msg/Skeleton"](
            name="coco_17", keypoint_names=["nose"], edges=np.zeros(0, np.uint8)
        ),
    )  # fmt: skip
    return store, bytes(store.serialize_cdr(message, PERSON_ARRAY))


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_bag_with_people_of_version_0_1_0(tmp_path, plugin) -> None:
    """Copied with its own definition; results go to another namespace. Without a definition, as in
    Humble, ours does not fit, and none is better than a wrong one."""
    old, data = old_people(3)
    assert "track_age" not in old.generate_msgdef(PERSON_ARRAY, ros_version=2)[0]
    source = tmp_path / "in"
    with Writer(source, version=9, storage_plugin=plugin) as writer:
        camera = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=STORE)
        poses = writer.add_connection(POSES, PERSON_ARRAY, typestore=old)
        for number in range(3):
            writer.write(camera, number, image(1.0 + number / 10, pixels(number)))
            writer.write(poses, number, data)
    with pytest.raises(BagError, match="--prefix"):
        process_bag(loop(), source, tmp_path / "x", Selection())
    process_bag(loop(), source, tmp_path / "out", Selection(prefix="/again"))
    after = messages(tmp_path / "out")
    assert [each for _, each in after[POSES]] == [data] * 3 and len(after["/again/poses"]) == 3
    with Reader(tmp_path / "out") as reader:
        found = {each.topic: each for each in reader.connections}
    own = get_typestore(Stores.EMPTY)
    own.register(get_types_from_msg(found[POSES].msgdef.data, PERSON_ARRAY))
    read = own.deserialize_cdr(after[POSES][0][1], PERSON_ARRAY)
    assert [person.track_id for person in read.people] == [3, 3]
    assert found[POSES].digest == old.hash_rihs01(PERSON_ARRAY)
    assert found["/again/poses"].digest == STORE.hash_rihs01(PERSON_ARRAY)
    if plugin == StoragePlugin.SQLITE3:
        (file,) = source.glob("*.db3")
        (source / "metadata.yaml").unlink()
        with sqlite3.connect(file) as database:
            database.execute("DELETE FROM message_definitions")
            database.execute("UPDATE topics SET type_description_hash = ''")
        process_bag(loop(), source, tmp_path / "bare", Selection(prefix="/again"))
        with Reader(tmp_path / "bare") as reader:
            found = {each.topic: each for each in reader.connections}
        assert not found[POSES].msgdef.data and found[POSES].digest == "RIHS01_" + "0" * 64


def test_topics_of_several_types_or_definitions_are_copied(tmp_path) -> None:
    """Other topics than that of the images: whatever is on them."""
    with Writer(tmp_path / "in", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        camera = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=STORE)
        writer.write(camera, 1, image(1.0, pixels(0)))
        for number, (kind, definition) in enumerate(
            (("my/msg/A", "int8 a\n"), ("my/msg/B", "int8 b\n"), ("my/msg/B", "int8 c\n"))
        ):
            thing = writer.add_connection(
                f"/thing{number}", kind, msgdef=definition, rihs01=f"RIHS01_{number:064}"
            )
            writer.write(thing, 2 + number, bytes([0, 1, 0, 0, number]))
    (file,) = (tmp_path / "in").glob("*.mcap")
    merged = file.read_bytes().replace(b"/thing1", b"/thing0").replace(b"/thing2", b"/thing0")
    file.write_bytes(merged)
    outcome = process_bag(loop(), file, tmp_path / "out", Selection())
    assert messages(tmp_path / "out")["/thing0"] == messages(file)["/thing0"]
    assert len(messages(file)["/thing0"]) == 3 and not outcome.notes


def test_progress_knows_how_many_messages_there_are(tmp_path) -> None:
    expected, read = [], []
    process_bag(
        loop(), write_bag(tmp_path / "in"), tmp_path / "out", Selection(), advance=read.append,
        expect=expected.append,
    )  # fmt: skip
    assert expected == [10] and sum(read) == 10


def test_a_compressed_bag_stays_compressed(tmp_path) -> None:
    source = tmp_path / "in"
    writer = Writer(source, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        camera = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=STORE)
        for number in range(5):
            writer.write(camera, number, image(1.0, np.zeros((*SIZE, 3), np.uint8)))
    process_bag(loop(), source, tmp_path / "out", Selection())
    assert messages(tmp_path / "out")["/image"] == messages(source)["/image"]
    with Reader(tmp_path / "out") as reader:
        assert {chunk.compression for chunk in reader.storage.storages[0].chunks} == {"zstd"}


def test_another_library_reads_the_same(tmp_path) -> None:
    """mcap-ros2-support, which Foxglove's tools use: no code in common with rosbags."""
    reader = pytest.importorskip("mcap_ros2.reader", reason="mcap-ros2-support is not installed")
    source = write_bag(tmp_path / "in")
    process_bag(loop(), source, tmp_path / "out.mcap", Selection())
    found = list(reader.read_ros2_messages(tmp_path / "out.mcap", topics=[POSES]))
    ours = messages(tmp_path / "out.mcap")[POSES]
    assert len(found) == len(ours) == 5
    for each, (log_ns, data) in zip(found, ours, strict=True):
        wanted = STORE.deserialize_cdr(data, PERSON_ARRAY)
        assert each.log_time_ns == log_ns
        assert each.ros_msg.header.stamp.nanosec == wanted.header.stamp.nanosec
        assert each.ros_msg.skeleton.keypoint_names == wanted.skeleton.keypoint_names
        for theirs, own in zip(each.ros_msg.people, wanted.people, strict=True):
            assert (theirs.track_id, theirs.score) == (own.track_id, own.score)
            assert list(theirs.mask.counts) == own.mask.counts.tolist()
            assert [joint.x for joint in theirs.keypoints] == [joint.x for joint in own.keypoints]


def test_a_topic_without_a_type_is_refused_in_words() -> None:
    """MCAP has channels without a schema; rosbags' writer raised AttributeError."""
    writer = SimpleNamespace(connections=[])
    untyped = SimpleNamespace(topic="/raw", msgtype=None)
    with pytest.raises(BagError, match="/raw has the type None.*--results-only"):
        copied_connection(writer, untyped, STORE)
