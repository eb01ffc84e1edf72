# SPDX-License-Identifier: Apache-2.0
"""``Camera``: one camera of the node, from its subscription to its topics."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image

from bmp_ros.camera_tracking import CameraTracking
from bmp_ros.depth.calibration import info_beside, is_rectified
from bmp_ros.interaction.zones import ZoneWatch
from bmp_ros.ros.boxes_input import BoxesInput, ReceivedBoxes
from bmp_ros.ros.calibration import CalibrationInput
from bmp_ros.ros.compatibility import how_to_install
from bmp_ros.ros.depth_input import DepthInput
from bmp_ros.ros.diagnostics import CameraStatistics
from bmp_ros.ros.ego_motion import EgoMotion
from bmp_ros.ros.following import Following
from bmp_ros.ros.image_subscription import ImageSubscription, camera_subscription
from bmp_ros.ros.publishers import CameraPublishers
from bmp_ros.ros.settings import CameraSettings, named_for
from bmp_ros.ros.target_frame import TargetFrame
from bmp_ros.ros.throttle import Throttle
from bmp_ros.ros.topic_advice import twins
from bmp_ros.ros.transforms import Transforms
from bmp_ros.ros.worker import Worker
from bmp_ros.tracking import IdCounter

DEFAULT_NAME = "camera"
"""Name of the only camera in log and diagnostics; its topics have no prefix."""
_TWIN_S, _REMIND_S, _AGAIN_S = 2.0, 60.0, 30.0


class ReceivedMessage(NamedTuple):
    """A serialised image that waits. generation: of its camera when it was received, arrival_s:
    when that was, on the machine's steady clock. boxes: of another node, where one is asked."""

    serialised: bytes
    generation: int
    arrival_s: float
    boxes: ReceivedBoxes | None = None


class CameraInputs(NamedTuple):
    """What a camera listens to. boxes, depth, target_frame, ego_motion, transforms: None without.

    All of it is taken down at once, so it is handed out at once: a frame takes one snapshot and
    never meets half of it.
    """

    images: ImageSubscription
    calibration: CalibrationInput
    boxes: BoxesInput | None
    depth: DepthInput | None
    target_frame: TargetFrame | None
    ego_motion: EgoMotion | None
    transforms: Transforms | None

    def open(self) -> None:
        if self.boxes is not None:
            self.boxes.open()
        if self.depth is not None:
            self.depth.open()
        self.calibration.open()
        self.images.open()

    def follow_publishers(self) -> list[str]:
        """Return why inputs cannot be followed; the others are all the same."""
        problems = []
        for each in (self.images, self.calibration, self.boxes, self.depth):
            try:
                if each is not None:
                    each.follow_publishers()
            except Exception as error:  # another type, or what the middleware refuses
                problems.append(str(error))
        return problems

    @property
    def topics(self) -> set[str]:
        """All that are listened to but tf."""
        depth = () if self.depth is None else (self.depth.topic, self.depth.calibration.topic)
        boxes = () if self.boxes is None else (self.boxes.topic,)
        return {self.images.topic, self.calibration.topic, *depth, *boxes}

    def close(self) -> None:
        self.images.close()
        self.calibration.close()
        if self.boxes is not None:
            self.boxes.close()
        if self.depth is not None:
            self.depth.close()
        if self.transforms is not None:
            self.transforms.close()


