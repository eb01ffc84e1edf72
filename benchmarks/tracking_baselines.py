# SPDX-License-Identifier: Apache-2.0
"""Other trackers beside ours, on the same detections: the table of docs/tracking.md.

    python benchmarks/tracking_detections.py DIR/tuning DIR/test --output DET   # once
    python benchmarks/tracking_baselines.py --tuning DIR/tuning --test DIR/test --detections DET \\
        --trackers-python VENV1/bin/python --norfair-python VENV2/bin/python

The others run in environments of their own (``pip install trackers==2.6.1``; ``norfair==2.3.0``),
which need not hold bmp_ros: this file is their worker, too. Their settings are searched on the
tuning clips, by the mean HOTA over the timings, and reported on the test clips. Ours has the
settings of `TrackerSettings`. Detections of a clip NAME are read from DET/NAME.npz, or from
DET/SET/NAME.npz.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

GRIDS: dict[str, dict[str, list[Any]]] = {
    "ByteTrack": {
        "minimum_iou_threshold": [0.05, 0.1, 0.2], "track_activation_threshold": [0.4, 0.6],
        "high_conf_det_threshold": [0.4, 0.6], "lost_track_buffer": [30, 60],
    },
    "OC-SORT": {
        "minimum_iou_threshold": [0.1, 0.2, 0.3], "direction_consistency_weight": [0.1, 0.2],
        "high_conf_det_threshold": [0.4, 0.6], "lost_track_buffer": [30, 60],
        "minimum_consecutive_frames": [2],
    },
    "BoT-SORT": {
        "minimum_iou_threshold_first_assoc": [0.1, 0.2], "track_activation_threshold": [0.4, 0.6],
        "high_conf_det_threshold": [0.4, 0.6], "lost_track_buffer": [30, 60],
    },
    "C-BIoU": {
        "minimum_iou_threshold_first_assoc": [0.1, 0.2], "track_activation_threshold": [0.4, 0.6],
        "high_conf_det_threshold": [0.4], "lost_track_buffer": [30, 60],
        "buffer_ratio_first": [0.3, 0.5], "buffer_ratio_second": [0.5, 0.8],
    },
    "norfair": {
        "distance_threshold": [0.3, 0.6, 1.0], "hit_counter_max": [10, 30],
        "initialization_delay": [1, 2],
    },
}  # fmt: skip


def work() -> None:
    """In the other environment: jobs on stdin, the ids of every job's detections on stdout."""
    jobs = json.load(sys.stdin)
    results = []
    sequences: dict[tuple[str, str], Any] = {}
    for job in jobs:
        key = job["detections"], job["video"]
        if key not in sequences:
            with np.load(job["detections"]) as archive:
                saved = {name: archive[name] for name in ("boxes", "scores", "keypoints",
                         "keypoint_scores", "first_person", "stamps")}  # fmt: skip
            sequences[key] = saved
        saved = sequences[key]
        run = norfair_ids if job["tracker"] == "norfair" else box_tracker_ids
        results.append(run(job, saved))
    json.dump(results, sys.stdout)


def box_tracker_ids(job: dict[str, Any], saved: dict[str, np.ndarray]) -> list[list[int]]:
    import supervision
    import trackers

    names = {
        "ByteTrack": "ByteTrackTracker", "OC-SORT": "OCSORTTracker",
        "BoT-SORT": "BoTSORTTracker", "C-BIoU": "CBIoUTracker",
    }  # fmt: skip
    tracker = getattr(trackers, names[job["tracker"]])(frame_rate=job["rate"], **job["settings"])
    pictures = images(job["video"], job["frames"]) if job["tracker"] == "BoT-SORT" else None
    ids = []
    for frame in job["frames"]:
        rows = slice(*saved["first_person"][frame : frame + 2].tolist())
        count = rows.stop - rows.start
        detections = supervision.Detections(
            xyxy=saved["boxes"][rows].astype(np.float64),
            confidence=saved["scores"][rows].astype(np.float64),
            class_id=np.zeros(count, int),
            data={"row": np.arange(count)},
        )
        picture = None if pictures is None else next(pictures)
        tracked = tracker.update(detections, picture, timestamp=float(saved["stamps"][frame]))
        found = [-1] * count
        if len(tracked) and tracked.tracker_id is not None:
            for row, number in zip(tracked.data["row"], tracked.tracker_id, strict=True):
                found[int(row)] = int(number)
        ids.append(found)
    return ids


