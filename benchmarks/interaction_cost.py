# SPDX-License-Identifier: Apache-2.0
"""What the outputs for the robot's other parts cost per frame: ten people at 640x480 with depth.

    scripts/with_ros python benchmarks/interaction_cost.py

A real node on real DDS whose networks answer at once; who subscribes is another process. First all
other outputs of people have subscribers, then followed_person, zones, tf and all of ROS4HRI of all
people, too (topics of packages that are missing are left out, and named). CPU time of the worker's
thread, up to the last message handed to DDS. The goal is 5 ms more.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import importlib.util  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from geometry_msgs.msg import PointStamped, TwistStamped  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from bmp_ros.benchmark.scripted import Scene, crowd  # noqa: E402
from bmp_ros.demo.processes import private_domain  # noqa: E402
from bmp_ros.loop import BMPLoop  # noqa: E402
from bmp_ros.loop.protocols import Detections, Poses, Segments  # noqa: E402
from bmp_ros.loop.skeletons import COCO_17  # noqa: E402
from bmp_ros.machine import machine_line  # noqa: E402
from bmp_ros.ros.bmp_node import BmpNode  # noqa: E402
from bmp_ros.ros.frame_processor import FrameProcessor  # noqa: E402
from bmp_ros.ros.image_messages import image_message  # noqa: E402
from bmp_ros.ros.interfaces import (  # noqa: E402
    FollowPerson,
    PersonArray,
    PersonArray3D,
    ZoneStates,
)

WIDTH, HEIGHT, PEOPLE, WARM_UP, FRAMES, FPS = 640, 480, 10, 20, 100, 15.0
GOAL_MS, LIMIT_S = 5.0, 60.0
PACKAGES = tuple(
    name for name in ("hri_msgs", "tf2_msgs") if importlib.util.find_spec(name) is not None
)
ZONES = ["left: 0 0; 0.5 0; 0.5 1; 0 1", "right: 0.5 0; 1 0; 1 1; 0.5 1"]
TODAY = {
    "/bmp/poses": PersonArray, "/bmp/poses_smooth": PersonArray,
    "/bmp/poses_3d": PersonArray3D, "/bmp/poses_3d_smooth": PersonArray3D,
}  # fmt: skip
HRI_TOPICS = ("roi", "cropped", "skeleton2d", "position", "velocity", "posture", "gesture")


class AtOnce:
    """Networks that know the scene."""

    skeleton = COCO_17
    device = "none"

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def detect(self, frame: Any, *, score_threshold: float) -> Detections:
        count = len(self._scene.boxes) if frame.image.any() else 0
        return Detections(self._scene.boxes[:count], np.full(count, 0.9, np.float32))

    def _rows(self, points: np.ndarray, of: np.ndarray) -> np.ndarray:
        return np.abs(of[None] - points[:, None]).sum(axis=2).argmin(axis=1)

    def estimate(self, frame: Any, boxes: np.ndarray, masks: Any) -> Poses:
        keypoints = self._scene.keypoints[self._rows(boxes, self._scene.boxes)]
        return Poses(keypoints, np.full(keypoints.shape[:2], 0.9, np.float32))

    def segment(self, frame: Any, points: np.ndarray, labels: Any, masks: Any = None) -> Segments:
        centres = (self._scene.boxes[:, :2] + self._scene.boxes[:, 2:]) / 2
        rows = self._rows(points.mean(axis=1), centres)
        return Segments(self._scene.masks[rows], np.full(len(rows), 0.9, np.float32))

    def build_loop(self, preset: str, device: str, **options: Any) -> BMPLoop:
        return BMPLoop(self, self, self)


def new_topics(bodies: list[str]) -> dict[str, type]:
    """Everything that is to be compared with today's topics."""
    topics: dict[str, type] = {"/bmp/followed_person": PersonArray3D, "/bmp/zones": ZoneStates}
    if "tf2_msgs" in PACKAGES:
        from tf2_msgs.msg import TFMessage

        topics["/tf"] = TFMessage
    if "hri_msgs" in PACKAGES:
        from hri_msgs import msg as hri

        kinds = (
            hri.NormalizedRegionOfInterest2D, Image, hri.Skeleton2D, PointStamped, TwistStamped,
            hri.BodyPosture, hri.Gesture,
        )  # fmt: skip
        topics["/humans/bodies/tracked"] = hri.IdsList
        for body in bodies:
            named = {f"/humans/bodies/{body}/{topic}" for topic in HRI_TOPICS}
            topics |= dict(zip(sorted(named, key=lambda n: HRI_TOPICS.index(n.split("/")[-1])),
                               kinds, strict=True))  # fmt: skip
    return topics


def listen(new: bool, bodies: list[str]) -> None:
    """The subscribing process, until it is ended."""
    rclpy.init()
    node = Node("listener")
    for topic, kind in (TODAY | (new_topics(bodies) if new else {})).items():
        node.create_subscription(kind, topic, lambda _: None, 5)
    try:
        rclpy.spin(node)
    except ExternalShutdownException:
        pass


