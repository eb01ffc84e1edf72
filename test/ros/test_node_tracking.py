# SPDX-License-Identifier: Apache-2.0
"""Ids in the node: who keeps them, when they begin anew, and that no two people share one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from node_harness import CameraStandIn, Lab, image, stamp_of, wait_for
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import SetBool, Trigger
from test_node_depth import Rig, calibration, depth_of
from visualization_msgs.msg import Marker, MarkerArray

from bmp_ros.loop.people import People
from bmp_ros.ros import camera as camera_of_node
from bmp_ros.ros.ego_motion import EgoMotion
from bmp_ros.ros.interfaces import EstimatePeople, PersonArray, PersonArray3D
from bmp_ros.ros.transforms import NoTransformError
from bmp_ros.tracking import PersonTracker

SECOND = 10**9
STEP_NS = SECOND // 10


class Scene:
    """Boxes (N, 4) that the scripted detector finds, and images in even steps of stamps."""

    def __init__(self, lab: Lab, boxes: np.ndarray, *, prefix: str = "", topic: str) -> None:
        self.boxes = np.asarray(boxes, np.float32)
        lab.networks.boxes = lambda height, width: self.boxes  # type: ignore[method-assign]
        self.poses = lab.listen(f"/bmp/{prefix}poses")
        self.camera: CameraStandIn = lab.camera(topic)
        self.camera.wait_for_subscriber()
        self._lab = lab
        self.stamp = lab.peer.get_clock().now().nanoseconds

    def shoot(self, *, step_ns: int = STEP_NS) -> PersonArray:
        """Send the next image and return what the node says about it."""
        self.stamp += step_ns
        return self.shoot_at(self.stamp)

    def shoot_at(self, stamp_ns: int) -> PersonArray:
        before = len(self.poses)
        self.camera.send(image(), stamp_ns=stamp_ns)
        message = wait_for(lambda: len(self.poses) > before and self.poses[before], "people")
        # More is published after the poses, also to who has only just begun to listen.
        assert self._lab.node is not None
        cameras = self._lab.node._cameras.values()
        wait_for(lambda: not any(each.publishing.locked() for each in cameras), "its end")
        return message

    def move(self, pixels: float) -> None:
        self.boxes = self.boxes + np.array([pixels, 0, pixels, 0], np.float32)


TWO = np.array([[2, 4, 22, 44], [30, 4, 50, 44]], np.float32)


def started(lab: Lab, boxes: np.ndarray = TWO, **parameters: Any) -> Scene:
    lab.start_active(**parameters)
    return Scene(lab, boxes, topic="/camera/image_raw")


def ids(message: PersonArray) -> list[int]:
    return [person.track_id for person in message.people]


def test_people_who_move_keep_their_ids(lab: Lab) -> None:
    scene = started(lab)
    for step in range(6):
        message = scene.shoot()
        assert ids(message) == [1, 2]
        for person in message.people:
            assert person.track_age == pytest.approx(0.1 * step, abs=1e-3)
        scene.move(2)
    status = lab.diagnosis(": camera", lambda s: s.level == b"\0", "OK")
    values = {pair.key: pair.value for pair in status.values}
    assert float(values["track p50 (ms)"]) > 0
    assert values["tracker resets"] == values["track ids exchanged"] == "0"
    assert values["frames not tracked for an error"] == "0"


def test_the_detector_rests_between_keyframes(lab: Lab) -> None:
    scene = started(lab, detection_interval=3, iterations=1)
    warm_up = len(lab.networks.images)
    for _ in range(9):
        assert ids(scene.shoot()) == [1, 2]
    detections = len(lab.networks.images) - warm_up
    assert detections < 9
    status = lab.diagnosis(": camera", lambda s: s.level == b"\0", "OK")
    values = {pair.key: pair.value for pair in status.values}
    assert int(values["frames without detection"]) == 9 - detections
    assert lab.set(detection_interval=1)[0].successful
    for _ in range(4):
        assert ids(scene.shoot()) == [1, 2]
    assert len(lab.networks.images) == warm_up + detections + 4


def test_somebody_new_has_no_id_in_the_first_image(lab: Lab) -> None:
    scene = started(lab, TWO[:1])
    assert ids(scene.shoot()) == [1]
    scene.boxes = TWO
    message = scene.shoot()
    assert ids(message) == [1, -1]
    assert math.isnan(message.people[1].track_age)
    assert ids(scene.shoot()) == [1, 2]


def test_no_id_comes_again_after_deactivate_cleanup_reset_and_a_bag_that_begins_anew(
    lab: Lab,
) -> None:
    scene = started(lab)
    assert ids(scene.shoot()) == ids(scene.shoot()) == [1, 2]
    assert lab.call(Trigger, "/bmp/bmp_node/reset", Trigger.Request()).success
    assert ids(scene.shoot()) == [3, 4]
    scene.stamp -= 60 * SECOND
    assert ids(scene.shoot()) == ids(scene.shoot()) == [5, 6]
    for transitions, expected in (
        (("deactivate", "activate"), [7, 8]),
        (("deactivate", "cleanup", "configure", "activate"), [9, 10]),
    ):
        for each in transitions:
            assert lab.transition(each)
        scene = Scene(lab, TWO, topic="/camera/image_raw")
        assert ids(scene.shoot()) == ids(scene.shoot()) == expected


def test_a_short_pause_is_a_gap(lab: Lab) -> None:
    scene = started(lab)
    assert ids(scene.shoot()) == [1, 2]
    for wanted in (False, True):
        request = SetBool.Request(data=wanted)
        assert lab.call(SetBool, "/bmp/bmp_node/enable", request).success
    wait_for(lambda: not scene.poses[-1].people, "the empty array")
    assert ids(scene.shoot()) == [1, 2]
    assert ids(scene.shoot(step_ns=5 * SECOND)) == [3, 4]


def test_another_frame_is_another_camera(lab: Lab) -> None:
    scene = started(lab)
    assert ids(scene.shoot()) == ids(scene.shoot()) == [1, 2]
    send = scene.camera.send
    for frame_id, expected in (("/cam", [1, 2]), ("rear", [3, 4]), ("cam", [5, 6])):
        scene.camera.send = partial(send, frame_id=frame_id)
        assert ids(scene.shoot()) == ids(scene.shoot()) == expected
    lab.wait_for_log("camera: images are of frame 'rear' now, of 'cam' before", "new ids")


def test_why_ids_are_new_is_told(lab: Lab) -> None:
    scene = started(lab)
    scene.shoot()
    assert ids(scene.shoot(step_ns=3 * SECOND)) == [3, 4]
    lab.wait_for_log("camera: people get new ids: 3.0 s between two images", "keep ids")
    for _ in range(3):
        scene.shoot_at(scene.stamp)
    lab.wait_for_log("several images have one stamp", "the camera's driver")


class Forgetful:
    """What is known of tf, and how often it was forgotten."""

    def __init__(self) -> None:
        self.forgotten = 0

    def clear(self) -> None:
        self.forgotten += 1

    def rigid_motion(self, *_: object) -> None:
        raise NoTransformError("extrapolation into the past", "no transform")

    def close(self) -> None:
        pass


def test_a_bag_that_begins_anew_does_so_for_tf(lab: Lab) -> None:
    """tf takes nothing that is older than what it has by ten seconds."""
    scene = started(lab)
    camera, tf = lab.node._cameras["camera"], Forgetful()
    ego = EgoMotion(tf, "odom")
    camera.inputs = camera.inputs._replace(transforms=tf, ego_motion=ego)
    scene.shoot()
    assert tf.forgotten == 0 and ego.before is not None
    scene.stamp -= 60 * SECOND
    scene.shoot()
    assert tf.forgotten == 1


def test_images_without_stamps_are_tracked(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the times at which they arrive, which a busy machine would stretch."""
    arrivals, message = itertools.count(100.0, 0.1), camera_of_node.ReceivedMessage
    monkeypatch.setattr(
        camera_of_node,
        "ReceivedMessage",
        lambda data, number, _: message(data, number, next(arrivals)),
    )
    scene = started(lab)
    assert [ids(scene.shoot_at(0)) for _ in range(4)] == [[1, 2]] * 4
    stamp = scene.stamp
    # One image that was not stamped, among others that were, is as late as the one before.
    found = [ids(scene.shoot_at(each)) for each in (stamp, 0, stamp + STEP_NS)]
    assert found[0] == found[1] == found[2] and min(found[0]) > 2


