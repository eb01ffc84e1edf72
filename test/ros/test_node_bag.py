# SPDX-License-Identifier: Apache-2.0
"""A bag of `bmp bag`, played, says what the node said to the same images."""

from __future__ import annotations

from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_harness import Lab, image, is_matched, stamp_of, wait_for
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image

pytest.importorskip("rosbags", reason="rosbags is not installed (requirements/bags.txt)")
from rosbags.rosbag2 import Reader, Writer

from bmp_ros.bags.depth_of_bag import DepthSelection
from bmp_ros.bags.messages import stamp_ns_of, type_store
from bmp_ros.bags.process import POSES, Selection, process_bag
from bmp_ros.demo.camera_node import CameraNode
from bmp_ros.ros.interfaces import PersonArray, PersonArray3D

TWO = np.array([[2, 4, 22, 44], [30, 4, 50, 44]], np.float32)
IMAGE = "sensor_msgs/msg/Image"
KINDS = {"camera_info": CameraInfo, "depth/image_raw": Image, "image_raw": Image}


def numbered(number: int) -> Any:
    """A grey image whose value is its number."""
    return image(data=array("B", bytes([number])) * (64 * 48 * 3))


def test_a_bag_says_over_dds_what_the_node_said(lab: Lab, tmp_path: Path) -> None:
    """People who walk, with ids and their ages; one of them is missed for two images."""
    seen = {"number": 0}
    lab.networks.before = lambda pixels: seen.update(number=int(pixels[0, 0, 0]))

    def boxes(height: int, width: int) -> np.ndarray:
        number = seen["number"]
        moved = TWO + np.float32([number, 0, number, 0])
        return moved[:1] if number in (4, 5) else moved

    lab.networks.boxes = boxes  # type: ignore[method-assign]
    lab.start_active()
    said = lab.listen("/bmp/poses")
    camera = lab.camera("/camera/image_raw")
    camera.wait_for_subscriber()
    start = lab.peer.get_clock().now().nanoseconds
    with Writer(tmp_path / "in", version=9) as writer:
        topic = writer.add_connection("/camera/image_raw", IMAGE, typestore=type_store())
        for number in range(10):
            message = numbered(number)
            camera.send(message, stamp_ns=start + number * 10**8)
            wait_for(lambda count=number: len(said) > count, "people")
            writer.write(topic, start + number * 10**8, serialize_message(message))

    loop = lab.networks.build_loop("bmp_d3", "cpu")
    outcome = process_bag(loop, tmp_path / "in", tmp_path / "out", Selection())
    assert outcome.images == 10 and not outcome.failures
    heard = played(lab, tmp_path / "out", POSES, PersonArray)
    assert [str(message) for message in heard] == [str(message) for message in said]
    assert [person.track_id for person in heard[-1].people] == [1, 2]


def played(lab: Lab, bag: Path, topic: str, kind: type) -> list[Any]:
    """What a subscriber hears of a topic of a bag."""
    heard: list[Any] = []
    lab.peer.create_subscription(kind, f"/played{topic}", heard.append, 50)
    player = lab.peer.create_publisher(kind, f"/played{topic}", 20)
    wait_for(lambda: player.get_subscription_count() > 0, "a subscriber")
    wait_for(lambda: is_matched(lab.peer, f"/played{topic}"), "the player")
    with Reader(bag) as reader:
        chosen = [each for each in reader.connections if each.topic == topic]
        for number, (_, _, data) in enumerate(reader.messages(chosen)):
            player.publish(bytes(data))
            wait_for(lambda count=number: len(heard) > count, "a message of the bag")
    return heard


