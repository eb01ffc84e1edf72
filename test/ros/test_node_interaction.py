# SPDX-License-Identifier: Apache-2.0
"""Zones and ``~/follow`` of the node: over DDS, live, and nobody named in doubt."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
from node_harness import Lab, stamp_of, wait_for
from std_srvs.srv import SetBool, Trigger
from test_node_depth import Rig, calibration, depth_of
from test_node_tracking import STEP_NS, TWO, Scene, ids, started
from visualization_msgs.msg import Marker, MarkerArray

from bmp_ros.ros.interfaces import FollowPerson, PersonArray3D, ZoneStates

LEFT_HALF, RIGHT_HALF = "left: 0 0; 0.5 0; 0.5 1; 0 1", "right: 0.5 0; 1 0; 1 1; 0.5 1"
Request = FollowPerson.Request


def follow(lab: Lab, mode: int, track_id: int = 0) -> Any:
    request = Request(mode=mode, track_id=track_id)
    return lab.call(FollowPerson, "/bmp/bmp_node/follow", request)


def of_image(messages: list[Any], image: Any) -> Any:
    """The message with the stamp of ``image``, once it has come."""
    stamp = stamp_of(image)
    return wait_for(lambda: next((m for m in messages if stamp_of(m) == stamp), None), "message")


def test_zones_over_dds_and_live(lab: Lab) -> None:
    # Who is out of sight is forgotten soon: nobody is taken for the one who was there before.
    forgetful = {"tracker.lost_s": 0.3, "tracker.memory_s": 0.3, "tracker.occluded_s": 0.3}
    scene = started(lab, zones=[LEFT_HALF, RIGHT_HALF], zone_leave=0.25, parameters=forgetful)
    states = lab.listen("/bmp/zones", ZoneStates)
    image = scene.shoot()
    message = of_image(states, image)
    assert message.header == image.header
    left, right = message.zones
    assert (left.name, right.name) == ("left", "right") and left.header == image.header
    assert (left.count, list(left.track_ids), list(left.entered)) == (1, [1], [1])
    assert (right.count, list(right.track_ids), list(right.left)) == (1, [2], [])
    scene.boxes = TWO[:1]  # one stays, and goes to the right half; the other has left at last
    images = [scene.shoot() for _ in range(5)]
    for _ in range(8):
        scene.move(4)
        images.append(scene.shoot())
    assert {track for each in images for track in ids(each)} == {1}
    found = [of_image(states, each).zones for each in images]
    assert [len(z[0].track_ids) + len(z[1].track_ids) for z in found][-1] == 1
    assert [sum([list(z[side].left) for z in found], []) for side in (0, 1)] == [[1], [2]]
    assert sum([list(z[1].entered) for z in found], []) == [1]
    assert (found[-1][0].count, found[-1][1].count) == (0, 1)
    crossed = next(step for step, z in enumerate(found) if z[1].entered)
    assert found[-1][1].seconds_inside[0] == pytest.approx(0.1 * (12 - crossed), abs=0.01)

    refused = lab.set(zones=["door: 0 0; 320 0; 320 240"])[0]
    assert not refused.successful
    assert "zones: zone 'door' has the corner 320 0" in refused.reason
    assert lab.set(zone_anchor="box_centre", zones=["low: 0 0.8; 1 0.8; 1 1; 0 1"])[0].successful
    assert [z.count for z in of_image(states, scene.shoot()).zones] == [0]
    assert lab.set(zone_anchor="feet")[0].successful
    assert [z.count for z in of_image(states, scene.shoot()).zones] == [1]
    scene.boxes = TWO[:0]
    empty = of_image(states, scene.shoot(step_ns=STEP_NS * 4))
    assert empty.zones[0].count == 0 and list(empty.zones[0].left) == [1]

    assert lab.set(zones=["desk in map: 0 0; 1 0; 1 1"])[0].successful
    before = len(states)
    scene.shoot()
    if "tf2_ros" not in sys.modules:
        lab.wait_for_log("no zones", "'map'", "tf2")
        assert len(states) == before  # nobody is said to be outside
    assert lab.set(zones=[""])[0].successful
    scene.shoot()
    lab.diagnosis(": camera", lambda s: "no zones" not in s.message, "no remark")
    assert len(states) == before


def test_zones_are_drawn_with_their_numbers_of_people(lab: Lab) -> None:
    rig = Rig(lab, zones=[LEFT_HALF], marker_distance=3.0)
    markers = lab.listen("/bmp/markers", MarkerArray)
    rig.shoot(None)
    drawn = wait_for(lambda: markers and markers[0].markers, "markers")
    (border,) = [m for m in drawn if m.ns == "zones"]
    (text,) = [m for m in drawn if m.ns == "zone_names"]
    assert text.text == "left: 1" and text.type == Marker.TEXT_VIEW_FACING
    assert len(border.points) == 5 and border.points[0] == border.points[-1]
    k = calibration().k
    # The left half of 64 pixels: from the outer edge of pixel 0 to that of pixel 31.
    columns = [point.x / 3.0 * k[0] + k[2] for point in border.points]
    assert columns == pytest.approx([-0.5, 31.5, 31.5, -0.5, -0.5], abs=1e-6)
    assert {point.z for point in border.points} == {3.0}


def test_following_over_dds(lab: Lab) -> None:
    lab.start_active(follow_settle=0.0, follow_timeout=60.0)
    answer = follow(lab, Request.NEAREST)
    assert not answer.success and "no image was processed" in answer.message
    scene = Scene(lab, TWO, topic="/camera/image_raw")
    followed = lab.listen("/bmp/followed_person", PersonArray3D)
    first = scene.shoot()
    assert of_image(followed, first).people == []

    answer = follow(lab, Request.BY_ID, 2)
    assert answer.success and answer.track_id == 2 and answer.message == ""
    image = scene.shoot()
    message = of_image(followed, image)
    assert message.header == image.header and message.skeleton == image.skeleton
    (person,) = message.people
    assert (person.track_id, person.index) == (2, 1)
    assert person.track_age == pytest.approx(0.1, abs=1e-3)
    assert math.isnan(person.distance) and math.isnan(person.centroid.x)  # there is no depth
    assert len(person.keypoints) == 17 and person.keypoints[0].score > 0.5

    answer = follow(lab, Request.BY_ID, 9)
    assert not answer.success and "9" in answer.message and answer.track_id == 2
    assert not follow(lab, 77).success
    assert follow(lab, Request.MOST_CENTRAL).success

    scene.boxes = TWO[:1]
    assert follow(lab, Request.BY_ID, 2).success
    assert of_image(followed, scene.shoot()).people == []  # out of sight
    lab.wait_for_log("person 2: out of sight")
    scene.boxes = TWO
    (person,) = of_image(followed, scene.shoot()).people  # and found again
    assert person.track_id == 2
    assert lab.set(box_nms_iou=1.0)[0].successful
    scene.boxes = np.stack([TWO[1] + np.array([5, 0, 5, 0]), TWO[1]])
    assert of_image(followed, scene.shoot()).people == []  # one of the two, but which?
    scene.boxes = TWO
    (person,) = wait_for(lambda: of_image(followed, scene.shoot()).people, "a clear view")
    assert person.track_id == 2

    answer = follow(lab, Request.STOP)
    assert answer.success and answer.track_id == -1
    assert of_image(followed, scene.shoot()).people == []

    assert follow(lab, Request.BY_ID, 2).success
    assert lab.call(Trigger, "/bmp/bmp_node/reset", Trigger.Request()).success
    assert of_image(followed, scene.shoot()).people == []  # nobody has that id any more
    lab.wait_for_log("person 2", "track has ended")
    assert follow(lab, Request.NEAREST).success
    assert len(of_image(followed, scene.shoot()).people) == 1
    assert lab.set(follow_timeout=0.1)[0].successful
    wait_for(lambda: followed[-1].people == [], "the empty message when no image comes")
    lab.wait_for_log("follow_timeout")
    assert lab.set(follow_timeout=60.0)[0].successful
    assert len(of_image(followed, scene.shoot()).people) == 1  # and goes on

    for wanted in (False, True):
        request = SetBool.Request(data=wanted)
        assert lab.call(SetBool, "/bmp/bmp_node/enable", request).success
    wait_for(lambda: followed[-1].people == [], "the empty message")
    scene.shoot()
    assert of_image(followed, scene.shoot()).people == []  # only who asks again is followed
    assert lab.set(tracking=False)[0].successful
    scene.shoot()
    answer = follow(lab, Request.NEAREST)
    assert not answer.success and "tracking" in answer.message


def test_following_in_space_takes_the_nearest_by_depth(lab: Lab) -> None:
    rig = Rig(lab, follow_timeout=60.0)
    followed = lab.listen("/bmp/followed_person", PersonArray3D)
    lab.peer.destroy_subscription(
        next(s for s in lab.peer.subscriptions if s.topic_name == "/bmp/poses_3d")
    )
    start = lab.peer.get_clock().now().nanoseconds
    depth = depth_of(3.0)
    values = np.frombuffer(depth.data, np.uint16).reshape(48, 64).copy()
    values[:, 32:] = 1500  # the person on the right is near
    depth.data = type(depth.data)("B", values.tobytes())

    def shoot(step: int) -> PersonArray3D:
        rig.shoot(depth, stamp_ns=start + step * STEP_NS)
        return of_image(followed, rig.poses[-1])

    def subscribers_are_known() -> bool:
        shoot.steps = getattr(shoot, "steps", -1) + 1
        return len(shoot(shoot.steps).people) == 0 and shoot.steps >= 2

    wait_for(subscribers_are_known, "images")
    answer = follow(lab, Request.NEAREST)
    assert answer.success and answer.track_id == 2
    message = shoot(shoot.steps + 1)
    (person,) = message.people
    assert person.track_id == 2 and person.centroid.z == pytest.approx(1.5, abs=1e-3)
    assert person.distance == pytest.approx(np.hypot(person.centroid.x, 1.5), abs=0.1)
    assert abs(person.velocity.z) < 0.05 and math.isfinite(person.keypoints[8].z)


def test_zones_on_the_ground_with_and_without_depth(lab: Lab) -> None:
    tf2_ros = pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")
    from geometry_msgs.msg import TransformStamped

    # The camera is 1 m above the floor and looks along x of the map, level.
    mounted = TransformStamped(child_frame_id="cam")
    mounted.header.frame_id = "map"
    mounted.transform.translation.z = 1.0
    turn = mounted.transform.rotation
    turn.x, turn.y, turn.z, turn.w = -0.5, 0.5, -0.5, 0.5
    broadcaster = tf2_ros.StaticTransformBroadcaster(lab.peer)
    broadcaster.sendTransform(mounted)
    near = "near in map: 1.5 0; 2.5 0; 2.5 2; 1.5 2"  # metres; y is to the left
    far = "far in map: 3 -3; 5 -3; 5 0; 3 0"
    rig = Rig(lab, zones=[near, far, RIGHT_HALF])
    states = lab.listen("/bmp/zones", ZoneStates)

    def counts(depth: Any) -> list[int]:
        rig.shoot(depth)
        found = [m for m in states if stamp_of(m) == stamp_of(rig.poses[-1])]
        return [zone.count for zone in found[0].zones] if found else []

    # By depth both stand 2 m away, one to the left; the rays through their feet end at 4 m.
    wait_for(lambda: counts(depth_of(2.0)), "tf")
    rig.shoot(depth_of(2.0))
    assert [zone.count for zone in of_image(states, rig.poses[-1]).zones] == [1, 0, 1]
    assert states[-1].header.frame_id == "cam"
    assert [zone.header.frame_id for zone in states[-1].zones] == ["map", "map", "cam"]
    assert lab.set(zone_leave=0.0)[0].successful
    rig.shoot(None)
    wait_for(lambda: counts(None) == [0, 1, 1], "the floor")
    markers = lab.listen("/bmp/markers", MarkerArray)
    wait_for(lambda: counts(depth_of(2.0)) and markers, "markers")
    (border,) = [m for m in markers[-1].markers if m.ns == "zones" and m.id == 0]
    assert border.header.frame_id == "map" and border.points[0].x == 1.5
