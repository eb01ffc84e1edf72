# SPDX-License-Identifier: Apache-2.0
"""Reports: what their numbers are, that nothing is fetched, that no name of a file breaks them."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import page, screenshot

pytest.importorskip("plotly", reason="plotly is not installed (requirements/report.txt)")

from bmp_ros.cli.main import main
from bmp_ros.loop.people import People
from bmp_ros.reporting import figures
from bmp_ros.reporting.page import people_sections, write_page
from bmp_ros.reporting.people_log import NUMBERS, PeopleLog, Track

CLIP = Path(__file__).parents[2] / "models" / "demo" / "people.mp4"
IMAGE = np.full((48, 64, 3), 99, np.uint8)


def people(*scores: float, ids: tuple[int, ...] = ()) -> People:
    count = len(scores)
    boxes = np.tile(np.array([4, 4, 20, 44], np.float32), (count, 1))
    made = People.from_boxes(boxes, np.array(scores, np.float32), 48, 64)
    ids = ids or (-1,) * count
    return replace(
        made, pose_scores=np.full(count, 0.5, np.float32), track_ids=np.array(ids, np.int32)
    )


def filled_log(**options: object) -> PeopleLog:
    """Two videos; id 1 of the first leaves for two seconds."""
    log = PeopleLog(**options)
    for number in range(60):
        seconds = number / 10
        seen = (1,) if not 20 <= number < 40 else ()
        found = people(*[0.9] * (len(seen) + 1), ids=(*seen, 2))
        log.add(IMAGE, found, seconds, {"total": 10.0 + number, "pose": 4.0}, "a.mp4", f"{number}")
    log.add(IMAGE, people(0.2, ids=(1,)), 0.0, {"total": 5.0}, "b.mp4", "worst")
    log.add(IMAGE, people(), 0.1, {"total": 5.0}, "b.mp4")
    return log


def test_numbers_of_the_log() -> None:
    log = filled_log(pictures=3)
    assert len(log) == 62 and log.counts.sum() == 40 + 60 + 1
    tracks = log.tracks()
    assert [(each.sequence, each.track_id) for each in tracks] == [
        ("a.mp4", 1), ("a.mp4", 2), ("b.mp4", 1),
    ]  # fmt: skip
    assert figures.bars_of(tracks[0]) == [
        (0.0, pytest.approx(2.0)), (4.0, pytest.approx(2.0)),
    ]  # fmt: skip
    assert len(figures.bars_of(tracks[1])) == 1
    assert figures.bars_of(tracks[2]) == [(0.0, 0.0)], "seen once"
    doubtful = log.doubtful()
    assert [each.label for each in doubtful][0] == "worst" and len(doubtful) == 3
    assert doubtful[0].certainty == pytest.approx(0.1)
    times = log.times_ms()
    assert len(times["total"]) == 61, "the first image warms up"
    rows = dict(figures.stage_percentiles(times))
    assert rows["total"][0] == np.percentile(times["total"], 50)
    assert [name for name, _ in figures.stage_percentiles(times)] == ["pose", "total"]


def test_nobody_is_recognised_where_pictures_are_not_wanted_nor_ids() -> None:
    log = filled_log(pictures=0, tracked=False)
    assert log.doubtful() == [] and log.tracks() == []
    assert {section.title for section in people_sections(log)} == {
        "People over time", "Scores", "Latency",
    }  # fmt: skip


def test_images_without_times_are_bars_that_no_line_joins() -> None:
    log = filled_log(pictures=0, tracked=False)
    log.axis = NUMBERS
    assert people_sections(log)[0].title == "People in each image"
    (bars,) = figures.people_over_time(log).data
    assert bars.type == "bar" and len(bars.x) == len(log)
    assert list(bars.y) == log.counts.tolist() and bars.x[0] == log.seconds[0] + 1


def test_long_curves_keep_their_peaks() -> None:
    x, y = np.arange(100_000.0), np.zeros(100_000, int)
    y[[77, 50_001]] = 9
    thin_x, thin_y = figures.thinned(x, y, 1000)
    assert len(thin_x) <= 1000 and set(thin_x[thin_y == 9]) == {77.0, 50_001.0}
    assert (np.diff(thin_x) > 0).all()


def test_of_many_tracks_the_longest_are_shown() -> None:
    tracks = [
        Track("", number, np.arange(1.0 + number % 7), np.ones(1 + number % 7))
        for number in range(1000)
    ]
    drawn = figures.gantt(tracks)
    assert len(set(drawn.data[0].y)) == figures.MOST_TRACKS
    assert min(drawn.data[0].x) >= 6


def test_the_page_is_whole_and_escapes_names(tmp_path: Path) -> None:
    name = "a<script>alert(1)</script>\udce9.mp4"  # as a name that is no UTF-8 is read
    log = filled_log()
    log.add(IMAGE, people(0.01, ids=(1,)), 0.0, {}, name, name)
    path = tmp_path / "deep" / "a.html"
    write_page(path, f"People in {name}", [("source", name)], people_sections(log))
    text = path.read_text(encoding="utf-8")
    # Plotly's own program aside, which is in the page.
    program = max(re.findall(r"<script.*?</script>", text, re.S), key=len)
    assert len(program) > 10**6
    rest = text.replace(program, "")
    assert "<script>alert" not in rest and "&lt;script&gt;alert" in rest
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", rest), "nothing is fetched"
    assert rest.count("data:image/jpeg;base64,") == 12


def test_pages_of_the_commands_in_a_browser_without_a_network(tmp_path: Path) -> None:
    """`bmp infer` and `bmp evaluate` on the demo clip; figures are drawn, pictures are there."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    infer, evaluate = tmp_path / "infer.html", tmp_path / "evaluate.html"
    assert main([
        "infer", "--source", "demo", "--count", "8", "--track", "--no-draw", "--output",
        str(tmp_path / "out"), "--report", str(infer),
    ]) == 0  # fmt: skip
    assert main(["evaluate", "--dataset", "demo", "--count", "4", "--report", str(evaluate)]) == 0
    with page(1150, 900) as shown:
        asked: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        for path, titles, plots in (
            (infer, ("People over time", "Tracks", "Latency", "Most doubtful"), 4),
            (evaluate, ("Precision and recall", "Latency", "Worst pictures"), 2),
        ):
            errors: list[str] = []
            shown.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            shown.goto(path.as_uri())
            shown.wait_for_selector(".main-svg")
            text = shown.inner_text("body")
            assert all(title in text for title in titles), text
            assert shown.locator(".js-plotly-plot").count() == plots and not errors
            broken = "[...document.images].filter(image => !image.naturalWidth).length"
            assert shown.evaluate(broken) == 0
            assert (screenshot(shown) != 255).any()
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["infer", "--source", "demo", "--report", "a.pdf"], "ends with .html"),
        (["evaluate", "--mpii", "x", "--report", "a.html"], "--report is for --dataset and"),
        (["bag", "x", "y", "--report", "a.txt"], "ends with .html"),
        (
            ["infer", "--source", ".", "--workers", "1", "--report", "a.html"],
            "--report goes without",
        ),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, arguments, reason) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    assert reason in capsys.readouterr().err


