# SPDX-License-Identifier: Apache-2.0
"""People in a frame of tf, where there is a tf2_ros to listen to it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Quaternion, Transform, Vector3
from node_harness import Lab, wait_for
from test_node_depth import Rig, depth_of

from bmp_ros.depth.people_3d import People3D
from bmp_ros.ros.target_frame import moved
from bmp_ros.ros.transforms import rigid_motion


def test_people_in_a_target_frame(lab: Lab) -> None:
    tf2_ros = pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")
    from geometry_msgs.msg import TransformStamped

    rig = Rig(lab, target_frame="/map")  # as in ROS 1
    rig.shoot(depth_of(2.0))
    lab.wait_for_log("no transform", "'map'")
    still = TransformStamped(child_frame_id="cam")
    still.header.frame_id = "map"
    still.transform.translation.z = 10.0
    still.transform.rotation.w = 1.0
    tf2_ros.StaticTransformBroadcaster(lab.peer).sendTransform(still)

    def moved() -> Any:
        rig.shoot(depth_of(2.0))
        return rig.poses_3d

    found = wait_for(moved, "people in the frame map")[-1]
    assert found.header.frame_id == "map"
    assert found.people[0].centroid.z == pytest.approx(12.0, abs=1e-3)
    send = rig.camera.send
    rig.camera.send = partial(send, frame_id="/cam")
    assert rig.metres(rig.shoot(depth_of(2.0))) == pytest.approx(12.0, abs=1e-3)
    rig.camera.send = partial(send, frame_id="")
    rig.shoot(depth_of(2.0))
    lab.wait_for_log("no depth: the image's header has no frame_id")


def test_people_come_back_to_where_they_were() -> None:
    turn = Quaternion(x=0.1, y=-0.5, z=0.3, w=0.8)
    motion = rigid_motion(Transform(rotation=turn, translation=Vector3(x=1.0, y=-2.0, z=3.0)))
    random = np.random.default_rng(0)
    people = People3D(
        keypoints=random.normal(size=(2, 17, 3)).astype(np.float32),
        spread=np.zeros((2, 17), np.float32),
        centroids=random.normal(size=(2, 3)).astype(np.float32),
        distances=np.array([1, np.nan], np.float32),
    )
    people.keypoints[0, 3] = np.nan
    there = moved(people, motion)
    back = moved(there, motion, back=True)
    np.testing.assert_allclose(back.keypoints, people.keypoints, atol=1e-5)
    np.testing.assert_allclose(back.centroids, people.centroids, atol=1e-5)
    assert np.abs(there.centroids - people.centroids).max() > 0.5
    assert there.distances is people.distances
