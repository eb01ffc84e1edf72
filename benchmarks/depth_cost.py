# SPDX-License-Identifier: Apache-2.0
"""What depth costs per frame: ten people at 1280x720, run it without arguments. The goal is 5 ms.

The rectangles of the masks are known, as in the node, which publishes them before. CPU time of one
thread, the median of many runs, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import replace  # noqa: E402
from typing import Any  # noqa: E402

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from bmp_ros.depth.camera_model import CameraModel  # noqa: E402
from bmp_ros.depth.people_3d import lift_people  # noqa: E402
from bmp_ros.depth.people_free import depth_without_people  # noqa: E402
from bmp_ros.loop.people import People  # noqa: E402
from bmp_ros.machine import machine_line  # noqa: E402

HEIGHT, WIDTH, PEOPLE, RUNS = 720, 1280, 10, 200
GOAL_MS = 5.0


def main() -> None:
    cv2.setNumThreads(1)
    people = ellipses()
    random = np.random.default_rng(0)
    metres = random.normal(3, 0.02, (HEIGHT, WIDTH)).astype(np.float32)
    millimetres = (metres * 1000).astype(np.uint16)
    half = millimetres[::2, ::2].copy()
    matrix = np.array([[900.0, 0, 640], [0, 900, 360], [0, 0, 1]])
    plain = CameraModel(matrix, WIDTH, HEIGHT)
    bent = CameraModel(matrix, WIDTH, HEIGHT, np.array([0.1, -0.05, 0, 0, 0.01]), "plumb_bob")
    print(machine_line())
    print(f"{PEOPLE} people, {WIDTH}x{HEIGHT}, median CPU time of {RUNS} runs, one thread")
    print("| | ms |\n|---|---|")
    show("lift, 16UC1", lambda: lift_people(people, millimetres, plain), GOAL_MS)
    show("lift, 16UC1, lens distortion", lambda: lift_people(people, millimetres, bent), GOAL_MS)
    show("lift, 32FC1", lambda: lift_people(people, metres, plain), GOAL_MS)
    show("lift, 16UC1 of half the size", lambda: lift_people(people, half, plain), GOAL_MS)
    show(
        "depth without people, margin 8",
        lambda: depth_without_people(millimetres, people.masks, 8),
    )


def ellipses() -> People:
    """Ten people side by side, 0.6 of the picture's height."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    centres = (np.arange(PEOPLE) + 0.5) * WIDTH / PEOPLE
    masks = np.stack([((x - cx) / 60) ** 2 + ((y - HEIGHT / 2) / 215) ** 2 <= 1 for cx in centres])
    boxes = np.stack(
        [centres - 60, np.full(PEOPLE, 145), centres + 60, np.full(PEOPLE, 575)], axis=1
    ).astype(np.float32)
    people = People.from_boxes(boxes, np.ones(PEOPLE, np.float32), HEIGHT, WIDTH, masks=masks)
    inside = np.random.default_rng(0).uniform([-35, -150], [35, 150], (PEOPLE, 17, 2))
    middle = np.stack([centres, np.full(PEOPLE, HEIGHT / 2)], axis=1)
    return replace(people, keypoints=(middle[:, None] + inside).astype(np.float32))


def show(name: str, action: Callable[[], Any], goal_ms: float | None = None) -> None:
    times = []
    for _ in range(RUNS):
        start = time.thread_time()
        action()
        times.append((time.thread_time() - start) * 1e3)
    goal = f" (goal {goal_ms:g})" if goal_ms else ""
    print(f"| {name} | {np.median(times):.2f}{goal} |")


if __name__ == "__main__":
    main()
