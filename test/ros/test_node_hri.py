# SPDX-License-Identifier: Apache-2.0
"""ROS4HRI bodies and tf frames of the node, where hri_msgs and tf2_msgs are installed.

What the bridge needs of these packages is named here field by field, so that a version that
differs is found without a robot. Where one is missing the node says what to install, and goes on.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import PointStamped, TwistStamped
from node_harness import Lab, stamp_of, wait_for
from sensor_msgs.msg import Image
from test_node_depth import Rig, depth_of
from test_node_tracking import STEP_NS, ids, started

from bmp_ros.interaction.postures import Gesture, Posture
from bmp_ros.interaction.ros4hri import SKELETON_2D
from bmp_ros.loop.protocols import Poses
from bmp_ros.ros import hri_bridge
from bmp_ros.ros.compatibility import how_to_install

FIELDS = {
    "hri_msgs/IdsList": {"header": "std_msgs/Header", "ids": "sequence<string>"},
    "hri_msgs/NormalizedRegionOfInterest2D": {
        "header": "std_msgs/Header", "xmin": "float", "ymin": "float", "xmax": "float",
        "ymax": "float", "c": "float",
    },
    "hri_msgs/NormalizedPointOfInterest2D": {"x": "float", "y": "float", "c": "float"},
    "hri_msgs/Skeleton2D": {"header": "std_msgs/Header", "skeleton": "18 points"},
    "hri_msgs/BodyPosture": {"header": "std_msgs/Header", "posture": "uint8"},
    "hri_msgs/Gesture": {"header": "std_msgs/Header", "gesture": "uint8"},
    "tf2_msgs/TFMessage": {"transforms": "sequence<geometry_msgs/TransformStamped>"},
}  # fmt: skip
POINTS = (
    "hri_msgs/NormalizedPointOfInterest2D[18]",
    "sequence<hri_msgs/NormalizedPointOfInterest2D>",
)


def module(name: str) -> Any:
    """``name``.msg, or a skip that says what is missing."""
    return pytest.importorskip(f"{name}.msg", reason=f"{name} is not installed")


@pytest.mark.parametrize("name", FIELDS)
def test_fields_that_the_bridge_needs(name: str) -> None:
    package, kind = name.split("/")
    found = getattr(module(package), kind).get_fields_and_field_types()
    for field, expected in FIELDS[name].items():
        assert found[field] == expected or (expected == "18 points" and found[field] in POINTS)


def test_constants_that_the_bridge_needs() -> None:
    hri = module("hri_msgs")
    for kind, numbers in ((hri.BodyPosture, Posture), (hri.Gesture, Gesture)):
        for each in numbers:
            assert getattr(kind, each.name) == each
    for number, name in enumerate(SKELETON_2D):
        assert getattr(hri.Skeleton2D, name.upper()) == number


def test_packages_that_are_missing_are_named_and_cost_nothing_else(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("hri_msgs", "hri_msgs.msg", "tf2_msgs", "tf2_msgs.msg"):
        monkeypatch.setitem(sys.modules, name, None)
    scene = started(lab, hri=True, body_frames_rate=10.0)
    assert [ids(scene.shoot()) for _ in range(3)] == [[1, 2]] * 3
    lab.wait_for_log("no hri", "hri_msgs cannot be imported", how_to_install("hri_msgs"))
    lab.wait_for_log("no body frames", "tf2_msgs cannot be imported", "tf2-msgs")
    assert lab.log().count("no hri") == 1
    lab.diagnosis(": camera", lambda s: "hri_msgs" in s.message, "the reason")
    assert lab.set(hri=False, body_frames_rate=0.0)[0].successful

    def fine_again() -> bool:
        scene.shoot()
        status = lab.diagnosis(": camera", lambda _: True, "any")
        return bool(status.level == b"\0")

    wait_for(fine_again, "diagnostics: OK")


class Bodies:
    """The list of bodies, and what is said about each."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.hri = module("hri_msgs")
        self.lists: list[Any] = []
        lab.peer.create_subscription(
            self.hri.IdsList, "/humans/bodies/tracked", self.lists.append, 50
        )

    def topics(self) -> list[str]:
        assert self.lab.node is not None
        names = [each.topic_name for each in self.lab.node.publishers]
        return [name for name in names if name.startswith("/humans/")]

    def listen(self, name: str, topic: str, kind: type) -> list[Any]:
        wait_for(lambda: f"/humans/bodies/{name}/{topic}" in self.topics(), topic)
        return self.lab.listen(f"/humans/bodies/{name}/{topic}", kind)


