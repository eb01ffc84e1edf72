# SPDX-License-Identifier: Apache-2.0
"""Turns of the camera: where distant points come to lie, and what tf may leave out."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from node_harness import Lab, image, wait_for
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.ros.ego_motion import EgoMotion
from bmp_ros.ros.transforms import NoTransformError
from bmp_ros.tracking.motion import move_points

CAMERA = CameraModel(np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 0]]), 640, 480)


class KnownTurns:
    """Rotations from the camera's frame to the one that stands still, by second of the stamp."""

    def __init__(self, turns: Mapping[int, np.ndarray]) -> None:
        self.turns = dict(turns)
        self.asked: list[int] = []

    def rigid_motion(self, target: str, source: str, stamp: Time) -> tuple[np.ndarray, np.ndarray]:
        assert (target, source) == ("odom", "cam")
        self.asked.append(stamp.sec)
        if stamp.sec not in self.turns:
            raise NoTransformError("extrapolation into the future", "no transform")
        return self.turns[stamp.sec], np.ones(3)


def at(second: int, frame: str = "cam") -> Header:
    return Header(stamp=Time(sec=second), frame_id=frame)


def turn(*axis_angle: float) -> np.ndarray:
    return cv2.Rodrigues(np.array(axis_angle))[0]


TURNS = {1: turn(0.1, 0.2, 0), 2: turn(0.1, 0.3, 0.05), 3: turn(0.0, 0.35, 0.0), 4: np.eye(3)}


def pixels_of(directions: np.ndarray, second: int) -> np.ndarray:
    """Pixels (N, 2) at which points infinitely far away are seen, of the frame that stands."""
    rays = directions @ TURNS[second]  # the inverse of a rotation is its transpose
    return rays[:, :2] / rays[:, 2:] * [500, 510] + [320, 240]


def test_distant_points_come_to_lie_where_the_homography_says() -> None:
    ego = EgoMotion(KnownTurns(TURNS), "odom")  # type: ignore[arg-type]
    directions = np.random.default_rng(0).normal([0, 0, 2], 0.3, (20, 3)) @ TURNS[2].T
    assert ego.homography(at(1), CAMERA) is None
    for before, now in ((1, 2), (2, 3)):
        homography = ego.homography(at(now), CAMERA)
        assert homography is not None
        moved = move_points(homography, pixels_of(directions, before))
        np.testing.assert_allclose(moved, pixels_of(directions, now), atol=1e-6)
        assert np.linalg.norm(moved - pixels_of(directions, before), axis=1).min() > 1


def test_what_tf_did_not_know_in_time_is_looked_up_again() -> None:
    known = KnownTurns({1: TURNS[1]})
    ego = EgoMotion(known, "odom")  # type: ignore[arg-type]
    ego.homography(at(1), CAMERA)
    with pytest.raises(NoTransformError, match="future"):
        ego.homography(at(2), CAMERA)
    known.turns = TURNS
    homography = ego.homography(at(3), CAMERA)  # from the image of second 2, as the tracker's is
    expected = EgoMotion(KnownTurns(TURNS), "odom")  # type: ignore[arg-type]
    expected.homography(at(2), CAMERA)
    np.testing.assert_allclose(homography, expected.homography(at(3), CAMERA))
    known.turns = {}
    with pytest.raises(NoTransformError):
        ego.homography(at(4), CAMERA)


def test_an_image_may_be_foreseen_and_come_to_nothing() -> None:
    known = KnownTurns(TURNS)
    ego = EgoMotion(known, "odom")  # type: ignore[arg-type]
    expected = EgoMotion(KnownTurns(TURNS), "odom")  # type: ignore[arg-type]
    for second in (1, 3):
        expected.homography(at(second), CAMERA)
    ego.homography(at(1), CAMERA)
    assert ego.foresee(at(2), CAMERA) is not None  # nobody tracks in that image
    third, fourth = at(3), at(4)
    foreseen = ego.foresee(third, CAMERA)
    np.testing.assert_array_equal(foreseen, ego.homography(third, CAMERA))
    assert known.asked == [1, 2, 3], "each image once"
    known.turns = {3: TURNS[3]}
    with pytest.raises(NoTransformError):
        ego.foresee(fourth, CAMERA)
    known.turns = TURNS  # while the networks work
    np.testing.assert_allclose(ego.homography(fourth, CAMERA), expected.homography(at(4), CAMERA))


