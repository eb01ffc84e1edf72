# SPDX-License-Identifier: Apache-2.0
"""The node with a depth camera: people in metres, and images that never wait for depth."""

from __future__ import annotations

import math
import struct
import sys
import threading
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from node_harness import Lab, image, is_matched, stamp_of, wait_for
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from bmp_ros.depth.depth_messages import depth_image
from bmp_ros.ros.camera import CameraInputs
from bmp_ros.ros.interfaces import PersonArray3D
from bmp_ros.ros.publishers import CameraPublishers

DEPTH = "/camera/depth"
K = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
SECOND = 10**9
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def depth_of(metres: float, width: int = 64, height: int = 48, encoding: str = "16UC1") -> Image:
    kind, factor = ("u2", 1000) if encoding == "16UC1" else ("f4", 1)
    values = np.full((height, width), metres * factor).astype(kind)
    return Image(
        height=height, width=width, encoding=encoding, step=values.strides[0],
        data=array("B", values.tobytes()),
    )  # fmt: skip


def compressed_depth_of(metres: float) -> CompressedImage:
    png = cv2.imencode(".png", np.full((48, 64), metres * 1000, np.uint16))[1].tobytes()
    data = array("B", struct.pack("<iff", 1, 0.0, 0.0) + png)
    return CompressedImage(format="16UC1; compressedDepth png", data=data)


def calibration(**fields: Any) -> CameraInfo:
    return CameraInfo(**({"height": 48, "width": 64, "k": K} | fields))


class Rig:
    """A camera with depth and its calibration, and what the node says about them."""

    def __init__(
        self,
        lab: Lab,
        *,
        calibrated: bool = True,
        kind: type = Image,
        depth_topic: str = DEPTH,
        image_topic: str = "/camera/image_raw",
        **parameters: Any,
    ) -> None:
        self.lab = lab
        self._infos: dict[str, Any] = {}
        lab.start_active(depth_topic=depth_topic, image_topic=image_topic, **parameters)
        self.poses = lab.listen("/bmp/poses")
        self.poses_3d = lab.listen("/bmp/poses_3d", PersonArray3D)
        self.camera = lab.camera(image_topic)
        self.depth = lab.camera(depth_topic, kind=kind)
        self.camera.wait_for_subscriber()
        if self.inputs.depth is not None and kind is Image:
            self.depth.wait_for_subscriber()
        if calibrated:
            self.calibrate(calibration())

    @property
    def inputs(self) -> CameraInputs:
        inputs = self.node_camera.inputs
        assert inputs is not None
        return inputs

    @property
    def node_camera(self) -> Any:
        assert self.lab.node is not None
        return next(iter(self.lab.node._cameras.values()))

    def calibrate(self, info: CameraInfo, topic: str = "/camera/camera_info") -> None:
        """Publish a calibration, latched, and wait until the node has it."""
        # One publisher of each topic: whoever subscribes gets the last of what it said.
        if topic not in self._infos:
            self._infos[topic] = self.lab.peer.create_publisher(CameraInfo, topic, LATCHED)
        self._infos[topic].publish(info)
        mine = [self.inputs.calibration]
        if self.inputs.depth is not None:
            mine.append(self.inputs.depth.calibration)
        wait_for(
            lambda: all(each.has_come for each in mine if each.topic == topic), "the calibration"
        )

    def shoot(
        self, depth: Any, *, stamp_ns: int | None = None, depth_ns: int | None = None
    ) -> int:
        """Send depth, wait until the node has it, then send the image of the same moment."""
        stamp = self.lab.peer.get_clock().now().nanoseconds if stamp_ns is None else stamp_ns
        if depth is not None:
            self.send_depth(depth, stamp if depth_ns is None else depth_ns)
        before = len(self.poses)
        self.camera.send(image(), stamp_ns=stamp)
        wait_for(lambda: len(self.poses) > before, "poses")
        assert stamp_of(self.poses[-1]) == stamp
        # Depth comes after the poses, and the diagnostics of the frame after it.
        wait_for(lambda: not self.node_camera.publishing.locked(), "the end of the frame")
        return stamp

    def send_depth(self, depth: Any, stamp_ns: int) -> None:
        assert self.inputs.depth is not None
        arrivals = self.inputs.depth._arrivals
        before = arrivals[-1] if arrivals else None
        self.depth.send(depth, stamp_ns=stamp_ns)
        wait_for(lambda: arrivals and arrivals[-1] is not before, "the depth image")

    def metres(self, stamp: int) -> float:
        """Depth of the first person in the image with this stamp, as published."""
        found = wait_for(
            lambda: next((m for m in self.poses_3d if stamp_of(m) == stamp), None), "poses_3d"
        )
        return float(found.people[0].centroid.z)

    def people_3d(self) -> PersonArray3D:
        stamp = stamp_of(self.poses[-1])
        return wait_for(
            lambda: next((m for m in self.poses_3d if stamp_of(m) == stamp), None), "poses_3d"
        )

    def wait_for_remark(self, *words: str) -> None:
        """Wait until the diagnostics say it; or are OK, without words."""

        def fits(status: Any) -> bool:
            if not words:
                return status.level == DiagnosticStatus.OK
            return status.level == DiagnosticStatus.WARN and all(
                word in status.message for word in words
            )

        self.lab.diagnosis("camera", fits, f"{words or 'OK'}")


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


