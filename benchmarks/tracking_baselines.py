# SPDX-License-Identifier: Apache-2.0
"""Other trackers beside ours, on the same detections: the tables of docs/tracking.md.

    python benchmarks/tracking_detections.py DIR/tuning DIR/test SEQUENCES --output DET   # once
    python benchmarks/tracking_baselines.py search DIR/tuning --detections DET --rates 30 5 \\
        --drop 0.2 --trackers-python VENV1/bin/python --norfair-python VENV2/bin/python
    python benchmarks/tracking_baselines.py compare DIR/test SEQUENCES --bootstrap 1000 \\
        --detections DET --trackers-python ...

The others run in environments of their own (``pip install trackers==2.6.1``, ``norfair==2.3.0``),
which need not hold bmp_ros. ``search`` chooses their settings on the tuning clips, by the mean
HOTA over the timings, and writes them to tracking_settings.json (another file: --settings);
``compare`` reports on other clips or sequences.
Ours has the defaults of `TrackerSettings`. MOTChallenge sequences are used at their own rate.
With --bootstrap, intervals of the lead over the best other tracker: rendered clips are drawn with
replacement, of MOTChallenge sequences blocks of a second.
Detections of a sequence NAME are read from DET/NAME.npz or DET/FOLDER/NAME.npz.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bmp_ros.evaluation.evaluate_tracks import (
    LONG_ABSENCE,
    Timing,
    longest_absence,
    person_tracker,
    tracks_of,
)
from bmp_ros.evaluation.people_file import load_people
from bmp_ros.evaluation.sequences import ClipSequence, FrameTruth, open_sequences
from bmp_ros.evaluation.sequences import Sequence as TrackSequence
from bmp_ros.evaluation.tracking_scores import (
    Comparison,
    FrameTracks,
    TrackScorer,
    TrackScores,
    block_bootstrap,
    compare,
    interval,
    sequence_bootstrap,
)
from bmp_ros.loop.people import People
from bmp_ros.machine import machine_line

GRIDS: dict[str, dict[str, list[Any]]] = {
    "ByteTrack": {
        "minimum_iou_threshold": [0.02, 0.05, 0.1, 0.2], "track_activation_threshold": [0.4, 0.6],
        "high_conf_det_threshold": [0.4, 0.6], "lost_track_buffer": [30, 60],
    },
    "OC-SORT": {
        "minimum_iou_threshold": [0.1, 0.2, 0.3], "direction_consistency_weight": [0.1, 0.2],
        "high_conf_det_threshold": [0.4, 0.6], "lost_track_buffer": [30, 60],
        "minimum_consecutive_frames": [2],
    },
    "BoT-SORT": {
        "minimum_iou_threshold_first_assoc": [0.05, 0.1, 0.2],
        "track_activation_threshold": [0.4, 0.6],
        "high_conf_det_threshold": [0.4, 0.6], "lost_track_buffer": [30, 60],
    },
    "C-BIoU": {
        "minimum_iou_threshold_first_assoc": [0.05, 0.1, 0.2],
        "track_activation_threshold": [0.4, 0.6],
        "high_conf_det_threshold": [0.4], "lost_track_buffer": [30, 60],
        "buffer_ratio_first": [0.3, 0.5], "buffer_ratio_second": [0.5, 0.8],
    },
    "norfair": {
        "distance_threshold": [0.3, 0.6, 1.0, 1.5], "hit_counter_max": [10, 30, 60],
        "initialization_delay": [1, 2],
    },
}  # fmt: skip
OURS = "ours"
Place = tuple[Timing, str]
"""A timing and the name of a sequence."""
Run = dict[Place, list[Comparison]]
Table = dict[Timing, TrackScorer]
"""All sequences of a run, scored, by timing."""


@dataclass(frozen=True)
class Detected:
    """A sequence with its saved detections: their file, the video or folder of images."""

    sequence: TrackSequence
    file: Path
    video: str
    people: list[People]
    truth: list[FrameTruth]

    @property
    def name(self) -> str:
        return self.sequence.name

    @property
    def stamps(self) -> np.ndarray:
        return self.sequence.stamps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("verb", choices=("search", "compare"))
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--detections", type=Path, required=True)
    parser.add_argument(
        "--settings", type=Path, metavar="FILE",
        default=Path(__file__).with_name("tracking_settings.json"),
    )  # fmt: skip
    parser.add_argument("--trackers-python", required=True)
    parser.add_argument("--norfair-python", required=True)
    parser.add_argument("--rates", type=float, nargs="+", default=[30.0, 15.0, 7.5, 5.0])
    parser.add_argument("--drop", type=float, nargs="+", default=[0.0, 0.2])
    parser.add_argument("--trackers", nargs="+", choices=tuple(GRIDS), default=list(GRIDS))
    parser.add_argument("--bootstrap", type=int, default=0, metavar="N", help="samples")
    args = parser.parse_args()
    for folder in args.folders:
        data = load(folder, args.detections)
        timings = [Timing()]
        if isinstance(data[0].sequence, ClipSequence):
            timings = [Timing(rate, drop) for drop in args.drop for rate in args.rates]
        print(f"\n{machine_line()}; {', '.join(item.name for item in data)}; "
              f"images: {'; '.join(map(str, timings))}")  # fmt: skip
        (search if args.verb == "search" else compare_trackers)(args, data, timings)


def search(args: argparse.Namespace, data: list[Detected], timings: list[Timing]) -> None:
    """Choose the settings of the others, and write them."""
    chosen = json.loads(args.settings.read_text()) if args.settings.is_file() else {}
    print_header()
    print_row(OURS, mean_scores(scored(ours(data, timings))))
    for tracker in args.trackers:
        grid = GRIDS[tracker]
        choices = [
            dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]
        runs = others(python_of(args, tracker), tracker, choices, data, timings)
        scores = [mean_scores(scored(run)) for run in runs]
        best = max(range(len(choices)), key=lambda i: scores[i].hota)
        print_row(f"{tracker} {choices[best]}", scores[best])
        chosen[tracker] = choices[best]
        args.settings.write_text(json.dumps(chosen, indent=2) + "\n", encoding="utf-8")


def compare_trackers(
    args: argparse.Namespace, data: list[Detected], timings: list[Timing]
) -> None:
    """The table: ours, with and without the camera's turning where that is known, and others."""
    chosen = json.loads(args.settings.read_text(encoding="utf-8"))
    runs = {OURS: ours(data, timings, ego_motion=False)}
    if any(item.sequence.ego_motion(0, 1) is not None for item in data):
        runs["ours, turning known"] = ours(data, timings, ego_motion=True)
    for tracker in args.trackers:
        (runs[tracker],) = others(
            python_of(args, tracker), tracker, [chosen[tracker]], data, timings
        )
    tables = {name: scored(run) for name, run in runs.items()}
    scores = {name: mean_scores(table) for name, table in tables.items()}
    print_header()
    for name in sorted(runs, key=lambda name: -scores[name].hota):
        print_row(name, scores[name])
    print_by_timing(tables)
    print_by_sequence(tables, data)
    if args.bootstrap:
        print_intervals(args, runs, tables, data)


