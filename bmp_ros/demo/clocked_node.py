# SPDX-License-Identifier: Apache-2.0
"""bmp_node with scripted networks and a stopwatch: what it adds to the loop, per image.

    python -m bmp_ros.demo.clocked_node --ros-args -r __ns:=/bmp

The networks say what a picture of four people needs, at once. Everything else is bmp_node: the
stopwatch runs from the entry into the image callback to the return of the publisher of ``poses``,
the waking of the worker and the tracker included. That minus the loop's own time goes to
``debug/overhead_ms`` (std_msgs/Float64). Images must come slower than they are worked on, so that
none of them waits.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Float64

from bmp_ros.benchmark.scripted import Scene, crowd
from bmp_ros.loop import BMPLoop, People
from bmp_ros.loop.bmp_loop import Boxes
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.protocols import Detections, Poses, Segments
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.loop.trace import RunReport
from bmp_ros.ros.bmp_node import BmpNode
from bmp_ros.ros.interfaces import PersonArray
from bmp_ros.ros.process import run_node

PEOPLE = 4
_SCORE = 0.9


class ScriptedNetworks:
    """Detector, pose estimator and segmenter in one: four people in pictures of any size."""

    skeleton = COCO_17
    device = "scripted"

    def __init__(self) -> None:
        self._scenes: dict[tuple[int, int], Scene] = {}

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        scene = self._scene(frame)
        scores = np.full(PEOPLE, _SCORE, np.float32)
        return Detections(scene.boxes, scores, lambda indices: scene.masks[indices])

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        scene = self._scene(frame)
        rows = np.abs(scene.boxes[None] - boxes[:, None]).sum(axis=-1).argmin(axis=1)
        return Poses(scene.keypoints[rows], np.full((len(rows), 17), _SCORE, np.float32))

    def segment(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        scene = self._scene(frame)
        apart = np.linalg.norm(scene.keypoints[None] - points[:, None, :1], axis=-1).min(axis=-1)
        masks = scene.masks[apart.argmin(axis=1)]
        return Segments(masks, np.full(len(points), _SCORE, np.float32))

    def _scene(self, frame: Frame) -> Scene:
        size = frame.width, frame.height
        if size not in self._scenes:
            self._scenes[size] = crowd(PEOPLE, *size)
        return self._scenes[size]


class ClockedLoop(BMPLoop):
    """Keeps the time of its last run."""

    last_ms = 0.0

    def run(
        self,
        image: np.ndarray,
        boxes: Boxes | None = None,
        *,
        refine: bool = True,
        expected: np.ndarray | None = None,
        tracked: np.ndarray | None = None,
    ) -> tuple[People, RunReport]:
        people, report = super().run(
            image, boxes, refine=refine, expected=expected, tracked=tracked
        )
        self.last_ms = report.stage_ms["total"]
        return people, report


class ClockedNode(BmpNode):
    """Measures itself through what it creates; not a line of the node is different."""

    def __init__(self, node_name: str = "bmp_node", **options: Any) -> None:
        self._arrived = 0.0
        networks = ScriptedNetworks()
        self._loop = ClockedLoop(networks, networks, networks)
        super().__init__(node_name, build_loop=lambda *_, **__: self._loop, **options)
        self._overhead = self.create_publisher(Float64, "debug/overhead_ms", 100)

    def create_subscription(
        self, kind: Any, topic: str, callback: Any, *given: Any, **options: Any
    ) -> Any:
        if kind is not Image:
            return super().create_subscription(kind, topic, callback, *given, **options)

        def clocked(message: Any) -> None:
            self._arrived = time.perf_counter()
            callback(message)

        return super().create_subscription(kind, topic, clocked, *given, **options)

    def create_lifecycle_publisher(self, kind: Any, *given: Any, **options: Any) -> Any:
        publisher = super().create_lifecycle_publisher(kind, *given, **options)
        if kind is PersonArray and given[0].rpartition("/")[2] == "poses":
            publish = publisher.publish

            def clocked(message: PersonArray) -> None:
                publish(message)
                took_ms = (time.perf_counter() - self._arrived) * 1e3
                if message.people:  # not the array that clears displays in the end
                    self._overhead.publish(Float64(data=took_ms - self._loop.last_ms))

            publisher.publish = clocked
        return publisher


def main(arguments: list[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or a shutdown of ROS; returns the exit code."""
    return run_node(ClockedNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
