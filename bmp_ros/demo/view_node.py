# SPDX-License-Identifier: Apache-2.0
"""``bmp view`` beside a running ``bmp_node``: subscribes to what it says, and to its images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64

from bmp_ros.demo.camera_node import CLIP
from bmp_ros.demo.processes import (
    DEPTH_TOPIC,
    IMAGE_TOPIC,
    NAMESPACE,
    NODE,
    ChildProcess,
    ProgressLine,
    await_active,
    camera_process,
    node_process,
    ros_of_its_own,
    ros_until_interrupted,
    spin_once,
    spin_while_alive,
)
from bmp_ros.demo.recorder import DiagnosticsListener
from bmp_ros.depth.calibration import (
    COMPRESSED_SUFFIX,
    CalibrationError,
    info_beside,
    is_rectified,
)
from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.pixels import ImageError
from bmp_ros.received_people import people_from_message, people_in_space
from bmp_ros.ros.calibration import CalibrationInput
from bmp_ros.ros.image_messages import bgr_image, read_image, stamp_ns, stamp_of
from bmp_ros.ros.image_subscription import ImageSubscription
from bmp_ros.ros.interfaces import PersonArray, PersonArray3D
from bmp_ros.ros.transforms import NoTransformError, Transforms
from bmp_ros.viewing.gathering import Gathered, Gathering
from bmp_ros.viewing.moment import EncodedImage, Moment, PeopleInSpace

_TICK_S = 0.1
_ASK_AGAIN_S = 3.0
_SILENT_S = 5.0
_JPEG = "image/jpeg"
_PEOPLE = "bmp_msgs/msg/PersonArray"


class Screen(Protocol):
    """Where moments are shown: `bmp_ros.viewing.rerun_log.RerunLog`."""

    def show(self, moment: Moment) -> None: ...

    def show_times(self, moment: Moment, times_ms: Mapping[str, float]) -> None: ...


@dataclass(frozen=True)
class Watched:
    """Which node is watched. name: with its namespace, such as ``/bmp/bmp_node``. camera: one of
    several by its name, empty where the node has one. image_topic: of the images; empty: the node
    is asked for it."""

    name: str = f"{NAMESPACE}/{NODE}"
    camera: str = ""
    image_topic: str = ""

    @property
    def topics(self) -> str:
        """What the node's topics begin with."""
        namespace = self.name.rpartition("/")[0]
        return f"{namespace}/{self.camera}/" if self.camera else f"{namespace}/"


