# SPDX-License-Identifier: Apache-2.0
"""Mutated messages, parameters and requests through a running node, for benchmarks/fuzz.py."""

from __future__ import annotations

import random
import signal
import tempfile
import time
from typing import Any

import rclpy
import soak
from fuzz_messages import (
    CameraInfoMessage,
    ImageMessage,
    PeopleMessage,
    Target,
    encoded_pictures,
)
from fuzz_mutations import ODD, mutated
from rcl_interfaces.srv import ListParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from soak_cameras import CAMERAS
from soak_rig import Rig

from bmp_ros.demo.processes import private_domain
from bmp_ros.ros.interfaces import EstimatePeople

WAIT_S = 240.0


def fuzz_node(seed: int, count: int) -> tuple[int, float, list[str]]:
    """Send so many; return how many results came, the growth of memory in MB, and what is wrong.

    Messages are sent as bytes, which no layer of ROS checks, between good images of all cameras.
    After every fiftieth a result of each camera has to come.
    """
    dice = random.Random(f"{seed} node")
    with private_domain(), tempfile.TemporaryFile() as log:
        node = soak.start_node(log, 0.0)
        rclpy.init()
        wrong: list[str] = []
        settled = growth = 0.0
        try:
            rig = Rig(dice, 160, 120)
            witness = soak.Witness(rig, node.pid)
            rig.wait_for_results(lambda: node.poll() is None, WAIT_S)
            send = _senders(rig, dice)
            for number in range(count):
                dice.choice(send)()
                rig.spin(0.01)
                if number % 50 == 49 and not _results_come(rig, node):
                    wrong.append(f"no results after message {number} (exit code {node.poll()})")
                    break
                witness.sample()
                if number == count // 10:
                    settled = witness.memory[-1][1]
            if node.poll() is None:
                growth = witness.memory[-1][1] - settled
                wrong += soak.end(node, signal.SIGTERM)
        finally:
            node.kill()
            node.wait()
            rclpy.try_shutdown()
        log.seek(0)
        text = log.read().decode("utf-8", errors="replace")
    return sum(rig.results.values()), growth, wrong + soak.log_errors(text)


def _results_come(rig: Rig, node: Any) -> bool:
    """Whether every camera gives a result once good images and calibrations come."""
    seen, until = dict(rig.results), time.monotonic() + WAIT_S
    while time.monotonic() < until and node.poll() is None:
        rig.calm()
        rig.send()
        rig.follow_topics()
        rig.spin(0.1)
        if all(rig.results[name] > seen.get(name, 0) for name in CAMERAS):
            return True
    return False


def _senders(rig: Rig, dice: random.Random) -> list[Any]:
    """What sends one input each."""
    front, left, rear = rig.cameras
    names: list[str] = []
    future = rig.clients["list_parameters"].call_async(ListParameters.Request())
    rig.executor.spin_until_future_complete(future, timeout_sec=WAIT_S)
    if future.result() is not None:
        # Those that are for another state of the node, or put an end to its work, stay.
        ending = ("topic", "camera", "preset", "use_sim_time", "transport", "autostart")
        names = [each for each in future.result().result.names if not any(
            word in each for word in ending)]  # fmt: skip
    images, infos, people = ImageMessage(), CameraInfoMessage(), PeopleMessage()
    jpegs = [
        bytes(serialize_message(_compressed(data, form)))
        for data in encoded_pictures() for form in ("jpeg", "rgb8; png compressed bgr8")
    ]  # fmt: skip

    def of(target: Target) -> bytes:
        case = target.make(dice)
        return case[0] if isinstance(case, tuple) else case

    def parameter() -> None:
        fitting = [each for each in ODD if type(each) is not int or abs(each) < 2**63]
        value = dice.choice([*fitting, *(dice.uniform(-10, 1000) for _ in range(20)), 1, 2, 3])
        try:
            message = Parameter(dice.choice(names), value=value).to_parameter_msg()
        except Exception:  # nothing that a parameter can be
            return
        rig.clients["set_parameters"].call_async(SetParameters.Request(parameters=[message]))

    def estimate() -> None:
        encoding = dice.choice(["bgr8", "mono16", "", "nonsense", "nv12"])
        image = Image(width=dice.choice([0, 1, 64, 2**31]), height=dice.choice([0, 48, 2**32 - 1]))
        image.encoding, image.step = encoding, dice.choice([0, 192, 2**32 - 1])
        image.data.frombytes(dice.randbytes(dice.choice([0, 100, 9216])))
        rig.clients["estimate"].call_async(EstimatePeople.Request(image=image))

    return [
        lambda: front.images.publish(of(images)),
        lambda: left.images.publish(of(images)),
        lambda: front.depths.publish(of(images)),
        lambda: rear.images.publish(mutated(dice.choice(jpegs), dice)),
        lambda: dice.choice(rig.cameras).info.publish(of(infos)),
        lambda: left.boxes.publish(of(people)),
        parameter,
        estimate,
    ]


def _compressed(data: bytes, form: str) -> CompressedImage:
    message = CompressedImage(format=form)
    message.data.frombytes(data)
    return message