def test_depth_of_another_size(lab: Lab) -> None:
    rig = Rig(lab)
    rig.shoot(depth_of(1.5, width=32, height=24))
    assert rig.people_3d().people[0].distance == pytest.approx(1.5, rel=0.1)


def test_depth_of_other_proportions_without_a_calibration(lab: Lab) -> None:
    """A depth camera of 4:3 beside a colour camera of 16:9: stretched it would be wrong."""
    rig = Rig(lab)
    rig.shoot(depth_of(1.5, width=64, height=36))
    words = ("64x36", "64x48", "the same view", "depth_camera_info_topic")
    lab.wait_for_log("no depth: the depth image has", *words)
    rig.wait_for_remark(*words)
    assert not rig.poses_3d
    rig.shoot(depth_of(1.5, width=43, height=32))  # rounded
    assert rig.people_3d().people[0].distance == pytest.approx(1.5, rel=0.1)


def test_depth_of_another_frame_is_doubted(lab: Lab) -> None:
    """The depth camera's own images in the place of the registered ones."""
    rig = Rig(lab)
    send = rig.depth.send
    rig.depth.send = partial(send, frame_id="camera_depth_optical_frame")
    assert rig.metres(rig.shoot(depth_of(2.0))) == pytest.approx(2.0, abs=1e-3)
    words = ("no registered depth", DEPTH, "'camera_depth_optical_frame'", "'cam'", "align_depth")
    lab.wait_for_log(*words)
    rig.wait_for_remark(*words)
    foreign = calibration()
    foreign.header.frame_id = "camera_depth_optical_frame"  # in the place of the images' own
    rig.calibrate(foreign)
    words = ("no calibration of this camera", "'camera_depth_optical_frame'", "'cam'")

    def told() -> bool:
        rig.shoot(depth_of(2.0))
        return words[0] in lab.log()

    wait_for(told, "the other calibration")
    rig.wait_for_remark("no registered depth", *words, "set camera_info_topic")
    foreign.header.frame_id = ""
    rig.calibrate(foreign)
    wait_for(lambda: not rig.inputs.calibration.why_foreign("cam"), "one without a frame")
    for same in ("/cam", ""):  # as it was written once; not named at all
        rig.depth.send = partial(send, frame_id=same)
        rig.shoot(depth_of(2.0))
        rig.wait_for_remark()


