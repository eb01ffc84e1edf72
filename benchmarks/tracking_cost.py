# SPDX-License-Identifier: Apache-2.0
"""What the tracker costs per image: 10 and 50 people, 640x480. The goals are 2 and 10 ms.

CPU time of one thread, the median of many images in which everybody walks, every tenth person
behind another one. The image is given, so that colours are part of it.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import time  # noqa: E402
from dataclasses import replace  # noqa: E402

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from bmp_ros.loop.people import People  # noqa: E402
from bmp_ros.machine import machine_line  # noqa: E402
from bmp_ros.tracking import PersonTracker  # noqa: E402
from bmp_ros.tracking.smoothing import JointSmoother  # noqa: E402

HEIGHT, WIDTH, IMAGES = 480, 640, 60
GOALS_MS = {10: 2.0, 50: 10.0}
BODY = np.random.default_rng(0).uniform(-0.45, 0.45, (17, 2))


def main() -> None:
    cv2.setNumThreads(1)
    print(machine_line())
    print(f"{WIDTH}x{HEIGHT}, median CPU time of {IMAGES} images, one thread")
    print("| people | tracker, ms | without the image, ms | smoothing, ms |\n|---|---|---|---|")
    for count, goal in GOALS_MS.items():
        frames = [walkers(count, number / 30) for number in range(IMAGES)]
        image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        full, plain = track(frames, image), track(frames, None)
        print(f"| {count} | {full:.2f} (goal {goal:g}) | {plain:.2f} | {smooth(frames):.2f} |")


def walkers(count: int, seconds: float) -> People:
    """Ellipses that walk to and fro, each pixel the first one's."""
    height = 180.0 if count <= 10 else 90.0
    size = np.array([0.35 * height, height])
    random = np.random.default_rng(1)
    start = random.uniform([40, 100], [WIDTH - 40, HEIGHT - 100], (count, 2))
    start[::10] = start[1::10] + [10.0, -8.0]
    speed = random.uniform(-60, 60, (count, 1)) * [1, 0]
    centres = start + speed * seconds
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    free = np.ones((HEIGHT, WIDTH), np.bool_)
    masks = np.zeros((count, HEIGHT, WIDTH), np.bool_)
    for mask, (cx, cy) in zip(masks, centres, strict=True):
        mask[:] = (((x - cx) / size[0]) ** 2 + ((y - cy) / size[1]) ** 2 <= 0.25) & free
        free &= ~mask
    boxes = np.concatenate([centres - size / 2, centres + size / 2], axis=1)
    boxes = boxes.clip(0, [WIDTH, HEIGHT] * 2)
    people = People.from_boxes(boxes, np.full(count, 0.9), HEIGHT, WIDTH, masks=masks)
    return replace(
        people,
        keypoints=(centres[:, None] + BODY * size).astype(np.float32),
        keypoint_scores=np.full((count, 17), 0.8, np.float32),
        mask_scores=np.full(count, 0.9, np.float32),
    )


def track(frames: list[People], image: np.ndarray | None) -> float:
    """Milliseconds of one update."""
    tracker, times = PersonTracker(), []
    for number, people in enumerate(frames):
        start = time.thread_time()
        tracker.update(people, number / 30, image=image)
        times.append((time.thread_time() - start) * 1e3)
    return float(np.median(times[5:]))


def smooth(frames: list[People]) -> float:
    """Milliseconds of smoothing everybody's joints."""
    smoother, times = JointSmoother(), []
    for number, people in enumerate(frames):
        scales = np.full(len(people), 100.0)
        start = time.thread_time()
        smoother.update(
            np.arange(len(people)), people.keypoints, people.keypoint_scores, scales, number / 30
        )
        times.append((time.thread_time() - start) * 1e3)
    return float(np.median(times[5:]))


if __name__ == "__main__":
    main()