def norfair_ids(job: dict[str, Any], saved: dict[str, np.ndarray]) -> list[list[int]]:
    """On keypoints: mean distance of the joints that both know, in body heights."""
    import norfair

    def distance(detection: Any, tracked: Any) -> float:
        both = (detection.scores > 0.3) & (tracked.last_detection.scores > 0.3)
        if both.sum() < 3:
            both[:] = True
        steps = np.linalg.norm(detection.points - tracked.estimate, axis=1)[both]
        return float(steps.mean() / detection.data["height"])

    settings = dict(job["settings"])
    # Its counters are in images: the same seconds at every rate.
    settings["hit_counter_max"] = max(2, round(settings["hit_counter_max"] * job["rate"] / 30))
    settings["initialization_delay"] = min(
        settings["initialization_delay"], settings["hit_counter_max"] - 1
    )
    tracker = norfair.Tracker(distance_function=distance, **settings)
    ids = []
    for frame in job["frames"]:
        rows = slice(*saved["first_person"][frame : frame + 2].tolist())
        heights = np.maximum(saved["boxes"][rows][:, 3] - saved["boxes"][rows][:, 1], 1.0)
        detections = [
            norfair.Detection(points, scores=scores, data={"row": row, "height": float(height)})
            for row, (points, scores, height) in enumerate(
                zip(saved["keypoints"][rows].astype(float), saved["keypoint_scores"][rows],
                    heights, strict=True)
            )
        ]  # fmt: skip
        found = [-1] * len(detections)
        for tracked in tracker.update(detections=detections):
            if any(tracked.last_detection is detection for detection in detections):
                found[tracked.last_detection.data["row"]] = int(tracked.id)
        ids.append(found)
    return ids