class Camera:
    """name: as in the parameter ``cameras``, or `DEFAULT_NAME`. prefix: of its topics.

    publishing: held while results are published, so that nothing follows the empty array that
    `stop` publishes, and while ``inputs`` are taken down.
    generation: changes at every `stop`; what was received before is not published after.
    enabled: whether images are looked at. message_type: of the images that wait.
    bits: most significant bits per sample so far; see `pixels.to_8_bits`.
    last_stamp: of the latest image in nanoseconds, None before the first.
    tracking: who is who; ids come from ``counter``. following: whom of them a robot follows.
    zones: who is in which zone; for the worker only, or under ``publishing``.
    inputs: what it listens to, None while it does not listen.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        worker: Worker,
        counter: IdCounter,
        *,
        prefix: str,
    ) -> None:
        self.name = name
        self._several = bool(prefix)
        self.statistics = CameraStatistics()
        self.tracking = CameraTracking(counter)
        self.following = Following()
        self.zones = ZoneWatch()
        self.publishers = CameraPublishers(node, prefix)
        self.publishing = threading.Lock()
        self.generation = 0
        self.enabled = True
        self.bits = 8
        self.last_stamp: int | None = None
        self.last_frame: str | None = None
        self.inputs: CameraInputs | None = None
        self.message_type: type = Image
        self._rate, self._taken_s = 0.0, 0.0  # of the last image that was handed out
        self._said_skipped = False
        self._throttle = Throttle()
        self._alone_s: dict[str, float] = {}  # when a topic was last seen to have one publisher
        self._node = node
        self._worker = worker

    @property
    def key(self) -> str | None:
        """Under which name its parameters are; None for the only camera."""
        return self.name if self._several else None

    @property
    def source(self) -> str:
        """What is listened to, in words."""
        return self.inputs.images.source if self.inputs is not None else "nothing"

    @property
    def silent_s(self) -> float | None:
        """Seconds since the last image, None while none is expected."""
        if self.inputs is None or not self.enabled:
            return None
        return self.inputs.images.silent_s

    def check_publishers(self, timeout_s: float) -> list[str]:
        """Follow the publishers; return what to tell: inputs that cannot be followed, topics that
        have several publishers, and that there are no images."""
        if self.inputs is None:
            return []
        problems = self.inputs.follow_publishers()
        remarks = [each for each in problems if self._throttle.due(each, _AGAIN_S)]
        remarks += self._too_many_publishers(self.inputs)
        silence = self.inputs.images.remark_silence(timeout_s) if self.enabled else None
        return remarks + ([silence] if silence else [])

    def listen(self, settings: CameraSettings, *, ground_zones: bool = False) -> None:
        """Subscribe; every image goes into the slot, in place of the one before.

        ground_zones: whether zones need tf. Raises ValueError for invalid names of topics.
        """
        images = camera_subscription(self._node, settings, self._receive)
        calibration = CalibrationInput(
            self._node,
            settings.camera_info_topic or info_beside(images.topic),
            rectified=is_rectified(settings.rectified, images.topic),
            parameter="camera_info_topic",
        )
        depth = DepthInput(self._node, settings) if settings.depth_topic else None
        target = settings.target_frame.lstrip("/") if depth is not None else ""
        ego = "" if settings.ego_frame == "none" else settings.ego_frame
        transforms = None
        try:
            transforms = Transforms(self._node) if target or ego or ground_zones else None
        except ImportError as error:
            if target:  # costs depth, never the images
                text = (
                    f"target_frame is {target!r}, but tf2_ros cannot be imported "
                    f"({error}): {how_to_install('tf2_ros_py')}, or leave target_frame empty"
                )
                self._node.get_logger().warning(f"{self.name}: {self.words(text)}")
                depth = None
        self.message_type = images.kind
        self._said_skipped = False
        self.inputs = CameraInputs(
            images,
            calibration,
            self._boxes_input(settings),
            depth,
            TargetFrame(transforms, target) if transforms and target else None,
            EgoMotion(transforms, ego) if transforms and ego else None,
            transforms,
        )
        self.inputs.open()

    def _boxes_input(self, settings: CameraSettings) -> BoxesInput | None:
        if not settings.boxes_topic:
            return None
        return BoxesInput(self._node, settings, self._hand_out, self._skip)

    def stop_listening(self) -> None:
        with self.publishing:
            inputs, self.inputs = self.inputs, None
            if inputs is not None:
                inputs.close()
        self.tracking.forget()

    def words(self, text: str) -> str:
        """``text`` for the user: parameters under the camera's name where there are several."""
        return named_for(self.name, text) if self._several else text

    def what_counts(self) -> str:
        """Which matrices of camera_info count, in words, for those who wonder about metres."""
        if self.inputs is None:
            return ""
        parts = [_what_counts("images", self.inputs.calibration)]
        if self.inputs.depth is not None:
            parts.append(_what_counts("depth images", self.inputs.depth.calibration))
        return "; ".join(parts)

    def enable(self, enabled: bool) -> None:
        """Look at images from now on, or at none; displays are cleared then."""
        stops = self.enabled and not enabled
        self.enabled = enabled
        if stops:
            self.stop()

    def stop(self) -> None:
        """Forget what waits and publish an empty array, as the last message."""
        inputs = self.inputs
        waiting = inputs.boxes.forget_images() if inputs is not None and inputs.boxes else 0
        self.statistics.count(discarded=self._worker.clear([self]) + waiting)
        with self.publishing:
            self.generation += 1
            self.following.stop()
            self.following.forget()
            self.zones.forget()
            self.publishers.publish_empty()

    def watch_followed(self, timeout_s: float) -> None:
        """Say that nobody is known to be followed when results about them stop coming."""
        if self.following.becomes_stale(timeout_s):
            with self.publishing:
                self.publishers.publish_nobody_followed()
            if self._throttle.due("stale", 60.0):
                self._node.get_logger().warning(
                    f"{self.name}: no result for {timeout_s:g} s (follow_timeout): "
                    "followed_person is empty until the next one"
                )

    def reset(self) -> None:
        """Forget everything about images before; the next one is like the first."""
        self._forget()
        self.tracking.forget()
        self.following.forget()
        if self.inputs is not None and self.inputs.depth is not None:
            self.inputs.depth.clear()

    def go_back(self, stamp_ns: int, max_age_s: float) -> None:
        """Forget everything about images before one with this stamp, with which time jumped back.

        Depth images that may belong to it, within ``max_age_s``, are kept: they come before it.
        """
        self._forget()
        inputs = self.inputs
        if inputs is not None and inputs.depth is not None:
            inputs.depth.drop_newer(stamp_ns + int(max_age_s * 1e9))
        if inputs is not None and inputs.boxes is not None:
            inputs.boxes.drop_newer(stamp_ns)
        if inputs is not None and inputs.transforms is not None:
            inputs.transforms.clear()
        if inputs is not None and inputs.ego_motion is not None:
            inputs.ego_motion.forget()

    def _forget(self) -> None:
        self.bits = 8
        self.last_stamp = None
        self.statistics.clear()

    def limit_rate(self, max_rate: float) -> None:
        """Let the next image be handed out no sooner than ``max_rate`` (Hz, 0: none) allows."""
        # On the machine's clock: stamps and simulated time may stand still or jump.
        self._rate, self._taken_s = max_rate, time.monotonic()
        if max_rate > 0:
            self._worker.hold(self, self._taken_s + 1.0 / max_rate)

    def follow_rate(self, max_rate: float) -> None:
        """Let a new ``max_rate`` count for the image that waits already."""
        if max_rate != self._rate:
            self._rate = max_rate
            self._worker.hold(self, self._taken_s + (1.0 / max_rate if max_rate > 0 else 0.0))

    def _too_many_publishers(self, inputs: CameraInputs) -> list[str]:
        """What to tell about topics that have had more than one publisher for a while."""
        poses, now, remarks = self.publishers.poses_topic, time.monotonic(), []
        for topic in (poses, *sorted(inputs.topics)):
            text = twins(self._node, topic, is_input=topic != poses)
            since = now if not text else self._alone_s.get(topic, now)
            self._alone_s[topic] = since
            if now - since > _TWIN_S and self._throttle.due(f"twins {topic}", _REMIND_S):
                remarks.append(text)
        return remarks

    def _receive(self, serialised: bytes) -> None:
        if not self.enabled:
            self.statistics.count(received=1, discarded=1)
            return
        self.statistics.count(received=1)
        received = ReceivedMessage(serialised, self.generation, time.monotonic())
        inputs = self.inputs
        if inputs is None or inputs.boxes is None:
            self._hand_out(received, None, 0)
        else:
            inputs.boxes.image(serialised, received)

    def _hand_out(
        self, received: ReceivedMessage, boxes: ReceivedBoxes | None, passed_over: int
    ) -> None:
        """Make an image the next one. passed_over: how many before it will not be processed."""
        replaced = self._worker.put(self, received._replace(boxes=boxes))
        self.statistics.count(replaced=int(replaced) + passed_over)

    def _skip(self, count: int) -> None:
        """Images whose boxes did not come; their publisher is named, once."""
        self.statistics.count(discarded=count)
        inputs = self.inputs
        if inputs is not None and inputs.boxes is not None:
            self.statistics.remark("boxes", f"no boxes: {inputs.boxes.missing_text()}; skipped")
            if not self._said_skipped:
                self._said_skipped = True
                self._node.get_logger().warning(
                    f"{self.name}: {inputs.boxes.missing_text()}; such images are skipped"
                )


def _what_counts(what: str, calibration: CalibrationInput) -> str:
    if calibration.rectified:
        return f"{what} are rectified (P of {calibration.topic})"
    return f"{what} are not rectified (K and D of {calibration.topic})"