@pytest.mark.parametrize(
    ("metres", "encoding", "words"),
    [
        (0.0, "16UC1", "all are 0"),
        (math.nan, "32FC1", "all are NaN"),
        (math.inf, "32FC1", "infinite"),
        (2000.0, "32FC1", "2000 m"),
        (0.003, "16UC1", "0.003 m"),
    ],
)
def test_depth_that_says_nothing_gives_nan_and_is_named_once(
    lab: Lab, metres: float, encoding: str, words: str
) -> None:
    rig = Rig(lab)
    for _ in range(4):
        rig.shoot(depth_of(metres, encoding=encoding))
    found = rig.people_3d()
    assert len(found.people) == len(rig.poses[-1].people) == 2
    for person in found.people:
        assert math.isnan(person.distance) and all(math.isnan(k.z) for k in person.keypoints)
    lab.wait_for_log("no depth", DEPTH, words)
    rig.wait_for_remark("no depth", DEPTH, words)
    assert lab.log().count("no depth:") == 1
    rig.shoot(depth_of(2.0))  # and back to normal by itself
    assert rig.people_3d().people[0].centroid.z == pytest.approx(2.0, abs=1e-3)
    rig.wait_for_remark()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", ("no depth image has come", "no publisher", "depth_topic")),
        ("late", ("300 ms before", "depth_max_age")),
        ("other clock", ("different clocks",)),
        ("encoding", (DEPTH, "bgr8", "REP 118")),
        (
            "no calibration",
            ("no calibration", "/camera/camera_info", "No node publishes CameraInfo"),
        ),
    ],
)
def test_faulty_depth_costs_depth_only(lab: Lab, fault: str, words: tuple[str, ...]) -> None:
    rig = Rig(lab, calibrated=fault != "no calibration")
    now = lab.peer.get_clock().now().nanoseconds
    if fault == "missing":
        rig.depth.destroy()
        wait_for(lambda: not lab.node.count_publishers(DEPTH), "no publisher")
        rig.shoot(None)
    elif fault == "late":
        rig.shoot(depth_of(2.0), stamp_ns=now, depth_ns=now - 300_000_000)
    elif fault == "other clock":
        rig.shoot(depth_of(2.0), stamp_ns=now, depth_ns=5 * SECOND)
    elif fault == "encoding":
        rig.shoot(image())
    else:
        rig.shoot(depth_of(2.0))
    assert len(rig.poses[-1].people) == 2
    lab.wait_for_log("no depth", *words)
    rig.wait_for_remark("no depth", *words)
    assert not rig.poses_3d
    if fault == "missing":
        rig.depth = lab.camera(DEPTH)
        rig.depth.wait_for_subscriber()
    if fault == "no calibration":
        rig.calibrate(calibration())
    rig.shoot(depth_of(2.0))  # and back to normal by itself
    assert rig.people_3d().people[0].centroid.z == pytest.approx(2.0, abs=1e-3)
    rig.wait_for_remark()


@pytest.mark.parametrize("stamp", [0, 36_858_272_000])
def test_stamps_that_stand_still_give_no_depth(lab: Lab, stamp: int) -> None:
    rig = Rig(lab, depth_max_age=0.5)
    true = [6.0 - 0.5 * i for i in range(6)]
    for metres in true:
        rig.shoot(depth_of(metres), stamp_ns=stamp)
    words = ("stamped 0",) if stamp == 0 else ("same stamp", "36.858")
    lab.wait_for_log("no depth", DEPTH, *words)
    rig.wait_for_remark("no depth", DEPTH, *words)
    assert lab.log().count("no depth:") == 1
    # Until it was noticed, what was said was the newest arrival.
    said = [message.people[0].centroid.z for message in rig.poses_3d]
    assert said == pytest.approx([] if stamp == 0 else true[:2], abs=1e-3)
    later = rig.shoot(depth_of(2.0), stamp_ns=stamp + 100_000_000)
    assert rig.metres(later) == pytest.approx(2.0, abs=1e-3)


def test_one_depth_image_stamped_0_among_good_ones(lab: Lab) -> None:
    rig = Rig(lab)
    now = lab.peer.get_clock().now().nanoseconds
    rig.send_depth(depth_of(2.0), now)
    rig.shoot(depth_of(9.0), stamp_ns=now, depth_ns=0)
    assert rig.metres(now) == pytest.approx(2.0, abs=1e-3)


