# SPDX-License-Identifier: Apache-2.0
"""``FrameRemarks``: what log and diagnostics are told about images, and how often."""

from __future__ import annotations

import math
import traceback

from rclpy.lifecycle import LifecycleNode

from bmp_ros.loop.protocols import Detections
from bmp_ros.pixels import ImageError, Pixels
from bmp_ros.ros.boxes_input import BoxesInput, ReceivedBoxes, why_nobody
from bmp_ros.ros.camera import Camera
from bmp_ros.ros.throttle import Throttle
from bmp_ros.ros.transforms import NoTransformError

JUMP_NS = 10**9
"""Stamps of drivers step back by milliseconds, a bag that begins anew by this or more: as much as
lets a `PersonTracker` begin anew, too."""
_REPEAT_S = 5.0
_AGAIN_S = 60.0  # what comes and goes is said again after so long


class FrameRemarks:
    """About images of all cameras, on the worker's thread.

    What has failed is told where the error is handled: its traceback goes into the log.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._log = node.get_logger()
        self._throttle = Throttle()
        self._missing: dict[tuple[str, str], tuple[int, str]] = {}

    def tell(self, camera: Camera, what: str, kind: str = "", reason: str = "") -> None:
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

    def not_stamped(self, camera: Camera) -> None:
        self._say_once(
            f"{camera.name}: images are stamped 0: their age is unknown; the camera's driver "
            "has to set the stamp"
        )

    def stamps_went_back(self, camera: Camera, back_ns: int) -> None:
        """back_ns: since the image before; `JUMP_NS` or more is a jump in time."""
        if back_ns >= JUMP_NS:
            # Of two cameras on one topic, every other image goes back.
            if self._throttle.due(f"{camera.name} back", _REPEAT_S):
                self._log.info(
                    f"{camera.name}: stamps went back by {back_ns / 1e9:.3f} s (a bag that "
                    "restarts, or two publishers on one topic?): starting afresh"
                )
        elif self._throttle.due(f"{camera.name} step", math.inf):
            self._log.info(
                f"{camera.name}: stamps step back by {back_ns / 1e6:.1f} ms; steps of less "
                f"than {JUMP_NS / 1e9:.0f} s change nothing"
            )

    def stamps_stand_still(self, camera: Camera) -> None:
        self._say_once(
            f"{camera.name}: several images have one stamp: people are tracked by when images "
            "arrive; the camera's driver has to stamp each"
        )

    def other_frame(self, camera: Camera, before: str, now: str) -> None:
        if self._throttle.due(f"{camera.name} frame", _REPEAT_S):
            self._log.info(
                f"{camera.name}: images are of frame {now!r} now, of {before!r} before (another "
                "camera on the topic?): people get new ids"
            )

    def new_ids(self, camera: Camera, why: str) -> None:
        """Everybody who was known has been forgotten."""
        if why and self._throttle.due(f"{camera.name} new ids", _AGAIN_S):
            self._log.info(f"{camera.name}: people get new ids: {why}")

    def odd_pixels(self, camera: Camera, pixels: Pixels, bits_before: int) -> None:
        """What is odd about an image that can be used. bits_before: of the camera's values."""
        if 8 < bits_before < pixels.bits:
            self._log.info(
                f"{_source(camera)}: values of {pixels.bits} bits now, of {bits_before} before: "
                "images are taken for darker from here on. If one damaged image did it, call the "
                "service reset"
            )
        if pixels.note:
            self._say_once(f"{_source(camera)}: {pixels.note}")
        camera.statistics.note_damage(pixels.damage)
        if pixels.damage:
            self._warn(
                f"{camera.name} damaged",
                f"{_source(camera)}: image damaged, but processed: {pixels.damage}",
            )

    def other_classes(
        self,
        camera: Camera,
        listens: BoxesInput,
        boxes: ReceivedBoxes,
        known: Detections | None,
    ) -> None:
        """Say of what the boxes are, until the first one is a person's."""
        listens.has_people |= known is not None and len(known.boxes) > 0
        nobody = "" if listens.has_people else why_nobody(boxes, listens.box_class)
        self.tell(camera, "people", "classes" if nobody else "", nobody)

    def refused(self, camera: Camera, error: ImageError) -> None:
        """An image that cannot be used."""
        reason = camera.words(str(error))
        camera.statistics.refuse(reason)
        self._warn(f"{camera.name} refused", f"{_source(camera)}: image refused: {reason}")

    def frame_failed(self, camera: Camera, error: Exception) -> None:
        camera.statistics.fail(in_words(error))
        if self._throttle.due(f"{camera.name} failed", _REPEAT_S):
            self._log.error(f"{camera.name}: a frame was lost: {traceback.format_exc()}")

    def tracker_failed(self, camera: Camera, error: Exception) -> str:
        """Return why there are no ids."""
        problem = f"no ids: the tracker failed: {in_words(error)}"
        if self._throttle.due(f"{camera.name} {type(error)} of the tracker", math.inf):
            self._log.error(f"{camera.name}: {problem}\n{traceback.format_exc()}")
        return problem

    def interaction_failed(self, camera: Camera, error: Exception) -> None:
        if self._throttle.due(f"{camera.name} {type(error)} in interaction", _REPEAT_S):
            self._log.error(f"{camera.name}: interaction: {traceback.format_exc()}")

    def no_turns(self, camera: Camera, error: NoTransformError) -> None:
        """People are tracked without the camera's turns."""
        if self._throttle.due(f"{camera.name} no turn", math.inf):
            self._log.info(
                f"{camera.name}: people are tracked without the camera's turns so far: {error}"
            )

    def turns(self, camera: Camera, frame: str) -> None:
        """The camera's turns are known, in a frame of tf."""
        if self._throttle.due(f"{camera.name} turn", math.inf):
            self._log.info(f"{camera.name}: the camera's turns are known, in frame {frame!r}")

    def _warn(self, topic: str, text: str) -> None:
        if self._throttle.due(topic, _REPEAT_S):
            self._log.warning(text)

    def _say_once(self, text: str) -> None:
        if self._throttle.due(text, math.inf):
            self._log.warning(text)


def in_words(error: Exception) -> str:
    """An error on one line, with what helps where memory ran out."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "OutOfMemory" in type(error).__name__:
        text += "; a smaller preset, fewer people (max_people) or precision fp16 need less"
    return text


def _source(camera: Camera) -> str:
    inputs = camera.inputs
    return inputs.images.topic if inputs is not None else camera.name