def images(path: str, wanted: list[int]) -> Iterator[np.ndarray]:
    """The wanted frames of a video, or of a folder of images."""
    import cv2

    if Path(path).is_dir():
        files = sorted(Path(path).iterdir())
        yield from (cv2.imread(str(files[number])) for number in wanted)
        return
    video, chosen = cv2.VideoCapture(path), set(wanted)
    for number in range(max(wanted) + 1):
        good, image = video.read()
        if good and number in chosen:
            yield image


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tuning", type=Path, required=True)
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--detections", type=Path, required=True)
    parser.add_argument("--trackers-python", required=True)
    parser.add_argument("--norfair-python", required=True)
    parser.add_argument("--rates", type=float, nargs="+", default=[30.0, 15.0, 7.5, 5.0])
    parser.add_argument("--drop", type=float, nargs="+", default=[0.0, 0.2])
    parser.add_argument("--trackers", nargs="+", choices=tuple(GRIDS), default=list(GRIDS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    table = compare_trackers(args)
    print("| tracker | sequences | HOTA | DetA | AssA | IDF1 | MOTA | switches |")
    print("|---|---|---|---|---|---|---|---|")
    for row in table:
        values = " | ".join(
            f"{row[name]:.3f}" for name in ("hota", "deta", "assa", "idf1", "mota")
        )
        print(f"| {row['tracker']} | {row['sequences']} | {values} | {row['switches']:.1f} |")
    for row in table:
        if row.get("settings"):
            print(f"{row['tracker']}: {row['settings']}")
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def compare_trackers(args: Any) -> list[dict[str, Any]]:
    """One row per tracker and folder, means over the timings."""
    from bmp_ros.evaluation.evaluate_tracks import Timing

    timings = [Timing(rate, drop) for drop in args.drop for rate in args.rates]
    tuning = load(args.tuning, args.detections)
    tests = {folder.name: load(folder, args.detections) for folder in args.test}
    rows = []
    sets = {args.tuning.name: tuning, **tests}
    for name, data in sets.items():
        rows.append({"tracker": "ours", "sequences": name, **ours(data, timings)})
    for tracker in args.trackers:
        python = args.norfair_python if tracker == "norfair" else args.trackers_python
        grid = GRIDS[tracker]
        choices = [
            dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]
        scores = others(python, tracker, choices, tuning, timings)
        best = max(range(len(choices)), key=lambda i: scores[i]["hota"])
        rows.append({"tracker": tracker, "sequences": args.tuning.name, **scores[best],
                     "settings": choices[best]})  # fmt: skip
        for name, data in tests.items():
            (result,) = others(python, tracker, [choices[best]], data, timings)
            rows.append({"tracker": tracker, "sequences": name, **result})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def load(folder: Path, detections: Path) -> list[dict[str, Any]]:
    """Sequences of a folder whose detections were saved, with their images and truth."""
    from bmp_ros.evaluation.people_file import load_people
    from bmp_ros.evaluation.sequences import ClipSequence, open_sequences

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
        people, stamps = load_people(file)
        if isinstance(sequence, ClipSequence):
            video = str(sequence.clip.path)
        else:
            video = str(sequence.images[0].parent)
        frames = list(sequence)
        found.append({
            "name": sequence.name, "file": str(file), "video": video, "people": people,
            "stamps": stamps, "images": [frame.image for frame in frames],
            "truth": [frame.truth for frame in frames],
        })  # fmt: skip
    return found


def ours(data: list[dict[str, Any]], timings: list[Any]) -> dict[str, float]:
    """Mean scores over the timings of our tracker."""
    from bmp_ros.evaluation.evaluate_tracks import person_tracker, tracks_of
    from bmp_ros.evaluation.tracking_scores import TrackScorer, compare

    totals = []
    for timing in timings:
        scorer = TrackScorer()
        for item in data:
            update = person_tracker()
            scorer.add(item["name"], [
                compare(item["truth"][i], tracks_of(
                    update(item["people"][i], float(item["stamps"][i]), item["images"][i])
                ))
                for i in np.flatnonzero(timing.choose(item["stamps"]))
            ])  # fmt: skip
        totals.append(scorer.total())
    return mean_scores(totals)


def others(
    python: str,
    tracker: str,
    choices: list[dict[str, Any]],
    data: list[dict[str, Any]],
    timings: list[Any],
) -> list[dict[str, float]]:
    """Mean scores over the timings of another tracker, run by ``python``, for every choice of
    settings."""
    from bmp_ros.evaluation.tracking_scores import FrameTracks, TrackScorer, compare

    jobs, places = [], []
    for number, timing, item in itertools.product(range(len(choices)), timings, data):
        stamps = item["stamps"]
        native = 1 / float(np.median(np.diff(stamps)))
        frames = np.flatnonzero(timing.choose(stamps)).tolist()
        jobs.append({
            "tracker": tracker, "settings": choices[number], "frames": frames,
            "rate": min(timing.rate or native, native), "detections": item["file"],
            "video": item["video"],
        })  # fmt: skip
        places.append(((number, timing), item, frames))
    with tempfile.TemporaryFile("w+") as file:
        json.dump(jobs, file)
        file.seek(0)
        done = subprocess.run(
            [python, __file__, "--worker"], stdin=file, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(f"{tracker} failed:\n{done.stderr[-2000:]}")
    totals = {place: TrackScorer() for place, _, _ in places}
    results = json.loads(done.stdout.splitlines()[-1])
    for (place, item, frames), result in zip(places, results, strict=True):
        comparisons = []
        for number, ids in zip(frames, result, strict=True):
            given = np.array(ids, np.int64)
            known = given >= 0
            tracks = FrameTracks(given[known], item["people"][number].boxes[known])
            comparisons.append(compare(item["truth"][number], tracks))
        totals[place].add(item["name"], comparisons)
    return [
        mean_scores([totals[number, timing].total() for timing in timings])
        for number in range(len(choices))
    ]


def mean_scores(scores: list[Any]) -> dict[str, float]:
    names = ("hota", "deta", "assa", "idf1", "mota", "switches")
    return {name: float(np.mean([getattr(score, name) for score in scores])) for name in names}


if __name__ == "__main__":
    work() if sys.argv[1:] == ["--worker"] else main()
