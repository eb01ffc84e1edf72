# SPDX-License-Identifier: Apache-2.0
"""``HriBridge``: tracked people on the topics of ROS4HRI (REP-155), below ``/humans/bodies``.

Nothing is published below ``/humans/persons`` and ``/humans/faces``: these belong to other nodes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from geometry_msgs.msg import Point, PointStamped, Twist, TwistStamped, Vector3
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bmp_ros.camera_tracking import Tracked
from bmp_ros.interaction.body_frames import BodyFrames
from bmp_ros.interaction.postures import Joints, WaveWatch, gestures, postures
from bmp_ros.interaction.ros4hri import (
    body_id,
    cropped,
    normalised_boxes,
    run_nonce,
    skeletons_2d,
)
from bmp_ros.loop.people import People
from bmp_ros.ros.compatibility import how_to_install
from bmp_ros.ros.executor_tasks import ExecutorTasks
from bmp_ros.ros.following import Space
from bmp_ros.ros.image_messages import image_message

_QOS = QoSProfile(depth=5)  # libhri subscribes with the defaults: reliable, volatile
_TRACKED = "/humans/bodies/tracked"
MAX_BODIES = 200
"""Bodies with topics at one time, seven each; who comes later gets theirs when others are gone."""
_GONE_S = 2.0
"""Seconds after which the publishers of a person who is gone are destroyed."""

Wanted = Mapping[str, frozenset[str]]
"""Topics that have a subscriber, by the id of the body."""


class HumanFrame(NamedTuple):
    """One image for `HriBridge.publish`. smooth: people with smoothed joints; space, frames: in
    space; None where nothing that is wanted needs them."""

    camera: str
    header: Header
    image: np.ndarray
    tracked: Tracked
    smooth: People | None
    space: Space | None
    frames: BodyFrames | None
    remove_background: bool


class HriBridge:
    """Publishers of all bodies that any camera of the node sees; one pool of them.

    The worker calls `wanted` and `publish`, which makes the messages; `clear`, `tidy` and `close`
    are for the executor's thread, on which publishers are made, used and destroyed. A body has its
    publishers from the image after its first one on, until two seconds after its last one.
    """

    def __init__(self, node: Node, tasks: ExecutorTasks) -> None:
        self._node = node
        self._tasks = tasks
        self._nonce = run_nonce()
        self._lock = threading.Lock()
        self._enabled = False
        self._list: Any = None
        self._bodies: dict[str, dict[str, Any]] = {}
        self._asked: set[str] = set()
        self._seen_s: dict[str, float] = {}
        self._of_camera: dict[str, tuple[float, Header, list[str]]] = {}
        self._waiting: dict[str, tuple[Header, list[tuple[str, str, Any]]]] = {}
        self._waves: dict[str, WaveWatch] = {}

    @property
    def enabled(self) -> bool:
        """Whether it is on, and hri_msgs is there."""
        return self._enabled

    def body_id(self, track_id: int) -> str:
        """Id of the body of a tracked person."""
        return body_id(self._nonce, track_id)

    def wanted(self, enabled: bool) -> Wanted:
        """What to compute for the next image; empty while the bridge is off.

        Raises ImportError, whose message says what to install, where hri_msgs is missing.
        """
        if enabled != self._enabled:
            if enabled:
                _check_hri_msgs()
            self._enabled = enabled
            self._tasks(self._open if enabled else self.close)
        if not enabled:
            return {}
        with self._lock:
            counted = {
                name: frozenset(
                    topic for topic, each in body.items() if each.get_subscription_count() > 0
                )
                for name, body in self._bodies.items()
            }
        return {name: topics for name, topics in counted.items() if topics}

    def publish(self, frame: HumanFrame, wanted: Wanted) -> None:
        """Publish one image's bodies; people without a track id are none."""
        people, header = frame.tracked.people, frame.header
        ids = [self.body_id(each) if each >= 0 else None for each in people.track_ids.tolist()]
        rows = {name: row for row, name in enumerate(ids) if name is not None}
        now = time.monotonic()
        with self._lock:
            self._seen_s.update(dict.fromkeys(rows, now))
            self._of_camera[frame.camera] = (now, header, list(rows))
            new = rows.keys() - self._bodies.keys() - self._asked
            room = max(0, MAX_BODIES - len(self._bodies) - len(self._asked))
            new = set(sorted(new)[:room])
            self._asked |= new
        if new:
            self._tasks(lambda: self._make(new))
        chosen = {name: topics for name, topics in wanted.items() if name in rows}
        if any(topics & {"posture", "gesture"} for topics in chosen.values()):
            watch = self._waves.setdefault(frame.camera, WaveWatch())
            said = _body_language(frame, watch)
        else:
            self._waves.pop(frame.camera, None)
            said = None
        makers = _makers(frame, said)
        messages = [
            (name, topic, makers[topic](rows[name], name))
            for name, topics in chosen.items()
            for topic in topics & makers.keys()
        ]
        # Many small messages: handing them to DDS takes longer than making them. The worker goes
        # on to the next image meanwhile.
        with self._lock:
            self._waiting[frame.camera] = header, messages
        self._tasks(lambda: self._send(frame.camera))

    def _send(self, camera: str) -> None:
        """Publish the newest of what waits of a camera; nothing once it has stopped."""
        with self._lock:
            header, messages = self._waiting.pop(camera, (None, []))
            bodies = dict(self._bodies)
        if header is None:
            return
        self._publish_list(header)
        for name, topic, message in messages:
            if message is not None and name in bodies:
                bodies[name][topic].publish(message)

    def clear(self, camera: str) -> None:
        """Take the bodies of a camera that stops off the list, and say so."""
        with self._lock:
            known = self._of_camera.pop(camera, None)
            self._waiting.pop(camera, None)
        if known is not None:
            self._publish_list(known[1])

    def tidy(self) -> None:
        """Destroy the publishers of people who are gone; forget cameras whose images stopped."""
        now = time.monotonic()
        with self._lock:
            gone = [name for name, seen_s in self._seen_s.items() if now - seen_s > _GONE_S]
            silent = [n for n, (seen_s, *_) in self._of_camera.items() if now - seen_s > _GONE_S]
        for name in gone:
            self._destroy(name)
        for name in silent:
            self.clear(name)

    def close(self) -> None:
        """Empty the list and destroy every publisher."""
        for camera in list(self._of_camera):
            self.clear(camera)
        for name in list(self._seen_s.keys() | self._bodies.keys()):
            self._destroy(name)
        with self._lock:
            publisher, self._list = self._list, None
            self._asked.clear()
        self._enabled = False
        if publisher is not None:
            self._node.destroy_publisher(publisher)

    def _publish_list(self, header: Header) -> None:
        """The ids of all cameras, each once: a list without a body tells that it is gone."""
        from hri_msgs.msg import IdsList

        with self._lock:
            if self._list is None or self._list.get_subscription_count() == 0:
                return
            ids = dict.fromkeys(name for *_, names in self._of_camera.values() for name in names)
            self._list.publish(IdsList(header=header, ids=list(ids)))

    def _open(self) -> None:
        from hri_msgs.msg import IdsList

        if self._enabled and self._list is None:
            publisher = self._node.create_publisher(IdsList, _TRACKED, _QOS)
            with self._lock:
                self._list = publisher

    def _make(self, names: set[str]) -> None:
        kinds = _topic_types()
        for name in names if self._enabled else ():
            # A group keeps a reference to the events of every publisher that it ever had, for as
            # long as it lives: this one ends with the body.
            group = MutuallyExclusiveCallbackGroup()
            body = {
                topic: self._node.create_publisher(
                    kind, f"/humans/bodies/{name}/{topic}", _QOS, callback_group=group
                )
                for topic, kind in kinds.items()
            }
            with self._lock:
                self._bodies[name] = body
        with self._lock:
            self._asked -= names

    def _destroy(self, name: str) -> None:
        with self._lock:
            self._seen_s.pop(name, None)
            body = self._bodies.pop(name, {})
        for publisher in body.values():
            self._node.destroy_publisher(publisher)


