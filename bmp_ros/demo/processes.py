# SPDX-License-Identifier: Apache-2.0
"""``bmp_node`` and the camera as child processes, in a DDS domain of their own, watched."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from bmp_ros.demo.recorder import DiagnosticsListener
from bmp_ros.ros.compatibility import local_discovery

_PATIENCE_S = 15.0
_ANSWER_S = 3.0
_DOMAINS = range(1, 101)  # what Linux's ephemeral ports leave free


class ChildProcess:
    """A process of this package, with its output in a file; ends when the ``with`` block does.

    name: for messages. command: its arguments after ``python``.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = [sys.executable, *command]

    def __enter__(self) -> ChildProcess:
        # This process's own path, for a checkout that is not installed.
        path = os.pathsep.join(filter(None, sys.path))
        environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        self._sink = self.log.open("wb")
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=self._sink, stderr=self._sink,
            env=environment,
        )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def end(self) -> int:
        """Ask it to end, as Ctrl-C does, and insist in the end; returns the exit code."""
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
                if self._process.poll() is None:
                    self._process.send_signal(number)
                    try:
                        self._process.wait(_PATIENCE_S)
                    except subprocess.TimeoutExpired:
                        continue
        finally:  # interrupted while waiting
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._sink.close()
        return int(self._process.returncode)

    def last_words(self, lines: int = 15) -> str:
        """The end of its output."""
        text = self.log.read_text(encoding="utf-8", errors="replace").rstrip()
        return "\n".join(text.splitlines()[-lines:]) or "(it said nothing)"


@contextmanager
def private_domain(number: int | None = None) -> Iterator[int]:
    """Set the environment to a DDS domain that does not leave this machine.

    number: of the domain; by default one that no other program uses which takes its domain from
    ROS's domain_coordinator, as ROS's tests do. Where that is not installed, one at random.
    """
    with _domain(number) as domain:
        changed = {"ROS_DOMAIN_ID": str(domain)} | local_discovery()
        before = {name: os.environ.get(name) for name in changed}
        os.environ.update(changed)
        try:
            yield domain
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def _domain(number: int | None) -> Iterator[int]:
    if number is not None:
        yield number
        return
    try:
        import domain_coordinator
    except ImportError:
        yield random.choice(_DOMAINS)
        return
    # Its own order starts at 1, and who has just ended may still be known there.
    order = iter(random.sample(_DOMAINS, len(_DOMAINS)))
    reserved = domain_coordinator.domain_id(lambda: next(order))
    domain = int(reserved.__enter__())
    try:
        yield domain
    finally:
        # Without the error: it takes each OSError for a domain in use, and would yield another.
        reserved.__exit__(None, None, None)


NAMESPACE, NODE = "/bmp", "bmp_node"
IMAGE_TOPIC, DEPTH_TOPIC = "/camera/image_raw", "/camera/depth/image_raw"


def module_command(module: str) -> tuple[str, str]:
    """Arguments of Python that run a module as ``-m`` does, but for the current folder: with -m
    and -c Python looks there first, and a stranger's folder may have a numpy.py."""
    return "-c", (
        "import sys; sys.path[:] = filter(None, sys.path); import runpy; "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )


NODE_COMMAND = module_command("bmp_ros.ros.bmp_node")
CAMERA_COMMAND = module_command("bmp_ros.demo.camera_node")
_TICK_S = 0.1


class ProcessError(RuntimeError):
    """A process did not do what it was there for; the message ends with its last words."""


def node_process(
    preset: str,
    device: str,
    log: Path,
    command: Sequence[str] = NODE_COMMAND,
    **more: object,
) -> ChildProcess:
    """``bmp_node`` on `IMAGE_TOPIC`. command: arguments of Python that start it. more: parameters
    of the node."""
    parameters = {
        "preset": preset,
        "device": device,
        "image_topic": IMAGE_TOPIC,
        "image_timeout": 3600.0,  # it waits for the camera, which is started after it
        **more,
    }
    return ChildProcess("bmp_node", [*command, *_ros_arguments(NAMESPACE, parameters)], log)


