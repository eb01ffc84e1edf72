# SPDX-License-Identifier: Apache-2.0
"""Measures ``bmp_node`` as a robot meets it: from a second process, over DDS.

Three processes: the camera without hardware, the node, and this one, which takes results and calls
services. What the node counts itself (frames received, milliseconds of stages) comes from its
diagnostics.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from std_msgs.msg import Float64
from std_srvs.srv import SetBool

from bmp_ros.demo.diagnostics_listener import DiagnosticsListener
from bmp_ros.demo.node_figures import RATE, Figure, Run, overhead_figures, stream_figures
from bmp_ros.demo.node_process import (
    NAMESPACE,
    NODE,
    NODE_COMMAND,
    ProcessError,
    await_active,
    camera_process,
    node_process,
    require_good_end,
    ros_of_its_own,
    spin_while_alive,
    with_last_words,
)
from bmp_ros.resources import resource_root
from bmp_ros.ros.interfaces import PersonArray

SIZES = ((640, 480), (1920, 1080))
SCRIPTED_RATE = 5.0  # slower than anything, so that no image waits for another
SCRIPTED_COMMAND = ("-m", "bmp_ros.demo.clocked_node")
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_CALL_EVERY_S = 0.2
_LAST_S = 5.0
_START_S = 600.0
_SILENCE_S = 60.0


class Witness(Node):
    """The second process: takes results, calls services."""

    def __init__(self) -> None:
        super().__init__("witness")
        self.ages_ms: list[float] = []
        self.times: list[float] = []
        self.overhead_ms: list[float] = []
        self.calls_ms: list[float] = []
        self.diagnostics = DiagnosticsListener(self, NODE)
        many = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(PersonArray, f"{NAMESPACE}/poses", self._take, many)
        overhead = f"{NAMESPACE}/debug/overhead_ms"
        self.create_subscription(
            Float64, overhead, lambda message: self.overhead_ms.append(message.data), many
        )
        name = f"{NAMESPACE}/{NODE}"
        threshold = Parameter("marker_distance", value=2.0).to_parameter_msg()
        self._calls: list[tuple[Any, Any]] = [
            (
                self.create_client(GetParameters, f"{name}/get_parameters"),
                GetParameters.Request(names=["detection_threshold"]),
            ),
            (
                self.create_client(SetParameters, f"{name}/set_parameters"),
                SetParameters.Request(parameters=[threshold]),
            ),
            (self.create_client(SetBool, f"{name}/enable"), SetBool.Request(data=True)),
        ]
        self._next = 0
        self._answer: Any = None

    def call_next_service(self) -> None:
        """Call one service after the other; does nothing while an answer is awaited."""
        client, request = self._calls[self._next % len(self._calls)]
        if self._answer is not None or not client.service_is_ready():
            return
        self._next += 1
        start = time.perf_counter()
        self._answer = client.call_async(request)

        def note(_: Any) -> None:
            self.calls_ms.append((time.perf_counter() - start) * 1e3)
            self._answer = None

        self._answer.add_done_callback(note)

    def _take(self, message: PersonArray) -> None:
        now = self.get_clock().now().nanoseconds
        self.ages_ms.append((now - Time.from_msg(message.header.stamp).nanoseconds) / 1e6)
        self.times.append(now / 1e9)


def measure_node(
    preset: str,
    device: str,
    seconds: float,
    folder: Path,
    *,
    tuned: bool = True,
    say: Callable[[str], None],
) -> dict[str, list[Figure]]:
    """Measure everything; figures by heading.

    The camera at 30 Hz is best effort, as many drivers are: what is lost once is lost.
    seconds: of each run. folder: for the logs of the processes. tuned: use
    config/fastdds.xml. say: told what is going on.
    Raises ProcessError when a process fails or nothing comes.
    """
    figures = {}
    with dds_profile(resource_root() / "config" / "fastdds.xml" if tuned else None):
        for size in SIZES:
            name = f"{size[0]}x{size[1]}"
            say(f"{name}, scripted networks")
            run = run_once(
                preset, device, size, SCRIPTED_RATE, "reliable", seconds, folder,
                SCRIPTED_COMMAND, say,
            )  # fmt: skip
            figures[f"{name} at {SCRIPTED_RATE:g} Hz, scripted networks"] = overhead_figures(
                run, size
            )
        for size in SIZES:
            name = f"{size[0]}x{size[1]}"
            say(f"{name}, preset {preset}")
            run = run_once(
                preset, device, size, RATE, "sensor", seconds, folder, NODE_COMMAND, say
            )
            figures[f"{name} at {RATE:g} Hz, preset {preset}"] = stream_figures(run)
    return figures


def run_once(
    preset: str,
    device: str,
    size: tuple[int, int],
    rate: float,
    qos: str,
    seconds: float,
    folder: Path,
    command: Sequence[str],
    say: Callable[[str], None],
) -> Run:
    """Show the demo clip for so long to a node and watch it; ``qos`` is the camera's."""
    images = round(rate * seconds)
    width, height = size
    node = node_process(preset, device, folder / "node.log", command)
    camera = camera_process(
        folder / "camera.log", rate=rate, qos=qos, images=images, width=width, height=height,
        wait_for=1,
    )  # fmt: skip
    with ros_of_its_own():
        witness = Witness()
        said = witness.diagnostics
        with node:
            await_active(
                witness, said, node, _START_S, lambda: say(f"bmp_node loads preset {preset}")
            )
            with camera:
                called = heard = time.monotonic()
                over = 0.0
                while not over or time.monotonic() - over < _LAST_S:
                    before = len(witness.times)
                    spin_while_alive(witness, node, camera)
                    now = time.monotonic()
                    heard = now if len(witness.times) > before else heard
                    if now - heard > _SILENCE_S:
                        silence = f"no result for {_SILENCE_S:.0f} s"
                        raise ProcessError(with_last_words(silence, node))
                    if now - called >= _CALL_EVERY_S and witness.times and not over:
                        called = now
                        witness.call_next_service()
                    if said.camera_is_over and not over:
                        over = now
                    say(f"{said.sent} of {images} images sent, {len(witness.times)} results")
                require_good_end(camera)
            require_good_end(node)
    return Run(
        np.array(witness.ages_ms),
        np.array(witness.times),
        np.array(witness.calls_ms),
        np.array(witness.overhead_ms),
        (said.stages(50).get("total", np.nan), said.stages(95).get("total", np.nan)),
        said.sent,
        said.received,
        said.camera_rate,
    )


@contextmanager
def dds_profile(file: Path | None) -> Iterator[None]:
    """Let this process and its children use a Fast DDS profile; None: none at all."""
    before = {name: os.environ.pop(name, None) for name in PROFILE_VARIABLES}
    if file is not None:
        os.environ.update(dict.fromkeys(PROFILE_VARIABLES, str(file)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
