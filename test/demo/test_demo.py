# SPDX-License-Identifier: Apache-2.0
"""The demo end to end: two processes and a recorder, with networks that know the clip by heart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from node_harness import LIMIT_S, wait_for
from std_msgs.msg import Header

from bmp_ros.cli.main import main
from bmp_ros.demo import demo
from bmp_ros.demo.demo import (
    SPREAD_PICTURES,
    DemoSettings,
    IdCounts,
    count_ids,
    run_demo,
    write_pictures,
)
from bmp_ros.demo.processes import ProcessError, module_command
from bmp_ros.demo.recorder import Result
from bmp_ros.image_files import shown_name
from bmp_ros.loop.people import People
from bmp_ros.ros.interfaces import PersonArray
from bmp_ros.ros.person_messages import person_array

PRESET = "bmp_j1"  # named in the node's log only: the networks are scripted
BY_HEART = (str(Path(__file__).with_name("truth_node.py")),)

pytest.importorskip("pycocotools", reason="pycocotools is not installed")
pytest.importorskip("PIL", reason="Pillow is not installed")


def settings(folder: Path, node: Sequence[str] = BY_HEART, **changed: object) -> DemoSettings:
    return DemoSettings(**{"preset": PRESET, "output": folder, "node_command": node} | changed)


@pytest.mark.slow
def test_whole_clip_by_heart_scores_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever camera, messages, matching by stamp and scoring did wrong would cost points."""
    lines: list[str] = []
    seen: list[Result] = []
    monkeypatch.setattr(demo, "count_ids", lambda all_: seen.extend(all_) or count_ids(all_))
    run_demo(settings(tmp_path), lines.append)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["frames_sent"] == 240
    # On a machine that is slow or busy, the node takes fewer images, and DDS may lose results.
    assert 20 < summary["results_received"] <= summary["frames_processed"] <= 240
    # So it may lose the ground truth of some.
    assert 20 < summary["frames_scored"] <= summary["results_received"]
    assert summary["box_ap50"] == summary["mask_ap50"] == 1
    # COCO counts the pose of an arm that reaches into the picture as false, right as it is: in six
    # images of the clip, which weigh more among few.
    assert summary["keypoint_ap"] > 0.95
    assert summary["people_mean"] == np.mean([len(each.people.people) for each in seen])
    # Where a busy machine leaves a gap, the tracker may begin anew.
    times = sorted(each.stamp_ns for each in seen)
    gaps = int((np.diff(times) > 5 * 10**8).sum())
    assert 4 <= summary["ids_given"] < 12 + 6 * gaps
    assert 0 <= summary["id_switches"] < 8 + 6 * gaps
    assert 0 < summary["age_ms_p50"] <= summary["age_ms_p95"]
    assert {"detect", "pose", "total", "node overhead"} <= set(summary["stage_ms_median"])
    assert summary["machine"]["processor"]

    pictures = sorted(tmp_path.glob("debug_*.png"))
    assert len(pictures) >= 6
    assert all(cv2.imread(str(picture)).shape == (480, 640, 3) for picture in pictures)
    assert len(list(tmp_path.glob("debug_*_closest.png"))) == 1
    film = cv2.VideoCapture(str(tmp_path / "demo.gif"))
    assert film.read()[0]
    assert (tmp_path / "demo.gif").stat().st_size <= 5_000_000
    text = "\n".join(lines)
    assert "240 sent at " in text and str(tmp_path / "demo.gif") in text and "machine" in text


def result_of(stamp: int, boxes: list[list[float]], ids: list[int], truth: list[int]) -> Result:
    """A result whose true people stand where they were found, one each."""

    def message(numbers: list[int], places: list[list[float]]) -> PersonArray:
        people = People.from_boxes(
            np.array(places, np.float32).reshape(-1, 4), np.ones(len(places), np.float32), 48, 64
        )
        people = replace(people, track_ids=np.array(numbers, np.int32))
        return person_array(Header(), people)

    known = message(truth, boxes[: len(truth)]) if truth else None
    return Result(stamp, 0.0, message(ids, boxes), known, None)


def test_ids_are_counted_in_the_order_of_the_images() -> None:
    left, right = [0.0, 0, 10, 40], [30.0, 0, 40, 40]
    results = [
        result_of(3, [left, right], [1, 3], [70, 80]),  # 80 has another id
        result_of(1, [left, right], [1, 2], [70, 80]),
        result_of(2, [left, right], [1, -1], [70, 80]),  # no id is no other id
        result_of(4, [right, left], [1, 3], [80, 70]),  # both have
        result_of(5, [right], [9], []),  # without truth
    ]
    assert count_ids(results) == IdCounts(given=4, switches=3)


def test_a_person_whom_two_ids_fit_keeps_the_one_of_before() -> None:
    place, shifted = [0.0, 0, 20, 40], [4.0, 0, 24, 40]
    results = [
        result_of(1, [place, shifted], [1, 2], [70]),
        result_of(2, [place, shifted], [2, 1], [70]),  # 2 fits better now, 1 fits still
        result_of(3, [], [], []),
        result_of(4, [place], [2], [70]),
    ]
    assert count_ids(results) == IdCounts(given=2, switches=1)


