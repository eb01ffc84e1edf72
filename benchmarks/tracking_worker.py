# SPDX-License-Identifier: Apache-2.0
"""Runs other trackers in an environment of their own, for tracking_baselines.py, without bmp_ros.

Reads jobs as JSON from stdin: which tracker with which settings, the file of saved detections,
the video or folder of images, which of its images and how many a second. Writes, per job and
image, the ids of all detections in their order to stdout, -1 for none.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CLASSES = {
    "ByteTrack": "ByteTrackTracker",
    "OC-SORT": "OCSORTTracker",
    "BoT-SORT": "BoTSORTTracker",
    "C-BIoU": "CBIoUTracker",
}
ARRAYS = ("boxes", "scores", "keypoints", "keypoint_scores", "first_person", "stamps")


def main() -> None:
    cv2.setNumThreads(1)
    jobs = json.load(sys.stdin)
    results: list[list[list[int]]] = [[] for _ in jobs]
    # Sorted by the images: those of one sequence at a time are held.
    for number in sorted(range(len(jobs)), key=lambda i: jobs[i]["video"]):
        job = jobs[number]
        run = norfair_ids if job["tracker"] == "norfair" else box_tracker_ids
        results[number] = run(job, saved_people(job["detections"]))
    json.dump(results, sys.stdout)


def box_tracker_ids(job: dict[str, Any], saved: dict[str, np.ndarray]) -> list[list[int]]:
    """A tracker of `trackers`; it is given the images, for BoT-SORT's estimate of the camera's
    motion, and the stamps."""
    import supervision
    import trackers

    tracker = getattr(trackers, CLASSES[job["tracker"]])(frame_rate=job["rate"], **job["settings"])
    moving = job["tracker"] == "BoT-SORT"
    if moving:
        camera = tracker.cmc = KnownMotion(tracker.cmc, job)
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
        if moving:
            camera.frame = frame
        tracked = tracker.update(
            detections, images(job["video"])[frame] if moving else None,
            timestamp=float(saved["stamps"][frame]),
        )  # fmt: skip
        found = [-1] * count
        if len(tracked) and tracked.tracker_id is not None:
            for row, number in zip(tracked.data["row"], tracked.tracker_id, strict=True):
                found[int(row)] = int(number)
        ids.append(found)
    return ids


class KnownMotion:
    """BoT-SORT's estimate of the camera's motion by optical flow, made once for the same images:
    it depends on nothing else, and takes most of the time."""

    known: dict[tuple[str, tuple[int, ...]], dict[int, np.ndarray]] = {}

    def __init__(self, estimator: Any, job: dict[str, Any]) -> None:
        self.estimator, self.frame = estimator, -1
        self.motions = self.known.setdefault((job["video"], tuple(job["frames"])), {})

    def estimate(self, image: np.ndarray, boxes: np.ndarray | None) -> np.ndarray:
        if self.frame not in self.motions:
            self.motions[self.frame] = self.estimator.estimate(image, boxes)
        return self.motions[self.frame]

    def reset(self) -> None:
        self.estimator.reset()


def norfair_ids(job: dict[str, Any], saved: dict[str, np.ndarray]) -> list[list[int]]:
    """norfair on keypoints: mean distance of the joints that both know, in body heights."""
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


@lru_cache(maxsize=64)
def saved_people(path: str) -> dict[str, np.ndarray]:
    """What benchmarks/tracking_detections.py saved."""
    with np.load(path) as archive:
        return {name: archive[name] for name in ARRAYS}


@lru_cache(maxsize=1)
def images(path: str) -> list[np.ndarray]:
    """All frames of a video, or all images of a folder by name."""
    if Path(path).is_dir():
        return [cv2.imread(str(file)) for file in sorted(Path(path).iterdir())]
    video, found = cv2.VideoCapture(path), []
    while (answer := video.read())[0]:
        found.append(answer[1])
    return found


if __name__ == "__main__":
    main()
