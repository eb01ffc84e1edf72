# SPDX-License-Identifier: Apache-2.0
"""What `detection_interval` saves, and what it costs in tracks and keypoints.

    python benchmarks/detection_interval.py FOLDER... --intervals 1 3 --rates 30 15

A folder holds rendered clips (`bmp_ros.synthetic.tracking_clips`). Every clip is tracked once per
interval and rate, each interval above 1 with and without the segmenter between detections. All
go through one image after the other, so that they share what the machine does meanwhile.

With ``--paced`` each takes the next image that comes after its work on the last one is over, as a
node does; the scores are then of the images that it took, and "per s" is how many these were.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bmp_ros.engines import build_loop
from bmp_ros.evaluation.clip_truth import clip_annotations
from bmp_ros.evaluation.coco_results import CollectedResults
from bmp_ros.evaluation.evaluate_tracks import Timing, tracks_of
from bmp_ros.evaluation.ground_truth import CATEGORY
from bmp_ros.evaluation.scores import score_results
from bmp_ros.evaluation.sequences import SequenceFrame, open_sequences
from bmp_ros.evaluation.tracking_scores import Comparison, TrackScorer, compare
from bmp_ros.loop import BMPLoop
from bmp_ros.machine import machine_line
from bmp_ros.tracking import Keyframes, KeyframeSettings, PersonTracker


@dataclass
class Way:
    """One way through the images of a rate: settings, and what it has found so far."""

    timing: Timing
    settings: KeyframeSettings
    scorer: TrackScorer = field(default_factory=TrackScorer)
    results: CollectedResults = field(default_factory=CollectedResults)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    rests: int = 0
    shown_s: float = 0.0

    def begin(self) -> None:
        self.keyframes, self.tracker = Keyframes(self.settings), PersonTracker()
        self.frames: list[Comparison] = []
        self.busy_until = -np.inf

    def go_on(self, loop: BMPLoop, frame: SequenceFrame) -> None:
        start = time.perf_counter()
        people, _ = self.keyframes.find(loop, self.tracker, frame.image, frame.stamp)
        tracked = self.tracker.update(people, frame.stamp, image=frame.image)
        self.keyframes.remember(tracked, frame.image, frame.stamp)
        self.seconds.append(time.perf_counter() - start)
        self.busy_until = frame.stamp + self.seconds[-1]
        self.frames.append(compare(frame.truth, tracks_of(tracked)))
        assert frame.people is not None
        number = len(self.images)
        height, width = frame.image.shape[:2]
        self.images.append({"id": number, "width": width, "height": height})
        for entry in clip_annotations(frame.people, number):
            self.annotations.append({**entry, "id": len(self.annotations) + 1})
        self.results.add(tracked, number)

    def end(self, name: str) -> None:
        self.scorer.add(name, self.frames)
        self.rests += self.keyframes.rests

    def line(self, base: Way) -> str:
        tracks = self.scorer.total()
        truth = {"images": self.images, "annotations": self.annotations, "categories": [CATEGORY]}
        scores = score_results(truth, boxes=self.results.boxes, keypoints=self.results.keypoints)
        assert scores.boxes is not None and scores.keypoints is not None
        mean = float(np.mean(self.seconds)) * 1e3
        ratio = mean / (float(np.mean(base.seconds)) * 1e3)
        interval, refined = self.settings.detection_interval, self.settings.refine_between
        return (
            f"{self.timing!s:<12}{interval:>4}  {'refined' if refined else 'moved':<8}"
            f"{tracks.hota:>7.3f}{tracks.idf1:>7.3f}{tracks.switches:>9}{scores.boxes.ap:>8.3f}"
            f"{scores.keypoints.ap:>7.3f}{1 - self.rests / len(self.images):>11.2f}"
            f"{mean:>9.1f}{ratio:>7.2f}{len(self.images) / self.shown_s:>7.1f}"
        )


def ways(intervals: list[int], rates: list[float]) -> Iterator[Way]:
    for rate in rates:
        for interval in intervals:
            for refined in (True, False) if interval > 1 else (True,):
                yield Way(Timing(rate), KeyframeSettings(interval, refined))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--intervals", nargs="+", type=int, default=[1, 3])
    parser.add_argument("--rates", nargs="+", type=float, default=[30.0, 15.0, 7.5])
    parser.add_argument("--count", type=int, help="images of each clip")
    parser.add_argument(
        "--paced", action="store_true", help="leave out images that come during the work on one"
    )
    args = parser.parse_args()
    loop = build_loop(args.preset)
    everything = list(ways(sorted({1, *args.intervals}), args.rates))
    print(machine_line())
    for folder in args.folders:
        for sequence in open_sequences(folder):
            chosen = [way.timing.choose(sequence.stamps) for way in everything]
            for way in everything:
                way.begin()
            stamps = np.asarray(sequence.stamps)[: args.count]
            for frame in islice(sequence, len(stamps)):
                for way, frames in zip(everything, chosen, strict=True):
                    busy = args.paced and frame.stamp < way.busy_until
                    if frames[frame.number] and not busy:
                        way.go_on(loop, frame)
            for way in everything:
                way.end(str(folder / sequence.name))
                way.shown_s += float(stamps[-1] - stamps[0])
            print(f"{sequence.name} done", flush=True)
    print(
        f"\n{'images':<12}{'every':>5} {'masks':<8}{'HOTA':>7}{'IDF1':>7}{'switches':>9}"
        f"{'box AP':>8}{'kp AP':>7}{'detections':>11}{'ms':>9}{'ratio':>7}{'per s':>7}"
    )
    for way in everything:
        base = next(other for other in everything if other.timing == way.timing)
        print(way.line(base))


if __name__ == "__main__":
    main()
