# SPDX-License-Identifier: Apache-2.0
"""User, subscribers of everything and faults of benchmarks/soak.py."""

from __future__ import annotations

import importlib
import math
import random
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import DescribeParameters, ListParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage
from soak_cameras import CAMERAS, MISBEHAVIOUR, Camera, message_of
from std_srvs.srv import SetBool, Trigger

from bmp_ros.ros.interfaces import (
    BoundingBox,
    EstimatePeople,
    FollowPerson,
    Mask,
    Person,
    PersonArray,
)

BODIES = "/humans/bodies/"
ON = Transition.TRANSITION_ACTIVATE
OFF = Transition.TRANSITION_DEACTIVATE
AGAIN = (
    Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE,
)  # fmt: skip
ODD = (math.nan, math.inf, -1e30, 0.0, 1e9)


class Rig:
    """Three cameras, clients of all services, a subscriber of everything, and the faults.

    node: for the graph. results, sent: by camera. gaps: longest seconds without a result while
    camera and node were on. faults: how often each was committed. heard: topics that ever had a
    subscriber; bodies: ids of ROS4HRI among them.
    """

    def __init__(self, dice: random.Random, width: int, height: int) -> None:
        self.dice = dice
        self.node = Node("soak")
        # Never spun: a full queue is all that its subscriptions ever hold.
        self.listeners = Node("soak_listeners")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.cameras = [Camera(self.node, name, dice, (width, height)) for name in CAMERAS]
        self.results: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.gaps: dict[str, float] = dict.fromkeys(CAMERAS, 0.0)
        self._expected = dict.fromkeys(CAMERAS, math.inf)
        self._subscriptions: dict[str, Any] = {}
        self.heard: set[str] = set()
        self.bodies: set[str] = set()
        for name in CAMERAS:
            self.node.create_subscription(
                PersonArray, f"/bmp/{name}/poses", lambda _, name=name: self._count(name), 5,
                raw=True,
            )  # fmt: skip
        kinds = {
            "set_parameters": SetParameters, "describe_parameters": DescribeParameters,
            "list_parameters": ListParameters, "enable": SetBool, "reset": Trigger,
            "estimate": EstimatePeople, "follow": FollowPerson, "change_state": ChangeState,
            "get_state": GetState,
        }  # fmt: skip
        self.clients = {
            name: self.node.create_client(kind, f"/bmp/bmp_node/{name}")
            for name, kind in kinds.items()
        }

    @staticmethod
    def node_parameters(max_rate: float) -> dict[str, str]:
        """Everything on that needs no other package."""
        square = "0.1 0.1; 0.9 0.1; 0.9 0.9; 0.1 0.9"
        return {
            "cameras": f"[{', '.join(CAMERAS)}]", "preset": "bmp_d3", "hri": "true",
            "body_frames_rate": "10.0", "front.depth_topic": "/front/depth",
            "left.boxes_topic": "/left/boxes", "left.boxes_wait": "0.05",
            "rear.image_transport": "compressed", "max_rate": str(max_rate),
            "image_timeout": "30.0",
        } | {f"{name}.zones": f'["all: {square}"]' for name in CAMERAS}  # fmt: skip

    # Time

    def spin(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)
        now = time.monotonic()
        for name, since in self._expected.items():
            self.gaps[name] = max(self.gaps[name], now - since)

    def _count(self, name: str) -> None:
        now = time.monotonic()
        self.results[name] += 1
        self.gaps[name] = max(self.gaps[name], now - self._expected[name])
        self._expected[name] = now

    def _off(self, *names: str) -> None:
        """No result is missed of these cameras until the next one came."""
        for name in names:
            self._expected[name] = math.inf

    def begin(self) -> None:
        """Count from now on."""
        for counter in (self.results, self.sent, self.faults):
            counter.clear()
        self.gaps = dict.fromkeys(CAMERAS, 0.0)

    def wait_for_results(self, alive: Callable[[], bool], limit_s: float) -> None:
        until = time.monotonic() + limit_s
        while not all(self.results[name] for name in CAMERAS):
            if not alive() or time.monotonic() > until:
                raise SystemExit(f"no results after {limit_s:g} s: {dict(self.results)}")
            self.send()
            self.follow_topics()
            self.spin(0.1)

    def send(self) -> None:
        now = time.monotonic()
        for camera in self.cameras:
            if camera.send():
                self.sent[camera.name] += 1
                if self._expected[camera.name] == math.inf:
                    self._expected[camera.name] = now
            else:
                self._off(camera.name)

    def people(self, count: int | None) -> None:
        """So many in every image; None: they come and go."""
        for camera in self.cameras:
            camera.people = count

    def calm(self) -> None:
        """Everything on, cameras and calibrations well."""
        self._call("enable", SetBool.Request(data=True))
        self._transition(ON)
        for camera in self.cameras:
            camera.dead_until = camera.shifted_until = 0.0
            camera.calibrate()
        self._set(hri=True, tracking=True, body_frames_rate=10.0, max_rate=10.0)

    def follow_topics(self) -> None:
        """Subscribe to all that the node publishes now, and no longer to what is gone."""
        try:
            found = self.node.get_publisher_names_and_types_by_node("bmp_node", "/bmp")
        except rclpy.node.NodeNameNonExistentError:
            return
        there = {topic: types[0] for topic, types in found}
        for topic in self._subscriptions.keys() - there.keys():
            if topic.startswith((BODIES, "/tf")):
                self.listeners.destroy_subscription(self._subscriptions.pop(topic))
        for topic in there.keys() - self._subscriptions.keys():
            package, _, kind = there[topic].split("/")
            message = getattr(importlib.import_module(f"{package}.msg"), kind)
            self._subscriptions[topic] = self.listeners.create_subscription(
                message, topic, lambda _: None, 2
            )
            self.heard.add(topic)
            if topic.startswith(BODIES) and topic.count("/") == 4:
                self.bodies.add(topic.split("/")[3])

    # Faults

    def commit_faults(self, per_second: Mapping[str, float], seconds: float) -> None:
        for name, rate in per_second.items():
            if self.dice.random() < rate * seconds:
                self.faults[name] += 1
                getattr(self, name)(self.dice.choice(self.cameras))

    def bad_image(self, camera: Camera) -> None:
        if camera.images is None:
            return
        pick = self.dice.choice
        message: Any
        if camera.kind is CompressedImage:
            data = bytearray(cv2.imencode(".jpg", camera.picture(0.0))[1].tobytes())
            for _ in range(pick([1, 10, 1000])):
                data[self.dice.randrange(len(data))] = self.dice.randrange(256)
            kept = data[: self.dice.randrange(len(data))] if pick([True, False]) else data
            message = CompressedImage(format=pick(["jpeg", "png", "h264", "", "rgb8; jpeg"]))
            message.data = array("B", bytes(kept))
        else:
            message = message_of(np.full((48, 64, 3), 127, np.uint8), "bgr8")
            kind = self.dice.randrange(7)
            if kind == 0:
                message.data = array("B", self.dice.randbytes(self.dice.randrange(2000)))
            elif kind == 1:
                message.step = self.dice.randrange(2**32)
            elif kind == 2:
                message.encoding = pick(["", "mono16", "nonsense", "32FC1", "nv12", "bayer_rggb8"])
            elif kind == 3:
                message.width = message.height = pick([0, 2**31, 32766])
            elif kind == 4:
                message = message_of(np.full((24, 32), np.nan, np.float32), "32FC1")
            elif kind == 5 and self.dice.random() < 0.02:
                message = message_of(np.zeros((3000, 4000, 3), np.uint8), "bgr8")
            else:
                sides = self.dice.randrange(1, 500), self.dice.randrange(1, 700), 3
                message = message_of(np.full(sides, 127, np.uint8), "bgr8")
        camera.images.publish(camera.stamped(message))

    def bad_depth(self, _: Camera) -> None:
        front = self.cameras[0]
        depth = np.full((front.height, front.width), self.dice.choice(ODD), np.float32)
        message = message_of(depth, self.dice.choice(["32FC1", "16UC1", "bgr8", ""]))
        if self.dice.random() < 0.5:
            message.data = message.data[: self.dice.randrange(len(message.data))]
        front.depths.publish(front.stamped(message))

    def bad_calibration(self, camera: Camera) -> None:
        camera.calibrate(
            **self.dice.choice([
                {"width": 0}, {"width": 1, "height": 1}, {"k": [self.dice.choice(ODD)] * 9},
                {"p": [math.nan] * 12}, {"d": [1e9] * 8}, {"distortion_model": "nonsense"},
                {"d": [math.inf] * 5}, {"distortion_model": "equidistant", "d": [0.0] * 4}, {},
            ])
        )  # fmt: skip

    def bad_boxes(self, _: Camera) -> None:
        left, pick = self.cameras[1], self.dice.choice
        message = PersonArray(height=pick([0, left.height, 2**31]), width=left.width)
        for _unused in range(pick([1, 3, 60])):
            box = BoundingBox(x=pick(ODD), y=10.0, width=pick([*ODD, 50.0]), height=80.0)
            mask = Mask(width=pick([4, 2**31]), height=4, x_offset=pick([0, 2**32 - 1]))
            mask.counts = array("I", pick([[], [8, 8], [2**32 - 1] * 5, [0, 16]]))
            score = pick([0.9, math.nan, -1.0])
            message.people.append(Person(bbox=box, mask=mask, score=score))
        left.boxes.publish(left.stamped(message))

    def misbehave(self, camera: Camera) -> None:
        camera.misbehaviour = self.dice.randrange(1, len(MISBEHAVIOUR))

    def jump(self, camera: Camera) -> None:
        camera.stamp_shift_s = self.dice.choice([-3600.0, -2.0, -0.1, 5.0, 3600.0, None])
        camera.shifted_until = time.monotonic() + self.dice.uniform(0.0, 3.0)

    def die(self, camera: Camera) -> None:
        camera.die(self.dice.uniform(0.0, 6.0))
        self._off(camera.name)

    def parameters(self, camera: Camera) -> None:
        values: dict[str, list[Any]] = {
            "detection_threshold": [-0.5, 0.0, 0.3, 1.5], "iterations": [0, 1, 3, 7],
            "max_people": [1, 50, 0], "max_rate": [0.0, 15.0, -1.0], "hri": [True, False],
            "prompt_method": ["distance+confidence", "nonsense"], "preset": ["/tmp/other.yaml"],
            "body_frames_rate": [0.0, 10.0, 1000.0], "tracking": [True, False],
            "detection_interval": [1, 4, 31], "joint_inset": [True, False],
            "anonymise": ["bodies", "faces"], "anonymise_with": ["pixels", "blur"],
            "jpeg_quality": [1, 80, 101], "tracker.swap_guard": [True, False],
            "smoothing.beta": [0.0, 4.0], "image_timeout": [30.0, 0.0],
            f"{camera.name}.zones": [[""], ["a: 0 0; 1 0; 1 1"], ["broken"], ["a: nan 0; 1 0; 1"]],
            f"{camera.name}.follow_timeout": [0.1, 1.0, 0.0], "people_margin": [0, 8, 201],
            f"{camera.name}.image_qos": ["nonsense"], "hri_remove_background": [True, False],
        }  # fmt: skip
        chosen = self.dice.sample(sorted(values), self.dice.randrange(1, 6))
        self._set(**{name: self.dice.choice(values[name]) for name in chosen})
        if self.dice.random() < 0.5:
            self._set(hri=True, tracking=True)

    def services(self, _: Camera) -> None:
        good = message_of(np.full((48, 64, 3), 127, np.uint8), "bgr8")
        requests: list[tuple[str, Any]] = [
            ("reset", Trigger.Request()), ("estimate", EstimatePeople.Request(image=good)),
            ("estimate", EstimatePeople.Request()), ("get_state", GetState.Request()),
            ("list_parameters", ListParameters.Request()),
            ("describe_parameters", DescribeParameters.Request(names=["hri", "nonsense"])),
        ]  # fmt: skip
        for mode in range(6):
            track_id = self.dice.choice([-1, 0, 1, 2**31 - 1])
            camera = self.dice.choice([*CAMERAS, "", "nonsense"])
            requests.append(
                ("follow", FollowPerson.Request(mode=mode, track_id=track_id, camera=camera))
            )
        for name, request in self.dice.sample(requests, 3):
            self._call(name, request)

    def off_and_on(self, _: Camera) -> None:
        self._call("enable", SetBool.Request(data=False))
        self._call("enable", SetBool.Request(data=True))
        self._off(*CAMERAS)

    def transitions(self, _: Camera) -> None:
        for transition in self.dice.choice([(OFF, ON), (OFF, ON), AGAIN, (OFF, OFF, ON, ON)]):
            self._transition(transition)
        self._off(*CAMERAS)

    def _transition(self, transition: int) -> None:
        request = ChangeState.Request()
        request.transition.id = transition
        self._call("change_state", request)

    def _set(self, **values: Any) -> None:
        messages = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        self._call("set_parameters", SetParameters.Request(parameters=messages))

    def _call(self, name: str, request: Any) -> None:
        self.clients[name].call_async(request)
