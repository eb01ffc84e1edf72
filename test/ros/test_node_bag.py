# SPDX-License-Identifier: Apache-2.0
"""A bag of `bmp bag`, played, says what the node said to the same images."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_harness import Lab, image, wait_for
from rclpy.serialization import serialize_message

pytest.importorskip("rosbags", reason="rosbags is not installed (requirements/bags.txt)")
from rosbags.rosbag2 import Reader, Writer

from bmp_ros.bags.messages import type_store
from bmp_ros.bags.process import POSES, Selection, process_bag
from bmp_ros.ros.interfaces import PersonArray

TWO = np.array([[2, 4, 22, 44], [30, 4, 50, 44]], np.float32)
IMAGE = "sensor_msgs/msg/Image"


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

    heard: list[Any] = []
    lab.peer.create_subscription(PersonArray, "/played/poses", heard.append, 50)
    player = lab.peer.create_publisher(PersonArray, "/played/poses", 20)
    wait_for(lambda: player.get_subscription_count() > 0, "a subscriber")
    with Reader(tmp_path / "out") as reader:
        poses = [each for each in reader.connections if each.topic == POSES]
        for number, (_, _, data) in enumerate(reader.messages(poses)):
            player.publish(bytes(data))
            wait_for(lambda count=number: len(heard) > count, "a message of the bag")
    assert [str(message) for message in heard] == [str(message) for message in said]
    assert [person.track_id for person in heard[-1].people] == [1, 2]
