# SPDX-License-Identifier: Apache-2.0
"""Which camera of camera_info belongs to an image, and what is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rclpy
from hypothesis import given, settings
from hypothesis import strategies as st
from node_harness import wait_for
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest

from bmp_ros.depth.calibration import CalibrationError, camera_model, is_rectified
from bmp_ros.ros.calibration import CalibrationInput

K = (500.0, 510.0, 319.5, 239.5)
P = (420.0, 440.0, 310.0, 245.0)
D = [-0.30, 0.09, 0.001, -0.0005, 0.0]


def info(
    k: tuple[float, ...] = K, p: tuple[float, ...] | None = P, d: Any = D, **fields: Any
) -> CameraInfo:
    """k, p: fx, fy, cx, cy."""
    fields = {"width": 640, "height": 480, "distortion_model": "plumb_bob"} | fields
    message = CameraInfo(d=[float(v) for v in d], **fields)
    message.k = [k[0], 0.0, k[2], 0.0, k[1], k[3], 0.0, 0.0, float(k[0] != 0)]
    if p is not None:
        message.p = [p[0], 0.0, p[2], 0.0, 0.0, p[1], p[3], 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


@pytest.mark.parametrize(
    ("setting", "topic", "expected"),
    [
        ("auto", "/cam/image_raw", False),
        ("auto", "/cam/image_rect", True),
        ("auto", "/cam/image_rect_color", True),
        ("auto", "/cam/image_rect/compressed", True),
        ("auto", "/cam/image_rect/compressedDepth", True),
        ("auto", "/cam/left_rectified", True),
        ("auto", "/cam/imageRect", True),
        ("auto", "/rect/image_raw", False),
        ("auto", "/cam/direct", False),
        ("auto", "/cam/unrectified", False),
        ("auto", "image_rect", True),
        ("true", "/cam/image_raw", True),
        ("false", "/cam/image_rect", False),
    ],
)
def test_which_images_are_rectified(setting: str, topic: str, expected: bool) -> None:
    assert is_rectified(setting, topic) is expected


def test_a_raw_image_has_k_and_d_a_rectified_one_p() -> None:
    raw, rectified = camera_model(info()), camera_model(info(), rectified=True)
    assert np.allclose(raw.matrix, [[500, 0, 319.5], [0, 510, 239.5], [0, 0, 1]])
    assert np.allclose(raw.distortion, D) and raw.model == "plumb_bob"
    assert np.allclose(rectified.matrix, [[420, 0, 310], [0, 440, 245], [0, 0, 1]])
    assert not rectified.is_distorted and (rectified.width, rectified.height) == (640, 480)
    pixel = np.array([[60.0, 100.0]])
    assert np.allclose(rectified.rays(pixel), [[(60 - 310) / 420, (100 - 245) / 440]])


def test_a_rectified_image_without_p_is_one_of_k_if_there_is_no_lens() -> None:
    assert camera_model(info(p=None, d=[0] * 5), rectified=True).matrix[0, 0] == 500
    with pytest.raises(ValueError, match="P is 0"):
        camera_model(info(p=None), rectified=True)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("binning", [(0, 0), (1, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize("region", [None, (320, 240, 640, 480), (100, 60, 800, 600)])
def test_binning_and_region_of_interest(
    rectified: bool, binning: tuple[int, int], region: tuple[int, ...] | None
) -> None:
    full = (1000.0, 1020.0, 639.5, 479.5)
    fields: dict[str, Any] = {"width": 1280, "height": 960}
    left, top, width, height = region or (0, 0, 1280, 960)
    if region:
        fields["roi"] = RegionOfInterest(x_offset=left, y_offset=top, width=width, height=height)
    fields["binning_x"], fields["binning_y"] = binning
    by = np.maximum(binning, 1)
    camera = camera_model(info(k=full, p=full, d=[0] * 5, **fields), rectified=rectified)
    assert (camera.width, camera.height) == (width // by[0], height // by[1])
    # The middle of a pixel that was binned is the middle of those that it was made of.
    pixel = np.array([17.0, 23.0])
    inside = (pixel + 0.5) * by - 0.5 + [left, top]
    expected = (inside - [639.5, 479.5]) / [1000, 1020]
    assert np.allclose(camera.rays(pixel), expected)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"k": (0.0,) * 4, "p": (0.0,) * 4}, "blank"),
        ({"k": (0.0,) * 4}, "rectified"),
        ({"k": (np.nan, 1, 1, 1)}, "finite"),
        ({"d": [np.nan] * 5}, "not finite"),
        ({"d": [0.1, 0.1]}, "has 2 coefficients"),
        ({"d": [0.1] * 6}, "has 6 coefficients"),
        ({"distortion_model": "radtan"}, "radtan"),
        ({"width": 0, "height": 0}, "0x0 pixels: who publishes it has to give width"),
        ({"roi": RegionOfInterest(x_offset=600, width=100, height=100)}, "region"),
        ({"roi": RegionOfInterest(x_offset=640)}, "region"),
        ({"width": 1, "height": 1, "binning_x": 5, "binning_y": 5}, "binning of 5x5"),
    ],
)
def test_what_is_no_calibration_is_refused(changed: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        camera_model(info(**changed))


NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 300.0, 1e-300, 1e300, np.nan, np.inf])


@settings(deadline=None, max_examples=150)
@given(
    st.lists(NUMBERS, min_size=9, max_size=9), st.lists(NUMBERS, min_size=12, max_size=12),
    st.lists(NUMBERS, max_size=15),
    st.sampled_from(["", "plumb_bob", "rational_polynomial", "equidistant", "x"]),
    st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 700), min_size=8, max_size=8),
    st.booleans(),
)  # fmt: skip
def test_any_calibration_is_refused_or_gives_a_camera(
    k: list, p: list, d: list, model: str, sizes: list[int], rectified: bool
) -> None:
    message = CameraInfo(k=k, p=p, d=d, distortion_model=model, width=sizes[0], height=sizes[1])
    message.binning_x, message.binning_y = sizes[2:4]
    roi = message.roi
    roi.x_offset, roi.y_offset, roi.width, roi.height = sizes[4:]
    try:
        camera = camera_model(message, rectified=rectified)
    except ValueError:
        return
    middle = np.array([camera.width / 2, camera.height / 2])
    assert np.isfinite(camera.rays(middle)).all()
    assert camera.width > 0 and camera.height > 0


class Listener:
    """A calibration input on a real node, spun by the test."""

    def __init__(self, context: Context) -> None:
        self.node = LifecycleNode("listener", context=context)
        self.peer = Node("driver", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.input = CalibrationInput(
            self.node, "/cam/camera_info", rectified=False, parameter="camera_info_topic"
        )

    def publisher(self, *, latched: bool, reliable: bool = True, kind: type = CameraInfo) -> Any:
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        profile = QoSProfile(depth=1, durability=durability, reliability=reliability)
        return self.peer.create_publisher(kind, "/cam/camera_info", profile)

    def wait(self, condition: Any, what: str) -> None:
        def turn() -> Any:
            self.input.follow_publishers()
            self.executor.spin_once(timeout_sec=0.02)
            return condition()

        wait_for(turn, what)


@pytest.fixture
def listener(ros_context: Context) -> Any:
    listener = Listener(ros_context)
    yield listener
    listener.input.close()
    listener.executor.shutdown()
    listener.node.destroy_node()
    listener.peer.destroy_node()


@pytest.mark.parametrize("first", ["publisher", "node"])
def test_a_calibration_published_once_is_received(listener: Listener, first: str) -> None:
    if first == "publisher":
        listener.publisher(latched=True).publish(info())
        listener.input.open()
    else:
        listener.input.open()
        listener.publisher(latched=True).publish(info())
    listener.wait(lambda: listener.input.has_come, "the latched calibration")
    assert listener.input.model().matrix[0, 0] == 500
    assert listener.input.model() is listener.input.model(), "it is made once"


@pytest.mark.parametrize("reliable", [True, False])
def test_volatile_publishers_are_heard_beside_latched_ones(
    listener: Listener, reliable: bool
) -> None:
    listener.input.open()
    latched = listener.publisher(latched=True)
    latched.publish(info())
    listener.wait(lambda: listener.input.has_come, "the latched calibration")
    volatile = listener.publisher(latched=False, reliable=reliable)

    def moved() -> bool:
        volatile.publish(info(k=(700.0, 700.0, 1.0, 1.0), d=[0] * 5))
        return listener.input.model().matrix[0, 0] == 700

    listener.wait(moved, "the volatile one")


def test_why_no_calibration_has_come(listener: Listener) -> None:
    listener.input.open()
    with pytest.raises(CalibrationError, match="no publisher. No node publishes CameraInfo"):
        listener.input.model()
    assert not listener.input.has_come
    listener.publisher(latched=False)

    def named() -> bool:
        try:
            listener.input.model()
        except CalibrationError as error:
            text = str(error)
            words = "come on /cam/camera_info,", "1 publisher", "reliable, volatile"
            return all(each in text for each in words)
        return False

    listener.wait(named, "the topic, its publisher and what that offers")


def test_a_topic_of_another_type_is_named(listener: Listener, ros_domain: int) -> None:
    listener.input.open()
    # Of one participant, all topics of a name have one type.
    elsewhere = Context()
    rclpy.init(context=elsewhere, domain_id=ros_domain)
    listener.peer.destroy_node()
    listener.peer = Node("other_driver", context=elsewhere)
    listener.publisher(latched=False, kind=Image)

    def named() -> bool:
        try:
            listener.input.model()
        except CalibrationError as error:
            return "sensor_msgs/msg/Image" in str(error)
        return False

    listener.wait(named, "the type in the message")
    elsewhere.try_shutdown()


def test_a_bad_calibration_names_its_topic_and_a_good_one_ends_it(listener: Listener) -> None:
    listener.input.open()
    driver = listener.publisher(latched=False)

    def sent(message: CameraInfo, condition: Any) -> None:
        def turn() -> bool:
            driver.publish(message)
            return bool(listener.input.has_come and condition())

        listener.wait(turn, "the calibration")

    def refusal() -> str:
        try:
            listener.input.model()
        except CalibrationError as error:
            return str(error)
        return ""

    sent(info(d=[np.nan] * 5), lambda: "/cam/camera_info" in refusal())
    assert "not finite" in refusal()
    sent(CameraInfo(width=640, height=480), lambda: listener.input.is_blank)
    assert "blank" in refusal()
    sent(info(), lambda: not refusal())
    listener.input.keep(b"\0\1\0\0")  # what is no message; then the same calibration as before
    assert "/cam/camera_info" in refusal()
    sent(info(), lambda: not refusal())
    assert listener.input.fitting((480, 640), "the image").width == 640
    with pytest.raises(CalibrationError, match="640x480 pixels, the image has 320x240"):
        listener.input.fitting((240, 320), "the image")
    with pytest.raises(CalibrationError, match="has 480x640; publish one of the turned images"):
        listener.input.fitting((640, 480), "the image")
    sent(info(binning_x=2, binning_y=2), lambda: listener.input.model().width == 320)
    words = r"320x240 pixels \(640x480, binning 2x2\), the image has 640x480"
    with pytest.raises(CalibrationError, match=words):  # whose driver does not bin at all
        listener.input.fitting((480, 640), "the image")