@pytest.mark.parametrize(
    ("header", "camera"),
    [
        (at(2, "another"), CAMERA),
        (at(0), CAMERA),
        (at(1), CAMERA),
        (at(2), None),
        (at(2), CameraModel(CAMERA.matrix, 640, 480, np.zeros(4), "equidistant")),
    ],
    ids=["frame", "not stamped", "same stamp", "not calibrated", "fish eye"],
)
def test_what_says_nothing_about_pixels(header: Header, camera: CameraModel | None) -> None:
    turns = KnownTurns(TURNS)
    ego = EgoMotion(turns, "odom")  # type: ignore[arg-type]
    ego.homography(at(1), CAMERA)
    if header.frame_id != "cam":
        turns.rigid_motion = lambda *_: (np.eye(3), np.zeros(3))  # type: ignore[method-assign]
    assert ego.homography(header, camera) is None


def test_after_a_jump_in_time_the_next_image_is_like_the_first() -> None:
    ego = EgoMotion(KnownTurns(TURNS), "odom")  # type: ignore[arg-type]
    ego.homography(at(1), CAMERA)
    ego.forget()
    assert ego.homography(at(2), CAMERA) is None
    assert ego.homography(at(3), CAMERA) is not None


def test_without_tf2_people_are_tracked_and_nothing_is_said(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    for count in (1, 2):
        camera.send(stamp_ns=10**11 + count * 10**8)
        wait_for(lambda count=count: len(poses) == count, "people")
    assert [person.track_id for person in poses[1].people] == [1, 2]
    assert "turns" not in lab.log() and "tf2" not in lab.log()


class CountedTurns:
    """A camera that stands still, and knows so only from the second time on that it is asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def rigid_motion(self, target: str, source: str, stamp: Time) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append(stamp.sec)
        if self.asked.count(stamp.sec) == 1 and stamp.sec == 102:
            raise NoTransformError("extrapolation into the future", "no transform")
        return np.eye(3), np.ones(3)


def test_the_node_asks_once_and_looks_for_people_with_the_turn_it_tracks_with(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.start_active(detection_interval=3)
    poses = lab.listen("/bmp/poses")
    sender, turns = lab.camera(), CountedTurns()
    sender.wait_for_subscriber()
    info = lab.peer.create_publisher(CameraInfo, "/camera/camera_info", 1)
    camera = lab.node._cameras["camera"]
    ego = EgoMotion(turns, "odom")  # type: ignore[arg-type]
    camera.inputs = camera.inputs._replace(ego_motion=ego)
    told: list[tuple[str, bool]] = []
    for name in ("find", "track"):
        method = getattr(camera.tracking, name)

        def spy(
            *args: object, name: str = name, method: object = method, **more: object
        ) -> object:
            told.append((name, more["ego_motion"] is not None))
            return method(*args, **more)  # type: ignore[operator]

        monkeypatch.setattr(camera.tracking, name, spy)

    def calibrated() -> bool:
        info.publish(CameraInfo(height=48, width=64, k=[60.0, 0, 32, 0, 60, 24, 0, 0, 1]))
        return camera.inputs.calibration.has_come

    wait_for(calibrated, "the calibration")

    def shoot(second: int) -> None:
        count = len(poses)
        sender.send(image(), stamp_ns=second * 10**9)
        wait_for(lambda: len(poses) > count, "people")

    for second in (100, 101, 102):
        shoot(second)
    assert turns.asked == [100, 101, 102, 102], "what is known once"
    assert told == [
        ("find", False), ("track", False), ("find", True), ("track", True),
        ("find", False), ("track", True),
    ]  # fmt: skip
    assert "without the camera's turns" not in lab.log()
    assert lab.set(tracking=False)[0].successful
    shoot(103)
    assert len(turns.asked) == 4 and len(told) == 6, "nobody is tracked"


def test_turns_come_from_tf(lab: Lab) -> None:
    tf2_ros = pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")
    from geometry_msgs.msg import TransformStamped

    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    broadcaster = tf2_ros.TransformBroadcaster(lab.peer)
    info = lab.peer.create_publisher(CameraInfo, "/camera/camera_info", 1)
    camera.send()
    lab.wait_for_log("without the camera's turns so far", "odom")

    def turned() -> bool:
        info.publish(CameraInfo(height=48, width=64, k=[60.0, 0, 32, 0, 60, 24, 0, 0, 1]))
        stamp = lab.peer.get_clock().now()
        still = TransformStamped(child_frame_id="cam")
        still.header.frame_id, still.header.stamp = "odom", stamp.to_msg()
        still.transform.rotation.w = 1.0
        broadcaster.sendTransform(still)
        before = len(poses)
        camera.send(image(), stamp_ns=stamp.nanoseconds)
        wait_for(lambda: len(poses) > before, "people")
        return lab.node._cameras["camera"].statistics.ego_motions > 0

    wait_for(turned, "a turn from tf")
    lab.wait_for_log("the camera's turns are known", "odom")
