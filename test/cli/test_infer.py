# SPDX-License-Identifier: Apache-2.0
"""``bmp infer``: exit codes, messages, and what lies in the folder afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

for folder in ("evaluation", "loop"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

from numbered import numbered_image, numbered_loop  # noqa: E402
from scripted import Actor  # noqa: E402

import bmp_ros.engines  # noqa: E402
from bmp_ros.cli.infer import _counts  # noqa: E402
from bmp_ros.cli.main import main  # noqa: E402
from bmp_ros.image_files import write_image  # noqa: E402
from bmp_ros.offline.results_file import ResultsFile  # noqa: E402


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """A loop that finds one person in picture 120 in place of one with networks."""
    asked: list[tuple] = []

    def build_loop(preset: str, device: str, **options: object) -> object:
        asked.append((preset, device, options))
        return numbered_loop({120: [[Actor((10, 10, 60, 110))]]})

    monkeypatch.setattr(bmp_ros.engines, "build_loop", build_loop)
    return asked


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "Bild 人.png"
    path.parent.mkdir()
    write_image(path, numbered_image(120))
    return path


def test_image(
    image: Path, built: list[tuple], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "Ausgabe"
    arguments = ["--source", str(image), "--output", str(output), "--preset", "edge"]
    assert main(["infer", *arguments, "--device", "cpu", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"1 image, 1 person: {output}\n"
    assert printed.err == ""
    assert built == [("edge", "cpu", {"precision": "fp32"})]
    assert sorted(path.name for path in output.iterdir()) == ["Bild 人.png", "results.json"]
    info = json.loads((output / "results.json").read_text(encoding="utf-8"))["info"]
    assert info["preset"] == "edge" and info["source"] == str(image)


def test_one_command_names_detector_and_pose_estimator(
    image: Path, built: list[tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the script of the pipeline that it replaces; the folder has a default."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--source", str(image), "--detector", "yolov5m-crowdhuman", "--json"]
    assert main(["infer", *arguments, "--pose", "vitpose-b-coco", "--size", "640"]) == 0
    preset, _, options = built[0]
    assert preset["segmenter"] is None and preset["loop"]["iterations"] == 1
    assert preset["detector"] == {"engine": "yolov5", "weights": "yolov5m-crowdhuman"}
    assert preset["pose_estimator"] == {"engine": "vit_pose", "weights": "vitpose-b-coco"}
    assert options == {"precision": "fp32", "detector": {"input_size": 640}}
    info = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["info"]
    assert info["preset"] is None
    assert (info["detector"], info["pose"]) == ("yolov5m-crowdhuman", "vitpose-b-coco")


def test_one_network_of_a_preset_is_replaced(
    image: Path, built: list[tuple], tmp_path: Path
) -> None:
    given = ["infer", "--source", str(image), "--output", str(tmp_path / "out")]
    assert main([*given, "--preset", "bmp_d3", "--detector", "yolov5s-coco"]) == 0
    assert main([*given, "--preset", "edge", "--size", "416x320"]) == 0
    assert main([*given, "--at-once", "2"]) == 0
    preset, _, options = built[0]
    assert preset == "bmp_d3" and "pose_estimator" not in options
    assert options["detector"] == {"engine": "yolov5", "weights": "yolov5s-coco"}
    assert options["detection_threshold"] == 0.25
    assert built[1][0] == "edge" and built[1][2]["detector"] == {"input_size": (416, 320)}
    assert built[2][0] == "tiny" and built[2][2]["detector"]["threads"] >= 1


def test_boxes_of_another_program(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = {"image_id": image.name, "bbox": [10, 10, 50, 100], "score": 0.8}
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([box, {**box, "image_id": "other.png"}]))
    given = ["infer", "--source", str(image), "--output", str(tmp_path / "out"), "--json"]
    assert main([*given, "--boxes", str(boxes)]) == 0
    assert "boxes of 1 images that are not among the sources" in capsys.readouterr().err
    document = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [(a["bbox"], a["score"]) for a in document["annotations"]] == [([10, 10, 50, 100], 0.8)]
    boxes.write_text(json.dumps([{**box, "image_id": "other.png"}]))
    assert main([*given, "--boxes", str(boxes)]) == 1
    assert "has no boxes of" in capsys.readouterr().err


def test_preset_auto_is_resolved_and_said(
    image: Path, built: list[tuple], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--source", str(image), "--output", str(tmp_path / "out"), "--json"]
    assert main(["infer", *arguments, "--preset", "auto", "--device", "cpu"]) == 0
    assert "preset auto: tiny, because device is cpu" in capsys.readouterr().err
    assert built[0][:2] == ("tiny", "cpu")
    info = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["info"]
    assert info["preset"] == "tiny", "what was used, not the rule"


def test_unreadable_files_make_the_exit_code_1(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image.parent / "broken.jpg").write_bytes(b"x")
    output = tmp_path / "out"
    assert main(["infer", "--source", str(image.parent), "--output", str(output)]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("1 image, ")
    assert printed.err.startswith("bmp infer: ") and printed.err.count("\n") == 1
    assert "broken.jpg (1 bytes) is no whole image" in printed.err
    assert [path.name for path in output.iterdir()] == ["Bild 人.png"]


def test_names_that_are_no_text_can_be_printed(image: Path, tmp_path: Path) -> None:
    """In a process of its own, whose output takes nothing but ASCII."""
    folder = tmp_path / os.fsdecode(b"in\xfc")
    image.parent.rename(folder)
    (folder / os.fsdecode(b"kaputt\xe9.jpg")).write_bytes(b"x")
    (folder / os.fsdecode(b"notes.t\xe9xt")).write_bytes(b"x")
    output = tmp_path / os.fsdecode(b"out\xfc")
    code = (
        "import sys; sys.path[:0] = " + repr(sys.path) + "\n"
        "import bmp_ros.engines as engines\n"
        "from numbered import numbered_loop\n"
        "engines.build_loop = lambda *_, **__: numbered_loop({120: [[]]})\n"
        "from bmp_ros.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    given = ["infer", "--source", str(folder), "--output", str(output), "--json"]
    ended = subprocess.run(
        [sys.executable, "-c", code, *given],
        env=os.environ | {"PYTHONIOENCODING": "ascii:strict"}, capture_output=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1 and b"Traceback" not in ended.stderr, ended.stderr
    assert ended.stdout.endswith(
        b"1 image, 0 people: " + (str(tmp_path).encode() + b"/out\\xfc\n")
    )
    assert b"kaputt\\xe9.jpg (1 bytes) is no whole image" in ended.stderr
    assert b"in\\xfc: left out 1 *.t\\xe9xt" in ended.stderr
    document = json.loads((output / "results.json").read_text(encoding="utf-8"))
    assert document["info"]["source"].endswith("in\\xfc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-draw"], "--no-draw without --json, --gif, --format or --report would"),
        (["--size", "big"], "--size is 'big', needs a side in pixels or WIDTHxHEIGHT"),
        (["--size", "640"], "--size goes with networks in PyTorch"),
        (["--boxes", "gone.json"], "gone.json cannot be read"),
        (["--detector", "yolov5"], "no weights are called 'yolov5'"),
        (["--count", "0"], "--count is 0, must be at least 1"),
        (["--at-once", "0"], "--at-once is 0, must be 1 to 64 images"),
        (
            ["--at-once", "2", "--track", "--detection-interval", "3"],
            "--at-once does not go with --detection-interval",
        ),
        (["--source", "demo", "--track", "--rate", "5"], "--rate is 5, and is for images; the"),
        (["--source", "gone.png"], "source 'gone.png' is not there"),
        (["--source", ""], "the source is empty; give an image, a folder"),
        (["--output", "IN"], "is the input"),
    ],
)
def test_failures_are_one_line(
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    arguments = [str(image.parent) if word == "IN" else word for word in arguments]
    before = image.read_bytes()
    given = ["infer", "--source", str(image), "--output", str(tmp_path / "out"), *arguments]
    assert main(given) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith("bmp infer: ") and message in printed.err
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("rate", "count", "told"), [("0.4", 2, True), ("0.4", 1, False), ("0.5", 2, False)]
)
def test_a_rate_at_which_no_id_lasts_is_told(
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rate: str,
    count: int,
    told: bool,
) -> None:
    write_image(image.with_name("b.png"), numbered_image(120))
    given = ["--source", str(image.parent), "--output", str(tmp_path / "out"), "--json", "--track"]
    assert main(["infer", *given, "--rate", rate, "--count", str(count)]) == 0
    printed = capsys.readouterr().err
    expected = (
        "bmp infer: --rate is 0.4: the images are 2.5 s apart, and ids last over at most 2 s"
    )
    assert printed.startswith(expected) if told else printed == ""


def test_source_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["infer"])
    assert end.value.code == 2
    assert "required: --source" in capsys.readouterr().err


def test_output_must_be_a_folder(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["infer", "--source", str(image), "--output", str(image)])
    assert end.value.code == 2
    assert f"'{image}' is a file, needs the path of a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((1, 0, 1), "1 image, 1 person"),
        ((0, 1, 0), "1 video frame, 0 people"),
        ((2, 30, 5), "2 images and 30 video frames, 5 people"),
        ((0, 0, 0), "no image, 0 people"),
    ],
)
def test_counts_are_in_words_that_fit(counts: tuple[int, int, int], words: str) -> None:
    assert _counts(*counts) == words


def test_ctrl_c_says_where_the_results_are(
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loop = numbered_loop({120: [[Actor((10, 10, 60, 110))]]})

    def ending(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    loop.detector.detect = ending  # type: ignore[method-assign]
    monkeypatch.setattr(bmp_ros.engines, "build_loop", lambda *_, **__: loop)
    output = tmp_path / "out"
    assert main(["infer", "--source", str(image), "--output", str(output), "--json"]) == 130
    expected = f"bmp infer: interrupted; what was done until then is in {output}\n"
    assert capsys.readouterr().err == expected
    assert (output / "results.json").is_file()


@pytest.mark.parametrize(
    ("options", "done", "kept"),
    [
        (["--no-draw", "--report"], 1, "nothing was written"),
        ([], 0, "nothing was written"),
        ([], 1, "what was done until then is in OUT"),
        (["--json", "--report"], 1, "what was done until then is in OUT, but no report in REPORT"),
    ],
)
def test_ctrl_c_says_what_was_written_and_what_failed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    done: int,
    kept: str,
) -> None:
    if "--report" in options:
        pytest.importorskip("plotly", reason="plotly is not installed (requirements/report.txt)")
    source, output, report = tmp_path / "in", tmp_path / "out", tmp_path / "report.html"
    source.mkdir()
    (source / "a.png").write_bytes(b"no image")
    for number in range(done + 1):
        write_image(source / f"b{number}.png", numbered_image(120))
    loop, asked = numbered_loop({120: [[Actor((10, 10, 60, 110))]]}), []
    detect = loop.detector.detect

    def ending(*given: Any, **options: Any) -> Any:
        asked.append(given)
        if len(asked) > 2 * done:  # two iterations of each
            raise KeyboardInterrupt
        return detect(*given, **options)

    loop.detector.detect = ending  # type: ignore[method-assign]
    monkeypatch.setattr(bmp_ros.engines, "build_loop", lambda *_, **__: loop)
    more = [*options, str(report)] if "--report" in options else options
    arguments = ["--source", str(source), "--output", str(output), "--at-once", "1", *more]
    assert main(["infer", *arguments]) == 130
    said = capsys.readouterr().err.splitlines()
    kept = kept.replace("OUT", str(output)).replace("REPORT", str(report))
    assert said[-1] == f"bmp infer: interrupted; {kept}"
    assert "a.png" in said[0] and len(said) == 2
    written = [path for path in output.rglob("*") if path.is_file()]
    assert bool(written) == ("nothing" not in kept) and not report.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_what_there_is_when_a_run_is_ended_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As after Ctrl+C: results of the images before, and no unfinished file."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        write_image(folder / name, numbered_image(120))
    loop, calls = numbered_loop({120: [[Actor((10, 10, 60, 110))]]}), []
    detect, add, added = loop.detector.detect, ResultsFile.add, threading.Event()

    def adding(*given: Any, **facts: Any) -> None:
        add(*given, **facts)
        added.set()

    monkeypatch.setattr(ResultsFile, "add", adding)
    put_away = ResultsFile.__exit__

    def impatient(*given: Any) -> None:
        for each in (signal.SIGINT, number):
            os.kill(os.getpid(), each)
        put_away(*given)

    monkeypatch.setattr(ResultsFile, "__exit__", impatient)

    def ending(frame: Any, **options: Any) -> Any:
        calls.append(frame)
        if len(calls) == 3:  # two iterations of a.png
            assert added.wait(60)
            os.kill(os.getpid(), number)
        return detect(frame, **options)

    loop.detector.detect = ending  # type: ignore[method-assign]
    monkeypatch.setattr(bmp_ros.engines, "build_loop", lambda *_, **__: loop)
    usual = {number: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {each: signal.signal(each, handler) for each, handler in usual.items()}
    arguments = ["--source", str(folder), "--output", str(tmp_path / "out"), "--json"]
    try:
        if number == signal.SIGINT:
            assert main(["infer", *arguments, "--at-once", "1"]) == 130
        else:
            with pytest.raises(SystemExit) as ended:
                main(["infer", *arguments, "--at-once", "1"])
            assert ended.value.code == 128 + number
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [each["file_name"] for each in document["images"]] == ["a.png"]
    assert not list((tmp_path / "out").glob("*.part"))