def test_depth_that_overtook_depth_and_the_newest_of_two(lab: Lab) -> None:
    rig = Rig(lab)
    start = 1000 * SECOND
    for late_ms, metres in ((0, 2.0), (100, 3.0), (50, 4.0)):
        rig.send_depth(depth_of(metres), start + late_ms * 10**6)
    stamp = rig.shoot(None, stamp_ns=start + 103 * 10**6)
    assert rig.metres(stamp) == pytest.approx(3.0, abs=1e-3)
    rig.send_depth(depth_of(5.0), start + 100 * 10**6)
    stamp = rig.shoot(None, stamp_ns=start + 104 * 10**6)
    assert rig.metres(stamp) == pytest.approx(5.0, abs=1e-3)


def test_stamps_that_step_back_by_milliseconds_keep_depth_and_statistics(lab: Lab) -> None:
    rig = Rig(lab)
    last = lab.peer.get_clock().now().nanoseconds
    for frame in range(9):
        stamp = last - 2_000_000 if frame % 3 == 2 else last + 40_000_000
        rig.shoot(depth_of(2.0 + frame), stamp_ns=stamp)
        assert rig.metres(stamp) == pytest.approx(2.0 + frame, abs=1e-3)
        last = max(last, stamp)
    assert len(rig.node_camera.statistics.snapshot().ages_s) == 9
    assert "no depth" not in lab.log()


def test_a_bag_in_a_loop_keeps_the_depth_of_its_first_frame(lab: Lab) -> None:
    rig = Rig(lab)
    for _ in range(3):
        for frame in range(5):
            stamp, metres = 1000 * SECOND + frame * 500_000_000, 2.0 + frame
            before = len(rig.poses_3d)
            rig.shoot(depth_of(metres), stamp_ns=stamp)
            wait_for(lambda n=before: len(rig.poses_3d) > n, "poses_3d")
            assert rig.poses_3d[-1].people[0].centroid.z == pytest.approx(metres, abs=1e-3)
    assert "no depth" not in lab.log()


def test_stamps_before_1970(lab: Lab) -> None:
    rig = Rig(lab)
    stamp = rig.shoot(depth_of(2.0), stamp_ns=-5 * SECOND + 7)
    assert rig.metres(stamp) == pytest.approx(2.0, abs=1e-3)


