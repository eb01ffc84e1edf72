# SPDX-License-Identifier: Apache-2.0
"""The node with a depth camera: people in metres, and images that never wait for depth."""

from __future__ import annotations

import math
import sys
from array import array
from typing import Any

import numpy as np
import pytest
from node_harness import Lab, image, stamp_of, wait_for
from sensor_msgs.msg import CameraInfo, Image
from visualization_msgs.msg import MarkerArray

from bmp_ros.ros.depth_messages import depth_image
from bmp_ros.ros.interfaces import PersonArray3D

DEPTH = "/camera/depth"
needs_message_filters = pytest.mark.usefixtures("message_filters")


@pytest.fixture
def message_filters() -> Any:
    return pytest.importorskip("message_filters", reason="message_filters is not installed")


def depth_of(metres: float, width: int = 64, height: int = 48, encoding: str = "16UC1") -> Image:
    kind, factor = ("u2", 1000) if encoding == "16UC1" else ("f4", 1)
    values = np.full((height, width), metres * factor).astype(kind)
    return Image(
        height=height, width=width, encoding=encoding, step=values.strides[0],
        data=array("B", values.tobytes()),
    )  # fmt: skip


class Rig:
    """A camera with depth and its calibration, and what the node says about them."""

    def __init__(self, lab: Lab, *, calibrated: bool = True, **parameters: Any) -> None:
        self.lab = lab
        lab.start_active(depth_topic=DEPTH, **parameters)
        self.poses = lab.listen("/bmp/poses")
        self.poses_3d = lab.listen("/bmp/poses_3d", PersonArray3D)
        self.camera, self.depth = lab.camera(), lab.camera(DEPTH)
        self.camera.wait_for_subscriber()
        if lab.node is not None and any(c.depth for c in lab.node._cameras.values()):
            self.depth.wait_for_subscriber()
        if calibrated:
            self.calibrate()

    def calibrate(self) -> None:
        info = CameraInfo(height=48, width=64, k=[60.0, 0, 31.5, 0, 60, 23.5, 0, 0, 1])
        publisher = self.lab.peer.create_publisher(CameraInfo, "/camera/camera_info", 5)
        assert self.lab.node is not None
        camera = next(iter(self.lab.node._cameras.values()))

        def arrived() -> bool:
            publisher.publish(info)
            return camera.camera_info is not None

        wait_for(arrived, "the calibration")

    def shoot(self, depth: Image | None, *, late_ns: int = 0) -> None:
        """Send depth, wait until the node keeps it, then send the image of the same moment."""
        stamp = self.lab.peer.get_clock().now().nanoseconds
        if depth is not None:
            self.depth.send(depth, stamp_ns=stamp - late_ns)
            assert self.lab.node is not None
            camera = next(iter(self.lab.node._cameras.values()))
            assert camera.depth is not None
            cache = camera.depth._cache
            wanted = stamp - late_ns
            wait_for(
                lambda: any(t.nanoseconds == wanted for t in cache.cache_times), "the depth image"
            )
        self.camera.send(image(), stamp_ns=stamp)
        wait_for(lambda: any(stamp_of(m) == stamp for m in self.poses), "poses")

    def people_3d(self) -> PersonArray3D:
        stamp = stamp_of(self.poses[-1])
        return wait_for(
            lambda: next((m for m in self.poses_3d if stamp_of(m) == stamp), None), "poses_3d"
        )


@needs_message_filters
@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_people_are_published_in_metres(lab: Lab, encoding: str) -> None:
    rig = Rig(lab)
    rig.shoot(depth_of(2.5, encoding=encoding))
    found = rig.people_3d()
    assert found.header == rig.poses[-1].header and len(found.people) == 2
    for flat, person in zip(rig.poses[-1].people, found.people, strict=True):
        assert person.centroid.z == pytest.approx(2.5, abs=1e-3)
        known = [k for k in person.keypoints if math.isfinite(k.z)]
        assert len(known) >= 10
        for two, three in zip(flat.keypoints, person.keypoints, strict=True):
            if math.isfinite(three.z):
                assert three.z == pytest.approx(2.5, abs=1e-3)
                assert three.x / three.z * 60 + 31.5 == pytest.approx(two.x, abs=0.01)


@needs_message_filters
def test_depth_of_another_size(lab: Lab) -> None:
    rig = Rig(lab)
    rig.shoot(depth_of(1.5, width=32, height=24))
    assert rig.people_3d().people[0].distance == pytest.approx(1.5, rel=0.1)


@needs_message_filters
@pytest.mark.parametrize("kind", ["zeros", "nan"])
def test_depth_that_knows_nothing_gives_nan(lab: Lab, kind: str) -> None:
    rig = Rig(lab)
    rig.shoot(depth_of(0.0) if kind == "zeros" else depth_of(math.nan, encoding="32FC1"))
    found = rig.people_3d()
    assert len(found.people) == len(rig.poses[-1].people) == 2
    for person in found.people:
        assert math.isnan(person.distance) and all(math.isnan(k.z) for k in person.keypoints)


@needs_message_filters
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", ("no depth image has come", "set depth_topic")),
        ("late", ("ms away", "depth_max_age")),
        ("encoding", ("bgr8", "REP 118")),
        ("no calibration", ("no camera_info",)),
    ],
)
def test_faulty_depth_costs_depth_only(lab: Lab, fault: str, words: tuple[str, ...]) -> None:
    rig = Rig(lab, calibrated=fault != "no calibration")
    if fault == "missing":
        rig.shoot(None)
    elif fault == "late":
        rig.shoot(depth_of(2.0), late_ns=300_000_000)
    elif fault == "encoding":
        rig.shoot(image())
    else:
        rig.shoot(depth_of(2.0))
    assert len(rig.poses[-1].people) == 2
    lab.wait_for_log("no depth", *words)
    assert not rig.poses_3d
    if fault != "no calibration":  # and back to normal by itself
        rig.shoot(depth_of(2.0))
        assert rig.people_3d().people[0].centroid.z == pytest.approx(2.0, abs=1e-3)


@needs_message_filters
def test_depth_without_people(lab: Lab) -> None:
    rig = Rig(lab, people_margin=0)
    received = lab.listen("/bmp/depth_without_people", Image)
    rig.shoot(depth_of(2.5))
    wait_for(lambda: received, "depth without people")
    depth = depth_image(received[-1])
    area = sum(sum(person.mask.counts[1::2]) for person in rig.poses[-1].people)
    assert area > 0 and (depth == 0).sum() == area
    assert set(np.unique(depth)) == {0, 2500}


@needs_message_filters
def test_markers_stand_where_people_are(lab: Lab) -> None:
    rig = Rig(lab)
    markers = lab.listen("/bmp/markers", MarkerArray)
    rig.shoot(depth_of(3.5))
    wait_for(lambda: any(len(m.markers) > 1 for m in markers), "markers")
    points = [p for m in markers[-1].markers for p in m.points]
    assert points and all(p.z == pytest.approx(3.5, abs=1e-3) for p in points)


def test_without_message_filters_images_go_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "message_filters", None)
    rig = Rig(lab, calibrated=False)
    lab.wait_for_log("message_filters", "apt-get install", "without depth")
    rig.shoot(None)
    assert len(rig.poses[-1].people) == 2 and not rig.poses_3d


@needs_message_filters
def test_without_tf2_a_target_frame_is_refused_and_images_go_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    rig = Rig(lab, calibrated=False, target_frame="map")
    lab.wait_for_log("target_frame", "tf2", "leave target_frame empty")
    rig.shoot(None)
    assert len(rig.poses[-1].people) == 2


@needs_message_filters
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
