# SPDX-License-Identifier: Apache-2.0
"""A recording of our own camera: what `bmp bag` makes of it against what the node says.

    scripts/with_ros python benchmarks/recording.py --images 300 --preset tiny --output DIR

1. The demo's camera node plays its clip; images, depth and calibrations are recorded as they come.
2. `bmp bag --depth … --smooth` is run as a process of its own: time, peak memory, sizes.
3. A node with the same preset gets the images one after the other, each after its depth image.
4. All messages of results are compared, as rosbags reads them and as mcap-ros2-support does.

Exit code 1 where a message differs. Memory for any length: give ``--repeat N``, which appends the
recording N times to itself, with later stamps, before step 2 (and leaves out 3 and 4).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from sensor_msgs.msg import CameraInfo, Image

from bmp_ros.bags.messages import stamp_ns_of, type_store
from bmp_ros.demo.camera_node import CameraNode
from bmp_ros.machine import machine_line
from bmp_ros.ros.bmp_node import BmpNode
from bmp_ros.ros.interfaces import PersonArray, PersonArray3D

KINDS = {"camera_info": CameraInfo, "depth/image_raw": Image, "image_raw": Image}
OUTPUTS = {
    "poses": PersonArray, "poses_smooth": PersonArray,
    "poses_3d": PersonArray3D, "poses_3d_smooth": PersonArray3D,
}  # fmt: skip
LIMIT_S = 120.0
Message = tuple[str, int, bytes]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {LIMIT_S:.0f} s for {what}")
        time.sleep(0.002)


@contextmanager
def running(*nodes: Node) -> Iterator[None]:
    executor = SingleThreadedExecutor()
    for node in nodes:
        executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown()
        thread.join()
        for node in nodes:
            node.destroy_node()


def record(images: int, rate: float) -> list[Message]:
    """Topic, stamp and message, in order of arrival; of images that came with all of their own."""
    came: list[Message] = []
    peer = Node("recording")
    for name, kind in KINDS.items():
        peer.create_subscription(
            kind, f"/camera/{name}",
            lambda data, name=name: came.append((name, stamp_ns_of(data), data)),
            QoSProfile(depth=1000), raw=True,
        )  # fmt: skip
    given = {"images": images, "rate": rate, "wait_for": 1}
    camera = CameraNode(parameter_overrides=[Parameter(k, value=v) for k, v in given.items()])
    with running(peer, camera):
        wait_for(lambda: camera.counts["over"] == "yes", "the camera")
        wait_for(lambda: Counter(n for n, _, _ in came)["image_raw"] == images, "all images")
    stamps = Counter(stamp for _, stamp, _ in came)
    return [each for each in came if stamps[each[1]] == len(KINDS)]


def write(path: Path, came: list[Message], repeat: int) -> None:
    store = type_store()
    first = came[0][1]
    length = came[-1][1] - first + 33_000_000
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {
            name: writer.add_connection(
                f"/camera/{name}", f"sensor_msgs/msg/{kind.__name__}", typestore=store
            )
            for name, kind in KINDS.items()
        }
        for turn in range(repeat):
            for name, stamp, data in came:
                later = stamp + turn * length
                # The header's stamp is what a CDR message begins with.
                head = np.array(divmod(later, 10**9), "<u4").tobytes()
                writer.write(topics[name], later, data[:4] + head + data[12:])


def peak_memory_mib(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; its peak. Not rusage's: that of a child begins with its parent's."""
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        peak = max(peak, *map(int, found), 0)
        time.sleep(0.2)
    return peak // 1024


