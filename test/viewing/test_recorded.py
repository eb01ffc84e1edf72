# SPDX-License-Identifier: Apache-2.0
"""What is shown of files: results of `bmp infer` with their images, and bags."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (requirements/bags.txt)")
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from scripted import Actor, stage
from test_bag import STORE, header, loop, write_bag

from bmp_ros.bags.process import BagError, Selection, process_bag
from bmp_ros.cli.main import main
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.offline.infer_files import Wanted, infer
from bmp_ros.offline.sources import open_source
from bmp_ros.viewing import rerun_log
from bmp_ros.viewing.moment import EncodedImage
from bmp_ros.viewing.recorded import moments_of_bag, moments_of_results
from bmp_ros.viewing.rerun_log import RerunLog

CLIP = Path(__file__).parents[2] / "models" / "demo" / "people.mp4"


def pixels_of(picture: EncodedImage | None) -> np.ndarray:
    assert picture is not None
    return cv2.imdecode(np.frombuffer(picture.contents, np.uint8), cv2.IMREAD_COLOR)


def test_results_of_a_video_and_of_images(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.mp4").symlink_to(CLIP)
    frames = cv2.VideoCapture(str(CLIP))
    kept = [frames.read()[1] for _ in range(4)]
    cv2.imwrite(str(source / "b.png"), kept[3])
    people = [Actor((4, 4, 20, 44)), Actor((30, 6, 50, 40), score=0.7)]
    scripted = stage(*[people] * 8, iterations=1).loop
    info = {"source": str(source)}
    wanted = Wanted(draw=False, json=True)
    outcome = infer(
        scripted, open_source(str(source / "a.mp4")), tmp_path / "out", wanted, count=3, info=info
    )
    assert outcome.frames == 3
    said: list[str] = []
    moments = list(moments_of_results(tmp_path / "out", None, said.append))
    assert not said and [each.number for each in moments] == [0, 1, 2]
    assert [each.seconds for each in moments] == pytest.approx([0, 1 / 12, 2 / 12], abs=2e-3)
    for moment, frame in zip(moments, kept, strict=False):
        assert len(moment.people) == 2 and moment.stamp_ns is None
        difference = np.abs(pixels_of(moment.image).astype(int) - frame)
        assert difference.mean() < 4, "the right frame, as a JPEG"


def test_images_that_have_gone_or_changed_are_said(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        cv2.imwrite(str(source / name), np.full((48, 64, 3), 90, np.uint8))
    scripted = stage(*[[Actor((4, 4, 20, 44))]] * 3, iterations=1).loop
    infer(
        scripted, open_source(str(source)), tmp_path / "out", Wanted(draw=False, json=True),
        info={"source": "elsewhere"},
    )  # fmt: skip
    (source / "b.png").unlink()
    cv2.imwrite(str(source / "c.png"), np.zeros((10, 10, 3), np.uint8))
    said: list[str] = []
    moments = list(moments_of_results(tmp_path / "out", str(source), said.append))
    assert [each.image is None for each in moments] == [False, True, True]
    assert [len(each.people) for each in moments] == [1, 1, 1], "people are shown all the same"
    assert any("b.png" in line for line in said) and any("c.png" in line for line in said)
    said.clear()
    moments = list(moments_of_results(tmp_path / "out", None, said.append))
    assert [each.image for each in moments] == [None] * 3
    assert len(said) == 1 and "--images" in said[0]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_bag_that_was_processed(tmp_path: Path, compressed: bool) -> None:
    source = write_bag(tmp_path / "in", compressed=compressed)
    process_bag(loop(), source, tmp_path / "out", Selection())
    moments = list(moments_of_bag(tmp_path / "out", None, pytest.fail))
    assert [each.stamp_ns for each in moments] == [(1000 + n) * 10**8 for n in range(5)]
    for moment in moments:
        assert len(moment.people) == 2 and moment.people.skeleton is COCO_17
        assert pixels_of(moment.image).shape == (48, 64, 3)
        assert moment.people.masks.any()


def test_a_bag_with_lens_and_places(tmp_path: Path) -> None:
    """As a recording of the node with depth has them, places after the people."""
    process_bag(loop(), write_bag(tmp_path / "in", images=3), tmp_path / "out", Selection())
    with (
        Reader(tmp_path / "out") as reader,
        Writer(tmp_path / "more", version=9, storage_plugin=StoragePlugin.MCAP) as writer,
    ):
        connections = {
            each.topic: writer.add_connection(each.topic, each.msgtype, typestore=STORE)
            for each in reader.connections
            if each.topic != "/thing"
        }
        info = writer.add_connection(
            "/camera/camera_info", "sensor_msgs/msg/CameraInfo", typestore=STORE
        )
        space = writer.add_connection(
            "/bmp/poses_3d", "bmp_msgs/msg/PersonArray3D", typestore=STORE
        )
        debug = writer.add_connection("/bmp/debug_image", "sensor_msgs/msg/Image", typestore=STORE)
        writer.write(info, 10**9, camera_info())
        for connection, at, data in reader.messages():
            if connection.topic in connections:
                writer.write(connections[connection.topic], at, bytes(data))
            if connection.topic == "/bmp/poses":
                writer.write(space, at + 10**6, places(at / 1e9))
            if connection.topic == "/camera/image":
                writer.write(debug, at, bytes(data))
    moments = list(moments_of_bag(tmp_path / "more", None, pytest.fail))
    assert len(moments) == 3
    for moment in moments[1:]:  # that there are places is known from the first on
        assert moment.camera is not None and moment.camera.matrix[0, 0] == 50
        assert moment.in_space is not None and moment.in_space.frame == "camera"
        np.testing.assert_allclose(moment.in_space.centroids, [[1, 2, 3], [4, 5, 6]])
        assert np.isnan(moment.in_space.keypoints[0, 0]).all()


def camera_info() -> bytes:
    types = STORE.types
    message = types["sensor_msgs/msg/CameraInfo"](
        header=header(1), height=48, width=64, distortion_model="plumb_bob", d=np.zeros(5),
        k=np.array([50.0, 0, 32, 0, 50, 24, 0, 0, 1]), r=np.eye(3).ravel(), p=np.zeros(12),
        binning_x=0, binning_y=0,
        roi=types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )  # fmt: skip
    return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/CameraInfo"))


def places(seconds: float) -> bytes:
    types = STORE.types
    nan = float("nan")
    joint = types["bmp_msgs/msg/Keypoint3D"](x=nan, y=nan, z=nan, score=0.5, spread=nan)
    point = types["geometry_msgs/msg/Point"]
    people = [
        types["bmp_msgs/msg/Person3D"](
            track_id=1 + row, track_age=0.0, index=row, keypoints=[joint] * 17,
            centroid=point(x=3.0 * row + 1, y=3.0 * row + 2, z=3.0 * row + 3),
            distance=1.0, velocity=types["geometry_msgs/msg/Vector3"](x=nan, y=nan, z=nan),
        )
        for row in range(2)
    ]  # fmt: skip
    message = types["bmp_msgs/msg/PersonArray3D"](
        header=header(seconds), people=people,
        skeleton=types["bmp_msgs/msg/Skeleton"](
            name="coco_17", keypoint_names=list(COCO_17.names), edges=np.zeros(0, np.uint8)
        ),
    )  # fmt: skip
    return bytes(STORE.serialize_cdr(message, "bmp_msgs/msg/PersonArray3D"))


def test_a_bag_without_people_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="bmp bag IN OUT"):
        list(moments_of_bag(write_bag(tmp_path / "in"), None, pytest.fail))


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["nowhere"], "is not there"),
        (["x", "--demo"], "drop one"),
        (["x", "--seconds", "3"], "--seconds is for a node"),
        (["--seconds", "0"], "must be above 0"),
        (["x", "--port", "0"], "--port is 0"),
    ],
)
def test_what_is_refused(
    arguments: list[str], reason: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":9")
    assert main(["view", *arguments]) == 1
    assert reason in capsys.readouterr().err


def test_what_is_no_recording_is_said_before_a_viewer_is_opened(tmp_path: Path, capsys) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "walk.MP4").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metadata.yaml").touch()
    saved = tmp_path / "a.rrd"
    for name, reason in (
        ("out", "is no bag and has no results.json; `bmp infer --json` writes it"),
        ("walk.MP4", "first `bmp infer --json --output DIR`"),
        ("broken", "cannot be read as a rosbag2"),
    ):
        assert main(["view", str(tmp_path / name), "--save", str(saved)]) == 1
        assert reason in capsys.readouterr().err and not saved.exists()
    (tmp_path / "out" / "a.mp4").mkdir()
    (tmp_path / "out" / "a.mp4" / "results.json").touch()
    assert main(["view", str(tmp_path / "out"), "--save", str(saved)]) == 1
    assert "; there is " in capsys.readouterr().err


def test_results_are_looked_for_two_folders_deep_and_no_deeper(tmp_path: Path, capsys) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "results.json").touch()
    arguments = ["view", str(tmp_path), "--save", str(tmp_path / "a.rrd")]
    assert main(arguments) == 1
    assert "; `bmp infer --json` writes it" in capsys.readouterr().err
    (deep.parent / "results.json").touch()
    assert main(arguments) == 1
    assert f"; there is {deep.parent / 'results.json'}" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="only there it is told by the environment")
def test_without_a_display_no_window_is_tried(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rerun", reason="rerun is not installed (requirements/view.txt)")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    shown: list[RerunLog] = []
    monkeypatch.setattr(RerunLog, "spawn", lambda log: shown.append(log))
    picture, out = tmp_path / "a.png", tmp_path / "out"
    cv2.imwrite(str(picture), np.full((48, 64, 3), 90, np.uint8))
    infer(stage([], iterations=1).loop, open_source(str(picture)), out,
          Wanted(draw=False, json=True), info={"source": str(picture)})  # fmt: skip
    with socket.socket() as viewer:
        viewer.bind(("127.0.0.1", 0))
        monkeypatch.setattr(rerun_log, "VIEWER_PORT", viewer.getsockname()[1])
        assert main(["view", str(out)]) == 1
        assert "give --web or --save FILE" in capsys.readouterr().err and not shown
        viewer.listen()  # one that is open already, behind ssh -R or outside of the container
        assert main(["view", str(out)]) == 0
        assert capsys.readouterr().out.startswith("1 images") and len(shown) == 1
