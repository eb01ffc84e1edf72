# SPDX-License-Identifier: Apache-2.0
"""`bmp view` beside a node: what it shows of images with depth, raw and compressed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

import cv2
import numpy as np
import pytest
from node_harness import LIMIT_S, Lab, image, wait_for
from sensor_msgs.msg import CompressedImage
from test_node_depth import Rig, calibration, depth_of

from bmp_ros.demo.view_node import ViewNode, Watched
from bmp_ros.ros.compatibility import array_of_bytes
from bmp_ros.ros.interfaces import Person, PersonArray
from bmp_ros.viewing.moment import Moment


class Wall:
    """A screen that keeps what it is shown."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.times: dict[str, float] = {}

    def show(self, moment: Moment) -> None:
        self.moments.append(moment)

    def show_times(self, moment: Moment, times_ms: Mapping[str, float]) -> None:
        self.times.update(times_ms)


def viewer(lab: Lab, wall: Wall, **watched: str) -> ViewNode:
    return lab._spin(lambda context: ViewNode(Watched(**watched), wall, context=context))


def complete(wall: Wall) -> Moment | None:
    whole = [each for each in wall.moments if each.image and each.camera and each.in_space]
    return whole[-1] if whole else None


def test_people_with_image_lens_and_places(lab: Lab) -> None:
    """The topic of the images is the node's own parameter, asked for over a service."""
    rig, wall = Rig(lab), Wall()
    viewer(lab, wall)
    rig.calibrate(calibration())

    def shown() -> Moment | None:
        rig.shoot(depth_of(2.0))
        return complete(wall)

    moment = wait_for(shown, "people with everything")
    assert len(moment.people) == len(rig.poses[-1].people) and moment.people.masks.any()
    pixels = cv2.imdecode(np.frombuffer(moment.image.contents, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (48, 64, 3) and abs(int(pixels.mean()) - 127) < 3
    assert (moment.camera.width, moment.camera.matrix[0, 0]) == (64, 60)
    assert moment.in_space.camera_pose is None, "places are in the camera's own frame"
    np.testing.assert_allclose(moment.in_space.centroids[0, 2], 2.0, atol=0.01)
    assert moment.stamp_ns in rig.camera.sent
    # Stages by the diagnostics, which come once a second.
    wait_for(lambda: {"processing", "latency", "total"} <= set(wall.times), "times")
    assert wall.times["total"] > 0
    assert [each.number for each in wall.moments] == list(range(len(wall.moments)))


def test_compressed_images_are_passed_on_as_they_are(lab: Lab) -> None:
    lab.start_active(image_transport="compressed")
    wall = Wall()
    viewer(lab, wall)
    _, data = cv2.imencode(".jpg", np.full((48, 64, 3), 60, np.uint8))
    message = CompressedImage(format="bgr8; jpeg compressed bgr8", data=array_of_bytes(data))
    camera = lab.camera("/camera/image_raw/compressed", kind=CompressedImage)
    wait_for(lambda: camera.publisher.get_subscription_count() == 2, "node and viewer")

    def shown() -> Moment | None:
        if not camera.sent or time.time_ns() - camera.sent[-1] > 2 * 10**8:
            camera.send(message)  # the viewer waits with a limited number of images for people
        found = [each for each in wall.moments if each.image]
        return found[-1] if found else None

    moment = wait_for(shown, "people with an image")
    assert moment.image.contents == data.tobytes()


def test_what_cannot_be_shown_is_said_and_the_rest_goes_on(lab: Lab) -> None:
    """No node: people of somebody else, one of them damaged, and an image of no known encoding."""
    wall = Wall()
    node = viewer(lab, wall, image_topic="/camera/image_raw")
    node.say_nothing_came()
    publisher = lab.peer.create_publisher(PersonArray, "/bmp/poses", 5)
    camera = lab.camera()
    wait_for(lambda: publisher.get_subscription_count() == 1, "the viewer")
    wait_for(lambda: camera.publisher.get_subscription_count() == 1, "the viewer")
    damaged = PersonArray(height=48, width=64)
    damaged.skeleton.keypoint_names = ["nose"]
    damaged.people = [Person()]
    strange = image(encoding="yuv422_unknown")
    good = PersonArray(height=48, width=64)

    wait_for(lambda: node.count_publishers("/bmp/poses") == 1, "the publisher")
    node.say_nothing_came()
    log = lab.log()
    assert "no node publishes /bmp/poses" in log and "ROS_DOMAIN_ID" in log
    assert "nothing comes: is the node active" in log

    def shown() -> bool:
        stamp = camera.send(strange)
        good.header.stamp.sec, good.header.stamp.nanosec = divmod(stamp, 10**9)
        publisher.publish(damaged)
        publisher.publish(good)
        return len(wall.moments) > 2 and "an image cannot be shown" in lab.log()

    wait_for(shown, "what is good")
    assert all(each.image is None and len(each.people) == 0 for each in wall.moments)
    log = lab.log()
    assert log.count("person 0 has 0 keypoints") == 1, log
    assert log.count("an image cannot be shown") == 1, log


WATCH = """
import sys
from bmp_ros.demo.view_node import Watched, watch
from test_view_node import Wall

print(watch(Watched(name="/nobody"), Wall()), "shown")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watching_ends_in_order(ros_domain: int, number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", WATCH], stdout=-1, stderr=-2, text=True, env=environment
    ) as watching:
        assert watching.stdout is not None
        first = watching.stdout.readline()  # no node is there
        watching.send_signal(number)
        output = watching.communicate(timeout=LIMIT_S)[0]
    assert watching.returncode == 0 and output.endswith("0 shown\n"), first + output
    assert "Traceback" not in output
