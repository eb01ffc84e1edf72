# SPDX-License-Identifier: Apache-2.0
"""A camera without hardware: plays the demo clip, live scenes, a video or images.

    python -m bmp_ros.demo.camera_node --ros-args -p source:=clip -p rate:=30.0

Stamps are the time of publication, as a camera's are that of exposure. Below its namespace
(``/camera``): ``image_raw``, ``camera_info`` where the lens is known, and with a subscriber, where
they are known, ``ground_truth`` (bmp_msgs/PersonArray) and ``depth/image_raw`` (16UC1, registered
to the images: of scenes all of it, of clips that of the people, between their joints), both with
the image's header.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from bmp_ros.demo.truth_messages import truth_message
from bmp_ros.image_files import (
    IMAGE_SUFFIXES,
    UnreadableImageError,
    read_image,
    shown_name,
)
from bmp_ros.offline.sources import list_folder
from bmp_ros.offline.video import UnreadableVideoError, VideoFrames
from bmp_ros.ros.compatibility import steady_clock
from bmp_ros.ros.diagnostics import status
from bmp_ros.ros.image_messages import image_message
from bmp_ros.ros.interfaces import PersonArray
from bmp_ros.ros.process import run_node
from bmp_ros.synthetic.clip_file import open_clip
from bmp_ros.synthetic.coarse_depth import depth_of_people
from bmp_ros.synthetic.ground_truth import PeopleTruth

CLIP, SCENES = "clip", "scenes"
_SCENE_SECONDS = 20.0
_SCENE_FPS = 10.0
_IMAGE_FPS = 1.0


@dataclass(frozen=True)
class Shot:
    """One picture. image: BGR uint8 (H, W, 3). truth: where it is known. depth: gives (H, W)
    metres, 0 or infinite where unknown."""

    image: np.ndarray
    truth: PeopleTruth | None = None
    depth: Callable[[], np.ndarray] | None = None


@dataclass(frozen=True)
class Source:
    """Images to show. fps: at which they are meant to be shown.

    play: starts at the beginning, each time; None: no image is due at this tick of ``fps``.
    endless: it has no end.
    camera_matrix: (3, 3) intrinsics in pixels, None where unknown.
    """

    name: str
    fps: float
    play: Callable[[], Iterator[Shot | None]]
    endless: bool = False
    camera_matrix: np.ndarray | None = None
    has_truth: bool = False


def open_source(name: str, warn: Callable[[str], object] = print) -> Source:
    """Open ``clip`` (the demo clip), ``scenes`` (rendered as they are shown), or a path.

    A path is that of a clip (a video with its ground truth beside it), a video, an image, or a
    folder of images, which are shown in natural order of their names. Images and videos are
    turned as their metadata says. warn: is told, once each, what is left out or damaged.
    Raises FileNotFoundError, ValueError or ImportError saying what is wrong.
    """
    if name == CLIP:
        return _clip(None)
    if name == SCENES:
        return _scenes()
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path, _once(warn))
    if not path.is_file():
        raise FileNotFoundError(
            f"{shown_name(path)!r} is no file or folder; a source is {CLIP}, {SCENES}, or the "
            "path of a video, an image or a folder of images"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        image = read_image(path)
        return Source(shown_name(path), _IMAGE_FPS, lambda: iter([Shot(image)]))
    if path.with_suffix(".npz").is_file():
        return _clip(path)
    return _video(path, _once(warn))


def _once(warn: Callable[[str], object]) -> Callable[[str], None]:
    """Says every sentence once, however often a source is played."""
    said: set[str] = set()

    def say(text: str) -> None:
        if text not in said:
            said.add(text)
            warn(text)

    return say


def _clip(path: Path | None) -> Source:
    clip = open_clip(path)

    def play() -> Iterator[Shot]:
        for frame in clip:
            yield Shot(frame.image, frame.people, partial(depth_of_people, frame.people))

    name = CLIP if path is None else str(path)
    return Source(name, clip.fps, play, camera_matrix=clip.camera_matrix, has_truth=True)


def _scenes() -> Source:
    from bmp_ros.synthetic.clip import render_clip
    from bmp_ros.synthetic.generator import shared_renderer

    try:
        shared_renderer()
    except (ImportError, RuntimeError) as error:
        raise ImportError(f"live scenes cannot be rendered here: {error}") from error
    first = next(render_clip(0, 1 / _SCENE_FPS, _SCENE_FPS))

    def play() -> Iterator[Shot]:
        for seed in count():
            for sample in render_clip(seed, _SCENE_SECONDS, _SCENE_FPS):
                yield Shot(sample.image, sample.people, partial(np.copy, sample.depth))

    return Source(
        SCENES, _SCENE_FPS, play, endless=True, camera_matrix=first.camera.matrix, has_truth=True
    )


def _folder(path: Path, warn: Callable[[str], None]) -> Source:
    files, left_out = list_folder(path, IMAGE_SUFFIXES)
    name = shown_name(path)
    if not files:
        raise FileNotFoundError(
            f"{name} holds no image ({left_out or 'it is empty'}); names must end with one of "
            f"{' '.join(IMAGE_SUFFIXES)}"
        )
    if left_out:
        warn(f"{name}: left out {left_out}")

    damaged: dict[Path, tuple[int, int]] = {}

    def play() -> Iterator[Shot]:
        for file in files:
            try:
                found = file.stat()
                # Read again only when it has changed, such as one that was still being written:
                # otherwise libjpeg would complain each time.
                state = found.st_mtime_ns, found.st_size
                if damaged.get(file) == state:
                    continue
                shot = Shot(read_image(file))
            except UnreadableImageError as error:
                if file not in damaged:  # its size is in the words: once per file, not per size
                    warn(f"skipped: {error}")
                damaged[file] = state
            except OSError as error:
                warn(f"skipped: {shown_name(file)}: {error.strerror}")
            else:
                damaged.pop(file, None)
                yield shot

    return Source(name, _IMAGE_FPS, play)


def _video(path: Path, warn: Callable[[str], None]) -> Source:
    """Ticks at the rate of its fastest part; of a variable rate, some ticks have no image."""
    with VideoFrames(path) as video:
        fps = video.steady_fps
        if next(iter(video), None) is None:
            raise ValueError(f"{shown_name(path)} opens as a video and gives no frame")

    def play() -> Iterator[Shot | None]:
        with VideoFrames(path) as video:
            try:
                tick, start = 0, None
                for image in video:
                    start = video.seconds if start is None else start
                    for _ in range(tick, round((video.seconds - start) * fps)):
                        yield None
                        tick += 1
                    yield Shot(image)
                    tick += 1
            except UnreadableVideoError as error:
                warn(str(error))
                return
            if problem := video.broken():
                warn(problem)

    return Source(shown_name(path), fps, play)


STATUS = "camera"
"""Name of the camera's entry in the diagnostics, whose values are those of `CameraNode.counts`."""
TRUTH_DEPTH = 100
_QOS = {"reliable": QoSProfile(depth=5), "sensor": qos_profile_sensor_data}
_DIAGNOSE_S = 1.0
_WAIT_S = 0.1
_DISCOVERY_S = 1.0