def needs_depth(wanted: Wanted) -> bool:
    """Whether anybody wants places in space."""
    return _any(wanted, {"position", "velocity"})


def needs_frames(wanted: Wanted) -> bool:
    """Whether anybody wants what is in the frame of the body itself."""
    return _any(wanted, {"velocity"})


def needs_smooth_joints(wanted: Wanted) -> bool:
    """Whether anybody wants posture or gesture."""
    return _any(wanted, {"posture", "gesture"})


def _any(wanted: Wanted, topics: set[str]) -> bool:
    return any(each & topics for each in wanted.values())


def _check_hri_msgs() -> None:
    try:
        import hri_msgs.msg  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"hri is true, but hri_msgs cannot be imported ({error}): "
            f"{how_to_install('hri_msgs')}, or set hri to false"
        ) from error


def _topic_types() -> dict[str, type]:
    from hri_msgs.msg import BodyPosture, Gesture, NormalizedRegionOfInterest2D, Skeleton2D

    return {
        "roi": NormalizedRegionOfInterest2D,
        "cropped": Image,
        "skeleton2d": Skeleton2D,
        "position": PointStamped,
        "velocity": TwistStamped,
        "posture": BodyPosture,
        "gesture": Gesture,
    }


def _body_language(frame: HumanFrame, watch: WaveWatch) -> tuple[np.ndarray, np.ndarray]:
    """(N,) postures and gestures, of smoothed joints where there are such."""
    people = frame.tracked.people if frame.smooth is None else frame.smooth
    joints = Joints(people.keypoints, people.keypoint_scores, people.skeleton)
    waving = watch.update(people.track_ids, joints, frame.tracked.stamp_s)
    return postures(joints), gestures(joints, waving)