def test_of_a_bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed (requirements/bags.txt)")
    sys.path.insert(0, str(Path(__file__).parents[1] / "bags"))
    import test_bag

    import bmp_ros.engines

    monkeypatch.setattr(bmp_ros.engines, "build_loop", lambda *args, **options: test_bag.loop())
    source = test_bag.write_bag(tmp_path / "in")
    for anonymise, pictures in ((), 5), (("--anonymise", "faces"), 0):
        name = f"out{pictures}"
        path = tmp_path / f"{name}.html"
        command = ["bag", str(source), str(tmp_path / name), "--report", str(path), *anonymise]
        assert main(command) == 0
        text = path.read_text(encoding="utf-8")
        assert text.count("data:image/jpeg;base64,") == pictures, "none of who is covered"
        assert "5 images; 2.00 people" in text


def test_a_thumbnail_is_small() -> None:
    log = PeopleLog()
    log.add(np.zeros((1080, 1920, 3), np.uint8), People.from_boxes(
        np.array([[10, 10, 500, 900]], np.float32), np.array([0.9], np.float32), 1080, 1920
    ), 0.0, {})  # fmt: skip
    (picture,) = log.doubtful()
    small = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert small.shape == (270, 480, 3)


def test_of_sequences_with_identities(tmp_path: Path) -> None:
    """The demo clip's own truth, tracked: every person a row, the same ids as without a report."""
    pytest.importorskip("trackeval", reason="TrackEval is not installed")
    clips = tmp_path / "clips"
    clips.mkdir()
    for suffix in ("mp4", "npz"):
        (clips / f"people.{suffix}").symlink_to(CLIP.with_suffix(f".{suffix}"))
    path, plain, told = tmp_path / "a.html", tmp_path / "plain.json", tmp_path / "told.json"
    command = ["evaluate", "--tracks", str(clips), "--from-truth", "--rates", "4,2"]
    assert main([*command, "--json", str(plain)]) == 0
    assert main([*command, "--json", str(told), "--report", str(path)]) == 0
    assert plain.read_text() == told.read_text()
    text = path.read_text(encoding="utf-8")
    assert all(
        f"<h2>{each}" in text for each in ("Scores", "At 4 Hz", "People over time", "Tracks")
    )
    assert "HOTA" in text and "80 images" in text, "of 20 s, the first timing alone"