def test_bodies_over_dds(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    hri = module("hri_msgs")
    monkeypatch.setattr(hri_bridge, "_GONE_S", 3600.0)  # however long it takes to subscribe
    scene = started(lab, hri=True)
    bodies = Bodies(lab)

    def listed() -> list[str]:
        scene.shoot()
        return list(bodies.lists[-1].ids) if bodies.lists else []

    first, second = wait_for(lambda: len(listed()) == 2 and listed(), "two bodies")
    assert first[0] == second[0] == "b" and first[1:4] == second[1:4] and first != second
    assert (int(first[4:], 36), int(second[4:], 36)) == (1, 2)
    regions = bodies.listen(second, "roi", hri.NormalizedRegionOfInterest2D)
    skeletons = bodies.listen(second, "skeleton2d", hri.Skeleton2D)
    crops = bodies.listen(second, "cropped", Image)
    postures = bodies.listen(second, "posture", hri.BodyPosture)
    gestures = bodies.listen(second, "gesture", hri.Gesture)
    image = scene.shoot()
    wait_for(lambda: all((regions, skeletons, crops, postures, gestures)), "all topics")
    for received in (regions, skeletons, crops, postures, gestures, bodies.lists):
        wait_for(lambda r=received: stamp_of(r[-1]) == stamp_of(image), "the image's stamp")
        assert received[-1].header == image.header
    person, region = image.people[1], regions[-1]
    assert region.xmin * 64 - 0.5 == pytest.approx(person.bbox.x, abs=1e-3)
    assert (region.ymax - region.ymin) * 48 == pytest.approx(person.bbox.height, abs=1e-3)
    assert region.c == pytest.approx(person.score)
    points = skeletons[-1].skeleton
    assert len(points) == 18
    left_ear = person.keypoints[3]
    assert points[hri.Skeleton2D.LEFT_EAR].x * 64 - 0.5 == pytest.approx(left_ear.x, abs=1e-3)
    assert points[hri.Skeleton2D.LEFT_EAR].c == pytest.approx(left_ear.score)
    assert (crops[-1].width, crops[-1].height) == (20, 40) and crops[-1].encoding == "bgr8"
    assert set(crops[-1].data) == {127}
    assert lab.set(hri_remove_background=True)[0].successful
    scene.shoot()
    wait_for(lambda: 0 in set(crops[-1].data), "a crop without background")
    assert 127 in set(crops[-1].data)
    assert not [name for name in bodies.topics() if "/persons" in name or "/faces" in name]

    monkeypatch.setattr(hri_bridge, "_GONE_S", 2.0)
    scene.boxes = scene.boxes[:1]
    wait_for(lambda: listed() == [first], "one body")
    wait_for(lambda: not [n for n in bodies.topics() if second in n], "the end of its topics")
    assert lab.set(hri=False)[0].successful
    wait_for(lambda: scene.shoot() and not bodies.topics(), "the end of all topics")
    wait_for(lambda: bodies.lists[-1].ids == [], "the empty list")
    assert lab.set(hri=True)[0].successful
    wait_for(lambda: scene.shoot() and bodies.topics(), "topics again")
    wait_for(lambda: listed() == [first], "the same id again")
    # Nothing of all these publishers is left in the node: rclpy's groups forget no event.
    assert lab.node is not None
    gone = [ref for ref in lab.node.default_callback_group.entities if ref() is None]
    assert len(gone) < 20
    assert lab.transition("deactivate")
    wait_for(lambda: bodies.lists[-1].ids == [], "the empty list")
    assert lab.transition("cleanup")
    assert not bodies.topics()


def test_bodies_beyond_the_limit_wait_for_room(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    module("hri_msgs")
    monkeypatch.setattr(hri_bridge, "MAX_BODIES", 1)
    monkeypatch.setattr(hri_bridge, "_GONE_S", 3600.0)
    scene = started(lab, hri=True)
    bodies = Bodies(lab)

    def with_topics() -> set[str]:
        scene.shoot()
        return {name.split("/")[3] for name in bodies.topics() if name.count("/") == 4}

    wait_for(lambda: with_topics() and bodies.lists and len(bodies.lists[-1].ids) == 2, "both")
    for _ in range(5):
        assert len(with_topics()) == 1
    ids = set(bodies.lists[-1].ids)
    (served,) = with_topics()
    (waiting,) = ids - {served}
    monkeypatch.setattr(hri_bridge, "_GONE_S", 2.0)
    scene.boxes = scene.boxes[1:] if served == min(ids) else scene.boxes[:1]
    wait_for(lambda: with_topics() == {waiting}, "topics of who is left")


def test_two_cameras_share_one_list(lab: Lab) -> None:
    module("hri_msgs")
    from test_node_tracking import TWO, Scene

    lab.start_active(parameters={"cameras": ["front", "rear"], "hri": True})
    scenes = [Scene(lab, TWO, prefix=f"{n}/", topic=f"/{n}/image_raw") for n in ("front", "rear")]
    bodies = Bodies(lab)

    def listed() -> bool:
        for scene in scenes:
            scene.shoot()
        return bool(bodies.lists) and len(bodies.lists[-1].ids) == 4

    wait_for(listed, "bodies of both cameras")
    # A camera that falls silent takes its people with it.
    wait_for(lambda: scenes[0].shoot() and len(bodies.lists[-1].ids) == 2, "those of one")


FACING = {  # metres, in the camera's optical frame, of a person 2 m away who looks at it
    "left_shoulder": (0.18, -0.5), "right_shoulder": (-0.18, -0.5),
    "left_hip": (0.1, 0.0), "right_hip": (-0.1, 0.0), "nose": (0.0, -0.7),
    "left_wrist": (0.25, 0.05),
}  # fmt: skip


def facing_rig(lab: Lab, **parameters: Any) -> Rig:
    """One person in the middle of the image, joints as in `FACING`."""
    lab.networks.people = 1

    def estimate(frame: Any, boxes: np.ndarray, masks: Any) -> Poses:
        names = lab.networks.skeleton.names
        keypoints = np.zeros((len(boxes), 17, 2), np.float32)
        scores = np.full((len(boxes), 17), 0.1, np.float32)
        for name, (x, y) in FACING.items():
            keypoints[:, names.index(name)] = 60 * np.array([x, y]) / 2 + [31.5, 23.5]
            scores[:, names.index(name)] = 0.9
        return Poses(keypoints, scores)

    lab.networks.estimate = estimate  # type: ignore[method-assign]
    return Rig(lab, **parameters)


def test_frames_of_a_body_on_tf_and_its_velocity(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    tf = module("tf2_msgs")
    monkeypatch.setattr(hri_bridge, "_GONE_S", 3600.0)
    rig = facing_rig(lab, hri=True, body_frames_rate=5.0)
    received: list[Any] = []
    lab.peer.create_subscription(tf.TFMessage, "/tf", received.append, 100)
    start = lab.peer.get_clock().now().nanoseconds
    steps = iter(range(10**6))

    def shoot() -> list[Any]:
        step = next(steps)  # coming nearer, half a metre per second
        rig.shoot(depth_of(2.5 - 0.025 * step), stamp_ns=start + step * STEP_NS // 2)
        return received

    def true_depth(message: Any) -> float:
        return 2.5 - 0.025 * (stamp_of(message) - start) / (STEP_NS // 2)

    message = wait_for(shoot, "transforms")[0]
    found = {each.child_frame_id: each for each in message.transforms}
    (body,) = [name for name in found if name.startswith("body_")]
    name = body.removeprefix("body_")
    assert set(found) >= {body, f"head_{name}", f"l_wrist_{name}", f"r_hip_{name}"}
    assert found[body].header.frame_id == "cam"
    depth = found[body].transform.translation.z
    assert depth == pytest.approx(true_depth(found[body]), abs=0.3)
    assert found[body].transform.translation.x == pytest.approx(0, abs=0.03)
    turn = found[body].transform.rotation  # x of the body towards the camera, z up in the image
    x, y, z, w = turn.x, turn.y, turn.z, turn.w
    ahead = (1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w))
    assert ahead == pytest.approx((0, 0, -1), abs=0.02)
    head = found[f"head_{name}"]
    assert head.header.frame_id == body and head.header.stamp == found[body].header.stamp
    place = head.transform.translation
    assert (place.x, place.y, place.z) == pytest.approx((0, 0, 0.7 * depth / 2), abs=0.05)
    assert f"l_knee_{name}" not in found  # not seen

    before = len(received)
    for _ in range(13):
        shoot()
    wait_for(lambda: len(received) >= before + 3, "more transforms")
    stamps = [s.transforms[0].header.stamp for s in received[before:]]
    times = [each.sec + each.nanosec * 1e-9 for each in stamps]
    assert len(times) >= 2 and min(np.diff(times)) > 0.17  # 5 Hz, of images at 20 Hz

    if importlib.util.find_spec("hri_msgs") is not None:
        assert name.startswith("b")
        bodies = Bodies(lab)
        positions = bodies.listen(name, "position", PointStamped)
        velocities = bodies.listen(name, "velocity", TwistStamped)
        for _ in range(8):
            shoot()
        wait_for(lambda: positions and velocities, "position and velocity")
        assert positions[-1].header.frame_id == "cam"
        assert positions[-1].point.z == pytest.approx(true_depth(positions[-1]), abs=0.3)
        assert velocities[-1].header.frame_id == body
        linear = velocities[-1].twist.linear
        assert linear.x == pytest.approx(0.5, abs=0.1)  # ahead, towards the camera
        assert math.hypot(linear.y, linear.z) < 0.15
    assert lab.set(body_frames_rate=0.0)[0].successful

    def silent() -> bool:
        shoot()
        assert lab.node is not None
        return "/tf" not in [each.topic_name for each in lab.node.publishers]

    wait_for(silent, "the end of the publisher")


def test_without_hri_frames_are_named_after_tracks(lab: Lab) -> None:
    tf = module("tf2_msgs")
    rig = facing_rig(lab, body_frames_rate=1000.0)
    received: list[Any] = []
    lab.peer.create_subscription(tf.TFMessage, "/tf", received.append, 100)
    stamps = itertools.count(10**18, STEP_NS)

    def shoot() -> int:
        return rig.shoot(depth_of(2.0), stamp_ns=next(stamps))

    wait_for(lambda: shoot() and received, "transforms")
    rig.camera.send = partial(rig.camera.send, frame_id="")
    wait_for(lambda: shoot() and "no body frames" in lab.log(), "the reason")
    assert all(each.header.frame_id for message in received for each in message.transforms)
    assert received[0].transforms[0].child_frame_id == "body_1"