class ViewNode(Node):
    """Shows the people of every image on a ``Screen``, with the image, as soon as both are here.

    shown: how many moments. Whatever cannot be shown is left out and said once, in the log.
    """

    def __init__(self, watched: Watched, screen: Screen, **options: Any) -> None:
        super().__init__("bmp_view", **options)
        self.shown = 0
        self._watched, self._screen = watched, screen
        self._gathering: Gathering[bytes] = Gathering()
        self._last: Moment | None = None
        self._images: ImageSubscription | None = None
        self._calibration: CalibrationInput | None = None
        self._camera_frames: dict[int, str] = {}
        self._transforms: Transforms | None = None
        self._said: set[str] = set()
        topics, qos = watched.topics, QoSProfile(depth=20)
        self.create_subscription(PersonArray, f"{topics}poses", self._add_people, qos)
        self.create_subscription(PersonArray3D, f"{topics}poses_3d", self._add_space, qos)
        for topic, label in (
            ("debug/processing_time_ms", "processing"), ("debug/pipeline_latency_ms", "latency"),
        ):  # fmt: skip
            self.create_subscription(
                Float64, topics + topic, lambda each, label=label: self._time(label, each), qos
            )
        self.diagnostics = DiagnosticsListener(self, watched.name.rpartition("/")[2])
        self._diagnosed_ns = 0
        self._asked: Any = None
        self._asked_at = 0.0
        self._client = self.create_client(GetParameters, f"{watched.name}/get_parameters")
        if watched.image_topic:
            compressed = watched.image_topic.endswith(COMPRESSED_SUFFIX)
            self._subscribe(watched.image_topic, compressed)
        self.create_timer(_TICK_S, self._tick)

    def close(self) -> None:
        if self._images is not None:
            self._images.close()
        if self._calibration is not None:
            self._calibration.close()
        if self._transforms is not None:
            self._transforms.close()
        self.destroy_node()

    # ------------------------------------------------------------ what arrives

    def _add_people(self, message: PersonArray) -> None:
        stamp = stamp_ns(message.header.stamp)
        try:
            self._gathering.add_people(stamp, people_from_message(message))
        except ValueError as error:
            self._say(f"a message of people cannot be shown: {error}")
            return
        self._camera_frames = {stamp: message.header.frame_id}
        self._show_gathered()

    def _add_space(self, message: PersonArray3D) -> None:
        stamp = stamp_ns(message.header.stamp)
        try:
            keypoints, centroids = people_in_space(message)
        except ValueError as error:
            self._say(f"a message of people in space cannot be shown: {error}")
            return
        frame = message.header.frame_id
        space = PeopleInSpace(keypoints, centroids, frame, self._camera_pose(message.header))
        self._gathering.add_space(stamp, space)
        self._show_gathered()

    def _add_image(self, serialised: bytes) -> None:
        self._gathering.add_image(stamp_ns(stamp_of(serialised)), serialised)
        self._show_gathered()

    def _camera_pose(self, header: Any) -> Any:
        """Where the camera is in the frame of people in space; None: it is the frame itself."""
        camera_frame = next(iter(self._camera_frames.values()), header.frame_id)
        if header.frame_id == camera_frame:
            return None
        try:
            if self._transforms is None:
                self._transforms = Transforms(self)
            return self._transforms.rigid_motion(header.frame_id, camera_frame, header.stamp)
        except (ImportError, NoTransformError) as error:
            self._say(f"where the camera is in {header.frame_id!r} is not known: {error}")
            return None

    def _time(self, label: str, message: Float64) -> None:
        if self._last is not None:
            self._screen.show_times(self._last, {label: message.data})

    # ------------------------------------------------------------ what is shown

    def _show_gathered(self) -> None:
        for gathered in self._gathering.take():
            moment = self._moment(gathered)
            self._screen.show(moment)
            self.shown += 1
            self._last = moment

    def _moment(self, gathered: Gathered[bytes]) -> Moment:
        return Moment(
            self.shown, gathered.people, stamp_ns=gathered.stamp_ns,
            image=self._encoded(gathered.image), in_space=gathered.in_space,
            camera=self._lens(gathered.people.image_size),
        )  # fmt: skip

    def _encoded(self, serialised: bytes | None) -> EncodedImage | None:
        if serialised is None or self._images is None:
            return None
        try:
            if self._images.kind is CompressedImage:
                message = rclpy.serialization.deserialize_message(serialised, CompressedImage)
                data = bytes(memoryview(message.data))
                if data.startswith(b"\xff\xd8\xff"):  # as the camera compressed it
                    return EncodedImage(data, _JPEG)
                return EncodedImage.of(bgr_image(message))
            return EncodedImage.of(bgr_image(read_image(serialised)))
        except ImageError as error:
            self._say(f"an image cannot be shown: {error}")
            return None

    def _lens(self, size: tuple[int, int]) -> CameraModel | None:
        if self._calibration is None or not self._calibration.has_come:
            return None
        try:
            return self._calibration.fitting(size, "the image")
        except CalibrationError as error:
            self._say(str(error))
            return None

    def say_nothing_came(self) -> None:
        """Once: why there is nothing to show, and what to do."""
        topic = f"{self._watched.topics}poses"
        if self.count_publishers(topic):
            self._say(
                f"{topic} has a publisher, and nothing comes: is the node active (ros2 lifecycle "
                f"get {self._watched.name}), and does its camera publish? Its log says what it "
                "waits for"
            )
            return
        kinds = self.get_topic_names_and_types()
        others = [
            name for name, types in kinds if name.endswith("/poses") and _PEOPLE in types
            and self.count_publishers(name)
        ]  # fmt: skip
        there = f"; people are published on {', '.join(others)}" if others else ""
        self._say(
            f"no node publishes {topic}: is bmp_node running, in this ROS_DOMAIN_ID? Another "
            f"name: --node, one of several cameras: --camera{there}"
        )

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.get_logger().warning(text)

    # ------------------------------------------------------------ once in a while

    def _tick(self) -> None:
        if self._images is None:
            self._ask_for_topic()
        else:
            self._images.follow_publishers()
        if self._calibration is not None:
            self._calibration.follow_publishers()
        said = self.diagnostics
        if said.stamp_ns != self._diagnosed_ns and self._last is not None:
            self._diagnosed_ns = said.stamp_ns
            self._screen.show_times(self._last, said.stages())

    def _ask_for_topic(self) -> None:
        """Which images the node looks at: its parameters say so."""
        if self._asked is not None and self._asked.done():
            answer = self._asked.result()
            texts = [value.string_value for value in answer.values] if answer else []
            self._asked = None
            if len(texts) == 2 and texts[0]:
                compressed = texts[1] == "compressed"
                base = texts[0].removesuffix(COMPRESSED_SUFFIX)
                self._subscribe(base + COMPRESSED_SUFFIX if compressed else texts[0], compressed)
                return
        now = time.monotonic()
        if now - self._asked_at > _ASK_AGAIN_S and self._client.service_is_ready():
            if self._asked is not None:
                self._client.remove_pending_request(self._asked)
            prefix = f"{self._watched.camera}." if self._watched.camera else ""
            names = [f"{prefix}image_topic", f"{prefix}image_transport"]
            self._asked = self._client.call_async(GetParameters.Request(names=names))
            self._asked_at = now

    def _subscribe(self, topic: str, compressed: bool) -> None:
        if not topic.startswith("/"):
            topic = f"{self._watched.name.rpartition('/')[0]}/{topic}"
        self._images = ImageSubscription(
            self, CompressedImage if compressed else Image, topic, on_message=self._add_image
        )
        self._images.open()
        self._calibration = CalibrationInput(
            self, info_beside(topic), rectified=is_rectified("auto", topic),
            parameter="camera_info_topic",
        )  # fmt: skip
        self._calibration.open()
        self.get_logger().info(f"shows the images of {topic}")


