# SPDX-License-Identifier: Apache-2.0
"""What the loop itself costs per frame, without the networks: run it without arguments.

Ten people at 1280x720, eight of them found in the first iteration, two in the second. The engines
cost nothing: they hand out arrays that were made before. One thread. CPU time is that of the
calling thread, so that other work on the machine disturbs it little; wall time is disturbed. For
comparison the same run times the work per person and per pixel that the schedule of the published
code asks for (see `published_schedule`). The goal is 15 ms.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse  # noqa: E402
import platform  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from bmp_ros.loop import BMPLoop, Frame, LoopSettings  # noqa: E402
from bmp_ros.loop.protocols import Detections, Poses, Segments  # noqa: E402
from bmp_ros.loop.skeletons import COCO_17  # noqa: E402
from bmp_ros.loop.trace import RunReport  # noqa: E402

GOAL_MS = 15.0


class ReadyAnswers:
    """Detector, pose estimator and segmenter that know their answers; those of people in order.

    Bodies are ellipses that overlap their neighbours. ``shares``: how many people each iteration
    finds.
    """

    skeleton = COCO_17

    def __init__(self, height: int, width: int, shares: tuple[int, int]) -> None:
        count = sum(shares)
        random = np.random.default_rng(0)
        centres = np.stack(
            [(np.arange(count) + 1) * width / (count + 1), np.full(count, height / 2)], axis=1
        )
        half = np.array([0.6 * width / (count + 1), 0.35 * height])
        self.boxes = np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)
        y, x = np.mgrid[:height, :width]
        self.masks = np.stack(
            [((x - cx) / half[0]) ** 2 + ((y - cy) / half[1]) ** 2 <= 1 for cx, cy in centres]
        )
        self.scores = np.linspace(0.95, 0.5, count, dtype=np.float32)
        inside = random.uniform(-0.6, 0.6, (count, len(COCO_17), 2)) * half
        self.keypoints = (centres[:, None] + inside).astype(np.float32)
        self.keypoint_scores = random.uniform(0.35, 1.0, (count, len(COCO_17))).astype(np.float32)
        self.mask_scores = random.uniform(0.7, 1.0, count).astype(np.float32)
        self.rounds = [slice(0, shares[0]), slice(shares[0], count)]
        self.calls = 0

    @property
    def now(self) -> slice:
        return self.rounds[(self.calls - 1) % len(self.rounds)]

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        self.calls += 1
        return Detections(
            self.boxes[self.now], self.scores[self.now], lambda rows: self.masks[self.now]
        )

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        return Poses(self.keypoints[self.now], self.keypoint_scores[self.now])

    def segment(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        return Segments(self.masks[self.now], self.mask_scores[self.now])


def published_schedule(image: np.ndarray, answers: ReadyAnswers) -> None:
    """Pixel work of the published schedule over the two iterations, restated; results unused.

    Per person: the mask goes through its outline, and the whole image is dimmed outside of it.
    Per iteration: a float product of all masks and scores with its argmax, and everybody found so
    far is painted black one by one.
    """
    for people in answers.rounds:
        masks = answers.masks[people]
        for mask in masks:
            outlines, _ = cv2.findContours(
                mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
            )
            filled = cv2.fillPoly(np.zeros(mask.shape, np.uint8), outlines, 1)
            cv2.addWeighted(image, 0.8, cv2.copyTo(image, filled), 0.2, 0)
        (masks * answers.mask_scores[people, None, None]).argmax(axis=0)
        picture = image.copy()
        for mask in answers.masks[: people.stop]:
            picture[mask] = 0


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """(CPU, wall) milliseconds of one call."""
    cpu, wall = time.thread_time(), time.perf_counter()
    run()
    return (time.thread_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=10, help="at least 2 (default 10)")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--repeats", type=int, default=60)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)

    late = max(1, arguments.people // 5)
    answers = ReadyAnswers(arguments.height, arguments.width, (arguments.people - late, late))
    # Neighbours' boxes may overlap: nobody is to be suppressed, so that the number is known.
    settings = LoopSettings(box_nms_iou=1.0, max_people=arguments.people + 1)
    loop = BMPLoop(answers, answers, answers, settings)
    image = np.random.default_rng(1).integers(
        1, 256, (arguments.height, arguments.width, 3), np.uint8
    )
    people = loop(image)
    if len(people) != arguments.people:
        raise SystemExit(f"expected {arguments.people} people, found {len(people)}")

    reports: list[RunReport] = []
    ours = [timed(lambda: reports.append(loop.run(image)[1])) for _ in range(arguments.repeats)]
    stages = [report.stage_ms for report in reports]
    published = [
        timed(lambda: published_schedule(image, answers))
        for _ in range(max(3, arguments.repeats // 10))
    ]

    print(f"{people}, two iterations, one thread, {arguments.repeats} repeats")
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, OpenCV {cv2.__version__}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print(f"{'stage (wall, both iterations)':32}{'median ms':>10}{'least ms':>10}")
    for stage in stages[0]:
        values = [stage_ms[stage] for stage_ms in stages]
        print(f"{stage:32}{np.median(values):10.2f}{min(values):10.2f}")
    (cpu, wall), (old_cpu, old_wall) = np.median(ours, axis=0), np.median(published, axis=0)
    least, old_least = min(ours)[0], min(published)[0]
    print(f"\n{'whole call':32}{'CPU median':>12}{'CPU least':>12}{'wall median':>12}  ms")
    print(f"{'bmp_ros.loop':32}{cpu:12.2f}{least:12.2f}{wall:12.2f}")
    print(
        f"{'published schedule, pixels only':32}{old_cpu:12.2f}{old_least:12.2f}{old_wall:12.2f}"
    )
    print(f"{'ratio':32}{old_cpu / cpu:12.1f}{old_least / least:12.1f}{old_wall / wall:12.1f}")
    verdict = "met" if cpu <= GOAL_MS else "missed"
    print(f"\ngoal of {GOAL_MS:g} ms, CPU median: {verdict}")


if __name__ == "__main__":
    main()