def ask_node(came: list[Message], preset: str) -> dict[str, list[bytes]]:
    """What the node says to the images, one at a time."""
    said: dict[str, list[bytes]] = {name: [] for name in OUTPUTS}
    given = {
        "preset": preset, "image_topic": "/camera2/image_raw",
        "depth_topic": "/camera2/depth/image_raw",
    }  # fmt: skip
    node = BmpNode(
        namespace="/bmp", parameter_overrides=[Parameter(k, value=v) for k, v in given.items()]
    )
    peer = Node("player")
    for name, kind in OUTPUTS.items():
        peer.create_subscription(
            kind, f"/bmp/{name}", said[name].append, QoSProfile(depth=100), raw=True
        )
    players = {n: peer.create_publisher(k, f"/camera2/{n}", 20) for n, k in KINDS.items()}
    with running(node, peer):
        wait_for(lambda: bool(node._cameras), "the node's networks")
        (camera,) = node._cameras.values()
        wait_for(lambda: camera.inputs is not None, "the node to listen")
        for player in players.values():
            wait_for(lambda p=player: p.get_subscription_count() > 0, "the node")
        # Both sides of each topic have to be matched: the graph knows of them before.
        for name in OUTPUTS:
            wait_for(
                lambda t=f"/bmp/{name}": any(
                    p.topic_name == t and p.get_subscription_count() for p in node.publishers
                ),
                name,
            )
        for name in KINDS:
            wait_for(
                lambda t=f"/camera2/{name}": any(
                    s.topic_name == t and s.get_publisher_count() for s in node.subscriptions
                ),
                name,
            )
        due = {"stamp": 0}
        arrived = {
            "camera_info": lambda: camera.inputs.calibration.has_come,
            "depth/image_raw": lambda: camera.inputs.depth._last_stamp == due["stamp"],
            "image_raw": lambda: said["poses"] and stamp_ns_of(said["poses"][-1]) == due["stamp"],
        }
        ordered = sorted(came, key=lambda each: (each[1], each[0] == "image_raw"))
        for name, due["stamp"], data in ordered:
            players[name].publish(data)
            wait_for(arrived[name], name)
        for name, messages in said.items():
            wait_for(lambda m=messages: len(m) == len(said["poses"]), name)
        node.close(LIMIT_S)
    return said


def differences(bag: Path, said: dict[str, list[bytes]]) -> dict[str, int]:
    """Messages of the bag that are not those of the node, by topic."""
    found: dict[str, list[bytes]] = {name: [] for name in OUTPUTS}
    with Reader(bag) as reader:
        for connection, _, data in reader.messages():
            name = connection.topic.removeprefix("/bmp/")
            if connection.topic.startswith("/bmp/"):
                found[name].append(bytes(data))
    wrong = {}
    for name, kind in OUTPUTS.items():
        pairs = zip(found[name], said[name], strict=False)
        # As text: NaN is not equal to itself.
        wrong[name] = abs(len(found[name]) - len(said[name])) + sum(
            str(deserialize_message(a, kind)) != str(deserialize_message(b, kind))
            for a, b in pairs
        )
    return wrong


def read_by_another(bag: Path, said: dict[str, list[bytes]]) -> dict[str, int]:
    """The same with mcap-ros2-support, which shares no code with rosbags: stamps, ids, places."""
    from mcap_ros2.reader import read_ros2_messages

    (file,) = bag.glob("*.mcap")
    wrong = dict.fromkeys(OUTPUTS, 0)
    count = dict.fromkeys(OUTPUTS, 0)
    for each in read_ros2_messages(file, topics=[f"/bmp/{name}" for name in OUTPUTS]):
        name = each.channel.topic.removeprefix("/bmp/")
        wanted = deserialize_message(said[name][count[name]], OUTPUTS[name])
        count[name] += 1
        wrong[name] += _summary(each.ros_msg) != _summary(wanted)
    return {name: wrong[name] + abs(count[name] - len(said[name])) for name in OUTPUTS}


def _summary(message: Any) -> str:
    people = [
        (p.track_id, [(j.x, j.y, j.score) for j in p.keypoints], getattr(p, "distance", 0))
        for p in message.people
    ]
    return str((message.header.stamp.sec, message.header.stamp.nanosec, people))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rate", type=float, default=15.0)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    args = parser.parse_args()
    args.output.mkdir(parents=True)
    rclpy.init()
    came = record(args.images, args.rate)
    source, target = args.output / "in", args.output / "out"
    write(source, came, args.repeat)
    command = [
        sys.executable, "-m", "bmp_ros", "bag", str(source), str(target), "--preset", args.preset,
        "--depth", "/camera/depth/image_raw", "--image", "/camera/image_raw", "--smooth",
    ]  # fmt: skip
    log = args.output / "bag.log"
    with log.open("w") as file:
        run = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        memory = peak_memory_mib(run)
    print(log.read_text(), flush=True)
    if run.returncode:
        return run.returncode
    sizes = {p.name: sum(f.stat().st_size for f in p.iterdir()) for p in (source, target)}
    report: dict[str, Any] = {
        "images": args.repeat * args.images,
        "peak_memory_mib": memory,
        "bytes": sizes,
    }
    wrong = 0
    if args.repeat == 1:
        said = ask_node(came, args.preset)
        report["messages"] = {name: len(messages) for name, messages in said.items()}
        report["different"] = differences(target, said)
        report["different_mcap_ros2"] = read_by_another(target, said)
        wrong = sum(report["different"].values()) + sum(report["different_mcap_ros2"].values())
    print(json.dumps(report, indent=1))
    print(machine_line())
    rclpy.shutdown()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