def print_intervals(
    args: argparse.Namespace, runs: dict[str, Run], tables: dict[str, Table], data: list[Detected]
) -> None:
    """How far ours is ahead of the best other tracker, by each metric: with all clips together, or
    in the mean over MOTChallenge sequences."""
    known: dict[str, list[TrackScores]] = {}
    groups: list[list[str] | None] = [None]
    if not isinstance(data[0].sequence, ClipSequence):
        groups = [[item.name] for item in data]
    scores = {
        name: mean([mean_scores(table, names) for names in groups])
        for name, table in tables.items()
    }
    for metric in ("hota", "idf1", "switches"):
        sign = -1 if metric == "switches" else 1
        best = max(args.trackers, key=lambda name: sign * getattr(scores[name], metric))
        if best not in known:
            if isinstance(data[0].sequence, ClipSequence):
                known[best] = sequence_bootstrap(
                    list(tables[OURS].values()), list(tables[best].values()),
                    [item.name for item in data], samples=args.bootstrap,
                )  # fmt: skip
            else:
                known[best] = block_bootstrap(
                    runs[OURS], runs[best],
                    {(timing, item.name): item.stamps[timing.choose(item.stamps)]
                     for timing in tables[OURS] for item in data},
                    samples=args.bootstrap,
                )  # fmt: skip
        low, high = interval(known[best], metric)
        own = getattr(scores[OURS], metric)
        gain = own - getattr(scores[best], metric)
        print(f"{metric}: ours {own:.3f} less {best}: {gain:+.3f}; 95 % of {args.bootstrap} "
              f"resamplings: {low:+.3f} to {high:+.3f}", flush=True)  # fmt: skip


def load(folder: Path, detections: Path) -> list[Detected]:
    """Sequences of a folder whose detections were saved."""
    found = []
    for sequence in open_sequences(folder):
        files = [
            detections / f"{sequence.name}.npz",
            detections / folder.name / f"{sequence.name}.npz",
        ]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            print(f"{sequence.name}: no saved detections, left out", file=sys.stderr)
            continue
        people, _ = load_people(file)
        if isinstance(sequence, ClipSequence):
            video = str(sequence.clip.path)
        else:
            video = str(sequence.images[0].parent)
        truth = [sequence.truth(number) for number in range(len(sequence))]
        found.append(Detected(sequence, file, video, people, truth))
    if not found:
        raise SystemExit(f"no sequence of {folder} has detections in {detections}")
    return found