def camera_process(
    log: Path, namespace: str = IMAGE_TOPIC.rpartition("/")[0], **parameters: object
) -> ChildProcess:
    """The camera without hardware, with parameters of `camera_node.CameraNode`."""
    return ChildProcess(
        "the camera", [*CAMERA_COMMAND, *_ros_arguments(namespace, parameters)], log
    )


def _ros_arguments(namespace: str, parameters: dict[str, object]) -> list[str]:
    given = [("-p", f"{name}:={_as_yaml(value)}") for name, value in parameters.items()]
    return ["--ros-args", "-r", f"__ns:={namespace}", *(word for pair in given for word in pair)]


def _as_yaml(value: object) -> str:
    """Texts in quotes, as JSON has them: a path may look like a number or a mapping."""
    return json.dumps(value, ensure_ascii=False)


class _Signals:
    """A handler that raises KeyboardInterrupt, or keeps in ``came`` that one came while
    ``holding``."""

    def __init__(self) -> None:
        self.holding = self.came = False

    def __call__(self, *_: object) -> None:
        if not self.holding:
            raise KeyboardInterrupt
        self.came = True


_SIGNALS = _Signals()
"""Of the process, as signals are."""


@contextmanager
def ros_until_interrupted(domain: int | None = None) -> Iterator[None]:
    """ROS 2, initialised; SIGINT and SIGTERM raise KeyboardInterrupt, and rclpy goes on.

    Its own handlers shut it down, which whatever is done with it in that moment stumbles over.
    """
    _SIGNALS.came = False
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _SIGNALS)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _SIGNALS)
    try:
        rclpy.init(args=[], domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        try:
            yield
        finally:
            rclpy.try_shutdown()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ros_of_its_own(domain: int | None = None) -> Iterator[None]:
    """`ros_until_interrupted` in a domain of its own (see `private_domain`).

    The interrupt lets child processes be ended in order.
    """
    with private_domain(domain) as number, ros_until_interrupted(number):
        yield


def spin_once(peer: Node, timeout_s: float) -> None:
    """`rclpy.spin_once`, after which KeyboardInterrupt is raised for signals that came meanwhile.

    Raised inside of rclpy, it leaves half-made objects, whose destructors print a traceback.
    """
    _SIGNALS.holding = True
    try:
        rclpy.spin_once(peer, timeout_sec=timeout_s)
    finally:
        _SIGNALS.holding = False
    if _SIGNALS.came:
        _SIGNALS.came = False
        raise KeyboardInterrupt


def spin_while_alive(peer: Node, *processes: ChildProcess) -> None:
    """Let ``peer`` take what has arrived. Raises ProcessError when a process has ended."""
    until = time.monotonic() + _TICK_S
    while (left := until - time.monotonic()) > 0:
        spin_once(peer, left)
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
    answer, asked = None, 0.0
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
            asked = time.monotonic()
        elif answer.done():
            if answer.result().current_state.id == State.PRIMARY_STATE_ACTIVE:
                peer.destroy_client(client)
                return
            answer = None
        elif time.monotonic() > asked + _ANSWER_S:
            # DDS drops an answer when the server has not discovered the client's reader yet.
            client.remove_pending_request(answer)
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


class ProgressLine:
    """One line that changes; where stderr is no terminal, a line every few seconds."""

    def __init__(self, every_s: float = 5.0) -> None:
        self._start = time.monotonic()
        self._live = sys.stderr.isatty()
        self._every_s = every_s
        self._shown = -every_s

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away, for what shall stay."""
        if self._live and self._shown >= 0:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def show(self, text: str) -> None:
        """Say what is going on, with the seconds since the start."""
        seconds = time.monotonic() - self._start
        if not self._live and seconds - self._shown < self._every_s:
            return
        self._shown = seconds
        line = f"{seconds:5.1f} s  {text}"
        sys.stderr.write(f"\r\033[K{line}" if self._live else f"{line}\n")
        sys.stderr.flush()