def watch(watched: Watched, screen: Screen, seconds: float | None = None) -> int:
    """Show a running node until Ctrl-C, or for so many seconds; returns the moments shown."""
    with ros_until_interrupted():
        node = ViewNode(watched, screen)
        began = time.monotonic()
        until = None if seconds is None else began + seconds
        try:
            with ProgressLine() as progress:
                while until is None or time.monotonic() < until:
                    spin_once(node, _TICK_S)
                    if node.shown:
                        progress.show(f"{node.shown} images shown")
                    else:
                        progress.show(f"waiting for {watched.topics}poses")
                        if time.monotonic() - began > _SILENT_S:
                            node.say_nothing_came()
            if not node.shown:
                node.say_nothing_came()
        except KeyboardInterrupt:
            pass
        finally:
            node.close()
    return node.shown


def watch_demo(
    screen: Screen,
    *,
    preset: str,
    device: str,
    output: Path,
    seconds: float | None = None,
    say: Callable[[str], object] = print,
) -> int:
    """Play the demo clip in a loop, with a node of its own, until Ctrl-C or so many seconds.

    Both processes have ended when this returns. Raises ProcessError as `bmp demo` does.
    """
    output.mkdir(parents=True, exist_ok=True)
    with ros_of_its_own():
        viewer = ViewNode(Watched(image_topic=IMAGE_TOPIC), screen)
        try:
            with (
                ProgressLine() as progress,
                node_process(preset, device, output / "node.log", depth_topic=DEPTH_TOPIC) as node,
            ):
                await_active(
                    viewer, viewer.diagnostics, node, 600.0,
                    lambda: progress.show(f"bmp_node loads preset {preset}"),
                )  # fmt: skip
                camera = camera_process(output / "camera.log", source=CLIP, loop=True, wait_for=2)
                with camera:
                    _show_until(viewer, progress, seconds, node, camera)
        except KeyboardInterrupt:
            pass
        finally:
            viewer.close()
    say(f"{viewer.shown} images shown")
    return viewer.shown


def _show_until(
    viewer: ViewNode, progress: ProgressLine, seconds: float | None, *processes: ChildProcess
) -> None:
    until = None if seconds is None else time.monotonic() + seconds
    while until is None or time.monotonic() < until:
        spin_while_alive(viewer, *processes)
        progress.show(f"{viewer.shown} images shown; Ctrl-C ends it")
