# SPDX-License-Identifier: Apache-2.0
"""What happens to one image, on the worker's thread: decode, run the loop, publish, count."""

from __future__ import annotations

import math
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bmp_ros.camera_tracking import Tracked
from bmp_ros.depth.calibration import CalibrationError
from bmp_ros.loop import BMPLoop
from bmp_ros.loop.people import People
from bmp_ros.loop.protocols import Detections
from bmp_ros.loop.trace import RunReport
from bmp_ros.ros.boxes_input import (
    BoxesError,
    BoxesInput,
    ReceivedBoxes,
    detections_of,
    why_nobody,
)
from bmp_ros.ros.camera import Camera, CameraInputs, ReceivedMessage
from bmp_ros.ros.depth_input import NoDepthError
from bmp_ros.ros.depth_work import Lifted, lift
from bmp_ros.ros.engine_loading import free_memory
from bmp_ros.ros.following import Space
from bmp_ros.ros.image_messages import (
    ImageError,
    bgr_image,
    decode_image,
    read_image,
    read_message,
    stamp_ns,
)
from bmp_ros.ros.interaction import Demand, Interaction, ProcessedImage
from bmp_ros.ros.interfaces import PersonArray
from bmp_ros.ros.parameters import NodeParameters
from bmp_ros.ros.person_messages import person_array
from bmp_ros.ros.throttle import Throttle
from bmp_ros.ros.transforms import NoTransformError
from bmp_ros.ros.zone_states import OccupiedZones

_DOUBTS = ("registered depth", "calibration of this camera")  # what metres may be without
_REPEAT_S = 5.0
_AGAIN_S = 60.0  # what comes and goes is said again after so long
_JUMP_NS = 10**9  # stamps of drivers step back by milliseconds, a bag that begins anew by more


@dataclass(frozen=True)
class Estimate:
    """A request for the people in one image. answer: becomes an `Answer`."""

    image: Image
    answer: Future


@dataclass(frozen=True)
class Answer:
    """people: None when it went wrong, ``message`` says why then."""

    people: PersonArray | None
    message: str = ""


class _Skipped(Exception):  # noqa: N818
    """An image without boxes that are its own, and the parameter boxes_missing is skip."""