def test_tracking_can_be_switched(lab: Lab) -> None:
    scene = started(lab, tracking=False)
    message = scene.shoot()
    assert ids(message) == [-1, -1]
    assert all(math.isnan(person.track_age) for person in message.people)
    assert lab.set(tracking=True)[0].successful
    assert ids(scene.shoot()) == ids(scene.shoot()) == [1, 2]
    assert lab.set(tracking=False)[0].successful
    assert ids(scene.shoot()) == [-1, -1]
    assert lab.set(tracking=True)[0].successful
    assert ids(scene.shoot()) == [3, 4]


def test_settings_of_the_tracker_are_live(lab: Lab) -> None:
    scene = started(lab)
    refused = lab.set(**{"tracker.birth_score": 1.5})[0]
    assert not refused.successful and "tracker.birth_score" in refused.reason
    assert lab.set(**{"tracker.birth_score": 0.85})[0].successful  # scores are 0.9 and 0.8
    assert ids(scene.shoot()) == ids(scene.shoot()) == [1, -1]
    assert lab.set(**{"tracker.birth_score": 0.5})[0].successful
    scene.shoot()
    assert ids(scene.shoot()) == [1, 2]


def test_cameras_share_no_ids(lab: Lab) -> None:
    names = ["front", "rear"]
    lab.start_active(parameters={"cameras": names})
    scenes = [Scene(lab, TWO, prefix=f"{n}/", topic=f"/{n}/image_raw") for n in names]
    found = [[ids(scene.shoot()) for scene in scenes] for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert len(set(sum(found[0], []))) == 4


def test_estimate_has_no_ids(lab: Lab) -> None:
    scene = started(lab)
    assert ids(scene.shoot()) == [1, 2]
    request = EstimatePeople.Request(image=image())
    answer = lab.call(EstimatePeople, "/bmp/bmp_node/estimate", request)
    assert ids(answer.people) == [-1, -1]
    assert all(math.isnan(person.track_age) for person in answer.people.people)
    assert ids(scene.shoot()) == [1, 2]  # and changes none


def test_a_tracker_that_fails_costs_the_ids_only(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = started(lab)
    assert ids(scene.shoot()) == [1, 2]

    def failing(*_: Any, **__: Any) -> People:
        raise IndexError("row 7 of 3")

    monkeypatch.setattr(PersonTracker, "update", failing)
    assert [ids(scene.shoot()) for _ in range(3)] == [[-1, -1]] * 3
    lab.wait_for_log("no ids", "row 7 of 3", "Traceback")

    def failed(status: Any) -> bool:
        return status.level == b"\1" and "row 7 of 3" in status.message

    status = lab.diagnosis(": camera", failed, "WARN")
    values = {pair.key: pair.value for pair in status.values}
    assert values["frames not tracked for an error"] == "3" and values["frames failed"] == "0"
    assert lab.log().count("no ids") == 1
    monkeypatch.undo()
    assert ids(scene.shoot()) == ids(scene.shoot()) == [3, 4]
    lab.diagnosis(": camera", lambda s: s.level == b"\0", "OK")


def test_markers_have_the_number_and_colour_of_the_track(lab: Lab) -> None:
    scene = started(lab, TWO[:1])
    markers = lab.listen("/bmp/markers", MarkerArray)
    publisher = lab.peer.create_publisher(CameraInfo, "/camera/camera_info", 1)

    def drawn() -> list[Marker]:
        publisher.publish(calibration())
        stamp = stamp_of(scene.shoot())
        arrays = [m.markers for m in markers if stamp_of(m.markers[0]) == stamp]
        return arrays[0][1:] if arrays else []

    first = wait_for(drawn, "markers")
    scene.boxes = TWO[::-1]
    drawn()
    second = wait_for(drawn, "markers again")
    assert [(m.ns, m.id) for m in first] == [("tracks", 1), ("ids", 1)]
    assert [(m.ns, m.id) for m in second] == [("tracks", 2), ("ids", 2), ("tracks", 1), ("ids", 1)]
    assert second[2].color == first[0].color != second[0].color
    assert [m.text for m in second if m.type == Marker.TEXT_VIEW_FACING] == ["2", "1"]


def test_markers_show_smoothed_joints(lab: Lab) -> None:
    scene = started(lab, TWO[:1])
    markers = lab.listen("/bmp/markers", MarkerArray)
    publisher = lab.peer.create_publisher(CameraInfo, "/camera/camera_info", 1)
    raw: dict[int, float] = {}

    def drawn() -> dict[int, float]:
        """x of one end of a line, metres, by stamp."""
        lines = {stamp_of(m.markers[0]): m.markers[1].points for m in markers if m.markers[1:]}
        return {stamp: points[0].x for stamp, points in lines.items() if stamp in raw}

    def shoot() -> bool:
        publisher.publish(calibration())
        jitter(scene)
        message = scene.shoot()
        raw[stamp_of(message)] = nose(message)
        return len(drawn()) >= 12

    wait_for(shoot, "markers")
    shown = drawn()
    # Two metres away, a pixel is as wide as that; every joint moves with the nose.
    jitters = np.std([raw[stamp] for stamp in shown]) * 2.0 / calibration().k[0]
    assert 0 < np.std(list(shown.values())) < 0.7 * jitters


def jitter(scene: Scene) -> None:
    """Everybody one pixel to the left or to the right of where they are, in turns."""
    scene.move(1 if int(scene.boxes[0, 0]) % 2 == 0 else -1)


def nose(message: Any, row: int = 0) -> float:
    return float(message.people[row].keypoints[0].x)


def is_forgotten(filter_: Any) -> Callable[[], bool]:
    return lambda: len(filter_._ids) == 0


def test_joints_are_smoothed_while_somebody_wants_them(lab: Lab) -> None:
    scene = started(lab)
    tracking = lab.node._cameras["camera"].tracking
    scene.shoot()
    scene.shoot()
    assert is_forgotten(tracking._joints)()
    smooth = lab.listen("/bmp/poses_smooth")
    raw = []
    for _ in range(8):
        jitter(scene)
        raw.append(scene.shoot())
    wait_for(lambda: len(smooth) == 8, "smoothed people")
    assert nose(smooth[0]) == nose(raw[0])  # a subscriber begins anew
    for one, other in zip(smooth, raw, strict=True):
        assert one.header == other.header and ids(one) == ids(other)
        assert [p.bbox for p in one.people] == [p.bbox for p in other.people]
        assert [p.mask for p in one.people] == [p.mask for p in other.people]
        assert [p.track_age for p in one.people] == [p.track_age for p in other.people]
    assert np.std([nose(m) for m in smooth]) < 0.7 * np.std([nose(m) for m in raw])

    assert lab.transition("deactivate")
    wait_for(lambda: not smooth[-1].people, "the empty array")
    assert lab.transition("activate")
    (subscription,) = [s for s in lab.peer.subscriptions if s.topic_name == "/bmp/poses_smooth"]
    lab.peer.destroy_subscription(subscription)

    def forgotten() -> bool:
        scene.camera.wait_for_subscriber()
        scene.shoot()
        return is_forgotten(tracking._joints)()

    wait_for(forgotten, "the end of smoothing")


def test_untracked_joints_are_not_smoothed(lab: Lab) -> None:
    scene = started(lab, tracking=False)
    smooth = lab.listen("/bmp/poses_smooth")
    for _ in range(3):
        jitter(scene)
        raw = scene.shoot()
        wait_for(lambda raw=raw: smooth and stamp_of(smooth[-1]) == stamp_of(raw), "people")
        assert smooth[-1] == raw or nose(smooth[-1]) == nose(raw)  # NaN is unequal to itself


def test_velocities_and_smoothed_people_in_space(lab: Lab) -> None:
    rig = Rig(lab)
    smooth = lab.listen("/bmp/poses_3d_smooth", PersonArray3D)
    markers = lab.listen("/bmp/markers", MarkerArray)
    start = lab.peer.get_clock().now().nanoseconds
    raw: list[Any] = []
    for step in range(16):  # two metres away, and coming nearer at half a metre per second
        rig.shoot(depth_of(2.0 - 0.05 * step), stamp_ns=start + step * STEP_NS)
        raw.append(rig.people_3d())
    wait_for(lambda: len(smooth) == len(raw), "smoothed people")
    first, last = raw[0].people[0], raw[-1].people[0]
    assert math.isnan(first.velocity.z) and first.track_id == 1 and first.track_age == 0
    assert last.velocity.z == pytest.approx(-0.5, abs=0.03)
    along_the_ray = -0.5 * last.centroid.x / last.centroid.z
    assert last.velocity.x == pytest.approx(along_the_ray, abs=0.01) and along_the_ray > 0.1
    assert last.track_age == pytest.approx(1.5, abs=1e-3)
    assert last.centroid.z == pytest.approx(1.25, abs=1e-3)  # raw stays raw
    smoothed = smooth[-1].people[0]
    assert smoothed.velocity == last.velocity
    assert last.centroid.z < smoothed.centroid.z < last.centroid.z + 0.15  # late, a little
    assert last.distance < smoothed.distance < last.distance + 0.15
    joints = [(a.z, b.z) for a, b in zip(last.keypoints, smoothed.keypoints, strict=True)]
    known = np.array([pair for pair in joints if math.isfinite(pair[0])])
    assert len(known) >= 10 and (known[:, 1] > known[:, 0]).all()
    stamp = stamp_of(smooth[-1])
    shown = wait_for(lambda: [m for m in markers if stamp_of(m.markers[0]) == stamp], "markers")
    (skeleton,) = [m for m in shown[0].markers if (m.ns, m.id) == ("tracks", 1)]
    ends = [point.z for point in skeleton.points]
    assert ends and set(ends) <= set(known[:, 1].tolist())
    assert lab.set(tracking=False)[0].successful
    rig.shoot(depth_of(2.0), stamp_ns=start + 16 * STEP_NS)
    assert math.isnan(rig.people_3d().people[0].velocity.z)

    seen = rig.poses_3d[-1].header
    wait_for(lambda: smooth[-1].header == seen, "the last people")
    assert lab.transition("deactivate")
    for topic in (rig.poses_3d, smooth):
        wait_for(lambda: not topic[-1].people, "the empty array")  # noqa: B023
        assert topic[-1].header == seen and topic[-1].skeleton.keypoint_names


def test_the_debug_image_keeps_a_colour_per_person(lab: Lab) -> None:
    scene = started(lab)
    debug = lab.listen("/bmp/debug_image", Image)
    pictures = []
    for boxes in (TWO, TWO[::-1]):  # the same people, named in another order
        scene.boxes = boxes
        before = len(debug)
        scene.shoot()
        wait_for(lambda n=before: len(debug) > n, "debug image")
        pictures.append(np.array(debug[-1].data, np.uint8).reshape(48, 64, 3))
    rows = np.s_[28:40]  # below the labels, which name the scores
    np.testing.assert_array_equal(pictures[0][rows], pictures[1][rows])
