# SPDX-License-Identifier: Apache-2.0
"""The service ``~/follow`` and the topic ``followed_person``: at most one, of all cameras."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from std_msgs.msg import Header

from bmp_ros.camera_tracking import Tracked
from bmp_ros.depth.people_3d import People3D
from bmp_ros.interaction.follow import (
    Choice,
    Doubt,
    Follower,
    Mode,
    Scene,
    begin,
    choose,
    follow,
    raised_hands,
)
from bmp_ros.loop.people import People
from bmp_ros.ros.depth_messages import person_array_3d
from bmp_ros.ros.interfaces import FollowPerson, PersonArray3D
from bmp_ros.ros.person_messages import skeleton_message

_WORDS = {
    Doubt.UNSEEN: "out of sight",
    Doubt.CROWDED: "too close to another person in the image",
    Doubt.JUMPED: "moved farther than a person can: perhaps someone else",
    Doubt.SWAPPED: "the tracker exchanged ids: perhaps someone else",
    Doubt.UNLIKE: "dressed in other colours than when they were chosen: perhaps someone else",
    Doubt.SETTLING: "seen again, for less than follow_settle",
    Doubt.ENDED: "the track has ended: call ~/follow again",
}


@dataclass(frozen=True)
class Space:
    """People of one image in space.

    header: frame and stamp. raw: as measured. placed: with smoothed centroids and distances.
    velocities: (N, 3) metres per second. smooth: ``placed`` with smoothed joints, None where no
    output wants them. optical: ``placed`` in the camera's optical frame.
    """

    header: Header
    raw: People3D
    placed: People3D
    velocities: np.ndarray
    smooth: People3D | None
    optical: People3D


class Following:
    """Who of one camera is followed. Any thread may call all but `look`, which is the worker's.

    news: what changed in the last image, in words; empty if nothing did.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._follower = Follower()
        self._scene: Scene | None = None
        self._doubt = Doubt.NONE
        self._stale = False
        self.news = ""

    @property
    def track_id(self) -> int:
        """Who is followed, -1: nobody of this camera."""
        return self._follower.track_id

    @property
    def scene(self) -> Scene | None:
        """The last image, None before the first and after `forget`."""
        return self._scene

    def look(
        self, tracked: Tracked, space: Space | None, *, swaps: int, arrival_s: float,
        stamped: bool, settle_s: float,
    ) -> int | None:  # fmt: skip
        """Take in one image; returns the row of the followed person, None where it shows nobody
        of whom that is sure. swaps: of the tracker so far. stamped: whether the image is."""
        people = tracked.people
        unknown = np.full((len(people), 3), np.nan)
        scene = Scene(
            ids=people.track_ids,
            boxes=people.boxes,
            raised=raised_hands(people),
            places=unknown if space is None else space.raw.centroids,
            distances=unknown[:, 0] if space is None else space.placed.distances,
            colours=tracked.colours,
            hidden=tracked.hidden,
            image_size=people.image_size,
            known=tracked.known,
            swaps=swaps,
            stamp_s=tracked.stamp_s if stamped else arrival_s,
            arrival_s=arrival_s,
        )
        with self._lock:
            self._scene, self._stale = scene, False
            self.news = ""
            if self._follower.track_id < 0:
                return None
            number = self._follower.track_id
            self._follower, row, doubt = follow(self._follower, scene, settle_s)
            if doubt is not self._doubt:
                self.news = f"person {number}: {_WORDS[doubt] if doubt else 'followed'}"
            self._doubt = doubt
            return row

    def begin(self, scene: Scene, row: int) -> None:
        with self._lock:
            self._follower, self._doubt = begin(scene, row), Doubt.NONE

    def stop(self) -> None:
        """Follow nobody of this camera any more."""
        with self._lock:
            self._follower, self._doubt = Follower(), Doubt.NONE

    def forget(self) -> None:
        """Choose nobody of images before."""
        with self._lock:
            self._scene = None

    def becomes_stale(self, timeout_s: float) -> bool:
        """Whether the last image of somebody who is followed is older than that now; said once."""
        with self._lock:
            scene = self._scene
            if self._stale or scene is None or self._follower.track_id < 0:
                return False
            self._stale = time.monotonic() - scene.arrival_s > timeout_s
            return self._stale


def answer_follow(
    cameras: Mapping[str, Following],
    request: FollowPerson.Request,
    response: FollowPerson.Response,
    *,
    tracking: bool,
    timeouts_s: Mapping[str, float],
) -> FollowPerson.Response:
    """Choose among the last images of all cameras. timeouts_s: age up to which they count.

    A request that fails changes nothing: ``track_id`` is who is followed still.
    """
    response.track_id = next((c.track_id for c in cameras.values() if c.track_id >= 0), -1)
    if request.mode not in list(Mode):
        modes = ", ".join(f"{mode.name} {mode.value}" for mode in Mode)
        response.message = f"mode is {request.mode}, allowed: {modes}"
        return response
    mode = Mode(request.mode)
    if mode is Mode.STOP:
        for camera in cameras.values():
            camera.stop()
        response.success, response.track_id = True, -1
        return response
    if not tracking:
        response.message = "tracking is off: set the parameter tracking to true"
        return response
    now = time.monotonic()
    scenes = {
        name: scene
        for name, camera in cameras.items()
        if (scene := camera.scene) is not None and now - scene.arrival_s <= timeouts_s[name]
    }
    if not scenes:
        response.message = (
            "no image was processed lately: activate and enable the node, and look whether the "
            "camera publishes; a slow network needs a higher follow_timeout"
        )
        return response
    choices = {name: choose(scene, mode, request.track_id) for name, scene in scenes.items()}
    found = {name: choice for name, choice in choices.items() if choice.row is not None}
    if not found:
        response.message = _why_nobody(choices)
        return response
    best = min(found, key=lambda name: found[name].rank)
    row = found[best].row
    assert row is not None
    for name, camera in cameras.items():
        if name != best:
            camera.stop()
    cameras[best].begin(scenes[best], row)
    response.success, response.track_id = True, int(scenes[best].ids[row])
    return response


def _why_nobody(choices: Mapping[str, Choice]) -> str:
    if len(choices) == 1:
        return next(iter(choices.values())).problem
    return "; ".join(f"{name}: {choice.problem}" for name, choice in choices.items())


def followed_person(
    header: Header, people: People, ages: np.ndarray, space: Space | None, row: int | None
) -> PersonArray3D:
    """The message of the person in ``row``, or of nobody; without depth all metres are NaN."""
    header = header if space is None else space.header
    if row is None:
        return PersonArray3D(header=header, skeleton=skeleton_message(people.skeleton))
    one, rows = people[row], slice(row, row + 1)
    if space is None:
        unknown = np.full((1, len(people.skeleton), 3), np.nan, np.float32)
        found, velocities = (
            People3D(unknown, unknown[..., 0], unknown[:, 0], unknown[:, 0, 0]),
            None,
        )
    else:
        placed = space.placed
        found = People3D(
            placed.keypoints[rows], placed.spread[rows], placed.centroids[rows],
            placed.distances[rows],
        )  # fmt: skip
        velocities = space.velocities[rows]
    message = person_array_3d(header, one, found, ages[rows], velocities)
    message.people[0].index = row
    return message