def ours(data: list[Detected], timings: list[Timing], *, ego_motion: bool = False) -> Run:
    """Our tracker, with its default settings, at every timing."""
    results: Run = {}
    for item in data:
        images = [frame.image for frame in item.sequence]
        for timing in timings:
            update, last = person_tracker(), None
            compared = []
            for i in np.flatnonzero(timing.choose(item.stamps)).tolist():
                turn = None
                if ego_motion and last is not None:
                    turn = item.sequence.ego_motion(last, i)
                last = i
                tracked = update(item.people[i], float(item.stamps[i]), images[i], turn)
                compared.append(compare(item.truth[i], tracks_of(tracked)))
            results[timing, item.name] = compared
    return results


def others(
    python: str,
    tracker: str,
    choices: list[dict[str, Any]],
    data: list[Detected],
    timings: list[Timing],
) -> list[Run]:
    """Another tracker, run by ``python``, for every choice of settings."""
    jobs, places = [], []
    for number, timing, item in itertools.product(range(len(choices)), timings, data):
        frames = np.flatnonzero(timing.choose(item.stamps)).tolist()
        native = 1 / float(np.median(np.diff(item.stamps)))
        jobs.append({
            "tracker": tracker, "settings": choices[number], "frames": frames,
            "rate": min(timing.rate or native, native), "detections": str(item.file),
            "video": item.video,
        })  # fmt: skip
        places.append((number, timing, item, frames))
    worker = Path(__file__).with_name("tracking_worker.py")
    with tempfile.TemporaryFile("w+") as file:
        json.dump(jobs, file)
        file.seek(0)
        done = subprocess.run(
            [python, str(worker)], stdin=file, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(f"{tracker} failed:\n{done.stderr[-2000:]}")
    runs: list[Run] = [{} for _ in choices]
    results = json.loads(done.stdout.splitlines()[-1])
    for (number, timing, item, frames), result in zip(places, results, strict=True):
        compared = []
        for frame, ids in zip(frames, result, strict=True):
            given = np.array(ids, np.int64)
            known = given >= 0
            tracks = FrameTracks(given[known], item.people[frame].boxes[known])
            compared.append(compare(item.truth[frame], tracks))
        runs[number][timing, item.name] = compared
    return runs


def scored(run: Run) -> Table:
    """Every sequence at every timing, scored."""
    table: Table = {}
    for (timing, name), compared in run.items():
        table.setdefault(timing, TrackScorer()).add(name, compared)
    return table


def mean_scores(table: Table, names: Sequence[str] | None = None) -> TrackScores:
    """Means over the timings, of all sequences or of those with ``names`` together."""
    return mean([scorer.total(names) for scorer in table.values()])


def mean(scores: Sequence[TrackScores]) -> TrackScores:
    return TrackScores(*np.mean([astuple(each) for each in scores], axis=0).tolist())


def python_of(args: argparse.Namespace, tracker: str) -> str:
    return str(args.norfair_python if tracker == "norfair" else args.trackers_python)


def print_header() -> None:
    print(
        "| tracker | HOTA | DetA | AssA | IDF1 | MOTA | switches |\n|---|---|---|---|---|---|---|"
    )


def print_row(name: str, scores: TrackScores) -> None:
    values = (scores.hota, scores.deta, scores.assa, scores.idf1, scores.mota)
    cells = " | ".join(f"{value:.3f}" for value in values)
    print(f"| {name} | {cells} | {scores.switches:.1f} |", flush=True)


def print_by_timing(tables: dict[str, Table]) -> None:
    columns = {str(timing): ([timing], None) for timing in tables[OURS]}
    print_columns(tables, columns)


def print_by_sequence(tables: dict[str, Table], data: list[Detected]) -> None:
    """By scenario, and by whether somebody is away for long."""
    groups: dict[str, list[str]] = {}
    for item in data:
        seen = [truth.identities[~truth.ignored].tolist() for truth in item.truth]
        away = longest_absence(seen, item.stamps.tolist())
        absences = f"absences {'over' if away > LONG_ABSENCE else 'up to'} {LONG_ABSENCE:g} s"
        for key in (item.name.rsplit("_", 1)[0], absences):
            groups.setdefault(key, []).append(item.name)
    print_columns(tables, {key: (list(tables[OURS]), names) for key, names in groups.items()})


def print_columns(
    tables: dict[str, Table], columns: Mapping[str, tuple[list[Timing], list[str] | None]]
) -> None:
    """HOTA and switches of every tracker; columns: which timings and sequences, all if None."""
    print(f"\n| HOTA / switches | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name, table in tables.items():
        scores = [
            mean_scores({timing: table[timing] for timing in timings}, names)
            for timings, names in columns.values()
        ]
        cells = (f"{score.hota:.3f} / {score.switches:.1f}" for score in scores)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