class FrameProcessor:
    """Runs the loop on images; its methods never raise for what an image or a network does."""

    def __init__(
        self,
        node: LifecycleNode,
        parameters: NodeParameters,
        loop: BMPLoop,
        interaction: Interaction,
    ) -> None:
        self._node = node
        self._log = node.get_logger()
        self._parameters = parameters
        self._loop = loop
        self._interaction = interaction
        self._throttle = Throttle()
        self._missing: dict[tuple[str, str], tuple[int, str]] = {}

    def process(self, camera: Camera, received: ReceivedMessage) -> None:
        """Answer for one image of a camera; a failure costs this image only."""
        start = time.perf_counter()
        generation = received.generation
        if camera.generation != generation:
            camera.statistics.count(discarded=1)
            return
        try:
            camera.limit_rate(self._parameters.run().max_rate)
            message = _read(received.serialised, camera.message_type)
            self._notice_time_jump(camera, message.header)
            image = self._decode(camera, message)
            people, report = self._find(camera, received, message.header, image)
            with camera.publishing:
                # Nothing is taken down while the lock is held, and all of it at once.
                inputs = camera.inputs
                if camera.generation != generation or inputs is None:
                    camera.statistics.count(discarded=1)
                    return
                arrival_s = received.arrival_s
                tracked = self._track(camera, inputs, message.header, image, people, arrival_s)
                self._publish(
                    camera, inputs, message.header, image, tracked, report, start, arrival_s
                )
        except _Skipped:
            camera.statistics.count(discarded=1)
        except ImageError as error:
            reason = camera.words(str(error))
            camera.statistics.refuse(reason)
            self._warn(f"{camera.name} refused", f"{_source(camera)}: image refused: {reason}")
        except Exception as error:
            # The camera, or all of ROS, may have been closed under our hands.
            if camera.generation != generation or not self._node.context.ok():
                camera.statistics.count(discarded=1)
                return
            self._report_failure(camera, error)

    def answer(self, estimate: Estimate) -> None:
        """Find the people in the image of a request."""
        try:
            people, _ = self._run(bgr_image(estimate.image))
            result = Answer(person_array(estimate.image.header, people))
        except ImageError as error:
            result = Answer(None, str(error))
        except Exception as error:
            _release_after(error)
            self._log.error(f"estimate: {traceback.format_exc()}")
            result = Answer(None, f"the networks failed: {_in_words(error)}")
        estimate.answer.set_result(result)

    def report_bug(self, error: Exception) -> None:
        """Log what should have been caught before."""
        self._log.error("".join(traceback.format_exception(error)))

    def _decode(self, camera: Camera, message: Any) -> np.ndarray:
        """The image of a message; tells what is odd about it."""
        pixels = decode_image(message, camera.bits)
        if 8 < camera.bits < pixels.bits:
            self._log.info(
                f"{_source(camera)}: values of {pixels.bits} bits now, of {camera.bits} before: "
                "images are taken for darker from here on. If one damaged image did it, call the "
                "service reset"
            )
        camera.bits = pixels.bits
        if pixels.note:
            self._say_once(f"{_source(camera)}: {pixels.note}")
        camera.statistics.note_damage(pixels.damage)
        if pixels.damage:
            self._warn(
                f"{camera.name} damaged",
                f"{_source(camera)}: image damaged, but processed: {pixels.damage}",
            )
        return pixels.image

    def _known(
        self, camera: Camera, boxes: ReceivedBoxes | None, image: np.ndarray
    ) -> Detections | None:
        """The boxes of another node for an image; None: the detector is to look.

        Raises _Skipped for boxes of another image, where that is asked for.
        """
        inputs = camera.inputs
        if boxes is None or inputs is None or inputs.boxes is None:
            return None
        try:
            height, width = image.shape[:2]
            known = detections_of(boxes, height, width, inputs.boxes.box_class)
        except BoxesError as error:
            self._tell(camera, "boxes", error.kind, str(error))
            if inputs.boxes.skip:
                raise _Skipped from error
            return None
        self._tell_other_classes(camera, inputs.boxes, boxes, known)
        missing = "" if known is not None else f"{inputs.boxes.missing_text()}; the detector looks"
        self._tell(camera, "boxes", "missing" if missing else "", missing)
        return known

    def _tell_other_classes(
        self,
        camera: Camera,
        listens: BoxesInput,
        boxes: ReceivedBoxes,
        known: Detections | None,
    ) -> None:
        """Say of what the boxes are, until the first one is a person's."""
        listens.has_people |= known is not None and len(known.boxes) > 0
        nobody = "" if listens.has_people else why_nobody(boxes, listens.box_class)
        self._tell(camera, "people", "classes" if nobody else "", nobody)

    def _find(
        self, camera: Camera, received: ReceivedMessage, header: Header, image: np.ndarray
    ) -> tuple[People, RunReport]:
        """The people in an image of a camera, by the detector or whoever else knows them."""
        known = self._known(camera, received.boxes, image)
        if not self._parameters.run().tracking:
            return self._run(image, known)
        self._take_settings()
        return camera.tracking.find(
            self._loop, image, stamp_ns(header.stamp), arrival_s=received.arrival_s,
            settings=self._parameters.keyframes(), known=known,
        )  # fmt: skip

    def _run(self, image: np.ndarray, known: Detections | None = None) -> tuple[People, RunReport]:
        self._take_settings()
        return self._loop.run(image, known)

    def _take_settings(self) -> None:
        settings = self._parameters.loop()
        if settings != self._loop.settings:
            self._loop.settings = settings

    def _publish(
        self,
        camera: Camera,
        inputs: CameraInputs,
        header: Header,
        image: np.ndarray,
        tracked: Tracked,
        report: RunReport,
        start: float,
        arrival_s: float,
    ) -> None:
        people = tracked.people
        camera.publishers.publish_poses(header, people, tracked.ages)
        elapsed_ms = (time.perf_counter() - start) * 1e3
        age_s = self._age_s(header)
        camera.publishers.publish_times(elapsed_ms, age_s * 1e3)
        stages = {**report.stage_ms, "track": tracked.milliseconds}
        overhead_ms = elapsed_ms - report.stage_ms.get("total", 0.0) - tracked.milliseconds
        stages["node overhead"] = overhead_ms
        demand = self._interaction.demand(
            camera, self._parameters.run(), self._parameters.interaction(camera.key), self._tell
        )
        smooth = self._smooth(camera, header, tracked, demand)
        space = None
        lifted = self._lift(camera, inputs, header, tracked, demand)
        if lifted is not None:
            space = self._publish_lifted(camera, tracked, lifted, demand)
            stages["depth"] = lifted.milliseconds
        seen = ProcessedImage(
            camera, inputs, header, image, arrival_s, tracked, smooth, space, demand
        )
        occupied = self._interact(seen, stages)
        camera.statistics.add(age_s, stages, len(people), report.not_finite)
        no_markers = camera.publishers.publish_wanted(
            header,
            image,
            people,
            smooth=smooth,
            in_space=None
            if lifted is None or space is None or space.smooth is None
            else lifted.optical(space.smooth),
            run=demand.run,
            arrival_s=arrival_s,
            score_threshold=self._loop.settings.confidence_threshold,
            calibration=inputs.calibration,
            occupied=occupied,
        )
        if no_markers is None:
            self._tell(camera, "markers")
        else:
            self._tell(camera, "markers", no_markers.kind, str(no_markers))

    def _track(
        self,
        camera: Camera,
        inputs: CameraInputs,
        header: Header,
        image: np.ndarray,
        people: People,
        arrival_s: float,
    ) -> Tracked:
        """Give people ids; an error costs the ids of this image, and those of before."""
        stamp = stamp_ns(header.stamp)
        if not self._parameters.run().tracking:
            camera.statistics.remark("ids", "")
            return camera.tracking.untracked(people, stamp)
        ego_motion = self._ego_motion(camera, inputs, header, people)
        problem = ""
        try:
            tracked = camera.tracking.track(
                people,
                stamp,
                image,
                arrival_s=arrival_s,
                settings=self._parameters.tracker(),
                ego_motion=ego_motion,
            )
        except Exception as error:
            tracked = camera.tracking.untracked(people, stamp)
            problem = f"no ids: the tracker failed: {_in_words(error)}"
            if self._throttle.due(f"{camera.name} {type(error)} of the tracker", math.inf):
                self._log.error(f"{camera.name}: {problem}\n{traceback.format_exc()}")
        camera.statistics.remark("ids", problem)
        camera.statistics.note_tracking(
            camera.tracking.counts, failed=bool(problem), ego_motion=ego_motion is not None
        )
        return tracked

    def _ego_motion(
        self, camera: Camera, inputs: CameraInputs, header: Header, people: People
    ) -> np.ndarray | None:
        """How the camera turned since the last image, where tf and a calibration tell."""
        ego, model = inputs.ego_motion, None
        if ego is None:
            return None
        if inputs.calibration.has_come:
            with suppress(CalibrationError):
                model = inputs.calibration.fitting(people.image_size, "the image")
        try:
            found = ego.homography(header, model)
        except NoTransformError as error:
            if self._throttle.due(f"{camera.name} no turn", math.inf):
                self._log.info(
                    f"{camera.name}: people are tracked without the camera's turns so far: {error}"
                )
            return None
        if found is not None and self._throttle.due(f"{camera.name} turn", math.inf):
            self._log.info(f"{camera.name}: the camera's turns are known, in frame {ego.frame!r}")
        return found

    def _smooth(
        self, camera: Camera, header: Header, tracked: Tracked, demand: Demand
    ) -> People | None:
        """Publish smoothed joints; None, and nothing is remembered, while nobody wants them."""
        if not (camera.publishers.wants_smooth or demand.smooth):
            camera.tracking.stop_smoothing()
            return None
        people = camera.tracking.smooth(tracked, self._parameters.smoothing())
        camera.publishers.publish_smooth(header, people, tracked.ages)
        return people

    def _interact(self, seen: ProcessedImage, stages: dict[str, float]) -> OccupiedZones | None:
        """Publish for the robot's other parts; an error in it costs nothing else of the image."""
        try:
            occupied, stages["interaction"] = self._interaction.publish(seen, self._tell)
        except Exception as error:
            if not self._node.context.ok():  # ROS was closed under our hands
                raise
            name = seen.camera.name
            if self._throttle.due(f"{name} {type(error)} in interaction", _REPEAT_S):
                self._log.error(f"{name}: interaction: {traceback.format_exc()}")
            return None
        return occupied

    def _lift(
        self,
        camera: Camera,
        inputs: CameraInputs,
        header: Header,
        tracked: Tracked,
        demand: Demand,
    ) -> Lifted | None:
        """The people in space, if there is depth and a subscriber."""
        if inputs.depth is None or not (camera.publishers.wants_depth or demand.depth):
            camera.tracking.stop_smoothing_in_space()
            for what in ("depth", *_DOUBTS):
                self._tell(camera, what)
            return None
        try:
            lifted = lift(
                header, tracked.people, inputs.depth, inputs.calibration, inputs.target_frame,
                demand.run,
            )  # fmt: skip
        except NoDepthError as error:
            self._tell(camera, "depth", error.kind, str(error))
            for what in _DOUBTS:
                self._tell(camera, what)
            return None
        self._tell(camera, "depth", "silence" if lifted.silence else "", lifted.silence)
        foreign = inputs.calibration.why_foreign(header.frame_id)
        for what, doubt in zip(_DOUBTS, (lifted.doubt, foreign), strict=True):
            self._tell(camera, what, "frames" if doubt else "", doubt)
        return lifted

    def _publish_lifted(
        self, camera: Camera, tracked: Tracked, lifted: Lifted, demand: Demand
    ) -> Space:
        """Publish people in space; returns what else is made of them."""
        publishers, tracking = camera.publishers, camera.tracking
        smoothing = self._parameters.smoothing()
        placed, velocities = tracking.locate(tracked, lifted.people, smoothing)
        smooth = None
        if publishers.wants_smooth_in_space or demand.smooth_in_space:
            smooth = tracking.smooth_in_space(tracked, placed, smoothing)
        else:
            tracking.stop_smoothing_in_space()
        publishers.publish_lifted(tracked, lifted, velocities, smooth, demand.run)
        optical = lifted.optical(placed)
        return Space(lifted.header, lifted.people, placed, velocities, smooth, optical)

    def _tell(self, camera: Camera, what: str, kind: str = "", reason: str = "") -> None:
        """Keep in the diagnostics why something is missing; log it when it begins to be.

        kind: of the reason, whose words may change from image to image; empty when all is well.
        """
        text = f"no {what}: {camera.words(reason)}" if kind else ""
        camera.statistics.remark(what, text)
        generation, before = self._missing.get((camera.name, what), (camera.generation, ""))
        self._missing[camera.name, what] = (camera.generation, kind)
        stopped = generation != camera.generation  # it may have other topics since
        if not kind or (kind == before and not stopped):
            return
        if self._throttle.due(f"{camera.name} {what} {kind}", _AGAIN_S) or stopped:
            self._log.warning(f"{camera.name}: {text}")

    def _age_s(self, header: Header) -> float:
        stamp = stamp_ns(header.stamp)
        if stamp == 0:
            return math.nan
        return (self._node.get_clock().now().nanoseconds - stamp) / 1e9

    def _notice_time_jump(self, camera: Camera, header: Header) -> None:
        """Forget earlier images when stamps jump back: a bag that restarts, a simulator reset."""
        stamp = stamp_ns(header.stamp)
        if stamp == 0:  # not stamped
            self._say_once(
                f"{camera.name}: images are stamped 0: their age is unknown; the camera's driver "
                "has to set the stamp"
            )
            return
        back = 0 if camera.last_stamp is None else camera.last_stamp - stamp
        if back > _JUMP_NS:
            # Of two cameras on one topic, every other image goes back.
            if self._throttle.due(f"{camera.name} back", _REPEAT_S):
                self._log.info(
                    f"{camera.name}: stamps went back by {back / 1e9:.3f} s (a bag that "
                    "restarts, or two publishers on one topic?): starting afresh"
                )
            camera.go_back(stamp, self._parameters.run().depth_max_age)
        elif back > 0 and self._throttle.due(f"{camera.name} step", math.inf):
            self._log.info(
                f"{camera.name}: stamps step back by {back / 1e6:.1f} ms; steps of up to "
                f"{_JUMP_NS / 1e9:.0f} s change nothing"
            )
        camera.last_stamp = stamp

    def _report_failure(self, camera: Camera, error: Exception) -> None:
        _release_after(error)
        camera.statistics.fail(_in_words(error))
        if self._throttle.due(f"{camera.name} failed", _REPEAT_S):
            self._log.error(f"{camera.name}: a frame was lost: {traceback.format_exc()}")

    def _warn(self, topic: str, text: str) -> None:
        if self._throttle.due(topic, _REPEAT_S):
            self._log.warning(text)

    def _say_once(self, text: str) -> None:
        if self._throttle.due(text, math.inf):
            self._log.warning(text)


def _read(serialised: bytes, kind: type) -> Any:
    """An image as it was received, without a copy, or a message of another ``kind``."""
    return read_image(serialised) if kind is Image else read_message(serialised, kind)


def _source(camera: Camera) -> str:
    inputs = camera.inputs
    return inputs.images.topic if inputs is not None else camera.name


def _release_after(error: Exception) -> None:
    """Let the device have the memory back that the frame which ran out of it held."""
    if "OutOfMemory" in type(error).__name__:
        # The frames of the call stack hold its tensors.
        traceback.clear_frames(error.__traceback__)
        free_memory()


def _in_words(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "OutOfMemory" in type(error).__name__:
        text += "; a smaller preset, fewer people (max_people) or precision fp16 need less"
    return text
