# SPDX-License-Identifier: Apache-2.0
"""What the viewer is given, read back from a file by Rerun's own reader."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rerun", reason="rerun is not installed (requirements/view.txt)")
import rerun

from bmp_ros.cli.main import main
from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.loop.people import People
from bmp_ros.viewing.moment import EncodedImage, Moment, PeopleInSpace
from bmp_ros.viewing.rerun_log import RerunLog, labels, limbs, mask_png

CAMERA = CameraModel(np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), 64, 48)


def two_people() -> People:
    boxes = np.array([[4, 4, 20, 44], [30, 6, 50, 40]], np.float32)
    masks = np.zeros((2, 48, 64), np.bool_)
    masks[0, 4:44, 4:20] = masks[1, 6:40, 30:50] = True
    made = People.from_boxes(boxes, np.array([0.9, 0.5], np.float32), 48, 64, masks=masks)
    return replace(
        made,
        keypoints=np.random.default_rng(0).uniform(0, 40, (2, 17, 2)).astype(np.float32),
        keypoint_scores=np.array([[0.9] * 17, [0.9] * 5 + [0.1] * 12], np.float32),
        track_ids=np.array([3, -1], np.int32),
    )


def moment(number: int, people: People) -> Moment:
    keypoints = np.random.default_rng(1).uniform(1, 4, (len(people), 17, 3)).astype(np.float32)
    keypoints[:, 9] = np.nan
    return Moment(
        number, people, stamp_ns=(1000 + number) * 10**9, seconds=number / 10, camera=CAMERA,
        image=EncodedImage.of(np.full((48, 64, 3), 99, np.uint8)),
        in_space=PeopleInSpace(keypoints, keypoints[:, 0]), times_ms={"loop total": 12.5},
    )  # fmt: skip


# Components by the names of rerun 0.23; later versions call them by their field.
COMPONENTS = {
    "half_sizes": "HalfSize2D", "labels": "Text", "positions": "Position2D",
    "strips": "LineStrip3D", "scalars": "Scalar", "media_type": "MediaType",
}  # fmt: skip


def columns(path: Path, contents: str, index: str = "image") -> dict[str, list]:
    """Every component below an entity, by its name without the path, at each time."""
    view = rerun.dataframe.load_recording(path).view(index=index, contents=contents)
    table = view.select().read_all()
    names = [name for name in table.column_names if ":" in name]  # the others are times
    short = {name: name.rpartition(":")[2] for name in names}
    return {COMPONENTS.get(short[name], short[name]): table.column(name).to_pylist()
            for name in names}  # fmt: skip


def test_a_file_has_all_that_was_shown(tmp_path: Path) -> None:
    log = RerunLog("test")
    log.save(tmp_path / "deep" / "a.rrd")
    people = two_people()
    for number in range(3):
        log.show(moment(number, people))
    last = moment(3, People.empty(48, 64))
    log.show(replace(last, in_space=None))
    log.show_times(last, {"pose": 7.0})
    log.close()
    path = tmp_path / "deep" / "a.rrd"
    boxes = columns(path, "/world/camera/image/boxes")
    np.testing.assert_allclose(np.array(boxes["HalfSize2D"][0]), [[8, 20], [10, 17]])
    assert boxes["Text"][0] == ["3: 0.90", "0.50"] and boxes["HalfSize2D"][3] == []
    joints = columns(path, "/world/camera/image/joints")
    assert [len(each) for each in joints["Position2D"]] == [22, 22, 22, 0]
    lines = columns(path, "/world/people/limbs")["LineStrip3D"]
    assert all(np.isfinite(np.array(each)).all() for each in lines[:3])
    below = columns(path, "/world/people/labels")
    assert below["Text"][0] == ["3", "0.50"]
    heights = np.where(people.keypoint_scores > 0.3, people.keypoints[..., 1], 0)
    heights[:, 9] = 0  # not in space
    lowest = moment(0, people).in_space.keypoints[[0, 1], heights.argmax(axis=1)]
    points = below["Position3D" if "Position3D" in below else "Position2D"][0]
    np.testing.assert_allclose(np.array(points), lowest)
    assert columns(path, "/plots/people")["Scalar"] == [[2.0], [2.0], [2.0], [0.0]]
    assert columns(path, "/plots/scores/id_3")["Scalar"] == [[pytest.approx(0.9)]] * 3
    assert columns(path, "/plots/milliseconds/loop_total")["Scalar"] == [[12.5]] * 4
    assert columns(path, "/plots/milliseconds/pose")["Scalar"] == [[7.0]]
    assert len(columns(path, "/plots/people", "stamp")["Scalar"]) == 4
    assert len(columns(path, "/plots/people", "time")["Scalar"]) == 4


def test_masks_cover_their_pixels_and_nothing_else() -> None:
    people = two_people()
    data = np.frombuffer(mask_png(people.masks, [(255, 0, 0), (0, 0, 255)]), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(picture[..., 3] > 0, people.masks.any(axis=0))
    assert (picture[people.masks[0]][:, :3] == [0, 0, 255]).all(), "red, as OpenCV has it"


def test_limbs_have_two_ends_that_were_found() -> None:
    people = two_people()
    found = people.keypoint_scores > 0.3
    lines, colors = limbs(people.keypoints, found, people, [(1, 1, 1), (2, 2, 2)])
    edges = people.skeleton.edges
    heads = sum(a < 5 and b < 5 for a, b in edges)
    assert colors.count((1, 1, 1)) == len(edges) and colors.count((2, 2, 2)) == heads
    np.testing.assert_array_equal(lines[0], people.keypoints[0, list(edges[0])])
    assert labels(people) == ["3: 0.90", "0.50"]


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} is taken"):
            RerunLog("test").serve_web(port, port + 1)


def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.png"
    cv2.imwrite(str(source), np.full((48, 64, 3), 90, np.uint8))
    arguments = ["--no-draw", "--json", "--output", str(tmp_path / "out")]
    assert main(["infer", "--source", str(source), *arguments]) == 0
    assert main(["view", str(tmp_path / "out"), "--save", str(tmp_path / "a.rrd")]) == 0
    assert "1 images" in capsys.readouterr().out
    picture = columns(tmp_path / "a.rrd", "/world/camera/image")
    assert picture["MediaType"] == [["image/jpeg"]]


SERVE = """
import faulthandler, os, socket
from bmp_ros.viewing.rerun_log import RerunLog

def free_ports():
    # Both at once: a port that was given back may be the next one.
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("", 0))
        return one.getsockname()[1], other.getsockname()[1]

faulthandler.dump_traceback_later(300, exit=True)
logs = []
for _ in range(20):
    logs.append(RerunLog("people"))
    logs[-1].serve_web(*free_ports())
print(len(logs), flush=True)
os._exit(0)
"""


def test_serving_begins_at_once() -> None:
    """Where something made by NumPy is on its way to the server then, Rerun 0.23 may wait for
    ever: in about one of ten beginnings."""
    done = subprocess.run([sys.executable, "-c", SERVE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "20\n"), done.stderr


ANOTHER = """
import faulthandler
import sys
from test_rerun_log import RerunLog, moment, two_people

faulthandler.dump_traceback_later(300, exit=True)
for number in range(3):
    RerunLog("not closed").show(moment(number, two_people()))
print("done")
"""


def test_another_log_does_not_wait_for_the_one_before() -> None:
    """All recordings of a process have one id by default. Rerun 0.23 then ends the one before,
    with Python's lock held, and waits for ever if that was not closed."""
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
