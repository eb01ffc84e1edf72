# SPDX-License-Identifier: Apache-2.0
"""People in a frame of tf, where there is a tf2_ros to listen to it."""

from __future__ import annotations

from typing import Any

import pytest
from node_harness import Lab, wait_for
from test_node_depth import Rig, depth_of


def test_people_in_a_target_frame(lab: Lab) -> None:
    tf2_ros = pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")
    from geometry_msgs.msg import TransformStamped

    rig = Rig(lab, target_frame="map")
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