Maker = Callable[[int, str], Any]


def _makers(frame: HumanFrame, said: tuple[np.ndarray, np.ndarray] | None) -> dict[str, Maker]:
    """How to make the message of each topic, of a row and an id; None where it is unknown."""
    from hri_msgs import msg as hri

    people, header = frame.tracked.people, frame.header
    boxes = normalised_boxes(people).tolist()
    skeletons: list[list[list[float]]] = []

    def roi(row: int, name: str) -> Any:
        x1, y1, x2, y2 = boxes[row]
        score = float(people.scores[row])
        return hri.NormalizedRegionOfInterest2D(
            header=header, xmin=x1, ymin=y1, xmax=x2, ymax=y2, c=score
        )

    def crop(row: int, name: str) -> Image:
        part = cropped(frame.image, people, row, remove_background=frame.remove_background)
        return image_message(header, part, "bgr8")

    def skeleton(row: int, name: str) -> Any:
        if not skeletons:  # of everybody at once
            skeletons.extend(
                skeletons_2d(
                    people.keypoints, people.keypoint_scores, people.skeleton, people.image_size
                ).tolist()
            )
        points = [hri.NormalizedPointOfInterest2D(x=x, y=y, c=c) for x, y, c in skeletons[row]]
        return hri.Skeleton2D(header=header, skeleton=points)

    makers: dict[str, Maker] = {"roi": roi, "cropped": crop, "skeleton2d": skeleton}
    if said is not None:
        posture, gesture = said
        makers["posture"] = lambda row, _: hri.BodyPosture(
            header=header, posture=int(posture[row])
        )
        makers["gesture"] = lambda row, _: hri.Gesture(header=header, gesture=int(gesture[row]))
    if frame.space is not None:
        space, frames = frame.space, frame.frames
        makers["position"] = lambda row, _: _position(space, row)
        if frames is not None:
            makers["velocity"] = lambda row, name: _velocity(space, frames, row, name)
    return makers


def _position(space: Space, row: int) -> PointStamped | None:
    x, y, z = space.placed.centroids[row].astype(float).tolist()
    if not np.isfinite(x):
        return None
    return PointStamped(header=space.header, point=Point(x=x, y=y, z=z))


def _velocity(space: Space, frames: BodyFrames, row: int, name: str) -> TwistStamped | None:
    """In the frame of the body, as ROS4HRI has it: x is how fast the person goes ahead."""
    own: Sequence[float] = (frames.rotations[row].T @ space.velocities[row]).tolist()
    if not np.isfinite(own).all():
        return None
    x, y, z = own
    header = Header(stamp=space.header.stamp, frame_id=f"body_{name}")
    return TwistStamped(header=header, twist=Twist(linear=Vector3(x=x, y=y, z=z)))
