# SPDX-License-Identifier: Apache-2.0
"""``FrameProcessor``: one image on the worker's thread: decode, run the loop, track, publish.

What is published is in `frame_outputs`, what is told in `frame_remarks`.
"""

from __future__ import annotations

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
from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.loop import BMPLoop
from bmp_ros.loop.people import People
from bmp_ros.loop.protocols import Detections
from bmp_ros.loop.trace import RunReport
from bmp_ros.ros.boxes_input import BoxesError, ReceivedBoxes, detections_of
from bmp_ros.ros.camera import Camera, CameraInputs, ReceivedMessage
from bmp_ros.ros.engine_loading import free_memory
from bmp_ros.ros.frame_outputs import FrameOutputs
from bmp_ros.ros.frame_remarks import JUMP_NS, FrameRemarks, in_words
from bmp_ros.ros.image_messages import (
    ImageError,
    bgr_image,
    decode_image,
    read_image,
    read_message,
    stamp_ns,
)
from bmp_ros.ros.interaction import Interaction
from bmp_ros.ros.interfaces import PersonArray
from bmp_ros.ros.parameters import NodeParameters
from bmp_ros.ros.person_messages import person_array
from bmp_ros.ros.transforms import NoTransformError


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
        self._remarks = FrameRemarks(node)
        self._outputs = FrameOutputs(node, parameters, loop, interaction, self._remarks)

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
            self._notice_other_frame(camera, message.header)
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
                self._outputs.publish(
                    camera, inputs, message.header, image, tracked, report, start, arrival_s
                )
        except _Skipped:
            camera.statistics.count(discarded=1)
        except ImageError as error:
            self._remarks.refused(camera, error)
        except Exception as error:
            # The camera, or all of ROS, may have been closed under our hands.
            if camera.generation != generation or not self._node.context.ok():
                camera.statistics.count(discarded=1)
                return
            _release_after(error)
            self._remarks.frame_failed(camera, error)

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
            result = Answer(None, f"the networks failed: {in_words(error)}")
        estimate.answer.set_result(result)

    def report_bug(self, error: Exception) -> None:
        """Log what should have been caught before."""
        self._log.error("".join(traceback.format_exception(error)))

    def _decode(self, camera: Camera, message: Any) -> np.ndarray:
        """The image of a message; tells what is odd about it."""
        pixels = decode_image(message, camera.bits)
        before, camera.bits = camera.bits, pixels.bits
        self._remarks.odd_pixels(camera, pixels, before)
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
            self._remarks.tell(camera, "boxes", error.kind, str(error))
            if inputs.boxes.skip:
                raise _Skipped from error
            return None
        self._remarks.other_classes(camera, inputs.boxes, boxes, known)
        missing = "" if known is not None else f"{inputs.boxes.missing_text()}; the detector looks"
        self._remarks.tell(camera, "boxes", "missing" if missing else "", missing)
        return known

    def _find(
        self, camera: Camera, received: ReceivedMessage, header: Header, image: np.ndarray
    ) -> tuple[People, RunReport]:
        """The people in an image of a camera, by the detector or whoever else knows them.

        While people are tracked, it is asked here already how the camera turned, and once more in
        `_track` where tf does not know yet: it may while the networks work.
        """
        known = self._known(camera, received.boxes, image)
        if not self._parameters.run().tracking:
            return self._run(image, known)
        self._take_settings()
        return camera.tracking.find(
            self._loop, image, stamp_ns(header.stamp), arrival_s=received.arrival_s,
            settings=self._parameters.keyframes(), known=known,
            ego_motion=self._foreseen_turn(camera, received.generation, header, image),
        )  # fmt: skip

    def _run(self, image: np.ndarray, known: Detections | None = None) -> tuple[People, RunReport]:
        self._take_settings()
        return self._loop.run(image, known)

    def _take_settings(self) -> None:
        settings = self._parameters.loop()
        if settings != self._loop.settings:
            self._loop.settings = settings

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
        ego_motion = self._ego_motion(camera, inputs, header, people.image_size)
        resets = camera.tracking.counts["resets"]
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
            problem = self._remarks.tracker_failed(camera, error)
        camera.statistics.remark("ids", problem)
        if camera.tracking.counts["resets"] > resets:
            self._remarks.new_ids(camera, camera.tracking.why_reset)
        if stamp != 0 and camera.tracking.stamps_stand_still:
            self._remarks.stamps_stand_still(camera)
        camera.statistics.note_tracking(
            camera.tracking.counts, failed=bool(problem), ego_motion=ego_motion is not None
        )
        return tracked

    def _foreseen_turn(
        self, camera: Camera, generation: int, header: Header, image: np.ndarray
    ) -> np.ndarray | None:
        """`_ego_motion` of an image that may yet be skipped or fail; says nothing."""
        height, width = image.shape[:2]
        with camera.publishing:  # nothing is taken down meanwhile
            inputs = camera.inputs
            if camera.generation != generation or inputs is None or inputs.ego_motion is None:
                return None
            with suppress(NoTransformError):
                return inputs.ego_motion.foresee(header, _model(inputs, (height, width)))
        return None

    def _ego_motion(
        self, camera: Camera, inputs: CameraInputs, header: Header, size: tuple[int, int]
    ) -> np.ndarray | None:
        """How the camera turned since the last image, where tf and a calibration tell."""
        ego = inputs.ego_motion
        if ego is None:
            return None
        try:
            found = ego.homography(header, _model(inputs, size))
        except NoTransformError as error:
            self._remarks.no_turns(camera, error)
            return None
        if found is not None:
            self._remarks.turns(camera, ego.frame)
        return found

    def _notice_time_jump(self, camera: Camera, header: Header) -> None:
        """Forget earlier images when stamps jump back: a bag that restarts, a simulator reset."""
        stamp = stamp_ns(header.stamp)
        if stamp == 0:
            self._remarks.not_stamped(camera)
            return
        back = 0 if camera.last_stamp is None else camera.last_stamp - stamp
        if back > 0:
            self._remarks.stamps_went_back(camera, back)
        if back >= JUMP_NS:
            camera.go_back(stamp, self._parameters.run().depth_max_age)
        camera.last_stamp = stamp

    def _notice_other_frame(self, camera: Camera, header: Header) -> None:
        """Another camera on the topic shows other people, however much alike places are."""
        frame = header.frame_id.lstrip("/")
        before, camera.last_frame = camera.last_frame, frame
        if before is not None and before != frame:
            camera.tracking.forget()
            self._remarks.other_frame(camera, before, frame)


def _read(serialised: bytes, kind: type) -> Any:
    """An image as it was received, without a copy, or a message of another ``kind``."""
    return read_image(serialised) if kind is Image else read_message(serialised, kind)


def _model(inputs: CameraInputs, size: tuple[int, int]) -> CameraModel | None:
    """The calibration for images of a ``size`` (height, width), None where none fits."""
    if inputs.calibration.has_come:
        with suppress(CalibrationError):
            return inputs.calibration.fitting(size, "the image")
    return None


def _release_after(error: Exception) -> None:
    """Let the device have the memory back that the frame which ran out of it held."""
    if "OutOfMemory" in type(error).__name__:
        # The frames of the call stack hold its tensors.
        traceback.clear_frames(error.__traceback__)
        free_memory()