def test_one_picture_is_of_the_two_who_are_closest(tmp_path: Path) -> None:
    """By the truth; the node may take who hug for one."""
    _, jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 127, np.uint8))
    rows = range(20)
    # The second comes nearer until the eighth result, a tenth of a second apart, and leaves again.
    places = [
        [[0.0, 0, 20, 40], [x, 0.0, x + 20, 40]] for x in (4.0 + 2 * abs(n - 7) for n in rows)
    ]
    found = result_of(0, [[0.0, 0, 20, 40]], [1], []).people  # one of them
    results = [
        replace(
            result_of(10**18 + n * 10**8, places[n], [1, 2], [70, 80]),
            people=found,
            jpeg=None if n == 3 else bytes(jpeg),
        )
        for n in rows
    ]
    paths = write_pictures(tmp_path, results, 10**18)
    assert [path.name for path in paths if "closest" in path.name] == ["debug_00.7s_closest.png"]
    assert [path.name for path in paths if "spread" in path.name][:: SPREAD_PICTURES - 1] == [
        "debug_00.0s_spread.png",
        "debug_01.9s_spread.png",
    ]
    assert all(cv2.imread(str(path)).shape == (48, 64, 3) for path in paths)


@pytest.mark.slow
def test_nobody_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MISS", "1")
    with pytest.raises(ProcessError, match="results, and no person was found in any image"):
        run_demo(settings(tmp_path, images=240, rate=24.0))
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["results_received"] > 0 == summary["people_mean"]
    assert summary["box_ap50"] == 0


def test_node_that_cannot_configure(tmp_path: Path) -> None:
    with pytest.raises(ProcessError) as failure:
        run_demo(settings(tmp_path, preset="no_such_preset"))
    assert "cannot configure: no preset is called 'no_such_preset'" in str(failure.value)
    assert "The last lines of" in str(failure.value)


def test_node_that_dies(tmp_path: Path) -> None:
    code = "print('about to fail'); raise SystemExit(3)"
    with pytest.raises(ProcessError, match="bmp_node ended with exit code 3") as failure:
        run_demo(settings(tmp_path, ("-c", code)))
    assert "about to fail" in str(failure.value)


def test_nothing_of_the_current_folder_is_run(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit('run')\n")
    (tmp_path / "given.json").write_text("[1]")
    done = subprocess.run(
        [sys.executable, *module_command("json.tool"), "given.json", "--compact"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "[1]"), done.stderr


def test_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="the camera ended with exit code 1") as failure:
        run_demo(settings(tmp_path, source="nothing.mp4"))
    assert "'nothing.mp4' is no file or folder" in str(failure.value)


@pytest.mark.slow
def test_source_without_truth(tmp_path: Path) -> None:
    """Any video works; only the scores are missing."""
    video = tmp_path / "plain.mp4"
    video.write_bytes(demo_clip())
    summary = run_demo(settings(tmp_path / "out", source=str(video), images=240, rate=24.0))
    assert summary.results_received > 0 == summary.frames_scored
    assert summary.box_ap50 is summary.mask_ap50 is summary.keypoint_ap is None
    assert summary.ids_given > 0 and summary.id_switches is None
    assert list((tmp_path / "out").glob("debug_*_closest.png"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [b"a: b #1.mp4", b"caf\xe9.mp4"])
def test_a_name_may_look_like_a_mapping_or_be_no_text(
    tmp_path: Path, name: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = tmp_path / os.fsdecode(name)
    video.write_bytes(demo_clip())
    monkeypatch.setattr(sys, "argv", ["bmp", "demo", "--source", str(video)])
    # Enough images that a node whom DDS tells of the camera late still gets some.
    summary = run_demo(settings(tmp_path / "out", source=str(video), images=240, rate=24.0))
    assert summary.frames_sent == 240
    assert summary.source == shown_name(video)


def demo_clip() -> bytes:
    from bmp_ros.synthetic.clip_file import demo_clip_path

    return demo_clip_path().read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import sys; from functools import partial; import bmp_ros.demo.demo as demo\n"
        f"demo.DemoSettings = partial(demo.DemoSettings, node_command=({BY_HEART[0]!r},))\n"
        "from bmp_ros.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    running = subprocess.Popen(
        [sys.executable, "-c", code, "demo", "--preset", PRESET, "--output", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        # A shell starts background jobs with SIGINT ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        log = tmp_path / "camera.log"
        wait_for(lambda: log.is_file() and "images per second" in log.read_text(), "the camera")
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        assert len(children) == 2
        running.send_signal(number)
        output, _ = running.communicate(timeout=LIMIT_S)
    finally:
        running.kill()
    assert running.returncode == 130, output
    assert "interrupted" in output and "Traceback" not in output
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    for name in ("node", "camera"):
        assert "Traceback" not in (tmp_path / f"{name}.log").read_text(encoding="utf-8")


def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--images", "0"]) == 1
    assert capsys.readouterr().err == "bmp demo: --images is 0, needs at least 1\n"


def test_command_line_exits_with_1_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--preset", "no_such_preset", "--output", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "bmp demo: bmp_node cannot configure: no preset is called 'no_such_preset'" in error
