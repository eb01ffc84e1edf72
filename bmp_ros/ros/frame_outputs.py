# SPDX-License-Identifier: Apache-2.0
"""``FrameOutputs``: what is published of one image's people; first poses, then what is wanted."""

from __future__ import annotations

import math
import time

import numpy as np
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from bmp_ros.camera_tracking import Tracked
from bmp_ros.loop import BMPLoop
from bmp_ros.loop.people import People
from bmp_ros.loop.trace import RunReport
from bmp_ros.ros.camera import Camera, CameraInputs
from bmp_ros.ros.depth_input import NoDepthError
from bmp_ros.ros.depth_work import Lifted, lift
from bmp_ros.ros.following import Space
from bmp_ros.ros.frame_remarks import FrameRemarks
from bmp_ros.ros.image_messages import stamp_ns
from bmp_ros.ros.interaction import Demand, Interaction, ProcessedImage
from bmp_ros.ros.parameters import NodeParameters
from bmp_ros.ros.zone_states import OccupiedZones

_DOUBTS = ("registered depth", "calibration of this camera")  # what metres may be without


class FrameOutputs:
    """Of all cameras, on the worker's thread. loop: whose settings tell which joints are drawn."""

    def __init__(
        self,
        node: LifecycleNode,
        parameters: NodeParameters,
        loop: BMPLoop,
        interaction: Interaction,
        remarks: FrameRemarks,
    ) -> None:
        self._node = node
        self._parameters = parameters
        self._loop = loop
        self._interaction = interaction
        self._remarks = remarks

    def publish(
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
        """Publish what is made of an image; whoever calls holds ``camera.publishing``.

        start: of the work on it, as of `time.perf_counter`. arrival_s: of the image, on a steady
        clock. An error is raised, but one in what is for the robot's other parts is told.
        """
        people = tracked.people
        camera.publishers.publish_poses(header, people, tracked.ages)
        elapsed_ms = (time.perf_counter() - start) * 1e3
        age_s = self._age_s(header)
        camera.publishers.publish_times(elapsed_ms, age_s * 1e3)
        stages = {**report.stage_ms, "track": tracked.milliseconds}
        overhead_ms = elapsed_ms - report.stage_ms.get("total", 0.0) - tracked.milliseconds
        stages["node overhead"] = overhead_ms
        demand = self._interaction.demand(
            camera,
            self._parameters.run(),
            self._parameters.interaction(camera.key),
            self._remarks.tell,
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
            self._remarks.tell(camera, "markers")
        else:
            self._remarks.tell(camera, "markers", no_markers.kind, str(no_markers))

    def _age_s(self, header: Header) -> float:
        stamp = stamp_ns(header.stamp)
        if stamp == 0:
            return math.nan
        return (self._node.get_clock().now().nanoseconds - stamp) / 1e9

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
            occupied, stages["interaction"] = self._interaction.publish(seen, self._remarks.tell)
        except Exception as error:
            if not self._node.context.ok():  # ROS was closed under our hands
                raise
            self._remarks.interaction_failed(seen.camera, error)
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
                self._remarks.tell(camera, what)
            return None
        try:
            lifted = lift(
                header, tracked.people, inputs.depth, inputs.calibration, inputs.target_frame,
                demand.run,
            )  # fmt: skip
        except NoDepthError as error:
            self._remarks.tell(camera, "depth", error.kind, str(error))
            for what in _DOUBTS:
                self._remarks.tell(camera, what)
            return None
        self._remarks.tell(camera, "depth", "silence" if lifted.silence else "", lifted.silence)
        foreign = inputs.calibration.why_foreign(header.frame_id)
        for what, doubt in zip(_DOUBTS, (lifted.doubt, foreign), strict=True):
            self._remarks.tell(camera, what, "frames" if doubt else "", doubt)
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