def test_a_rectified_image_takes_p_and_no_distortion(lab: Lab) -> None:
    rig = Rig(
        lab, calibrated=False, image_topic="/camera/image_rect", depth_topic="/camera/depth_rect"
    )
    lab.wait_for_log("listening", "images are rectified", "depth images are rectified")
    rig.calibrate(
        calibration(
            d=[-0.3, 0.09, 0.001, -0.0005, 0.0], distortion_model="plumb_bob",
            p=[50.0, 0.0, 30.0, 0.0, 0.0, 55.0, 25.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        )
    )  # fmt: skip
    markers = lab.listen("/bmp/markers", MarkerArray)
    rig.shoot(depth_of(2.0))
    found = rig.people_3d()
    for flat, person in zip(rig.poses[-1].people, found.people, strict=True):
        for two, three in zip(flat.keypoints, person.keypoints, strict=True):
            if math.isfinite(three.z):
                assert three.x == pytest.approx((two.x - 30) / 50 * 2, abs=1e-4)
                assert three.y == pytest.approx((two.y - 25) / 55 * 2, abs=1e-4)
    wait_for(lambda: any(len(m.markers) > 1 for m in markers), "markers")
    spots = {(round(k.x, 4), round(k.y, 4)) for p in found.people for k in p.keypoints}
    assert {(round(p.x, 4), round(p.y, 4)) for m in markers[-1].markers for p in m.points} <= spots


@pytest.mark.parametrize("rectified", [True, "true"])
def test_the_parameter_overrules_the_name_of_the_topic(lab: Lab, rectified: Any) -> None:
    rig = Rig(lab, calibrated=False, rectified=rectified, depth_rectified="false")
    lab.wait_for_log("images are rectified (P", "depth images are not rectified (K")
    assert rig.inputs.calibration.rectified
    assert lab.set(rectified="maybe")[0].reason


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"d": [0.1] * 6, "distortion_model": "plumb_bob"}, "has 6 coefficients"),
        ({"d": [-0.3, 0.1], "distortion_model": "plumb_bob"}, "has 2 coefficients"),
        ({"d": [-0.3, 0.1, 0, 0], "distortion_model": "radtan"}, "radtan"),
        ({"d": [math.nan] * 5, "distortion_model": "plumb_bob"}, "not finite"),
        ({"k": [math.nan] * 9}, "finite"),
        ({"k": [0.0] * 9}, "not calibrated"),
        ({"width": 640}, "640x48"),
        ({"width": 0, "height": 0}, "0x0"),
    ],
)
def test_a_calibration_that_cannot_be_used_is_named_once_and_costs_nothing_else(
    lab: Lab, fields: dict, words: str
) -> None:
    rig = Rig(lab, calibrated=False)
    fields = {n: [float(v) for v in f] if isinstance(f, list) else f for n, f in fields.items()}
    rig.calibrate(calibration(**fields))
    markers = lab.listen("/bmp/markers", MarkerArray)
    for _ in range(3):
        rig.shoot(depth_of(2.0))
    lab.wait_for_log("no markers", "/camera/camera_info", words)
    lab.wait_for_log("no depth", "/camera/camera_info", words)
    rig.wait_for_remark("no markers", "no depth", words)
    assert lab.log().count("no markers:") == lab.log().count("no depth:") == 1
    assert "Traceback" not in lab.log()
    assert not markers and not rig.poses_3d
    counts = rig.node_camera.statistics.snapshot().counts
    assert counts["frames processed"] == 3 and counts["frames failed"] == 0


def test_a_fish_eye_has_the_same_rays_for_markers_and_for_depth(lab: Lab) -> None:
    rig = Rig(lab, calibrated=False)
    lens = [0.1, 0.02, 0.0, 0.0]
    rig.calibrate(calibration(d=lens, distortion_model="equidistant"))
    markers = lab.listen("/bmp/markers", MarkerArray)
    # Without depth first: markers lie in the plane at 2 m.
    rig.shoot(None)
    wait_for(lambda: any(len(m.markers) > 1 for m in markers), "markers in a plane")
    plane = {(round(p.x, 3), round(p.y, 3)) for m in markers[-1].markers for p in m.points}
    rig.shoot(depth_of(2.0))
    found = rig.people_3d()
    for flat, person in zip(rig.poses[-1].people, found.people, strict=True):
        for two, three in zip(flat.keypoints, person.keypoints, strict=True):
            pixel = np.array([[[two.x, two.y]]], np.float64)
            ray = cv2.fisheye.undistortPoints(pixel, np.reshape(K, (3, 3)), np.array(lens))[0, 0]
            if math.isfinite(three.z):
                assert [three.x, three.y] == pytest.approx(2 * ray, abs=1e-3)
                assert min(math.dist((three.x, three.y), spot) for spot in plane) < 2e-3


def test_a_blank_calibration_of_registered_depth_leaves_that_of_the_image(lab: Lab) -> None:
    rig = Rig(lab, depth_topic="/camera/registered/depth")
    rig.calibrate(calibration(k=[0.0] * 9), "/camera/registered/camera_info")
    stamp = rig.shoot(depth_of(2.0))
    assert rig.metres(stamp) == pytest.approx(2.0, abs=1e-3)
    rig.shoot(depth_of(2.0, width=32, height=24))  # nothing tells what that shows
    lab.wait_for_log("no depth", "/camera/registered/camera_info", "not calibrated")


def test_a_calibration_of_another_size_than_the_depth_images_is_named(lab: Lab) -> None:
    rig = Rig(lab, depth_topic="/camera/registered/depth")
    rig.calibrate(calibration(), "/camera/registered/camera_info")
    rig.shoot(depth_of(2.0, width=32, height=24))
    lab.wait_for_log(
        "no depth", "/camera/registered/camera_info", "64x48", "32x24", "depth_camera_info_topic"
    )
    assert not rig.poses_3d


