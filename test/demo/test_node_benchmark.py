# SPDX-License-Identifier: Apache-2.0
"""`bmp bench node`: that its figures are those of the node; none of them is judged here."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bmp_ros.cli.main import main
from bmp_ros.demo import node_benchmark
from bmp_ros.demo.node_benchmark import (
    PROFILE_VARIABLES,
    SCRIPTED_COMMAND,
    Figure,
    Run,
    counts_in_common,
    dds_profile,
    lines,
    overhead_figures,
    run_once,
    stream_figures,
)
from bmp_ros.demo.processes import node_process

PRESET = "bmp_j1"  # named in the node's log only: the networks are scripted


def value(figures: list[Figure], name: str) -> Figure:
    return next(figure for figure in figures if figure.name == name)


@pytest.mark.slow
def test_node_is_measured_from_outside(tmp_path: Path) -> None:
    said: list[str] = []
    run = run_once(
        PRESET, "auto", (320, 240), 20.0, "reliable", 3.0, tmp_path, SCRIPTED_COMMAND, said.append
    )  # fmt: skip
    assert run.sent == 60
    assert 0 < run.received <= 60
    assert 0 < len(run.times) <= run.sent
    assert (run.ages_ms > 0).all() and (np.diff(run.times) > 0).all()
    assert len(run.calls_ms) > 0 and (run.calls_ms > 0).all()
    assert len(run.overhead_ms) == pytest.approx(len(run.times), abs=3)
    assert 0 < run.loop_ms[0] <= run.loop_ms[1]
    # What the node adds is part of what the witness waits for.
    assert run.overhead_ms.max() > 0
    assert np.median(run.overhead_ms) < np.median(run.ages_ms)
    assert any("60 of 60 images sent" in line for line in said)
    for figures in (overhead_figures(run, (640, 480)), stream_figures(run)):
        assert all(np.isfinite(figure.value) for figure in figures)


def test_figures_of_a_stream() -> None:
    """Results at 10 per second for a loop of 80 ms, each 100 ms old."""
    run = Run(
        ages_ms=np.full(50, 100.0), times=np.arange(50) / 10, calls_ms=np.array([5.0, 150.0]),
        overhead_ms=np.zeros(0), loop_ms=(80.0, 90.0), sent=150, received=148, camera_rate=30.0,
    )  # fmt: skip
    figures = stream_figures(run)
    age = value(figures, "age of results, p95")
    assert age.value == 100 and age.held
    assert age.limit == pytest.approx(90 + 1000 / 30 + 30)
    rate = value(figures, "results")
    assert rate.value == pytest.approx(10) and rate.limit == pytest.approx(0.9 * 12.5)
    assert rate.held is False
    assert value(figures, "answer of a service, p95").held is False
    lost = value(figures, "images lost on the way")
    assert (lost.value, lost.held) == (2, False)
    two = replace(run, camera_rate=60.0, results=(40, 10))
    share = value(stream_figures(two), "fewest results of a camera")
    assert (share.value, share.held) == (10, False)
    apart = value(stream_figures(replace(two, results=(0, 0))), "fewest results of a camera")
    assert apart.held is None, "they were never seen together"
    assert value(stream_figures(two), "age of results, p95").limit == pytest.approx(age.limit)
    text = "\n".join(lines({"a stream": figures}))
    assert "a stream" in text and ">= 11.2 per s  NOT held" in text


def test_cameras_are_compared_while_all_are_seen() -> None:
    """The first begins two seconds before the second, which goes on for a second longer."""
    first, second = np.arange(0, 10, 0.2), np.arange(2.05, 11, 0.2)
    assert counts_in_common([first, second]) == (39, 39)
    assert counts_in_common([first, first + 20]) == (0, 0)
    assert counts_in_common([first, []]) == (50, 0)


def test_figures_without_a_result_are_unknown() -> None:
    nothing = np.zeros(0)
    run = Run(nothing, nothing, nothing, nothing, (np.nan, np.nan), 10, 0, 30.0)
    for figures in (overhead_figures(run, (640, 480)), stream_figures(run)):
        unknown = [figure for figure in figures if np.isnan(figure.value)]
        assert unknown and all(figure.held is None for figure in unknown)
        json.dumps([figure.to_dict() for figure in figures], allow_nan=False)


def test_profile_is_for_the_measurement_only(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = PROFILE_VARIABLES
    monkeypatch.setenv(first, "mine.xml")
    monkeypatch.delenv(second, raising=False)
    with dds_profile(Path("tuned.xml")):
        assert os.environ[first] == os.environ[second] == "tuned.xml"
    with dds_profile(None):
        assert first not in os.environ
    assert os.environ[first] == "mine.xml" and second not in os.environ


@pytest.mark.slow
def test_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small pictures and scripted networks throughout, for the time it takes."""
    monkeypatch.setattr(node_benchmark, "SIZES", ((320, 240),))
    monkeypatch.setattr(node_benchmark, "NODE_COMMAND", SCRIPTED_COMMAND)
    file = tmp_path / "new" / "figures.json"
    arguments = ["bench", "node", "--preset", PRESET, "--seconds", "2", "--json", str(file)]
    assert main([*arguments, "--detection-interval", "3", "--cameras", "2"]) == 0
    printed = capsys.readouterr().out
    assert "config/fastdds.xml" in printed and "node overhead, median" in printed
    written = json.loads(file.read_text(encoding="utf-8"))
    scripted, stream, seldom, several = written["figures"].values()
    ratio, *others = seldom
    assert ratio["name"] == "results, of those without"
    rates = [
        next(each["value"] for each in s if each["name"] == "results") for s in (others, stream)
    ]
    if None not in rates and rates[1] > 0:  # in so few seconds there may be no result
        assert ratio["value"] == pytest.approx(rates[0] / rates[1])
    assert [figure["name"] for figure in others] == [figure["name"] for figure in stream]
    assert {figure["name"] for figure in scripted} >= {"node overhead, median", "images sent"}
    assert {figure["name"] for figure in stream} >= {"age of results, p95", "results"}
    several = {figure["name"]: figure for figure in several}
    sent = {figure["name"]: figure for figure in stream}["images sent"]["value"]
    assert several["images sent"]["value"] == 2 * sent
    assert "fewest results of a camera" in several  # none, if one ended before the other began
    assert written["machine"]["processor"] and written["preset"] == PRESET


def test_command_line_says_what_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "node", "--preset", "no_such_preset"]) == 1
    error = capsys.readouterr().err
    assert "bmp_node cannot configure: no preset is called 'no_such_preset'" in error
    assert main(["bench", "node", "--seconds", "0"]) == 1
    assert "--seconds is 0.0, needs at least 1" in capsys.readouterr().err
    assert main(["bench", "node", "--detection-interval", "31"]) == 1
    assert "--detection-interval is 31, must be 1 to 30" in capsys.readouterr().err

    for option, wrong, most in (("--cameras", "9", "8"), ("--rate", "0.5", "1000")):
        assert main(["bench", "node", option, wrong]) == 1
        assert f"{option} is {wrong}, must be 1 to {most}" in capsys.readouterr().err


def test_parameters_of_the_node_are_passed_on(tmp_path: Path) -> None:
    process = node_process(PRESET, "cpu", tmp_path / "log", detection_interval=3)
    assert "detection_interval:=3" in process._command
