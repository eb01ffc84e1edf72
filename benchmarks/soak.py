#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Soak: the node under a 30 Hz camera and random faults; exit code 0 when it took them all.

  python benchmarks/soak.py --seconds 600
  python benchmarks/soak.py --seconds 60 --preset tiny

The node is a process of its own. Faults: malformed images, publishers that restart and change
their QoS, storms of parameters, services, transitions. Asked for: no exception leaves a callback,
the process lives, memory grows by less than 20 MB after the first minute (or the first third of a
short run), and results come until the end. Without --preset the three networks are scripted.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import domain_coordinator
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from bmp_ros.ros.interfaces import EstimatePeople, PersonArray

ROOT = Path(__file__).resolve().parent.parent
NODE = "/bmp/bmp_node"
TOPIC = "/camera/image_raw"
RATE = 30.0
MAX_GROWTH_MB = 20.0
# What the log may complain about: the faults themselves.
FORESEEN = re.compile(r"image refused|no image for|incompatible QoS|subscribing")


class Soak(Node):
    """Camera, user and witness of the node: everything happens in `frame`, 30 times a second."""

    def __init__(self, seed: int) -> None:
        super().__init__("soak")
        self.random = random.Random(seed)
        self.results = 0
        self.last_result = time.monotonic()
        self.longest_silence_s = 0.0
        self.sent = 0
        self.faults: dict[str, int] = {}
        self._good = image_message(640, 480)
        self._camera = self._new_camera()
        self.create_subscription(PersonArray, "/bmp/poses", self._count, 5)
        self._calls = {
            "parameters": self.create_client(SetParameters, f"{NODE}/set_parameters"),
            "enable": self.create_client(SetBool, f"{NODE}/enable"),
            "reset": self.create_client(Trigger, f"{NODE}/reset"),
            "estimate": self.create_client(EstimatePeople, f"{NODE}/estimate"),
            "state": self.create_client(ChangeState, f"{NODE}/change_state"),
        }
        self._faults_to_commit: list[Callable[[], None]] = [
            self.bad_image, self.restart_camera, self.parameter_storm, self.call_services,
            self.off_and_on, self.transitions,
        ]  # fmt: skip

    def frame(self) -> None:
        """Send a good image and, every third time or so, commit a fault."""
        self._publish(self._good)
        if self.random.random() < 0.3:
            action = self.random.choice(self._faults_to_commit)
            self.faults[action.__name__] = self.faults.get(action.__name__, 0) + 1
            action()

    def calm(self) -> None:
        """Send a good image only; what was switched off is switched on."""
        self._calls["enable"].call_async(SetBool.Request(data=True))
        self._change(Transition.TRANSITION_ACTIVATE)
        self._publish(self._good)

    def bad_image(self) -> None:
        message = image_message(64, 48)
        kind = self.random.randrange(5)
        if kind == 0:
            message.data = array("B", self.random.randbytes(self.random.randrange(2000)))
        elif kind == 1:
            message.step = self.random.randrange(2**32)
        elif kind == 2:
            message.encoding = self.random.choice(["", "mono16", "nonsense", "32FC1"])
        elif kind == 3:
            message.width = message.height = self.random.choice([0, 2**31])
        else:
            message = image_message(self.random.randrange(1, 900), self.random.randrange(1, 700))
        self._publish(message, stamp_s=self.random.choice([None, 0, 5]))

    def restart_camera(self) -> None:
        self.destroy_publisher(self._camera)
        self._camera = self._new_camera()

    def parameter_storm(self) -> None:
        values = {
            "detection_threshold": self.random.uniform(-0.5, 1.5),
            "iterations": self.random.randrange(0, 7),
            "max_people": self.random.choice([1, 50, 0]),
            "max_rate": self.random.choice([0.0, 15.0, -1.0]),
            "prompt_method": self.random.choice(["distance+confidence", "nonsense"]),
            "preset": "other",
        }
        for name, value in values.items():
            request = SetParameters.Request(
                parameters=[Parameter(name, value=value).to_parameter_msg()]
            )
            self._calls["parameters"].call_async(request)
        harmless = Parameter("detection_threshold", value=0.3).to_parameter_msg()
        self._calls["parameters"].call_async(SetParameters.Request(parameters=[harmless]))

    def call_services(self) -> None:
        self._calls["reset"].call_async(Trigger.Request())
        self._calls["estimate"].call_async(EstimatePeople.Request(image=self._good))
        self._calls["estimate"].call_async(EstimatePeople.Request())

    def off_and_on(self) -> None:
        self._calls["enable"].call_async(SetBool.Request(data=False))
        self._calls["enable"].call_async(SetBool.Request(data=True))

    def transitions(self) -> None:
        if self.random.random() < 0.2:
            self._change(Transition.TRANSITION_DEACTIVATE)
            self._change(Transition.TRANSITION_ACTIVATE)

    def _change(self, transition: int) -> None:
        request = ChangeState.Request()
        request.transition.id = transition
        self._calls["state"].call_async(request)

    def _publish(self, message: Image, stamp_s: int | None = None) -> None:
        if stamp_s is None:
            message.header.stamp = self.get_clock().now().to_msg()
        else:
            message.header.stamp.sec = stamp_s
        message.header.frame_id = "camera"
        self._camera.publish(message)
        self.sent += 1

    def _new_camera(self) -> object:
        reliability = self.random.choice(
            [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT]
        )
        return self.create_publisher(Image, TOPIC, QoSProfile(depth=5, reliability=reliability))

    def _count(self, _: PersonArray) -> None:
        now = time.monotonic()
        self.longest_silence_s = max(self.longest_silence_s, now - self.last_result)
        self.last_result = now
        self.results += 1