def test_binning_is_applied(lab: Lab) -> None:
    rig = Rig(lab, calibrated=False)
    k = [120.0, 0.0, 63.5, 0.0, 120.0, 47.5, 0.0, 0.0, 1.0]
    rig.calibrate(calibration(width=128, height=96, k=k, binning_x=2, binning_y=2))
    rig.shoot(depth_of(2.0))
    found = rig.people_3d()
    for two, three in zip(
        rig.poses[-1].people[0].keypoints, found.people[0].keypoints, strict=True
    ):
        if math.isfinite(three.z):
            assert three.x == pytest.approx((two.x - 31.5) / 60 * 2, abs=1e-3)


def test_a_calibration_published_once_before_the_node_starts(lab: Lab) -> None:
    publisher = lab.peer.create_publisher(CameraInfo, "/camera/camera_info", LATCHED)
    publisher.publish(calibration())
    rig = Rig(lab, calibrated=False)
    wait_for(lambda: rig.inputs.calibration.has_come, "the latched calibration")
    stamp = rig.shoot(depth_of(2.0))
    assert rig.metres(stamp) == pytest.approx(2.0, abs=1e-3)


@pytest.mark.parametrize("topic", [DEPTH + "/compressedDepth", DEPTH])
def test_compressed_depth_is_decoded(lab: Lab, topic: str) -> None:
    """By its name, or else by the type that is published on the topic."""
    elsewhere = lab.restart_peer()  # of one participant, all topics of a name have one type
    publisher = elsewhere.create_publisher(CompressedImage, topic, 5)
    rig = Rig(lab, kind=CompressedImage, depth_topic=topic, image_topic="/camera/image_raw")
    wait_for(lambda: publisher.get_subscription_count() > 0, "a subscription of the type")
    wait_for(lambda: is_matched(lab.node, topic, publishers=2), "this publisher and the rig's")
    rig.depth.publisher = publisher
    empty = lab.listen("/bmp/depth_without_people", Image)
    stamp = rig.shoot(compressed_depth_of(2.5))
    assert rig.metres(stamp) == pytest.approx(2.5, abs=1e-3)
    wait_for(lambda: empty, "depth without people")
    assert empty[-1].encoding == "16UC1" and set(np.unique(depth_image(empty[-1]))) == {0, 2500}
    damaged = compressed_depth_of(2.5)
    damaged.data = damaged.data[:-5]
    rig.shoot(damaged)
    lab.wait_for_log("no depth", topic, "breaks off")


def test_another_type_takes_the_depth_topic_over(lab: Lab) -> None:
    """A driver that sends raw depth ends; what comes in its place compresses it."""
    rig = Rig(lab)
    assert rig.metres(rig.shoot(depth_of(2.0))) == pytest.approx(2.0, abs=1e-3)
    rig.depth.destroy()
    wait_for(lambda: not lab.node.count_publishers(DEPTH), "the end of the driver")
    rig.depth.publisher = lab.restart_peer().create_publisher(CompressedImage, DEPTH, 5)
    wait_for(lambda: rig.depth.publisher.get_subscription_count() > 0, "the other subscription")
    wait_for(lambda: is_matched(lab.node, DEPTH), "the other driver")
    rig.shoot(None)
    lab.wait_for_log("no depth: no depth image has come on", DEPTH, "1 publisher")
    assert rig.metres(rig.shoot(compressed_depth_of(2.5))) == pytest.approx(2.5, abs=1e-3)


def test_what_is_there_instead_of_the_depth_topic_is_named(lab: Lab) -> None:
    rig = Rig(lab)
    rig.depth.destroy()
    lab.peer.create_publisher(CompressedImage, DEPTH + "/compressedDepth", 5)
    wait_for(lambda: lab.node.count_publishers(DEPTH + "/compressedDepth"), "the other topic")
    wait_for(lambda: not lab.node.count_publishers(DEPTH), "no publisher")
    rig.shoot(None)
    lab.wait_for_log("no depth", DEPTH + "/compressedDepth has", "set depth_topic to it")