def recorded(lab: Lab, bag: Path, images: int) -> list[tuple[str, int, bytes]]:
    """Write a bag of the demo's camera, images with depth and calibration, in the order in which
    they came over DDS. Returns topic, stamp and message of each, by stamp, images last."""
    came: list[tuple[str, int, bytes]] = []
    for name, kind in KINDS.items():
        lab.peer.create_subscription(
            kind, f"/camera/{name}",
            lambda data, name=name: came.append((name, stamp_ns_of(data), data)),
            QoSProfile(depth=300), raw=True,
        )  # fmt: skip
    parameters = {"images": images, "rate": 20.0, "wait_for": 2}
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    camera = lab._spin(lambda context: CameraNode(context=context, parameter_overrides=overrides))
    for name in KINDS:
        wait_for(lambda topic=f"/camera/{name}": is_matched(lab.peer, topic), "the camera")
    lab.peer.create_subscription(Image, "/camera/image_raw", lambda _: None, 300)  # it begins
    wait_for(lambda: camera.counts["over"] == "yes", "the end")
    wait_for(lambda: [name for name, _, _ in came].count("image_raw") == images, "all images")
    stamps = Counter(stamp for _, stamp, _ in came)
    whole = [each for each in came if stamps[each[1]] == len(KINDS)]
    store = type_store()
    with Writer(bag, version=9) as writer:
        topics = {
            name: writer.add_connection(
                f"/camera/{name}", f"sensor_msgs/msg/{kind.__name__}", typestore=store
            )
            for name, kind in KINDS.items()
        }
        for number, (name, _, data) in enumerate(whole):
            writer.write(topics[name], 10**9 + number * 10**7, data)
    return sorted(whole, key=lambda each: (each[1], each[0] == "image_raw"))


def test_people_in_metres_are_those_of_the_node(lab: Lab, tmp_path: Path) -> None:
    """A bag of our own camera. The node gets each image after its depth and calibration; in the
    bag, which is in the order of arrival, some come after it."""
    everything = recorded(lab, tmp_path / "in", images=16)
    lab.start_active(depth_topic="/camera2/depth/image_raw", image_topic="/camera2/image_raw")
    outputs = {
        "poses": PersonArray, "poses_smooth": PersonArray,
        "poses_3d": PersonArray3D, "poses_3d_smooth": PersonArray3D,
    }  # fmt: skip
    said = {name: lab.listen(f"/bmp/{name}", kind) for name, kind in outputs.items()}
    publishers = {
        name: lab.peer.create_publisher(kind, f"/camera2/{name}", 20)
        for name, kind in KINDS.items()
    }
    assert lab.node is not None
    camera = next(iter(lab.node._cameras.values()))
    assert camera.inputs is not None and camera.inputs.depth is not None
    due = {"stamp": 0}
    came = {
        "camera_info": lambda: camera.inputs.calibration.has_come,
        "depth/image_raw": lambda: camera.inputs.depth._last_stamp == due["stamp"],
        "image_raw": lambda: bool(said["poses"]) and stamp_of(said["poses"][-1]) == due["stamp"],
    }
    for name, each in publishers.items():
        wait_for(lambda each=each: each.get_subscription_count() > 0, "the node")
        # What is published before the node's side knows of the publisher is lost.
        wait_for(lambda name=name: is_matched(lab.node, f"/camera2/{name}"), "the publisher")
    for name, due["stamp"], data in everything:
        publishers[name].publish(data)
        wait_for(came[name], f"{name} to arrive")
    selection = Selection(
        "/camera/image_raw", depth=DepthSelection("/camera/depth/image_raw"), smooth=True
    )
    loop = lab.networks.build_loop("bmp_d3", "cpu")
    outcome = process_bag(loop, tmp_path / "in", tmp_path / "out", selection)
    assert outcome.images == len(everything) / 3 >= 10
    assert not outcome.failures and not outcome.notes and not outcome.without_depth
    for name, kind in outputs.items():
        wait_for(lambda name=name: len(said[name]) == outcome.images, name)
        heard = played(lab, tmp_path / "out", f"/bmp/{name}", kind)
        assert [str(message) for message in heard] == [str(message) for message in said[name]]
    people = [person for message in said["poses_3d"] for person in message.people]
    assert np.isfinite([person.centroid.z for person in people]).any()
    assert np.isfinite([person.velocity.x for person in people]).any()