class Bench:
    """The node, a camera, and the CPU times of the worker per frame."""

    def __init__(self, context: Context) -> None:
        self.scene = crowd(PEOPLE, WIDTH, HEIGHT)
        networks = AtOnce(self.scene)
        parameters = {
            "preset": "bmp_d3", "depth_topic": "/camera/depth", "zones": ZONES,
            "hri": "hri_msgs" in PACKAGES, "body_frames_rate": 0.0, "box_nms_iou": 1.0,
            "ego_frame": "none",
        }  # fmt: skip
        self.node = BmpNode(
            build_loop=networks.build_loop, context=context, namespace="/bmp",
            parameter_overrides=[Parameter(k, value=v) for k, v in parameters.items()],
        )  # fmt: skip
        self.camera = Node("camera", context=context)
        self.images = self.camera.create_publisher(Image, "/camera/image_raw", 5)
        self.depths = self.camera.create_publisher(Image, "/camera/depth", 5)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.info = self.camera.create_publisher(CameraInfo, "/camera/camera_info", latched)
        k = [500.0, 0.0, WIDTH / 2, 0.0, 500.0, HEIGHT / 2, 0.0, 0.0, 1.0]
        self.info.publish(CameraInfo(width=WIDTH, height=HEIGHT, k=k))
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.executor.add_node(self.camera)
        self.thread = threading.Thread(target=self._spin)
        self.thread.start()

    def _spin(self) -> None:
        try:
            self.executor.spin()
        except ExternalShutdownException:
            pass

    def close(self) -> None:
        self.node.close(LIMIT_S)
        self.executor.shutdown()
        self.thread.join(LIMIT_S)
        for node in (self.node, self.camera):
            node.destroy_node()

    def wait_for(self, condition: Callable[[], Any], what: str) -> None:
        until = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError(f"waited {LIMIT_S:g} s for {what}")
            self.shoot()

    def shoot(self) -> None:
        from std_msgs.msg import Header

        header = Header(stamp=self.camera.get_clock().now().to_msg(), frame_id="camera")
        depth = np.full((HEIGHT, WIDTH), 3000, np.uint16)
        self.depths.publish(image_message(header, depth, "16UC1"))
        self.images.publish(image_message(header, self.scene.image, "bgr8"))
        time.sleep(1 / FPS)

    def subscribed(self, topics: dict[str, type]) -> bool:
        counts = {p.topic_name: p.get_subscription_count() for p in self.node.publishers}
        return all(counts.get(topic, 0) > 0 for topic in topics)

    def bodies(self) -> list[str]:
        names = [each.topic_name.split("/") for each in self.node.publishers]
        return sorted({n[3] for n in names if n[1:3] == ["humans", "bodies"] and len(n) > 4})


def measure(bench: Bench, times: list[float], new: bool) -> np.ndarray:
    """(FRAMES,) milliseconds of the worker's CPU per frame, with subscribers to old or all."""
    if new and "tf2_msgs" in PACKAGES:
        rate = Parameter("body_frames_rate", value=1000.0)
        bench.node.set_parameters([rate])
    bodies = bench.bodies() if "hri_msgs" in PACKAGES else []
    wanted = TODAY | (new_topics(bodies) if new else {})
    command = [sys.executable, __file__, "--listen", str(int(new)), *bodies]
    listener = subprocess.Popen(command)
    try:
        bench.wait_for(lambda: bench.subscribed(wanted), "subscribers")
        for _ in range(WARM_UP):
            bench.shoot()
        del times[:]
        bench.wait_for(lambda: len(times) >= FRAMES, "frames")
    finally:
        listener.terminate()  # not killed: DDS would miss it for seconds
        listener.wait()
    bench.wait_for(lambda: not bench.subscribed({"/bmp/poses": PersonArray}), "their end")
    return np.array(times[:FRAMES]) * 1e3


def main() -> int:
    if "--listen" in sys.argv:
        new, *bodies = sys.argv[sys.argv.index("--listen") + 1 :]
        listen(bool(int(new)), bodies)
        return 0
    cv2.setNumThreads(1)
    times: list[float] = []
    process = FrameProcessor.process

    def timed(self: Any, *arguments: Any) -> None:
        start = time.thread_time()
        process(self, *arguments)
        times.append(time.thread_time() - start)

    FrameProcessor.process = timed  # type: ignore[method-assign]
    with private_domain() as domain:
        context = Context()
        rclpy.init(context=context, domain_id=domain)
        bench = Bench(context)
        count = PEOPLE if "hri_msgs" in PACKAGES else 0
        bench.wait_for(lambda: len(times) > 3 and len(bench.bodies()) >= count, "people")
        bench.camera.create_client(FollowPerson, "/bmp/bmp_node/follow").call_async(
            FollowPerson.Request(mode=FollowPerson.Request.NEAREST)
        )
        try:
            found = [measure(bench, times, new) for new in (False, True, False, True)]
        finally:
            bench.close()
            context.try_shutdown()
    today, all_of_it = np.concatenate(found[::2]), np.concatenate(found[1::2])
    missing = {"hri_msgs", "tf2_msgs"} - set(PACKAGES)
    print(machine_line())
    print(f"{PEOPLE} people, {WIDTH}x{HEIGHT}, {len(today)} frames each, CPU time of the worker")
    if missing:
        print(f"not installed, so without their topics: {', '.join(sorted(missing))}")
    print("| subscribers | median ms | 95th percentile |\n|---|---|---|")
    for name, values in (("poses and poses_3d, both also smooth", today), ("all", all_of_it)):
        print(f"| {name} | {np.median(values):.2f} | {np.percentile(values, 95):.2f} |")
    more = float(np.median(all_of_it) - np.median(today))
    print(f"\n{more:.2f} ms more (goal {GOAL_MS:g})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