def test_what_is_missing_is_said_again_after_a_change(lab: Lab) -> None:
    """Whoever deactivates the node and names another topic looks at the log for an answer."""
    rig = Rig(lab)
    rig.depth.destroy()
    rig.shoot(None)
    rig.shoot(None)
    lab.wait_for_log("no depth: no depth image has come on /camera/depth")
    assert lab.transition("deactivate")
    assert lab.set(depth_topic="/camera/dept")[0].successful
    assert lab.transition("activate")
    rig.camera.wait_for_subscriber()
    rig.shoot(None)
    lab.wait_for_log("no depth: no depth image has come on /camera/dept,")
    assert lab.log().count("no depth:") == 2


def test_a_depth_topic_of_another_type_is_named(lab: Lab) -> None:
    lab.restart_peer().create_publisher(CameraInfo, DEPTH, 5)
    rig = Rig(lab, depth_topic=DEPTH, kind=CameraInfo)
    wait_for(lambda: lab.node.count_publishers(DEPTH), "the other topic")
    rig.shoot(None)
    lab.wait_for_log("no depth", "sensor_msgs/msg/CameraInfo", "depth_topic")


def test_depth_without_people(lab: Lab) -> None:
    rig = Rig(lab, people_margin=0)
    received = lab.listen("/bmp/depth_without_people", Image)
    rig.shoot(depth_of(2.5))
    wait_for(lambda: received, "depth without people")
    depth = depth_image(received[-1])
    area = sum(sum(person.mask.counts[1::2]) for person in rig.poses[-1].people)
    assert area > 0 and (depth == 0).sum() == area
    assert set(np.unique(depth)) == {0, 2500}


def test_markers_stand_where_people_are(lab: Lab) -> None:
    rig = Rig(lab)
    markers = lab.listen("/bmp/markers", MarkerArray)
    rig.shoot(depth_of(3.5))
    wait_for(lambda: any(len(m.markers) > 1 for m in markers), "markers")
    points = [p for m in markers[-1].markers for p in m.points]
    assert points and all(p.z == pytest.approx(3.5, abs=1e-3) for p in points)


def test_a_frame_that_is_published_keeps_its_inputs_while_the_node_is_deactivated(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(lab)
    camera, begun = rig.node_camera, threading.Event()
    wants: Callable[[Any], bool] = CameraPublishers.wants_depth.fget  # type: ignore[attr-defined]
    taken_down: list[bool] = []

    def wants_depth(publishers: Any) -> bool:
        # The worker publishes; the executor is let go and tries to take everything down.
        begun.set()
        until = threading.Event()
        for _ in range(50):
            if camera.inputs is None:
                break
            until.wait(0.01)
        taken_down.append(camera.inputs is None)
        return wants(publishers)

    monkeypatch.setattr(CameraPublishers, "wants_depth", property(wants_depth))
    stamp = lab.peer.get_clock().now().nanoseconds
    rig.send_depth(depth_of(2.0), stamp)
    rig.camera.send(image(), stamp_ns=stamp)
    assert begun.wait(60)
    assert lab.transition("deactivate")
    wait_for(lambda: rig.poses and not rig.poses[-1].people, "the empty array")
    assert taken_down == [False] and camera.inputs is None
    assert rig.metres(stamp) == pytest.approx(2.0, abs=1e-3)
    counts = camera.statistics.snapshot().counts
    assert counts["frames failed"] == 0 and counts["frames processed"] == 1
    assert "NoneType" not in lab.log()


def test_without_tf2_a_target_frame_is_refused_and_images_go_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    rig = Rig(lab, calibrated=False, target_frame="map")
    lab.wait_for_log("target_frame", "tf2", "leave target_frame empty")
    rig.shoot(None)
    assert len(rig.poses[-1].people) == 2
