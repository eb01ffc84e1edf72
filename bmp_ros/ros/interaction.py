# SPDX-License-Identifier: Apache-2.0
"""``Interaction``: what is made of one image's people for the robot's other parts.

Whom to follow, who is in which zone, tf frames of bodies, ROS4HRI. On the worker's thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from bmp_ros.camera_tracking import Tracked
from bmp_ros.interaction.body_frames import BodyFrames, body_frames
from bmp_ros.interaction.zones import parse_zones
from bmp_ros.loop.people import People
from bmp_ros.ros.body_transforms import BodyTransforms
from bmp_ros.ros.camera import Camera, CameraInputs
from bmp_ros.ros.executor_tasks import ExecutorTasks
from bmp_ros.ros.following import Space, followed_person
from bmp_ros.ros.hri_bridge import (
    HriBridge,
    HumanFrame,
    Wanted,
    needs_depth,
    needs_frames,
    needs_smooth_joints,
)
from bmp_ros.ros.image_messages import stamp_ns
from bmp_ros.ros.settings import InteractionSettings, RunSettings
from bmp_ros.ros.throttle import Throttle
from bmp_ros.ros.zone_states import NoZonesError, OccupiedZones, who_is_inside, zone_states

_REPEAT_S = 5.0


class Tell(Protocol):
    """Keep in diagnostics and log why something is missing; nothing is without a kind."""

    def __call__(self, camera: Camera, what: str, kind: str = "", reason: str = "") -> None: ...


@dataclass(frozen=True)
class Demand:
    """What the outputs of this image need. humans: topics of ROS4HRI with subscribers. frames: tf
    wants frames of bodies. depth, smooth, smooth_in_space: what is to be computed for it all."""

    run: RunSettings
    settings: InteractionSettings
    humans: Wanted
    frames: bool
    depth: bool
    smooth: bool
    smooth_in_space: bool


@dataclass(frozen=True)
class ProcessedImage:
    """An image of a camera and its people. smooth: with smoothed joints; space: their places; each
    None where nobody wants it or it cannot be told. arrival_s: when the image arrived."""

    camera: Camera
    inputs: CameraInputs
    header: Header
    image: np.ndarray
    arrival_s: float
    tracked: Tracked
    smooth: People | None
    space: Space | None
    demand: Demand


class Interaction:
    """Of all cameras of a node; what it makes goes to the publishers of the camera, to ``/tf`` and
    to ``/humans``. `camera_stopped`, `tidy` and `close` are for the executor's thread."""

    def __init__(self, node: LifecycleNode, tasks: ExecutorTasks) -> None:
        self._log = node.get_logger()
        self._throttle = Throttle()
        self.bodies = BodyTransforms(node, tasks)
        self.humans = HriBridge(node, tasks)

    def camera_stopped(self, camera: Camera) -> None:
        """Say that nobody is seen any more."""
        self.humans.clear(camera.name)

    def tidy(self) -> None:
        """Destroy the publishers of people who are gone."""
        self.humans.tidy()

    def close(self) -> None:
        """Destroy every publisher."""
        self.humans.close()
        self.bodies.close()

    def demand(
        self, camera: Camera, run: RunSettings, settings: InteractionSettings, tell: Tell
    ) -> Demand:
        """What is wanted of the next image; packages that are missing are told."""
        publishers = camera.publishers
        frames = self._frames_wanted(camera, run, tell)
        humans = self._humans_wanted(camera, run, tell)
        zones = parse_zones(settings.zones) if publishers.wants_zones else ()
        smooth_in_space = frames or needs_frames(humans)
        return Demand(
            run=run,
            settings=settings,
            humans=humans,
            frames=frames,
            depth=smooth_in_space
            or needs_depth(humans)
            or publishers.wants_followed
            or any(zone.on_ground for zone in zones),
            smooth=needs_smooth_joints(humans),
            smooth_in_space=smooth_in_space,
        )

    def _frames_wanted(self, camera: Camera, run: RunSettings, tell: Tell) -> bool:
        try:
            wanted = self.bodies.wanted(run.body_frames_rate)
        except ImportError as error:
            tell(camera, "body frames", "not installed", str(error))
            return False
        tell(camera, "body frames")
        return wanted

    def _humans_wanted(self, camera: Camera, run: RunSettings, tell: Tell) -> Wanted:
        try:
            wanted = self.humans.wanted(run.hri)
        except ImportError as error:
            tell(camera, "hri", "not installed", str(error))
            return {}
        tell(camera, "hri")
        return wanted

    def publish(self, seen: ProcessedImage, tell: Tell) -> tuple[OccupiedZones | None, float]:
        """Publish all that is wanted; returns zones for the markers, and the milliseconds."""
        start = time.perf_counter()
        space, demand = seen.space, seen.demand
        self._follow(seen)
        frames = None
        if space is not None and space.smooth is not None and demand.smooth_in_space:
            people = seen.tracked.people
            frames = body_frames(space.smooth.keypoints, people.keypoint_scores, people.skeleton)
            if demand.frames:
                self._publish_frames(seen, space, frames, tell)
        if demand.run.hri and self.humans.enabled:
            frame = HumanFrame(
                seen.camera.name, seen.header, seen.image, seen.tracked, seen.smooth, space,
                frames, demand.run.hri_remove_background,
            )  # fmt: skip
            self.humans.publish(frame, demand.humans)
        return self._watch_zones(seen, tell), (time.perf_counter() - start) * 1e3

    def _follow(self, seen: ProcessedImage) -> None:
        """Look where the followed person is, also without subscribers: they may be lost."""
        camera, header, tracked = seen.camera, seen.header, seen.tracked
        row = camera.following.look(
            tracked,
            seen.space,
            swaps=camera.tracking.counts["swaps"],
            arrival_s=seen.arrival_s,
            stamped=stamp_ns(header.stamp) != 0,
            settle_s=seen.demand.settings.follow_settle,
        )
        news = camera.following.news
        if news and self._throttle.due(f"{camera.name} {news}", _REPEAT_S):
            self._log.info(f"{camera.name}: {news}")
        if camera.publishers.wants_followed:
            camera.publishers.publish_followed(
                followed_person(header, tracked.people, tracked.ages, seen.space, row)
            )

    def _publish_frames(
        self, seen: ProcessedImage, space: Space, frames: BodyFrames, tell: Tell
    ) -> None:
        """Frames have ROS4HRI's ids in their names where these are published, else the tracks'."""
        if not space.header.frame_id:  # every listener to tf would complain about it
            text = "the image's header has no frame_id: its driver has to name the camera's frame"
            tell(seen.camera, "body frames", "no parent", text)
            return
        run = seen.demand.run
        names: list[str | None] = [
            None if each < 0 else self.humans.body_id(each) if run.hri else str(each)
            for each in seen.tracked.people.track_ids.tolist()
        ]
        self.bodies.publish(seen.camera.name, space.header, names, frames, run.body_frames_rate)

    def _watch_zones(self, seen: ProcessedImage, tell: Tell) -> OccupiedZones | None:
        """Publish who is in which zone; None without zones, subscribers or a way to tell."""
        camera, people, settings = seen.camera, seen.tracked.people, seen.demand.settings
        zones = parse_zones(settings.zones)
        if not zones or not camera.publishers.wants_zones:
            camera.zones.forget()
            tell(camera, "zones")
            return None
        try:
            contained = who_is_inside(
                zones, seen.header, people, settings.zone_anchor, seen.space,
                seen.inputs.calibration, seen.inputs.transforms,
            )  # fmt: skip
        except NoZonesError as error:
            tell(camera, "zones", error.kind, str(error))
            return None
        tell(camera, "zones")
        found = camera.zones.update(
            zones, contained, people.track_ids, seen.tracked.stamp_s, settings.zone_leave
        )
        camera.publishers.publish_zones(zone_states(seen.header, zones, found))
        return OccupiedZones(zones, found)