class CameraNode(Node):
    """The camera. Raises InvalidParameterValueException for a source that cannot be shown.

    counts: frames sent, how many a second, whether that was all (never, where a source is played
    in a loop), and by which of several cameras.
    """

    def __init__(self, node_name: str = "camera", **options: Any) -> None:
        super().__init__(node_name, namespace="camera", **options)
        self._read_parameters()
        self._source = self._open(self._parameter("source"))
        self._shots: Iterator[Shot | None] = self._source.play()
        self._sent = 0
        self._over = False
        self._first = self._last = 0.0
        self._since = time.monotonic()
        reliability = _QOS[self._parameter("qos")]
        self._images = self.create_publisher(Image, "image_raw", reliability)
        self._info = self._info_publisher(reliability)
        self._truth = self._depth = None
        # The truth is that of the picture as it was rendered, not of a resized one.
        if self._source.has_truth and self._size is None:
            depth = QoSProfile(depth=TRUTH_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
            self._truth = self.create_publisher(PersonArray, "ground_truth", depth)
            self._depth = self.create_publisher(Image, "depth/image_raw", reliability)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        clock = steady_clock()
        self.create_timer(_DIAGNOSE_S, self._diagnose, clock=clock)
        self._steady_clock = clock  # not _clock, which is the node's own
        self._timer = self.create_timer(_WAIT_S, self._await_subscribers, clock=clock)
        rate = self._rate()
        self.get_logger().info(
            f"{self._source.name}: {rate:g} images per second on {self._images.topic_name}"
        )

    @property
    def counts(self) -> dict[str, object]:
        seconds = self._last - self._first
        return {
            "frames sent": self._sent,
            "frames per second": f"{(self._sent - 1) / seconds if seconds > 0 else 0.0:.2f}",
            "over": "yes" if self._over else "no",
            "namespace": self.get_namespace(),
        }

    def close(self, timeout: float | None = None) -> bool:
        """Nothing is at work between callbacks: always True."""
        return True

    def _read_parameters(self) -> None:
        def declare(name: str, default: object, text: str, **limits: Any) -> None:
            self.declare_parameter(
                name, default, ParameterDescriptor(description=text, read_only=True, **limits)
            )

        pixels = [IntegerRange(from_value=0, to_value=16384, step=0)]
        declare(
            "source", CLIP,
            "clip, scenes (rendered live), or the path of a video, an image or a folder",
        )  # fmt: skip
        declare(
            "rate", 0.0, "images per second; 0: as the source is meant",
            floating_point_range=[FloatingPointRange(from_value=0.0, to_value=1000.0, step=0.0)],
        )  # fmt: skip
        declare("loop", True, "begin again when the source is over")
        declare("qos", "reliable", "reliable, or sensor: best effort, as drivers publish")
        declare("frame_id", "camera_optical_frame", "frame in the images' headers")
        declare("width", 0, "resize to this; 0: as it is", integer_range=pixels)
        declare("height", 0, "resize to this; 0: as it is", integer_range=pixels)
        declare(
            "wait_for", 0, "begin a second after the images have so many subscribers",
            integer_range=[IntegerRange(from_value=0, to_value=1000, step=0)],
        )  # fmt: skip
        declare(
            "images", 0, "stop after so many; 0: when the source is over",
            integer_range=[IntegerRange(from_value=0, to_value=2**31 - 1, step=0)],
        )  # fmt: skip
        if self._parameter("qos") not in _QOS:
            raise InvalidParameterValueException(
                "qos", self._parameter("qos"), f"needs one of {', '.join(_QOS)}"
            )
        width, height = self._parameter("width"), self._parameter("height")
        if (width == 0) != (height == 0):
            raise InvalidParameterValueException(
                "width", width, f"width and height belong together, height is {height}"
            )
        self._size = (width, height) if width else None

    def _parameter(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _rate(self) -> float:
        return float(self._parameter("rate") or self._source.fps)

    def _open(self, name: str) -> Source:
        try:
            return open_source(name, self.get_logger().warning)
        except (OSError, ValueError, ImportError) as error:
            raise InvalidParameterValueException("source", name, str(error)) from error

    def _info_publisher(self, reliability: QoSProfile) -> Any:
        if self._source.camera_matrix is None:
            return None
        return self.create_publisher(CameraInfo, "camera_info", reliability)

    def _await_subscribers(self) -> None:
        if self._images.get_subscription_count() < self._parameter("wait_for"):
            self._since = time.monotonic()
            return
        # Whom we have discovered may not have discovered us yet, and would miss the beginning.
        if self._parameter("wait_for") and time.monotonic() - self._since < _DISCOVERY_S:
            return
        self._timer.cancel()
        self._timer = self.create_timer(
            1.0 / self._rate(), self._show_next, clock=self._steady_clock
        )

    def _show_next(self) -> None:
        try:
            shot = self._next()
        except StopIteration:
            self._over = True
            self._timer.cancel()
            self.get_logger().info(f"{self._source.name}: that was all, {self._sent} images")
            self._diagnose()
            return
        if shot is None:
            return
        image = shot.image if self._size is None else cv2.resize(shot.image, self._size)
        header = Header(frame_id=self._parameter("frame_id"))
        header.stamp = self.get_clock().now().to_msg()
        if self._truth is not None and shot.truth is not None:
            if self._truth.get_subscription_count() > 0:
                self._truth.publish(truth_message(header, shot.truth))
        if self._info is not None:
            self._info.publish(self._calibration(header, image, shot.image))
        if self._depth is not None and shot.depth is not None:
            if self._depth.get_subscription_count() > 0:
                self._depth.publish(image_message(header, millimetres(shot.depth()), "16UC1"))
        self._images.publish(image_message(header, image, "bgr8"))
        self._sent += 1
        self._last = time.monotonic()
        self._first = self._first or self._last

    def _next(self) -> Shot | None:
        """The next image, None where the source has none for this tick.

        Raises StopIteration when the source is over and not to be played again.
        """
        if 0 < self._parameter("images") <= self._sent:
            raise StopIteration
        try:
            return next(self._shots)
        except StopIteration:
            if not self._parameter("loop"):
                raise
        self._shots = self._source.play()
        return next(self._shots)

    def _calibration(self, header: Header, image: np.ndarray, original: np.ndarray) -> CameraInfo:
        matrix = self._source.camera_matrix
        assert matrix is not None
        height, width = image.shape[:2]
        scale = np.diag([width / original.shape[1], height / original.shape[0], 1.0])
        matrix = scale @ matrix
        # Messages have pixel centres at whole numbers, the renderer at halves.
        matrix[:2, 2] -= 0.5
        return CameraInfo(
            header=header,
            height=height,
            width=width,
            distortion_model="plumb_bob",
            d=[0.0] * 5,
            k=matrix.ravel().tolist(),
            r=np.eye(3).ravel().tolist(),
            p=np.column_stack([matrix, np.zeros(3)]).ravel().tolist(),
        )

    def _diagnose(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        text = f"{self._source.name} {'is over' if self._over else 'is shown'}"
        message.status.append(
            status(STATUS, self._source.name, DiagnosticStatus.OK, text, self.counts)
        )
        self._diagnostics.publish(message)


def millimetres(metres: np.ndarray) -> np.ndarray:
    """(H, W) uint16 as in 16UC1: 0 for what is not known, and beyond its 65 m."""
    known = np.isfinite(metres) & (metres > 0) & (metres < 65.5)
    return np.where(known, np.rint(1e3 * np.where(known, metres, 0)), 0).astype(np.uint16)


def main(arguments: list[str] | None = None) -> int:
    """Run the camera until SIGINT, SIGTERM or a shutdown of ROS; returns the exit code."""
    return run_node(CameraNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
