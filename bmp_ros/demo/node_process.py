# SPDX-License-Identifier: Apache-2.0
"""``bmp_node`` and the camera as child processes of a program that watches them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from bmp_ros.demo.child_process import ChildProcess, private_domain
from bmp_ros.demo.diagnostics_listener import DiagnosticsListener

NAMESPACE, NODE = "/bmp", "bmp_node"
IMAGE_TOPIC = "/camera/image_raw"
NODE_COMMAND = ("-m", "bmp_ros.ros.bmp_node")
CAMERA_COMMAND = ("-m", "bmp_ros.demo.camera_node")
_TICK_S = 0.1


class ProcessError(RuntimeError):
    """A process did not do what it was there for; the message ends with its last words."""


def node_process(
    preset: str, device: str, log: Path, command: Sequence[str] = NODE_COMMAND
) -> ChildProcess:
    """``bmp_node`` on `IMAGE_TOPIC`. command: arguments of Python that start it."""
    parameters = {
        "preset": preset,
        "device": device,
        "image_topic": IMAGE_TOPIC,
        "image_timeout": 3600.0,  # it waits for the camera, which is started after it
    }
    return ChildProcess("bmp_node", [*command, *_ros_arguments(NAMESPACE, parameters)], log)


def camera_process(log: Path, **parameters: object) -> ChildProcess:
    """The camera without hardware, with parameters of `camera_node.CameraNode`."""
    namespace = IMAGE_TOPIC.rpartition("/")[0]
    return ChildProcess(
        "the camera", [*CAMERA_COMMAND, *_ros_arguments(namespace, parameters)], log
    )


def _ros_arguments(namespace: str, parameters: dict[str, object]) -> list[str]:
    given = [("-p", f"{name}:={_as_yaml(value)}") for name, value in parameters.items()]
    return ["--ros-args", "-r", f"__ns:={namespace}", *(word for pair in given for word in pair)]


def _as_yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@contextmanager
def ros_of_its_own(domain: int | None = None) -> Iterator[None]:
    """ROS 2, initialised in a domain of its own (see `child_process.private_domain`).

    SIGINT and SIGTERM raise KeyboardInterrupt, so that child processes are ended in order.
    """
    with private_domain(domain) as number:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        rclpy.init(domain_id=number, signal_handler_options=SignalHandlerOptions.NO)
        try:
            yield
        finally:
            rclpy.try_shutdown()
            signal.signal(signal.SIGTERM, before)


def spin_while_alive(peer: Node, *processes: ChildProcess) -> None:
    """Let ``peer`` take what has arrived. Raises ProcessError when a process has ended."""
    until = time.monotonic() + _TICK_S
    while (left := until - time.monotonic()) > 0:
        rclpy.spin_once(peer, timeout_sec=left)
    for process in processes:
        if process.exit_code is not None:
            ended = f"{process.name} ended with exit code {process.exit_code}"
            raise ProcessError(with_last_words(ended, process))


def await_active(
    peer: Node,
    diagnostics: DiagnosticsListener,
    node: ChildProcess,
    limit_s: float,
    waiting: Callable[[], None],
) -> None:
    """Wait until the node is active, calling ``waiting`` again and again.

    Raises ProcessError when it cannot configure, ends, or takes longer than ``limit_s``.
    """
    client = peer.create_client(GetState, f"{NAMESPACE}/{NODE}/get_state")
    until = time.monotonic() + limit_s
    answer = None
    while True:
        waiting()
        spin_while_alive(peer, node)
        if diagnostics.problem:
            reason = diagnostics.problem.splitlines()[0]
            raise ProcessError(with_last_words(f"bmp_node {reason}", node))
        if time.monotonic() > until:
            late = f"bmp_node was not active after {limit_s:.0f} s"
            raise ProcessError(with_last_words(late, node))
        if answer is None:
            answer = client.call_async(GetState.Request()) if client.service_is_ready() else None
        elif answer.done():
            if answer.result().current_state.id == State.PRIMARY_STATE_ACTIVE:
                peer.destroy_client(client)
                return
            answer = None


def require_good_end(process: ChildProcess) -> None:
    """End a process as Ctrl-C does. Raises ProcessError when its exit code is not 0."""
    code = process.end()
    if code != 0:
        ended = f"{process.name} ended with exit code {code} when it was asked to end"
        raise ProcessError(with_last_words(ended, process))


def with_last_words(text: str, process: ChildProcess) -> str:
    """``text`` and the end of what a process has said."""
    return f"{text}. The last lines of {process.log}:\n{process.last_words()}"
