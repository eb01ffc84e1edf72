# SPDX-License-Identifier: Apache-2.0
"""Measures ``bmp_node`` as a robot meets it: from a second process, over DDS.

Three processes: the camera without hardware (or several), the node, and this one, which takes
results and calls services. What the node counts itself (frames received, milliseconds of stages)
comes from its diagnostics.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
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

from bmp_ros.demo.processes import (
    NAMESPACE,
    NODE,
    NODE_COMMAND,
    ProcessError,
    await_active,
    camera_process,
    module_command,
    node_process,
    require_good_end,
    ros_of_its_own,
    spin_while_alive,
    with_last_words,
)
from bmp_ros.demo.recorder import DiagnosticsListener
from bmp_ros.resources import resource_root
from bmp_ros.ros.interfaces import PersonArray

RATE = 30.0
"""Images per second of a camera, the networks being slower."""
OVERHEAD_LIMIT_MS = {(640, 480): 5.0, (1920, 1080): 8.0}
"""3 and 6 ms for the node, 2 ms for the tracker."""
SERVICE_LIMIT_MS = 100.0
AGE_ALLOWANCE_MS = 30.0
RATE_SHARE = 0.9
SIZES = ((640, 480), (1920, 1080))
SCRIPTED_RATE = 5.0  # slower than anything, so that no image waits for another
SCRIPTED_COMMAND = module_command("bmp_ros.demo.clocked_node")
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_CALL_EVERY_S = 0.2
_LAST_S = 5.0
_START_S = 600.0
_SILENCE_S = 60.0


class Witness(Node):
    """The second process: takes results, calls services. cameras: their names, or one without."""

    def __init__(self, cameras: Sequence[str]) -> None:
        super().__init__("witness")
        self.ages_ms: list[float] = []
        self.times: list[float] = []
        self.arrivals: dict[str, list[float]] = {camera: [] for camera in cameras}
        self.overhead_ms: list[float] = []
        self.calls_ms: list[float] = []
        self.diagnostics = [DiagnosticsListener(self, NODE, camera) for camera in cameras]
        many = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        for camera in cameras:
            poses = "/".join(filter(None, [NAMESPACE, camera, "poses"]))
            self.create_subscription(PersonArray, poses, partial(self._take, camera), many)
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

    def _take(self, camera: str, message: PersonArray) -> None:
        now = self.get_clock().now().nanoseconds
        self.ages_ms.append((now - Time.from_msg(message.header.stamp).nanoseconds) / 1e6)
        self.times.append(now / 1e9)
        self.arrivals[camera].append(now / 1e9)


def measure_node(
    preset: str,
    device: str,
    seconds: float,
    folder: Path,
    *,
    tuned: bool = True,
    interval: int = 1,
    cameras: int = 1,
    rate: float = RATE,
    say: Callable[[str], None],
) -> dict[str, list[Figure]]:
    """Measure everything; figures by heading.

    The camera is best effort, as many drivers are: what is lost once is lost.
    seconds: of each run. folder: for the logs of the processes. tuned: use
    config/fastdds.xml. interval: above 1, 640x480 is measured once more with that
    ``detection_interval``. cameras: above 1, each size once more with so many. rate: images per
    second of each camera. say: told what is going on.
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
            name = f"{size[0]}x{size[1]} at {rate:g} Hz, preset {preset}"
            measured = partial(
                run_once, preset, device, size, rate, "sensor", seconds, folder, NODE_COMMAND, say
            )
            say(name)
            run = measured()
            figures[name] = stream_figures(run)
            if interval > 1 and size == SIZES[0]:
                heading = f"{name}, detection_interval {interval}"
                say(heading)
                seldom = measured(detection_interval=interval)
                times = _rate(seldom.times) / _rate(run.times)
                figures[heading] = [
                    Figure("results, of those without", times, "times"),
                    *stream_figures(seldom),
                ]
            if cameras > 1:
                heading = f"{name}, {cameras} cameras"
                say(heading)
                names = [f"camera{number}" for number in range(1, cameras + 1)]
                figures[heading] = stream_figures(measured(cameras=names))
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
    *,
    cameras: Sequence[str] = (),
    **parameters: object,
) -> Run:
    """Show the demo clip for so long to a node and watch it; ``qos`` is the camera's.

    cameras: names of several, of which each shows the clip. parameters: of the node.
    """
    images = round(rate * seconds)
    width, height = size
    if cameras:
        parameters["cameras"] = list(cameras)
    node = node_process(preset, device, folder / "node.log", command, **parameters)
    players = [
        camera_process(
            folder / f"{name or 'camera'}.log", f"/{name or 'camera'}", rate=rate, qos=qos,
            images=images, width=width, height=height, wait_for=1,
        )
        for name in cameras or [""]
    ]  # fmt: skip
    with ros_of_its_own():
        witness = Witness(cameras or [""])
        said = witness.diagnostics
        with node:
            await_active(
                witness, said[0], node, _START_S, lambda: say(f"bmp_node loads preset {preset}")
            )
            with ExitStack() as playing:
                for player in players:
                    playing.enter_context(player)
                called = heard = time.monotonic()
                over = 0.0
                while not over or time.monotonic() - over < _LAST_S:
                    before = len(witness.times)
                    spin_while_alive(witness, node, *players)
                    now = time.monotonic()
                    heard = now if len(witness.times) > before else heard
                    if now - heard > _SILENCE_S:
                        silence = f"no result for {_SILENCE_S:.0f} s"
                        raise ProcessError(with_last_words(silence, node))
                    if now - called >= _CALL_EVERY_S and witness.times and not over:
                        called = now
                        witness.call_next_service()
                    if all(each.camera_is_over for each in said) and not over:
                        over = now
                    sent = sum(each.sent for each in said)
                    say(
                        f"{sent} of {images * len(said)} images sent, {len(witness.times)} results"
                    )
                for player in players:
                    require_good_end(player)
            require_good_end(node)
    return Run(
        np.array(witness.ages_ms),
        np.array(witness.times),
        np.array(witness.calls_ms),
        np.array(witness.overhead_ms),
        (_slowest(said, 50), _slowest(said, 95)),
        sum(each.sent for each in said),
        sum(each.received for each in said),
        sum(each.camera_rate for each in said),
        counts_in_common(witness.arrivals.values()),
    )


