# SPDX-License-Identifier: Apache-2.0
"""The report of `bmp evaluate --tracks`: scores of ids, and the tracks of the first timing."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bmp_ros.evaluation.evaluate_tracks import (
    Find,
    TimingScores,
    Tracker,
    person_tracker,
    report_lines,
)
from bmp_ros.evaluation.sequences import SequenceFrame
from bmp_ros.loop import BMPLoop, People
from bmp_ros.reporting.page import Section, people_sections, write_page
from bmp_ros.reporting.people_log import PeopleLog

TimedFind = Callable[[SequenceFrame], tuple[People, Mapping[str, float]]]
"""A frame -> the people in it, milliseconds by stage."""


def timed_loop(loop: BMPLoop) -> TimedFind:
    """What the loop finds once for the trackers of all timings, so that none says who is hidden:
    ``behind_threshold`` does not count."""
    nobody = np.zeros((0, 4))

    def find(frame: SequenceFrame) -> tuple[People, Mapping[str, float]]:
        people, report = loop.run(frame.image, tracked=nobody)
        return people, report.stage_ms

    return find


@dataclass
class TracksLog:
    """Looks on while `evaluate_tracks` runs, through its ``find`` and ``make_tracker``.

    timings: how many; what the first one's trackers say is kept.
    """

    timings: int
    log: PeopleLog = field(default_factory=PeopleLog)
    _sequence: str = ""
    _times_ms: Mapping[str, float] = field(default_factory=dict)
    _made: int = 0

    def watched(self, find: Callable[[SequenceFrame], tuple[People, Mapping[str, float]]]) -> Find:
        """``find`` returns people and milliseconds by stage."""

        def found(name: str, frame: SequenceFrame) -> People:
            self._sequence = name
            people, self._times_ms = find(frame)
            return people

        return found

    def make_tracker(self) -> Tracker:
        """One for each timing of each sequence, in turns."""
        tracker = person_tracker()
        self._made += 1
        if (self._made - 1) % self.timings:
            return tracker

        def track(
            people: People, stamp: float, image: np.ndarray, turn: np.ndarray | None
        ) -> People:
            tracked = tracker(people, stamp, image, turn)
            self.log.add(image, tracked, stamp, self._times_ms, self._sequence)
            return tracked

        return track


def write_tracks_page(
    path: Path,
    title: str,
    facts: Sequence[tuple[str, str]],
    results: Sequence[TimingScores],
    log: TracksLog,
) -> None:
    """The sections of people are those of the first timing."""
    lines = html.escape("\n".join(report_lines(list(results))))
    scores = Section("Scores", "", f"<pre>{lines}</pre>")
    first = Section(f"At {results[0].timing}", "What follows is of these images.", "")
    write_page(path, title, facts, [scores, first, *people_sections(log.log)])