def image_message(width: int, height: int) -> Image:
    message = Image(width=width, height=height, step=3 * width, encoding="bgr8")
    message.data = array("B", bytes([127])) * (3 * width * height)
    return message


def resident_mb(pid: int) -> float:
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def start_node(preset: str | None, log: object) -> subprocess.Popen[bytes]:
    scripted = [str(ROOT / "test" / "ros" / "scripted_node.py")]
    command = scripted if preset is None else ["-m", "bmp_ros.ros.bmp_node"]
    arguments = ["--ros-args", "-r", "__ns:=/bmp", "-p", "image_timeout:=30.0"]
    if preset is not None:
        arguments += ["-p", f"preset:={preset}"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    }
    return subprocess.Popen(
        [sys.executable, *command, *arguments], stdout=log, stderr=log, env=environment
    )


def run(soak: Soak, node: subprocess.Popen[bytes], seconds: float) -> list[str]:
    """Soak for so many seconds and return what was wrong."""
    give_up = time.monotonic() + 300
    while not soak.results:
        soak.calm()
        rclpy.spin_once(soak, timeout_sec=0.1)
        if node.poll() is not None or time.monotonic() > give_up:
            return [f"the node never gave a result (exit code {node.poll()})"]
    start = time.monotonic()
    settled_mb = None
    next_frame = start
    while (now := time.monotonic()) - start < seconds:
        if now >= next_frame:
            next_frame = max(next_frame + 1 / RATE, now)
            soak.frame()
        rclpy.spin_once(soak, timeout_sec=max(0.0, next_frame - time.monotonic()))
        if settled_mb is None and now - start > min(60.0, seconds / 3):
            settled_mb = resident_mb(node.pid)
        if node.poll() is not None:
            return [f"the node ended with exit code {node.returncode}"]
    wrong = []
    growth = resident_mb(node.pid) - (settled_mb or 0.0)
    if growth > MAX_GROWTH_MB:
        wrong.append(f"memory grew by {growth:.1f} MB, allowed are {MAX_GROWTH_MB:.0f}")
    before, until = soak.results, time.monotonic() + 30
    while soak.results == before and time.monotonic() < until:
        soak.calm()
        rclpy.spin_once(soak, timeout_sec=0.1)
    if soak.results == before:
        wrong.append("no result in the end, with faults over for 30 s")
    print(
        f"{seconds:.0f} s: {soak.sent} images sent, {soak.results} results, longest silence "
        f"{soak.longest_silence_s:.1f} s, memory {resident_mb(node.pid):.0f} MB "
        f"({growth:+.1f} MB), faults: {soak.faults}"
    )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--preset", help="of real networks; default: scripted ones")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    args = parser.parse_args()
    with domain_coordinator.domain_id() as domain, tempfile.TemporaryFile() as log:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        node = start_node(args.preset, log)
        rclpy.init()
        try:
            wrong = run(Soak(args.seed), node, args.seconds)
            node.send_signal(signal.SIGINT)
            code = node.wait(30)
            if code != 0:
                wrong.append(f"exit code {code} after SIGINT")
        finally:
            node.kill()
            rclpy.try_shutdown()
        log.seek(0)
        text = log.read().decode("utf-8", errors="replace")
    bad = [line for line in text.splitlines() if re.match(r"\[ERROR|\[FATAL|Traceback", line)]
    wrong += [f"in the log: {line}" for line in bad if not FORESEEN.search(line)]
    if wrong:
        print("\n".join(text.splitlines()[-30:]))
    for line in wrong:
        print(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