def counts_in_common(arrivals: Iterable[Sequence[float]]) -> tuple[int, ...]:
    """How many results of each camera came while there were results of all.

    Cameras do not begin at once: each reads its clip first. arrivals: times of each, in order.
    """
    times = [np.asarray(each) for each in arrivals]
    if not all(len(each) for each in times):
        return tuple(len(each) for each in times)
    begin, end = max(each[0] for each in times), min(each[-1] for each in times)
    return tuple(int(((each >= begin) & (each <= end)).sum()) for each in times)


def _slowest(cameras: Sequence[DiagnosticsListener], percentile: int) -> float:
    """Milliseconds of the loop, of the camera for which it takes longest."""
    return max(each.stages(percentile).get("total", np.nan) for each in cameras)


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


@dataclass(frozen=True)
class Figure:
    """One measured number. limit: the most (``at_least``: the least) that is meant, or None."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False

    @property
    def held(self) -> bool | None:
        """Whether the limit is held, None without one or without a value."""
        if self.limit is None or np.isnan([self.limit, self.value]).any():
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON; None instead of what is not known."""
        numbers = {"value": self.value, "limit": self.limit}
        known = {
            name: None if number is None or np.isnan(number) else number
            for name, number in numbers.items()
        }
        return asdict(self) | known | {"held": self.held}


@dataclass(frozen=True)
class Run:
    """What was seen of the cameras and the node.

    ages_ms: of each image when its result came. times: of these arrivals, seconds.
    calls_ms: how long services took. overhead_ms: of the scripted node, per image.
    loop_ms: median and 95th percentile of the loop. sent, received: images. camera_rate: images
    per second that all cameras sent. results: of each camera while all were seen.
    """

    ages_ms: np.ndarray
    times: np.ndarray
    calls_ms: np.ndarray
    overhead_ms: np.ndarray
    loop_ms: tuple[float, float]
    sent: int
    received: int
    camera_rate: float
    results: tuple[int, ...] = ()


def overhead_figures(run: Run, size: tuple[int, int]) -> list[Figure]:
    """What the node adds to the loop."""
    middle, high = _percentiles(run.overhead_ms)
    return [
        Figure("node overhead, median", middle, "ms", OVERHEAD_LIMIT_MS.get(size)),
        Figure("node overhead, p95", high, "ms"),
        Figure("age of results, median", _percentiles(run.ages_ms)[0], "ms"),
        *_loss(run),
    ]


def stream_figures(run: Run) -> list[Figure]:
    """Age and rate of results, answers of services, losses of the transport."""
    age, age_high = _percentiles(run.ages_ms)
    loop, loop_high = run.loop_ms
    call, call_high = _percentiles(run.calls_ms)
    # The images that come while one is worked on cost a period, not a queue; also where several
    # cameras take turns, since the newest image is taken.
    cameras = max(len(run.results), 1)
    allowance = 1e3 * cameras / run.camera_rate + AGE_ALLOWANCE_MS if run.camera_rate else np.nan
    possible = min(run.camera_rate, 1e3 / loop)
    fair = [
        Figure(
            "fewest results of a camera", min(run.results) if any(run.results) else np.nan, "",
            max(run.results) - 2, True,
        )
    ] if cameras > 1 else []  # fmt: skip
    return [
        Figure("camera" if cameras == 1 else "cameras", run.camera_rate, "per s"),
        Figure("loop, median", loop, "ms"),
        Figure("loop, p95", loop_high, "ms"),
        Figure("age of results, median", age, "ms", loop + allowance),
        Figure("age of results, p95", age_high, "ms", loop_high + allowance),
        Figure("results", _rate(run.times), "per s", RATE_SHARE * possible, at_least=True),
        Figure("answer of a service, median", call, "ms"),
        Figure("answer of a service, p95", call_high, "ms", SERVICE_LIMIT_MS),
        *fair,
        Figure("answer of a service, longest", float(run.calls_ms.max(initial=0.0)), "ms"),
        *_loss(run),
    ]


def lines(figures: Mapping[str, Sequence[Figure]]) -> list[str]:
    """A table for the terminal."""
    text = []
    for heading, group in figures.items():
        text += ["", heading, f"  {'':<32}{'measured':>12}{'limit':>14}"]
        for figure in group:
            text.append(
                f"  {figure.name:<32}{_number(figure.value, figure.unit):>12}"
                f"{_limit(figure):>14}{_verdict(figure)}"
            )
    return text[1:]


def _loss(run: Run) -> list[Figure]:
    return [
        Figure("images sent", run.sent, ""),
        Figure("images lost on the way", run.sent - run.received, "", 0),
    ]


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return np.nan, np.nan
    middle, high = np.percentile(values, [50, 95])
    return float(middle), float(high)


def _rate(times: np.ndarray) -> float:
    """Results per second between the first and the last."""
    return float((len(times) - 1) / (times[-1] - times[0])) if len(times) > 1 else np.nan


def _number(value: float, unit: str) -> str:
    return f"{value:.0f}" if not unit else f"{value:.1f} {unit}"


def _limit(figure: Figure) -> str:
    if figure.limit is None:
        return ""
    return f"{'>=' if figure.at_least else '<='} {_number(figure.limit, figure.unit)}"


def _verdict(figure: Figure) -> str:
    return {None: "", True: "  held", False: "  NOT held"}[figure.held]
